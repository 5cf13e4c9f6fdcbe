"""What the counts of a codebook's codes tell: the effective number of codes, and the dead ones."""

import jax
import jax.numpy as jnp
from jax import lax

from dvae._numerics import ArrayLike, upcast
from dvae.vq._common import is_dead

__all__ = ["num_dead", "perplexity"]


def _as_counts(counts: ArrayLike) -> jax.Array:
    """Returns counts [..., C] in float32 at least, or raises ValueError if there is no code."""
    counts = upcast(counts)
    if counts.ndim < 1 or counts.shape[-1] == 0:
        raise ValueError(f"counts must be [..., C] of at least one code, got {counts.shape}")
    return counts


def perplexity(counts: ArrayLike) -> jax.Array:
    """Computes exp(-sum_k p_k log p_k), p the frequencies: the effective number of codes in use.

    A code without counts passes no gradient; its derivative is infinite.

    Args:
        counts: [..., C], integer or float, >= 0: a `usage`, a sum of them, or EMA counts.

    Returns:
        [...], in [1, C] up to rounding, 1 where all counts are 0 and NaN where one is negative or
        not finite; float64 where counts are, else float32.

    Raises:
        ValueError: there is no code.
    """
    counts = _as_counts(counts)
    # Shares of the largest one: sums do not overflow, and equal counts give C exactly. XLA divides
    # by multiplying with 1 / largest, which is flushed to 0 above 2^126.
    largest = lax.stop_gradient(jnp.max(counts, axis=-1, keepdims=True))
    factor = jnp.where(largest > 1, jnp.asarray(2.0**-30, counts.dtype), 1)
    counts, largest = factor * counts, factor * largest
    shares = counts / jnp.where(largest == 0, 1, largest)
    used = shares != 0  # so for a NaN
    shares = jnp.where(used, shares, 0)
    total = jnp.sum(shares, axis=-1)
    total = jnp.where(total == 0, 1, total)
    logs = jnp.log(jnp.where(used, shares, 1))  # prevents 0 log 0 = NaN, and 1 / 0 in the gradient
    return total * jnp.exp(-jnp.sum(shares * logs, axis=-1) / total)


def num_dead(counts: ArrayLike, *, threshold: ArrayLike = 1.0) -> jax.Array:
    """Counts the codes with counts < threshold: those of a `usage` that never occurred.

    Args:
        counts: [..., C], integer or float; a NaN counts as dead.
        threshold: scalar, in the unit of counts; for EMA counts that of `restart_dead_codes`.

    Returns:
        [...], int32.

    Raises:
        ValueError: there is no code, or the threshold is no scalar.
    """
    return jnp.sum(is_dead(_as_counts(counts), threshold), axis=-1, dtype=jnp.int32)
