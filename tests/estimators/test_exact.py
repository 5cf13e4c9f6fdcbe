"""`estimators.exact` against itertools and the score-function identity, in float64 NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import distributions, estimators


def sigmoid(x):
    return 1 / (1 + np.exp(-np.float64(x)))


def test_bernoulli_expectation_and_its_gradients():
    logits = np.float32(np.random.default_rng(0).normal(size=(2, 4)))
    scale = np.float32(1.3)

    def f(z, scale=scale):
        return jnp.cos(scale * z @ np.arange(1.0, 5.0, dtype=np.float32))

    def total(logits, scale):
        values = estimators.exact(lambda z: f(z, scale), logits)
        return values.sum(), values

    grad = jax.jit(jax.grad(total, (0, 1), has_aux=True))
    (by_logits, by_scale), values = grad(logits, scale)

    states = np.array(list(itertools.product((0, 1), repeat=4)))[:, None]  # [S, 1, n]
    p = sigmoid(logits)
    q = np.prod(np.where(states, p, 1 - p), axis=-1)  # [S, batch]
    phase = states @ np.arange(1.0, 5.0)
    np.testing.assert_allclose(values, (q * np.cos(scale * phase)).sum(0), rtol=1e-5)
    score = (q * np.cos(scale * phase))[..., None] * (states - p)
    np.testing.assert_allclose(by_logits, score.sum(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(by_scale, -(q * phase * np.sin(scale * phase)).sum(), rtol=1e-4)


def test_categorical_expectation():
    logits = np.float32(np.random.default_rng(1).normal(size=(2, 3)))
    table = np.float32(np.random.default_rng(2).normal(size=(3, 3)))
    p = np.exp(np.float64(logits))
    p /= p.sum(-1, keepdims=True)

    def f(z):
        return jnp.einsum("...i,ij,...j->...", z[..., 0, :], table, z[..., 1, :])

    exact = jax.jit(lambda x: estimators.exact(f, x, family=distributions.categorical))
    np.testing.assert_allclose(exact(logits), p[0] @ table @ p[1], rtol=1e-5)


def test_f_is_called_once_with_the_states_broadcast_over_the_batch():
    shapes = []

    def f(z):
        shapes.append((z.shape, z.dtype))
        return z.sum(-1)

    jax.eval_shape(lambda x: estimators.exact(f, x), jnp.zeros((5, 2, 3), jnp.bfloat16))
    assert shapes == [((8, 5, 2, 3), jnp.bfloat16)]


def test_states_without_mass_may_have_an_infinite_value():
    logits = np.float32([[-np.inf, 0.0, 1.0]])

    def f(z):
        return jnp.where(z[..., 0, 0] > 0, -jnp.inf, z[..., 0, 1])

    exact = jax.value_and_grad(lambda x: estimators.exact(f, x, family=distributions.categorical))
    value, gradient = jax.jit(exact)(logits)
    p = sigmoid(-1.0)
    np.testing.assert_allclose(value, p, rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0, p * (1 - p), -p * (1 - p)]], atol=1e-6)


def test_too_many_states_are_refused():
    with pytest.raises(ValueError, match="21 units of 2 classes have 2097152 joint states"):
        estimators.exact(lambda z: z.sum(-1), jnp.zeros(21))


def test_f_must_reduce_z_to_one_value():
    with pytest.raises(ValueError, match=r"\(8, 3\).*\(8,\)"):
        estimators.exact(lambda z: z, jnp.zeros(3))
