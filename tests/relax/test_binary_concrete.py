"""`relax.binary_concrete`: the law, its density in zeta and in logit(zeta), and the extremes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.relax import binary_concrete, gumbel_softmax


def test_icdf_and_cdf_are_inverse_and_match_float64():
    rng = np.random.default_rng(0)
    rho, logits = np.float32(rng.uniform(0.01, 0.99, 500)), np.float32(rng.normal(size=500))
    zeta = np.asarray(jax.jit(binary_concrete.icdf)(rho, logits, 0.7))
    odds = np.exp((np.float64(logits) + np.log(rho) - np.log1p(-np.float64(rho))) / 0.7)
    np.testing.assert_allclose(zeta, odds / (1 + odds), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(binary_concrete.cdf)(zeta, logits, 0.7), rho, atol=1e-5)
    y = jax.jit(binary_concrete.icdf_logit)(rho, logits, 0.7)
    np.testing.assert_allclose(jax.nn.sigmoid(y), zeta, rtol=1e-5)


def test_cdf_outside_the_unit_interval():
    zeta = jnp.float32([-1.0, 0.0, 1.0, 2.0])
    np.testing.assert_array_equal(binary_concrete.cdf(zeta, jnp.zeros(4), 0.5), [0, 0, 1, 1])


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_densities_are_derivatives_of_the_cdf(temperature):
    zeta, logits = jnp.linspace(0.05, 0.95, 19), jnp.full(19, 0.8)
    slope = jax.vmap(jax.grad(partial(binary_concrete.cdf, temperature=temperature)))
    log_prob = jax.jit(binary_concrete.log_prob)(zeta, logits, temperature)
    np.testing.assert_allclose(np.exp(log_prob), jax.jit(slope)(zeta, logits), rtol=1e-4)
    y = jnp.log(zeta) - jnp.log1p(-zeta)
    of_logit = jax.jit(binary_concrete.log_prob_of_logit)(y, logits, temperature)
    jacobian = np.log(zeta) + np.log1p(-zeta)  # dzeta/dy = zeta (1 - zeta)
    np.testing.assert_allclose(of_logit, log_prob + jacobian, atol=1e-5)


def test_density_of_logit_integrates_to_one():
    y = np.linspace(-80, 80, 16001, dtype=np.float32)
    log_prob = jax.jit(binary_concrete.log_prob_of_logit)(y, 1.5, 0.5)
    np.testing.assert_allclose(np.exp(np.float64(log_prob)).sum() * 0.01, 1, rtol=1e-4)


def test_certain_bits_give_the_temperature_no_gradient():
    logits = np.float32([np.inf, -np.inf, 0.3])
    alone = jax.grad(lambda tau: binary_concrete.icdf(0.4, 0.3, tau))(0.5)
    ours = jax.grad(lambda tau: binary_concrete.icdf(0.4, logits, tau).sum())(0.5)
    np.testing.assert_allclose(ours, alone, rtol=1e-6)
    drawn = lambda tau: binary_concrete.sample(jax.random.key(0), logits[:2], tau).sum()
    assert jax.grad(drawn)(0.5) == 0


def test_it_is_the_two_class_gumbel_softmax():
    zeta, logit = jnp.linspace(0.1, 0.9, 9), 0.6
    pairs = jnp.stack([zeta, 1 - zeta], axis=-1)
    two = jnp.tile(jnp.float32([[logit, 0.0]]), (9, 1))
    expected = jax.jit(gumbel_softmax.log_prob)(pairs, two, 0.7)
    ours = jax.jit(binary_concrete.log_prob)(zeta, logit, 0.7)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_rounding_a_sample_gives_the_bernoulli_law():
    logits = jnp.full(50_000, 0.7)
    zeta = jax.jit(partial(binary_concrete.sample, temperature=0.3))(jax.random.key(1), logits)
    mean, q = float(jnp.mean(zeta > 0.5)), 1 / (1 + np.exp(-0.7))
    assert abs(mean - q) < 5 * np.sqrt(q * (1 - q) / 50_000)


def test_cold_densities_of_the_logit_stay_exact_where_zeta_rounds():
    logits = jnp.float32([-80.0, -5.0, 0.0, 5.0, 80.0])

    def kl_term(logits):
        y = binary_concrete.sample_logit(jax.random.key(2), logits, 0.01)
        of_q = binary_concrete.log_prob_of_logit(y, logits, 0.01)
        return jnp.sum(of_q - binary_concrete.log_prob_of_logit(y, 0.5, 0.01)), y

    (value, y), gradient = jax.jit(jax.value_and_grad(kl_term, has_aux=True))(logits)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))
    assert np.any(jax.nn.sigmoid(y) == 1)  # rounded: only y keeps the information
    # log q(y) - log p(y) for u = tau y - l: the same noise under both.
    u, v = 0.01 * np.float64(y) - np.float64(logits), 0.01 * np.float64(y) - 0.5
    expected = -np.logaddexp(0, u) - np.logaddexp(0, -u) + np.logaddexp(0, v) + np.logaddexp(0, -v)
    np.testing.assert_allclose(value, expected.sum(), rtol=1e-4)


def test_log_prob_is_finite_at_zeta_that_rounded_to_the_ends():
    run = jax.vmap(jax.value_and_grad(partial(binary_concrete.log_prob, temperature=0.1)))
    value, slope = run(jnp.float32([0.0, 1.0]), jnp.ones(2))
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(slope))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_kept(dtype):
    zeta, logits = jnp.asarray([0.2, 0.7], dtype), jnp.asarray([0.5, 1.0], dtype)
    for function in (
        binary_concrete.icdf,
        binary_concrete.icdf_logit,
        binary_concrete.cdf,
        binary_concrete.log_prob,
        binary_concrete.log_prob_of_logit,
    ):
        assert function(zeta, logits, jnp.float32(0.5)).dtype == dtype
    assert binary_concrete.sample_logit(jax.random.key(0), logits, 0.5).dtype == dtype


def test_temperature_broadcasts():
    zeta = binary_concrete.sample(jax.random.key(0), jnp.zeros(3), jnp.ones((2, 1)))
    assert zeta.shape == (2, 3)


@pytest.mark.parametrize("temperature", [0, -0.5])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
        binary_concrete.sample(jax.random.key(0), jnp.zeros(2), temperature)


@pytest.mark.parametrize("rho", [-0.5, 2])
def test_rho_must_be_inside_the_unit_interval(rho):
    with pytest.raises(ValueError, match=f"between 0 and 1, got {rho}"):
        binary_concrete.icdf(rho, jnp.zeros(2), 0.5)


def test_the_ends_of_the_noise_have_no_gradient():
    """zeta is exactly 0 or 1 there, whatever the logits; nothing passes rho's own slope on."""
    total = lambda *args: binary_concrete.icdf(*args).sum()
    ends = np.float32([[0, 1], [0, 1]])
    for gradient in jax.grad(total, (0, 1, 2))(ends, np.float32([0.0, 3.0])[:, None], 2.0):
        np.testing.assert_array_equal(gradient, 0)
