"""`distributions.bernoulli` against float64 NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.distributions import bernoulli

LOGITS = np.float32([-1e4, -80, -20, -3, -0.5, 0, 1e-3, 2, 17, 60, 1e4])


def softplus(x):
    return np.logaddexp(0, np.asarray(x, np.float64))


def sigmoid(x):
    return np.exp(-softplus(-np.asarray(x, np.float64)))


@pytest.mark.parametrize("z", [0.0, 1.0])
def test_log_prob_of_bits_is_accurate_relative_to_its_size(z):
    expected = -softplus(-LOGITS) if z else -softplus(LOGITS)
    actual = jax.jit(bernoulli.log_prob)(np.full_like(LOGITS, z), LOGITS)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-37)


def test_log_prob_is_linear_in_relaxed_z():
    z, logits = (np.linspace(a, b, 7, dtype=np.float32) for a, b in [(0, 1), (-9, 9)])
    expected = np.float64(z) * np.float64(logits) - softplus(logits)
    np.testing.assert_allclose(jax.jit(bernoulli.log_prob)(z, logits), expected, rtol=1e-5)


@pytest.mark.parametrize("z", [0.0, 0.3, 1.0])
def test_log_prob_derivatives(z):
    z = np.float32(z)
    first = jax.grad(bernoulli.log_prob, argnums=(0, 1))
    second = jax.grad(jax.grad(bernoulli.log_prob, argnums=1), argnums=1)
    both = jax.vmap(lambda z, x: (first(z, x), second(z, x)), (None, 0))
    (by_z, by_logits), curvature = jax.jit(both)(z, LOGITS)
    q = sigmoid(LOGITS)
    np.testing.assert_array_equal(by_z, LOGITS)
    np.testing.assert_allclose(by_logits, z - q, rtol=1e-6, atol=1e-7)
    # Includes l = 0, where differentiating |l| and max(l, 0) would give the wrong curvature.
    np.testing.assert_allclose(curvature, -q * (1 - q), atol=1e-7)


def test_log_prob_broadcasts_samples_against_a_batch():
    z = np.float32(np.random.default_rng(0).random((4, 5, 3)) < 0.5)
    logits = np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)
    expected = np.float64(z) * logits - softplus(logits)
    np.testing.assert_allclose(jax.jit(bernoulli.log_prob)(z, logits), expected, rtol=1e-6)


def test_entropy_and_its_gradient():
    expected = sigmoid(LOGITS) * softplus(-LOGITS) + sigmoid(-LOGITS) * softplus(LOGITS)
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(bernoulli.entropy)))(LOGITS)
    np.testing.assert_allclose(value, expected, rtol=3e-6, atol=1e-30)
    np.testing.assert_allclose(gradient, -LOGITS * sigmoid(LOGITS) * sigmoid(-LOGITS), atol=1e-7)


def test_kl_and_its_gradient():
    q, p = (x.ravel() for x in np.meshgrid(LOGITS, LOGITS))
    on = sigmoid(q) * (softplus(-p) - softplus(-q))
    off = sigmoid(-q) * (softplus(p) - softplus(q))
    both = jax.jit(jax.vmap(jax.value_and_grad(bernoulli.kl, argnums=(0, 1))))
    value, (by_q, by_p) = both(q, p)
    np.testing.assert_allclose(value, on + off, rtol=1e-5, atol=1e-6)
    gap = np.float64(q) - np.float64(p)
    error = np.abs(by_q - sigmoid(q) * sigmoid(-q) * gap)
    assert np.all(error <= 1e-7 * (1 + np.abs(gap)) + 1e-5 * np.abs(by_q))
    np.testing.assert_allclose(by_p, sigmoid(p) - sigmoid(q), atol=1e-6)


def test_sample_frequencies():
    logits = np.float32([-6, -1, 0, 2.5])
    draw = jax.jit(bernoulli.sample, static_argnums=2)
    z = np.asarray(draw(jax.random.key(3), logits, (100_000,)), np.float64)
    q = sigmoid(logits)
    assert np.all(np.abs(z.mean(0) - q) < 5 * z.std(0) / np.sqrt(len(z)))


def test_sample_is_certain_where_the_probability_rounds_to_zero_or_one():
    draw = jax.jit(bernoulli.sample, static_argnums=2)
    z = draw(jax.random.key(4), np.float32([-1e4, 1e4]), (50_000,))
    np.testing.assert_array_equal(z, np.tile(np.float32([0, 1]), (50_000, 1)))


def test_support_lists_every_vector_of_bits_once():
    states = jax.jit(bernoulli.support)(np.zeros((2, 3), jnp.bfloat16))
    assert states.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.float32(states), list(itertools.product((0, 1), repeat=3)))
