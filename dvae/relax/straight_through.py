"""Straight-through estimators: a hard sample forward, the gradient of its mean backward.

z + p - stop_gradient(p), with z ~ p: the forward value is z exactly, and dz/dl is taken to be
dp/dl. Biased, unless what follows is linear in z.

Reference: Bengio, Leonard and Courville, "Estimating or Propagating Gradients Through Stochastic
Neurons for Conditional Computation" (2013), where this is the variant that keeps the derivative of
the sigmoid.
"""

import jax

from dvae import distributions
from dvae._numerics import ArrayLike, sigmoid, upcast

__all__ = ["bernoulli", "categorical"]


def bernoulli(key: jax.Array, logits: ArrayLike) -> jax.Array:
    """Draws bits that pass on the gradient of sigmoid(l).

    Args:
        key: typed PRNG key.
        logits: [...] float.

    Returns:
        [...] exactly 0 or 1, in the dtype of logits; dz/dl = q (1 - q), q = sigmoid(l).
    """
    return _pass_gradient(distributions.bernoulli.sample(key, logits), sigmoid(upcast(logits)))


def categorical(key: jax.Array, logits: ArrayLike) -> jax.Array:
    """Draws one-hot vectors that pass on the gradient of softmax(l).

    Args:
        key: typed PRNG key.
        logits: [..., C] float.

    Returns:
        [..., C] exactly 0 or 1, in the dtype of logits; dz/dl = diag(p) - p p^T, p = softmax(l).
    """
    z = distributions.categorical.sample(key, logits)
    return _pass_gradient(z, jax.nn.softmax(upcast(logits)))


def _pass_gradient(z: jax.Array, probs: jax.Array) -> jax.Array:
    """Returns z with the gradient of probs; the difference is formed first, so it is exactly 0."""
    return z + (probs - jax.lax.stop_gradient(probs)).astype(z.dtype)
