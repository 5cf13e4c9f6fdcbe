"""The Gaussian integral prior against sums over all bits in float64, and the law of its samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_energy_and_exact import machine
from test_relaxed import LOG_Z, all_states, logsumexp, noise

from dvae.rbm import exact, relaxed
from dvae.rbm.energy import RBM, energy

GAUSSIAN_INTEGRAL = jax.jit(relaxed.gaussian_integral_log_prob)
GAUSSIAN_INTEGRAL_SAMPLE = jax.jit(relaxed.gaussian_integral_sample)


def couplings(params, lam):
    w = np.float64(params.weights)
    n1, n2 = w.shape
    return np.block([[lam * np.eye(n1), w], [w.T, lam * np.eye(n2)]])


def enumerated_gaussian(params, zeta, lam):
    """log sum_z e^{-E(z)} N(zeta; z, S^-1), float64."""
    z, negative = all_states(params)
    s = couplings(params, lam)
    gap = np.float64(zeta)[:, None] - z[None]
    quadratic = np.einsum("bki,ij,bkj->bk", gap, s, gap)
    half_log_norm = 0.5 * np.linalg.slogdet(s / (2 * np.pi))[1]
    return logsumexp(negative[None] - 0.5 * quadratic) + half_log_norm


@pytest.mark.thorough
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


@pytest.mark.thorough
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


@pytest.mark.thorough
@pytest.mark.many_cases
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


@pytest.mark.parametrize("sizes", [(3, 2), (2, 3), (3, 3)])
def test_gaussian_integral_samples_have_the_covariance(sizes):
    params = machine(*sizes, seed=10)
    lam, num_samples = np.float32(1.2 * np.linalg.norm(params.weights, 2)), 100_000
    n = sum(sizes)
    z = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0], np.float32)[:n]
    sides = (np.tile(part, (10, num_samples // 10, 1)) for part in np.split(z, [sizes[0]]))
    zeta = GAUSSIAN_INTEGRAL_SAMPLE(jax.random.key(0), params, *sides, lam)
    assert zeta.shape == (10, num_samples // 10, n)
    gap = np.float64(zeta).reshape(-1, n) - z[None]
    covariance = np.linalg.inv(couplings(params, np.float64(lam)))
    variances = np.diag(covariance)
    assert np.all(np.abs(gap.mean(0)) < 5 * np.sqrt(variances / num_samples))
    # Var(x y) of normals: s_xx s_yy + s_xy^2.
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / num_samples)
    assert np.all(np.abs(gap.T @ gap / num_samples - covariance) < 5 * error)
