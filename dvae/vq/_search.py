"""The search for the nearest code, and the origin from which vectors and codes are measured.

Distances do not change with the origin, but |v|^2 - 2 v.m + |m|^2 loses the digits that |v|^2 and
|m|^2 have in common. With unit spread around 1,000 in 64 dimensions that is 8 of 10 nearest codes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dvae.vq._products import matmul

_BLOCK_SIZE = 2**17  # float32 numbers that stay in a core's cache, four times the speed
# Codes are scaled to 2^44 and vectors to 2^82 / D at most. Squares of codes that are 2^100 times
# smaller than the largest one are still normal numbers, and no product, 2^126, overflows.
CODE_EXPONENT, PRODUCT_EXPONENT = 44, 126


def dot(vectors: jax.Array, codebook: jax.Array) -> jax.Array:
    """Returns the inner products [..., C] of vectors [..., D] and codes [C, D]."""
    return matmul(vectors, codebook.T)


def per_code(values: jax.Array, ndim: int) -> jax.Array:
    """Returns values [C] with leading axes of size one, ready to broadcast against ndim axes."""
    return values.reshape((1,) * (ndim - 1) + values.shape)


def scale_to(exponent: int, x: jax.Array) -> jax.Array:
    """Returns the power of two by which the largest |x| comes into [2^exponent / 2, 2^exponent).

    Multiplying and dividing by it rounds nothing: it and its reciprocal are normal numbers.

    Args:
        exponent: of two.
        x: float32 or float64, at least one number, all finite.

    Returns:
        [], in the dtype of x.
    """
    info = jnp.finfo(x.dtype)
    _, own = jnp.frexp(jnp.max(jnp.abs(x)))
    power = jnp.clip(exponent - own, info.minexp, -info.minexp)
    return jnp.ldexp(jnp.ones((), x.dtype), power)


def is_finite(vectors: jax.Array) -> jax.Array:
    """Tells which vectors [..., D] have finite components only: bool [...]."""
    return jnp.all(jnp.isfinite(vectors), axis=-1)


def origin(codebook: jax.Array) -> jax.Array:
    """Chooses the code nearest to the mean of the finite codes, where most are much nearer to it.

    That is where more than half of them are at most half as far from it as from 0; elsewhere it is
    0, and codes around 0, or of all magnitudes up from 0, keep their digits. A code, unlike the
    mean, stays among the others however far a single code strays, and differences of integers or of
    neighbors are exact, so that ties stay ties.

    Args:
        codebook: [C, D] float32 or float64.

    Returns:
        [D], without gradient.
    """
    codebook = lax.stop_gradient(codebook)
    finite = is_finite(codebook)
    rows = jnp.where(finite[:, None], codebook, 0)
    count = jnp.sum(finite, dtype=jnp.int32)
    # Divided first: a sum of large codes would overflow. A product, which XLA computes only once.
    weights = finite.astype(rows.dtype) / jnp.maximum(count, 1).astype(rows.dtype)
    mean = jnp.matmul(weights, rows, precision=lax.Precision.HIGHEST)
    far = jnp.where(finite, 0, jnp.inf)
    nearest = rows[jnp.argmin(jnp.max(jnp.abs(rows - mean[None]), axis=-1) + far)]
    near = jnp.max(jnp.abs(rows - nearest[None]), axis=-1) <= jnp.max(jnp.abs(rows), axis=-1) / 2
    return jnp.where(2 * jnp.sum(near & finite, dtype=jnp.int32) > count, nearest, 0)


class _Target(NamedTuple):
    """A codebook ready to be searched: moved to its origin and scaled by a power of two."""

    codes: jax.Array  # [C, D], 0 where not finite
    half_norms: jax.Array  # [C], infinite where the code is not finite
    numbers: jax.Array  # [C], the code's index; C where it is not finite
    origin: jax.Array  # [D], scaled
    scale: jax.Array  # []


def _target(codebook: jax.Array) -> _Target:
    num_codes, dtype = codebook.shape[0], codebook.dtype
    finite = is_finite(codebook)
    codebook = jnp.where(finite[:, None], codebook, 0)
    scale = scale_to(CODE_EXPONENT, codebook)
    center = scale * origin(codebook)
    codes = jnp.where(finite[:, None], scale * codebook - center[None], 0)
    half_norms = jnp.where(finite, 0.5 * jnp.sum(jnp.square(codes), axis=-1), jnp.inf)
    # CPUs vectorize a minimum over floats, which count to 2^24 only (float32).
    counts_exactly = num_codes <= 2 ** (jnp.finfo(dtype).nmant + 1)
    numbers = jnp.where(finite, lax.iota(jnp.int32, num_codes), num_codes)
    numbers = numbers.astype(dtype) if counts_exactly else numbers
    return _Target(codes, half_norms, numbers, center, scale)


def _search(vectors: jax.Array, target: _Target) -> jax.Array:
    """Returns the lowest index [...] of the smallest |m_k|^2 / 2 - v.m_k."""
    num_codes, ndim = target.numbers.shape[0], vectors.ndim
    length = jnp.max(jnp.abs(vectors), axis=-1, keepdims=True)
    # Of a vector that is very long beside the codebook only the direction counts. One that is not
    # finite becomes NaN, has NaN for all its scores, and none of them is the smallest.
    longest = 2.0 ** (PRODUCT_EXPONENT - CODE_EXPONENT) / vectors.shape[-1]
    limit = jnp.minimum(longest / target.scale, jnp.finfo(vectors.dtype).max)
    scale = jnp.where(length <= limit, target.scale, longest / length)
    vectors = scale * vectors - per_code(target.origin, ndim)
    scores = per_code(target.half_norms, ndim) - dot(vectors, target.codes)
    # Two reductions over floats, which CPUs vectorize; they run argmin one element at a time.
    best = jnp.min(scores, axis=-1, keepdims=True)
    index = jnp.where(scores == best, per_code(target.numbers, ndim), num_codes)
    return jnp.min(index, axis=-1).astype(jnp.int32)


def _search_in_blocks(vectors: jax.Array, target: _Target) -> jax.Array:
    """Searches as `_search` does, a few rows at a time."""
    num_codes, dim = target.codes.shape
    rows = max(1, _BLOCK_SIZE // max(num_codes, dim))
    codes = lax.map(
        lambda vector: _search(vector, target), vectors.reshape(-1, dim), batch_size=rows
    )
    return codes.reshape(vectors.shape[:-1])


@jax.jit
def nearest(vectors: jax.Array, codebook: jax.Array) -> jax.Array:
    """Returns the nearest code [...] of vectors [..., D] in a codebook [C, D] of their dtype."""
    if codebook.shape[-1] == 1:
        # A product over one component is a multiplication, which XLA fuses into both reductions of
        # `_search`, with another rounding in each: no score would be equal to the smallest one.
        vectors, codebook = (
            jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 1)]) for x in (vectors, codebook)
        )
    target = _target(codebook)
    return lax.platform_dependent(vectors, target, cpu=_search_in_blocks, default=_search)
