import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import bounds


def test_value_and_gradient_match_float64():
    log_weights = np.random.default_rng(0).normal(-2000.0, 5.0, size=(6, 3)).astype(np.float32)
    exact = log_weights.astype(np.float64)
    shift = exact.max(0)
    weights = np.exp(exact - shift)
    value = bounds.iwae(jnp.asarray(log_weights))
    gradient = jax.grad(lambda lw: bounds.iwae(lw).sum())(jnp.asarray(log_weights))
    np.testing.assert_allclose(value, shift + np.log(weights.mean(0)), rtol=1e-6)
    np.testing.assert_allclose(gradient, weights / weights.sum(0), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("bound", [bounds.iwae, bounds.dreg])
def test_one_sample_is_the_elbo(bound):
    log_weights = jnp.array([[-3.0, -700.0]])
    np.testing.assert_array_equal(bound(log_weights), log_weights[0])


@pytest.mark.parametrize("bound", [bounds.iwae, bounds.dreg])
@pytest.mark.parametrize("axis", [1, -1])
def test_axis(bound, axis):
    log_weights = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 3)), jnp.float32)
    expected = bound(jnp.moveaxis(log_weights, axis, 0))
    np.testing.assert_allclose(bound(log_weights, axis=axis), expected, rtol=1e-6)


@pytest.mark.parametrize("bound", [bounds.iwae, bounds.dreg])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_dtype_is_kept(bound, dtype):
    log_weights = jnp.array([-2.0, -3.0, -4.0], dtype)
    assert bound(log_weights).dtype == dtype
    assert jax.grad(bound)(log_weights).dtype == dtype


@pytest.mark.parametrize("bound", [bounds.iwae, bounds.dreg])
def test_many_samples_in_half_precision(bound):
    # Summed in bfloat16, the weights would stop adding up at 256.
    value = bound(jnp.zeros(4096, jnp.bfloat16))
    np.testing.assert_allclose(float(value), 0.0, atol=0.01)


@pytest.mark.parametrize("bound", [bounds.iwae, bounds.dreg])
def test_impossible_samples(bound):
    log_weights = jnp.array([[-jnp.inf, -1.0], [-jnp.inf, -jnp.inf], [-jnp.inf, -2.0]])
    value = bound(log_weights)
    assert value[0] == -jnp.inf
    np.testing.assert_allclose(value[1], np.log((np.exp(-1) + np.exp(-2)) / 3), rtol=1e-6)
    gradient = jax.grad(lambda lw: bound(lw))(log_weights[:, 1])
    assert np.isfinite(gradient).all()
    assert gradient[1] == 0.0


@pytest.mark.parametrize("bound", [bounds.iwae, bounds.dreg])
@pytest.mark.parametrize("log_weights", [jnp.zeros((0, 3)), jnp.zeros(())])
def test_no_samples(bound, log_weights):
    with pytest.raises(ValueError, match="at least 1 sample along axis 0"):
        bound(log_weights)


def test_the_bound_rises_with_k_to_the_evidence():
    # Three states, enumerated over all pairs of samples: the exact means for K = 1 and K = 2.
    log_joint = np.array([-1.5, -2.0, -4.0])
    q = np.array([0.2, 0.5, 0.3])
    log_weights = jnp.asarray(log_joint - np.log(q), jnp.float32)
    pairs = jnp.stack(jnp.broadcast_arrays(log_weights[:, None], log_weights[None, :]))
    one = q @ np.asarray(bounds.iwae(log_weights[None, :]))
    two = q @ np.asarray(bounds.iwae(pairs)) @ q
    evidence = np.log(np.exp(log_joint).sum())
    assert one + 0.01 < two < evidence - 0.01


# A Gaussian toy: p(z) = N(0, 1), p(x|z) = N(z + theta, 1), q(z|x) = N(mu, exp(log_sigma)^2).

X, THETA, NUM_SAMPLES = 1.3, 0.4, 2
PHI = (0.1, -0.5)


def log_normal(value, mean, log_sigma):
    scaled = (value - mean) / jnp.exp(log_sigma)
    return -0.5 * scaled**2 - log_sigma - 0.5 * math.log(2 * math.pi)


def log_joint(theta, z):
    return log_normal(z, 0.0, 0.0) + log_normal(X, z + theta, 0.0)


def exact_bound(phi, theta):
    """E log 1/2 (w_1 + w_2) by Gauss-Hermite quadrature in float64."""
    nodes, masses = np.polynomial.hermite_e.hermegauss(80)
    masses = masses / masses.sum()
    z = phi[0] + np.exp(phi[1]) * nodes
    log_w = -0.5 * z**2 - 0.5 * (X - z - theta) ** 2 - math.log(2 * math.pi)
    log_w += 0.5 * nodes**2 + phi[1]
    pair = np.logaddexp(log_w[:, None], log_w[None, :]) - math.log(2)
    return masses @ pair @ masses


def exact_gradient():
    """Central differences of the exact bound: for mu, log_sigma and theta."""
    step = 1e-5
    ends = [
        [exact_bound(point[:2], point[2]) for point in np.array([*PHI, THETA]) + sign * np.eye(3)]
        for sign in (step, -step)
    ]
    return np.subtract(*ends) / (2 * step)


def doubly_reparameterized(phi, theta, noise):
    """The objective of dreg's docstring: the encoder by dreg, the decoder by iwae."""
    z = phi[0] + jnp.exp(phi[1]) * noise
    phi_, theta_, z_ = jax.lax.stop_gradient((phi, theta, z))
    return bounds.dreg(log_joint(theta_, z) - log_normal(z, *phi_)) + bounds.iwae(
        log_joint(theta, z_) - log_normal(z_, *phi_)
    )


def plain(phi, theta, noise):
    z = phi[0] + jnp.exp(phi[1]) * noise
    return bounds.iwae(log_joint(theta, z) - log_normal(z, *phi))


def gradients(objective, noise):
    gradient = jax.vmap(jax.grad(objective, argnums=(0, 1)), (None, None, 0))
    (mu, log_sigma), theta = jax.jit(gradient)(PHI, THETA, noise)
    return np.stack([mu, log_sigma, theta], -1).astype(np.float64)


def test_dreg_is_unbiased_with_less_variance_than_iwae():
    noise = jax.random.normal(jax.random.key(7), (200_000, NUM_SAMPLES))
    exact = exact_gradient()
    samples = {f.__name__: gradients(f, noise) for f in (doubly_reparameterized, plain)}
    for name, values in samples.items():
        error = np.abs(values.mean(0) - exact)
        std_error = values.std(0, ddof=1) / math.sqrt(len(values))
        assert (error < 5 * std_error).all(), (name, error / std_error)
    variance = {name: values.var(0) for name, values in samples.items()}
    assert (variance["doubly_reparameterized"][:2] < 0.8 * variance["plain"][:2]).all()
    # theta's gradient is iwae's in both.
    np.testing.assert_allclose(
        samples["doubly_reparameterized"][:, 2], samples["plain"][:, 2], rtol=1e-4, atol=1e-5
    )


def test_dreg_has_no_variance_at_the_exact_posterior():
    # There the weights are constant, so every path derivative of log w vanishes.
    phi = ((X - THETA) / 2, -0.5 * math.log(2))
    noise = jax.random.normal(jax.random.key(1), (100, 5))
    encoder = jax.jit(jax.vmap(jax.grad(doubly_reparameterized), (None, None, 0)))
    np.testing.assert_allclose(np.stack(encoder(phi, THETA, noise)), 0.0, atol=1e-5)


def test_dreg_has_the_value_of_iwae_and_squared_weights():
    log_weights = jnp.asarray(np.random.default_rng(3).normal(size=(5, 4)), jnp.float32)
    np.testing.assert_allclose(bounds.dreg(log_weights), bounds.iwae(log_weights), rtol=1e-5)
    gradient = jax.grad(lambda lw: bounds.dreg(lw).sum())(log_weights)
    np.testing.assert_allclose(gradient, jax.nn.softmax(log_weights, 0) ** 2, rtol=1e-5)
