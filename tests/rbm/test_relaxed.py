"""Relaxed priors against sums over all bits in float64: values, gradients, normalization, law."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_energy_and_exact import machine, states, table

from dvae import relax
from dvae.distributions import bernoulli
from dvae.rbm import exact, relaxed
from dvae.rbm.energy import RBM, energy

LOG_Z = jnp.float32(0.4)
OVERLAPPING = jax.jit(relaxed.overlapping_log_prob, static_argnames="num_sweeps")
GAUSSIAN_INTEGRAL = jax.jit(relaxed.gaussian_integral_log_prob)
GAUSSIAN_INTEGRAL_SAMPLE = jax.jit(relaxed.gaussian_integral_sample)


def all_states(params):
    """Every z, [2^(n1+n2), n1+n2], and -E(z), in float64."""
    n1, n2 = params.weights.shape
    z1, z2 = states(n1), states(n2)
    pairs = [np.concatenate(pair) for pair in itertools.product(z1, z2)]
    return np.array(pairs), table(params)[0].ravel()


def logsumexp(x, axis=-1):
    top = x.max(axis, keepdims=True)
    return (top + np.log(np.exp(x - top).sum(axis, keepdims=True))).squeeze(axis)


def couplings(params, lam):
    w = np.float64(params.weights)
    n1, n2 = w.shape
    return np.block([[lam * np.eye(n1), w], [w.T, lam * np.eye(n2)]])


def enumerated_overlapping(params, log_ratio, log_r0):
    """log sum_z exp(-E(z) + b.z) + sum log r0, differentiable."""
    n1, n2 = params.weights.shape
    z = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=n1 + n2)), jnp.float32)
    joint = (log_ratio @ z.T) - energy(params, z[:, :n1], z[:, n1:])[None]
    return jax.nn.logsumexp(joint, axis=-1) + log_r0.sum(-1)


def enumerated_gaussian(params, zeta, lam):
    """log sum_z e^{-E(z)} N(zeta; z, S^-1), float64."""
    z, negative = all_states(params)
    s = couplings(params, lam)
    gap = np.float64(zeta)[:, None] - z[None]
    quadratic = np.einsum("bki,ij,bkj->bk", gap, s, gap)
    half_log_norm = 0.5 * np.linalg.slogdet(s / (2 * np.pi))[1]
    return logsumexp(negative[None] - 0.5 * quadratic) + half_log_norm


def noise(shape, seed=0):
    """zeta in (0, 1), most of it near the ends."""
    return np.random.default_rng(seed).beta(0.4, 0.4, size=shape).astype(np.float32)


def mean_field_terms(smoothing, zeta, beta):
    return smoothing.log_ratio(zeta, beta), smoothing.log_prob_0(zeta, beta)


@pytest.mark.parametrize("smoothing", [relax.exponential, relax.power, relax.gaussian])
def test_mean_field_is_never_above_enumeration_and_close_for_weak_couplings(smoothing):
    @jax.jit
    def both(params, zeta, beta):
        terms = mean_field_terms(smoothing, zeta, beta)
        found = relaxed.overlapping_log_prob(params, zeta, *terms, LOG_Z)
        return found, enumerated_overlapping(params, *terms) - LOG_Z

    largest = {}
    for scale in (0.0, 0.1, 1.0, 3.0, 10.0):
        gaps = []
        for seed in range(5):
            params = machine(4, 3, seed)._replace(weights=scale * machine(4, 3, seed).weights)
            found, exactly = both(params, noise((20, 7), seed), 3.0)
            gaps.append(exactly - found)
            assert np.all(found <= exactly + 1e-5 * np.abs(exactly) + 1e-5)
        largest[scale] = np.max(gaps)
    assert largest[0.0] < 2e-5
    assert largest[0.1] < 0.02
    assert largest[1.0] > 0.02


def test_bound_is_the_mean_field_bound_with_one_side_summed_out():
    params, zeta = machine(4, 3, seed=3, scale=2.0), noise((30, 7), seed=3)
    terms = jax.jit(mean_field_terms, static_argnums=0)(relax.exponential, zeta, 2.0)
    a = np.concatenate(params[:2]).astype(np.float64)[None] + np.float64(terms[0])
    w = np.float64(params.weights)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    entropy = lambda m: -(m * np.log(m) + (1 - m) * np.log1p(-m)).sum(-1)

    def mean_field(m1, m2):
        means = np.concatenate([m1, m2], -1)
        linear = (a * means).sum(-1) + ((m1 @ w) * m2).sum(-1)
        return linear + entropy(m1) + entropy(m2) + np.float64(terms[1]).sum(-1)

    m1 = np.full((30, 4), 0.5)
    for num_sweeps in (1, 2):
        m2 = sigmoid(a[:, 4:] + m1 @ w)
        m1 = sigmoid(a[:, :4] + m2 @ w.T)
        found = LOG_Z + OVERLAPPING(params, zeta, *terms, LOG_Z, num_sweeps=num_sweeps)
        best = mean_field(m1, sigmoid(a[:, 4:] + m1 @ w))
        np.testing.assert_allclose(found, best, rtol=1e-5, atol=1e-5)
        stale = mean_field(m1, m2)
        assert np.all(found >= stale - 1e-5)
        if num_sweeps == 1:
            assert np.max(found - stale) > 0.01


def test_gradients_are_those_of_the_converged_bound_and_near_those_of_enumeration():
    zeta = noise((4, 7), seed=2)
    terms = mean_field_terms(relax.exponential, zeta, 2.0)

    def bound(params, *terms):
        return relaxed.overlapping_log_prob(params, zeta, *terms, LOG_Z, num_sweeps=40).sum()

    def through(params, log_ratio, log_r0):
        # Autodiff through the sweeps, with nothing held constant.
        biases = log_ratio + jnp.broadcast_to(jnp.concatenate(params[:2]), log_ratio.shape)

        def sweep(_, fields):
            mean2 = jax.nn.sigmoid(biases[:, 3:] + jax.nn.sigmoid(fields) @ params.weights)
            return biases[:, :3] + mean2 @ params.weights.T

        fields = jax.lax.fori_loop(0, 40, sweep, jnp.zeros((4, 3)))
        mean1 = jax.nn.sigmoid(fields)
        value = jnp.sum(biases[:, :3] * mean1 + bernoulli.entropy(fields)) + log_r0.sum()
        return value + jax.nn.softplus(biases[:, 3:] + mean1 @ params.weights).sum()

    def exactly(params, *terms):
        return enumerated_overlapping(params, *terms).sum()

    found, converged, enumerated = (
        jax.jit(jax.grad(f, (0, 1, 2))) for f in (bound, through, exactly)
    )
    strong = machine(3, 4, seed=2)
    weak = strong._replace(weights=0.1 * strong.weights)
    for params, reference, tolerance in ((strong, converged, 1e-4), (weak, enumerated, 0.02)):
        pairs = zip(
            jax.tree.leaves(found(params, *terms)),
            jax.tree.leaves(reference(params, *terms)),
            strict=True,
        )
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
            assert np.max(np.abs(b)) > 0.3


def test_overlapping_prior_of_two_units_integrates_to_one():
    params, beta = machine(1, 1, seed=4, scale=2.0), 4.0
    nodes, weights = np.polynomial.legendre.leggauss(40)
    x = (0.5 * nodes + 0.5).astype(np.float32)
    zeta = np.stack(np.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2)
    area = np.outer(weights, weights).ravel() / 4

    @jax.jit
    def both(zeta):
        terms, log_z = mean_field_terms(relax.exponential, zeta, beta), exact.log_z(params)
        bound = relaxed.overlapping_log_prob(params, zeta, *terms, log_z)
        return bound, enumerated_overlapping(params, *terms) - log_z

    bound, exactly = both(zeta)
    np.testing.assert_allclose(area @ np.exp(exactly), 1, rtol=1e-5)
    assert 0.5 < area @ np.exp(bound) < 1 - 1e-3
    assert np.all(bound <= exactly + 1e-5)


def test_zeta_outside_the_support_is_impossible():
    @jax.jit
    def log_p(zeta):
        terms = mean_field_terms(relax.exponential, zeta, 3.0)
        return relaxed.overlapping_log_prob(machine(2, 2), zeta, *terms, LOG_Z)

    found = log_p(jnp.array([[0.2, 0.9, 1.2, 0.1], [0.2, 0.9, 1.0, 0.1]]))
    assert found[0] == -jnp.inf
    assert np.isfinite(found[1])


@pytest.mark.parametrize("sizes", [(3, 2), (2, 3), (1, 1)])
def test_gaussian_integral_is_the_enumerated_mixture(sizes):
    params = machine(*sizes, seed=5)
    zeta = noise((10, sum(sizes)), seed=5) * 2 - 0.5
    smallest = np.linalg.norm(np.float64(params.weights), 2)
    np.testing.assert_allclose(relaxed.min_lambda(params), smallest, rtol=1e-6)
    for lam in np.array([1.05 * smallest, 3 * smallest, 50.0], np.float32):
        expected = enumerated_gaussian(params, zeta, np.float64(lam)) - 0.4
        found = GAUSSIAN_INTEGRAL(params, zeta, lam, LOG_Z)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    if sizes == (1, 1):
        eager = relaxed.gaussian_integral_log_prob(params, zeta, lam, LOG_Z)
        np.testing.assert_allclose(eager, found, rtol=1e-6)


def test_gaussian_integral_gradients_are_those_of_enumeration():
    n1, n2 = 2, 3
    params, zeta = machine(n1, n2, seed=6), noise((5, 5), seed=6)
    lam = np.float32(1.3 * np.linalg.norm(params.weights, 2))
    z = jnp.asarray(all_states(params)[0], jnp.float32)

    def mixture(params, zeta, lam):
        w = params.weights
        s = jnp.block([[lam * jnp.eye(n1), w], [w.T, lam * jnp.eye(n2)]])
        gap = zeta[:, None] - z[None]
        joint = -energy(params, z[:, :n1], z[:, n1:])[None] - ((gap @ s) * gap).sum(-1) / 2
        half_log_det = jnp.log(jnp.linalg.det(s)) / 2
        return (jax.nn.logsumexp(joint, axis=-1) + half_log_det).sum()

    def integral(*arguments):
        return relaxed.gaussian_integral_log_prob(*arguments, LOG_Z).sum()

    found, expected = (
        jax.jit(jax.grad(f, (0, 1, 2)))(params, zeta, lam) for f in (integral, mixture)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
        assert np.max(np.abs(b)) > 0.1


def test_gaussian_integral_prior_integrates_to_one():
    params = machine(1, 1, seed=7, scale=2.0)
    lam = np.float32(1.5 * abs(params.weights.item()))
    x = np.linspace(-9, 10, 400, dtype=np.float32)
    zeta = np.stack(np.meshgrid(x, x, indexing="ij"), -1)
    log_p = GAUSSIAN_INTEGRAL(params, zeta, lam, jax.jit(exact.log_z)(params))
    mass = np.exp(np.float64(log_p)).sum() * np.float64(x[1] - x[0]) ** 2
    np.testing.assert_allclose(mass, 1, rtol=1e-4)


def test_a_large_lambda_gives_back_the_bits():
    # With a large lambda the mixture has separate modes, one of mass p(z) at every z.
    params = machine(2, 1, seed=8)
    z, negative = all_states(params)
    lam, log_z = np.float32(1e3), logsumexp(negative)
    found = GAUSSIAN_INTEGRAL(params, z.astype("f4"), lam, np.float32(log_z))
    log_p = negative - log_z
    peak = 0.5 * np.linalg.slogdet(couplings(params, lam) / (2 * np.pi))[1]
    np.testing.assert_allclose(found, log_p + peak, atol=1e-3)


@pytest.mark.parametrize("lam", [0.999, 0.5, 0.0, -2.0])
def test_a_small_lambda_is_refused_or_gives_nan_when_traced(lam):
    raw = machine(3, 3, seed=9)
    params = raw._replace(weights=raw.weights / np.linalg.norm(raw.weights, 2))
    zeta = noise((2, 6))
    message = r"lam must exceed 1, the largest singular value of the weights .*, got "
    with pytest.raises(ValueError, match=message + f"{lam:.6g}"):
        relaxed.gaussian_integral_log_prob(params, zeta, lam, LOG_Z)
    sides = zeta[:, :3], zeta[:, 3:]
    with pytest.raises(ValueError, match=message):
        relaxed.gaussian_integral_sample(jax.random.key(0), params, *sides, lam)
    # Only zeta is traced here, so the mistake can still be named.
    known = RBM(*map(jnp.asarray, params))
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda zeta: relaxed.gaussian_integral_log_prob(known, zeta, lam, LOG_Z))(zeta)
    assert np.all(np.isnan(GAUSSIAN_INTEGRAL(params, zeta, np.float32(lam), LOG_Z)))
    assert np.all(np.isfinite(GAUSSIAN_INTEGRAL(params, zeta, np.float32(1.01), LOG_Z)))
    draw = lambda lam: GAUSSIAN_INTEGRAL_SAMPLE(jax.random.key(0), params, *sides, lam)
    assert np.all(np.isnan(draw(np.float32(lam))))
    assert np.all(np.isfinite(draw(np.float32(1.01))))


@pytest.mark.parametrize("scale", [0.0, 1e-40, 1e-20, 1e-3])
def test_machines_without_or_with_weak_couplings_have_a_gaussian_integral(scale):
    params = machine(3, 2, seed=11)
    params = params._replace(weights=np.float32(scale) * params.weights)
    zeta = 10 * noise((10, 5), seed=11)
    lam = 1.1 * relaxed.min_lambda(params)
    expected = enumerated_gaussian(params, zeta, np.float64(lam)) - 0.4
    found = relaxed.gaussian_integral_log_prob(params, zeta, lam, LOG_Z)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    gradient = jax.grad(lambda p: (1.1 * relaxed.min_lambda(p)) + jnp.sum(p.weights))(params)
    assert np.all(np.isfinite(gradient.weights))
    sides = jnp.zeros((4, 3)), jnp.zeros((4, 2))
    sample = relaxed.gaussian_integral_sample(jax.random.key(0), params, *sides, lam)
    assert np.all(np.isfinite(sample))
    assert np.max(np.abs(sample)) < 6 / np.sqrt(lam)


def test_integer_bits_get_the_noise_of_floats():
    params, bits = machine(3, 2, seed=10), np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 0]])
    draws = [
        relaxed.gaussian_integral_sample(jax.random.key(0), params, z[:, :3], z[:, 3:], 9.0)
        for z in (bits, bits.astype(bool), bits.astype(np.float32))
    ]
    assert all(zeta.dtype == jnp.float32 for zeta in draws)
    np.testing.assert_array_equal(draws[0], draws[2])
    np.testing.assert_array_equal(draws[1], draws[2])


@pytest.mark.parametrize("sizes", [(3, 2), (2, 3)])
def test_gaussian_integral_samples_have_the_covariance(sizes):
    params = machine(*sizes, seed=10)
    lam, num_samples = np.float32(1.2 * np.linalg.norm(params.weights, 2)), 100_000
    z = np.array([1.0, 0.0, 1.0, 1.0, 0.0], np.float32)
    sides = (np.tile(part, (10, num_samples // 10, 1)) for part in np.split(z, [sizes[0]]))
    zeta = GAUSSIAN_INTEGRAL_SAMPLE(jax.random.key(0), params, *sides, lam)
    assert zeta.shape == (10, num_samples // 10, 5)
    gap = np.float64(zeta).reshape(-1, 5) - z[None]
    covariance = np.linalg.inv(couplings(params, np.float64(lam)))
    variances = np.diag(covariance)
    assert np.all(np.abs(gap.mean(0)) < 5 * np.sqrt(variances / num_samples))
    # Var(x y) of normals: s_xx s_yy + s_xy^2.
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / num_samples)
    assert np.all(np.abs(gap.T @ gap / num_samples - covariance) < 5 * error)


def test_half_precision_strong_couplings_and_single_points():
    params = RBM(*(jnp.asarray(p, jnp.bfloat16) for p in machine(3, 2, scale=30.0)))
    zeta = jnp.asarray(noise(5), jnp.bfloat16)

    def bound(params):
        terms = mean_field_terms(relax.exponential, zeta, 80.0)
        return relaxed.overlapping_log_prob(params, zeta, *terms, LOG_Z)

    def integral(params):
        lam = 1.1 * relaxed.min_lambda(params)
        return relaxed.gaussian_integral_log_prob(params, zeta, lam, LOG_Z)

    for f in (bound, integral):
        value, gradient = jax.jit(jax.value_and_grad(f))(params)
        assert value.shape == ()
        assert value.dtype == jnp.float32
        assert all(np.isfinite(g).all() and g.dtype == jnp.bfloat16 for g in gradient)
    sample = GAUSSIAN_INTEGRAL_SAMPLE(jax.random.key(0), params, zeta[:3], zeta[3:], 1e3)
    assert sample.shape == (5,)
    assert sample.dtype == jnp.bfloat16


def test_mistakes_are_named():
    params, zeta = machine(2, 3), jnp.zeros((4, 5))
    with pytest.raises(ValueError, match="num_sweeps must be at least 1, got 0"):
        relaxed.overlapping_log_prob(params, zeta, zeta, zeta, LOG_Z, num_sweeps=0)
    with pytest.raises(ValueError, match=r"zeta must end in an axis of 2 \+ 3 units"):
        relaxed.overlapping_log_prob(params, zeta[:, :4], zeta, zeta, LOG_Z)
    with pytest.raises(ValueError, match=r"shapes \(4, 5\) and \(4, 1\) for zeta \(4, 5\)"):
        relaxed.overlapping_log_prob(params, zeta, zeta, zeta[:, :1], LOG_Z)
    with pytest.raises(ValueError, match=r"lam must be a single number, got shape \(4,\)"):
        relaxed.gaussian_integral_log_prob(params, zeta, jnp.ones(4), LOG_Z)
    with pytest.raises(ValueError, match=r"equal leading axes, got \(4, 2\) and \(3, 3\)"):
        relaxed.gaussian_integral_sample(
            jax.random.key(0), params, jnp.zeros((4, 2)), jnp.zeros((3, 3)), 9.0
        )
