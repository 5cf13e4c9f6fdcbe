import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import bounds


def test_elbo_is_a_lower_bound_tight_at_the_posterior():
    # One latent of three states, enumerated: log p(x) is known.
    log_prior = np.log([0.5, 0.2, 0.3])
    log_likelihoods = np.array([-1.0, -4.0, -2.5])
    log_evidence = np.log(np.sum(np.exp(log_prior + log_likelihoods)))
    posterior = np.exp(log_prior + log_likelihoods - log_evidence)
    for q in (posterior, np.array([0.1, 0.1, 0.8])):
        kl = np.sum(q * (np.log(q) - log_prior))
        bound = bounds.elbo(jnp.array(q @ log_likelihoods), jnp.array(kl))
        gap = np.sum(q * (np.log(q) - np.log(posterior)))  # KL(q, p(z|x))
        np.testing.assert_allclose(bound, log_evidence - gap, rtol=1e-6)


def test_elbo_weights_only_the_kl():
    bound = bounds.elbo(jnp.array([-3.0, -5.0]), jnp.array([2.0, 4.0]), kl_weight=0.25)
    np.testing.assert_array_equal(bound, [-3.5, -6.0])


def test_elbo_broadcasts_axes_of_size_one():
    bound = bounds.elbo(-jnp.ones((4, 3)), jnp.arange(3.0)[None, :])
    np.testing.assert_array_equal(bound, np.broadcast_to([-1.0, -2.0, -3.0], (4, 3)))


def test_elbo_refuses_a_silent_outer_product():
    with pytest.raises(ValueError, match=r"\(5,\).*\(5, 1\).*ranks agree"):
        bounds.elbo(jnp.zeros(5), jnp.zeros((5, 1)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_elbo_and_bits_per_dim_keep_the_dtype(dtype):
    weight = bounds.linear_warmup(jnp.array(3), 10)
    bound = bounds.elbo(jnp.ones(2, dtype), jnp.ones(2, dtype), kl_weight=weight)
    assert bound.dtype == dtype
    assert bounds.bits_per_dim(bound, 12).dtype == dtype
    assert bounds.sum_per_example(jnp.ones((2, 3), dtype)).dtype == dtype


def test_sum_per_example_matches_a_loop():
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    for num_batch_axes in range(5):
        total = bounds.sum_per_example(jnp.asarray(values), num_batch_axes=num_batch_axes)
        assert total.shape == values.shape[:num_batch_axes]
        for index in itertools.product(*map(range, total.shape)):
            np.testing.assert_allclose(total[index], values[index].sum(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_batch_axes", [-1, 3])
def test_sum_per_example_checks_the_axes(num_batch_axes):
    with pytest.raises(ValueError, match=rf"0\.\.2.*got {num_batch_axes}"):
        bounds.sum_per_example(jnp.zeros((2, 3)), num_batch_axes=num_batch_axes)


def test_linear_warmup_by_hand():
    weights = [float(bounds.linear_warmup(step, 4)) for step in range(6)]
    assert weights == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert [float(bounds.linear_warmup(step, 0)) for step in (0, 1, 99)] == [1.0, 1.0, 1.0]


def test_linear_warmup_of_a_traced_step():
    weights = jax.jit(jax.vmap(lambda step: bounds.linear_warmup(step, 4)))(jnp.arange(6))
    assert weights.dtype == jnp.float32
    np.testing.assert_array_equal(weights, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_linear_warmup_survives_the_last_step_an_int32_can_count():
    # In integers, step + 1 would wrap around to a large negative weight.
    assert float(bounds.linear_warmup(jnp.array(2**31 - 1, jnp.int32), 1000)) == 1.0


@pytest.mark.parametrize("num_steps", [2**31, 3_000_000_000, 10**19])
def test_linear_warmup_of_more_steps_than_an_int32_can_count(num_steps):
    warmup = jax.jit(bounds.linear_warmup, static_argnums=1)
    for step in (0, 5, 2**31 - 1):
        expected = min(1.0, (step + 1) / num_steps)
        for found in (bounds.linear_warmup(step, num_steps), warmup(jnp.int32(step), num_steps)):
            np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_linear_warmup_refuses_a_negative_length():
    with pytest.raises(ValueError, match=r"at least 0.*got -1"):
        bounds.linear_warmup(0, -1)


def test_bits_per_dim_of_the_uniform_model_is_eight():
    nats = -3072 * jnp.log(jnp.full(2, 256.0))
    np.testing.assert_allclose(bounds.bits_per_dim(nats, 3072), 8.0, rtol=1e-6)


def test_bits_per_dim_of_a_large_image_in_half_precision():
    # The divisor, 256 * 256 * 3 * ln 2 = 136,000, is beyond float16's largest number.
    bits = bounds.bits_per_dim(jnp.array(-60000.0, jnp.float16), 256 * 256 * 3)
    np.testing.assert_allclose(bits, 60000 / (256 * 256 * 3 * math.log(2)), rtol=1e-3)


@pytest.mark.parametrize("num_dims", [0, -3])
def test_bits_per_dim_refuses_an_empty_image(num_dims):
    with pytest.raises(ValueError, match=f"at least 1, got {num_dims}"):
        bounds.bits_per_dim(jnp.array(-1.0), num_dims)


def test_the_bound_has_the_wider_dtype():
    bound = bounds.elbo(jnp.zeros(2, jnp.bfloat16), np.full(2, 1.001, np.float32))
    assert bound.dtype == jnp.float32
    np.testing.assert_allclose(bound, -1.001, rtol=1e-6)
