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


def enumerated_overlapping(params, log_ratio, log_r0):
    """log sum_z exp(-E(z) + b.z) + sum log r0, differentiable."""
    n1, n2 = params.weights.shape
    z = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=n1 + n2)), jnp.float32)
    joint = (log_ratio @ z.T) - energy(params, z[:, :n1], z[:, n1:])[None]
    return jax.nn.logsumexp(joint, axis=-1) + log_r0.sum(-1)


def noise(shape, seed=0):
    """zeta in (0, 1), most of it near the ends."""
    return np.random.default_rng(seed).beta(0.4, 0.4, size=shape).astype(np.float32)


def mean_field_terms(smoothing, zeta, beta):
    return smoothing.log_ratio(zeta, beta), smoothing.log_prob_0(zeta, beta)


@pytest.mark.thorough
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


@pytest.mark.thorough
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


def test_gradients_hold_the_means_constant():
    params, zeta = machine(2, 2, seed=2), noise((3, 4), seed=2)
    terms = mean_field_terms(relax.exponential, zeta, 2.0)

    def found(params, *terms):
        return relaxed.overlapping_log_prob(params, zeta, *terms, LOG_Z, num_sweeps=1).sum()

    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    a = np.concatenate(params[:2]).astype(np.float64)[None] + np.float64(terms[0])
    w = np.float64(params.weights)
    mean2 = sigmoid(a[:, 2:] + 0.5 * w.sum(0)[None])
    mean1 = np.float32(sigmoid(a[:, :2] + mean2 @ w.T))

    def given_means(params, log_ratio, log_r0):
        biases = log_ratio + jnp.broadcast_to(jnp.concatenate(params[:2]), log_ratio.shape)
        right = jax.nn.softplus(biases[:, 2:] + mean1 @ params.weights)
        return jnp.sum(biases[:, :2] * mean1) + right.sum() + log_r0.sum()

    gradients = (jax.jit(jax.grad(f, (0, 1, 2)))(params, *terms) for f in (found, given_means))
    for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


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


@pytest.mark.thorough
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
