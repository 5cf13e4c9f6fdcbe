"""ReinMax: a hard sample forward, a second-order accurate gradient backward.

For a sample D and an independent j ~ p, both one-hot,

    dz/dl = 1/2 E_j[(D - j)(D - j)^T] = 1/2 (diag(D) + diag(p) - D p^T - p D^T),

which integrates f(D) - f(j) by the trapezoidal rule (Heun's method), where straight-through takes
a single end (Euler's). For one variable the expected gradient is exact if f is quadratic.
Nothing needs to be tuned: the paper's temperature is 1 here.

Reference: Liu, Dong, Liu, Yu and Gao, "Bridging Discrete and Backpropagation: Straight-Through
and Beyond" (2023), whose 2 S((D + p) / 2) - S(p) / 2, S(p) = diag(p) - p p^T, is the same matrix.
"""

import jax
import jax.numpy as jnp

from dvae import distributions
from dvae._numerics import ArrayLike, as_float, upcast

__all__ = ["bernoulli", "categorical"]


def bernoulli(key: jax.Array, logits: ArrayLike) -> jax.Array:
    """Draws bits with the gradient of ReinMax: half the probability of the other value.

    Args:
        key: typed PRNG key.
        logits: [...] float.

    Returns:
        [...] exactly 0 or 1, in the dtype of logits; dz/dl = (1-q)/2 if z = 1, else q/2.
    """
    return _bernoulli(distributions.bernoulli.sample(key, logits), as_float(logits))


@jax.custom_jvp
def _bernoulli(z: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns z with the gradient in logits of ReinMax."""
    return z


@_bernoulli.defjvp
def _bernoulli_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    z, logits = primals
    wide = upcast(logits)
    slope = 0.5 * jax.nn.sigmoid(jnp.where(z > 0, -wide, wide))
    return z, (slope * tangents[1]).astype(z.dtype)


def categorical(key: jax.Array, logits: ArrayLike) -> jax.Array:
    """Draws one-hot vectors with the gradient of ReinMax (see the module).

    Args:
        key: typed PRNG key.
        logits: [..., C] float.

    Returns:
        [..., C] exactly 0 or 1, in the dtype of logits;
        dz/dl = (diag(z) + diag(p) - z p^T - p z^T) / 2, p = softmax(l).
    """
    return _categorical(distributions.categorical.sample(key, logits), as_float(logits))


@jax.custom_jvp
def _categorical(z: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns z with the gradient in logits of ReinMax."""
    return z


@_categorical.defjvp
def _categorical_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    z, logits = primals
    tangent, hard, probs = upcast(tangents[1]), upcast(z), jax.nn.softmax(upcast(logits))
    by_probs = jnp.sum(probs * tangent, axis=-1, keepdims=True)
    by_hard = jnp.sum(hard * tangent, axis=-1, keepdims=True)
    total = hard * (tangent - by_probs) + probs * (tangent - by_hard)
    return z, (0.5 * total).astype(z.dtype)
