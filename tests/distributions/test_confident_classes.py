"""Categorical distributions with nearly all mass on one class, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.distributions import categorical

LOGITS = np.float32([[15, 0, 0], [0, 40, 1], [-2, -1, 9], [30, 30, 0], [0.3, 0.1, -0.2]])


def exact(logits):
    """log p and 1 - p [R, C], the largest class as what the others lack."""
    x = np.float64(logits)
    x = x - x.max(-1, keepdims=True)
    others = np.exp(x)[:, None, :] * (1 - np.eye(x.shape[-1]))
    rest = others.sum(-1) / np.exp(x).sum(-1, keepdims=True)
    plain = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return np.where(rest < 0.5, np.log1p(-np.minimum(rest, 0.5)), plain), rest


LOG_P, REST = exact(LOGITS)
P = np.exp(LOG_P)
JACOBIAN = np.where(np.eye(3, dtype=bool), REST[:, None, :], -P[:, None, :])  # [R, class, logit]


def derivatives(function):
    return jax.jit(jax.value_and_grad(lambda x: function(x).sum()))


@pytest.mark.parametrize("code", range(3))
def test_log_probs_keep_their_digits(code):
    z = np.tile(np.eye(3, dtype=np.float32)[code], (5, 1))
    function = lambda x: categorical.log_prob(z, x)
    np.testing.assert_allclose(jax.jit(function)(LOGITS), LOG_P[:, code], rtol=3e-6)
    gradient = derivatives(function)(LOGITS)[1]
    np.testing.assert_allclose(gradient, JACOBIAN[:, code], rtol=3e-6)


def test_log_probs_of_codes_are_right_to_the_digits_of_one():
    codes = np.int32([[0, 1, 2, 0, 1], [1, 0, 2, 1, 2]])
    function = lambda x: categorical.log_prob_of_codes(codes, x)
    rows = np.arange(5)
    np.testing.assert_allclose(jax.jit(function)(LOGITS), LOG_P[rows, codes], rtol=3e-6, atol=2e-7)
    first = derivatives(lambda x: categorical.log_prob_of_codes(codes[:1], x))(LOGITS)[1]
    np.testing.assert_allclose(first, JACOBIAN[rows, codes[0]], rtol=3e-6, atol=2e-7)


def test_entropies_keep_their_digits():
    logits, log_p, p = LOGITS[:3], LOG_P[:3], P[:3]
    entropy = -(p * log_p).sum(-1)
    found, gradient = jax.jit(jax.vmap(jax.value_and_grad(categorical.entropy)))(logits)
    np.testing.assert_allclose(found, entropy, rtol=3e-6)
    is_top = np.arange(3) == logits.argmax(-1)[:, None]
    slope = np.where(is_top, 0, -p * (log_p + entropy[:, None]))
    slope = np.where(is_top, -slope.sum(-1, keepdims=True), slope)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5)


@pytest.mark.thorough
def test_second_derivatives_are_those_of_the_plain_expressions():
    logits, z = jnp.float32([1, 1, 0]), jnp.float32([0.2, 0.3, 0.4])
    for ours, plain in (
        (lambda x: categorical.log_prob(z, x), lambda x: jnp.sum(z * jax.nn.log_softmax(x))),
        (
            categorical.entropy,
            lambda x: -jnp.sum(jax.nn.softmax(x) * jax.nn.log_softmax(x)),
        ),
    ):
        found, expected = (jax.jit(jax.hessian(f))(logits) for f in (ours, plain))
        np.testing.assert_allclose(found, expected, atol=1e-6)
