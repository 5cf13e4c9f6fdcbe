"""Finite scalar quantization: every component is bounded and rounded to one of L_i levels.

There is no codebook to learn and no auxiliary loss; the codes are a grid of prod L_i points. The
paper's grids: (8, 6, 5) for 240 codes, (8, 5, 5, 5) for 1,000, (7, 5, 5, 5, 5) for 4,375 and
(8, 8, 8, 6, 5) for 15,360; it advises 5 levels or more. With 2 levels the boundary is far from the
origin, at v = -3.80.

    q, codes = fsq.quantize(v, (8, 5, 5, 5))       # v [..., 4]
    fsq.lookup(codes, (8, 5, 5, 5)) == q
    vq.unpack_codes(codes, (8, 5, 5, 5))           # [..., 4], a digit for each component
    vq.perplexity(vq.usage(codes, 1000))

Source: Mentzer, Minnen, Agustsson and Tschannen (2023), Finite Scalar Quantization: VQ-VAE Made
Simple, arXiv:2309.15505, section 3.1.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import ArrayLike, upcast
from dvae.vq._checks import as_codes, check_radices, count_codes
from dvae.vq._common import Quantized, QuantizedDigits, as_vectors, per_component
from dvae.vq.codebook import straight_through
from dvae.vq.digits import pack_digits, unpack_codes

__all__ = ["codes_of_values", "lookup", "lookup_digits", "quantize", "quantize_digits"]

_MARGIN = 1e-3  # the bound's excess over the outer levels, which tanh would reach at infinity only


def quantize(v: ArrayLike, levels: Sequence[int]) -> Quantized:
    """Rounds every component to one of its levels, with a straight-through gradient.

        half = (L - 1) (1 + 1e-3) / 2,  offset = 1/2 if L is even, else 0
        b = half tanh(v + atanh(offset / half)) - offset
        q = round(b) / floor(L / 2),  dq/dv = db/dv / floor(L / 2)

    All of it is computed in float32 at least. The gradient stays accurate where tanh rounds to 1.

    Args:
        v: [..., d] real, any magnitude; also infinite.
        levels: L_i, d static integers >= 2 with a product below 2^31.

    Returns:
        q [..., d] in [-1, 1], in the dtype of v, and codes [...] int32 in 0 .. prod L_i - 1, the
        first component varying fastest. A NaN gives NaN, and the code prod L_i.

    Raises:
        ValueError: the levels do not fit v, or their product does not fit int32.

    Source: Mentzer et al. (2023), section 3.1 and appendix A.
    """
    levels = check_radices("levels", levels, at_least=2)
    count_codes(levels, "call quantize_digits")
    q, digits = quantize_digits(v, levels)
    return Quantized(q, pack_digits(digits, levels))


def quantize_digits(v: ArrayLike, levels: Sequence[int]) -> QuantizedDigits:
    """Rounds every component as `quantize` does, and returns the level of each.

    Args:
        v: [..., d] real, any magnitude.
        levels: L_i, d static integers >= 2, of any product.

    Returns:
        q [..., d] in the dtype of v, and digits [..., d] int32 in 0 .. L_i - 1. A NaN gives NaN,
        and the digit L_i.

    Raises:
        ValueError: the levels do not fit v.
    """
    v = as_vectors(v)
    levels = check_radices("levels", levels, v.shape[-1], at_least=2)
    sizes = np.array(levels)
    half = (sizes - 1) * (1 + _MARGIN) / 2
    offset = np.where(sizes % 2 == 0, 0.5, 0.0)
    wide = upcast(v)
    row = lambda values: per_component(values, wide.ndim, wide.dtype)
    bounded = row(half) * _tanh(wide + row(np.arctanh(offset / half))) - row(offset)
    # From a thousand levels on the bound's excess would round to levels beyond the last.
    steps = jnp.clip(jnp.round(bounded) + row(sizes // 2), 0, row(sizes - 1))
    digits = jnp.where(jnp.isnan(steps), row(sizes), steps).astype(jnp.int32)
    q = lookup_digits(digits, levels, dtype=wide.dtype)
    q = straight_through(bounded / row(sizes // 2), q)
    return QuantizedDigits(q.astype(v.dtype), digits)


def lookup(codes: ArrayLike, levels: Sequence[int], *, dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Computes the values of codes, those that `quantize` returns with them.

    Args:
        codes: [...] integer in 0 .. prod L_i - 1.
        levels: L_i, d static integers >= 2 with a product below 2^31.
        dtype: of the result.

    Returns:
        [..., d] in [-1, 1]; NaN for a code that is out of range.

    Raises:
        ValueError: the levels are no such integers.
        TypeError: the codes are not integers.
    """
    levels = check_radices("levels", levels, at_least=2)
    return lookup_digits(unpack_codes(codes, levels), levels, dtype=dtype)


def lookup_digits(
    digits: ArrayLike, levels: Sequence[int], *, dtype: jnp.dtype = jnp.float32
) -> jax.Array:
    """Computes the values of levels: (digit - floor(L / 2)) / floor(L / 2).

    Args:
        digits: [..., d] integer in 0 .. L_i - 1.
        levels: L_i, d static integers >= 2.
        dtype: of the result; computed in float32 at least and rounded once.

    Returns:
        [..., d] in [-1, 1]; NaN for a digit that is out of range.

    Raises:
        ValueError: the levels do not fit the digits.
        TypeError: the digits are not integers.
    """
    digits = as_codes(digits, "digits")
    if digits.ndim < 1:
        raise ValueError(f"digits must be [..., d], got {digits.shape}")
    levels = check_radices("levels", levels, digits.shape[-1], at_least=2)
    wide = jnp.promote_types(dtype, jnp.float32)
    row = lambda values, dtype: per_component(values, digits.ndim, dtype)
    sizes = np.array(levels)
    in_range = (digits >= 0) & (digits < row(sizes, digits.dtype))
    # The selection keeps XLA from multiplying by a rounded 1 / floor(L / 2), as it does for a
    # constant divisor: 49 (1 / 49) is not 1, and compiled values would differ from eager ones.
    divisor = jnp.where(in_range, row(sizes // 2, wide), jnp.nan)
    return ((digits - row(sizes // 2, digits.dtype)).astype(wide) / divisor).astype(dtype)


def codes_of_values(q: ArrayLike, levels: Sequence[int]) -> jax.Array:
    """Computes the codes of quantized values, the inverse of `lookup`.

    Args:
        q: [..., d] real in [-1, 1], values of `quantize` or `lookup`; others count as the nearest.
        levels: L_i, d static integers >= 2 with a product below 2^31. Half precision must tell the
            levels apart: at most 513 of them in bfloat16, 4,097 in float16.

    Returns:
        [...] int32; prod L_i where a value is NaN or nearest to no level.

    Raises:
        ValueError: the levels do not fit q, or the dtype of q does not tell them apart.
    """
    q = as_vectors(q)
    levels = check_radices("levels", levels, q.shape[-1], at_least=2)
    largest = round(2 / float(jnp.finfo(q.dtype).eps))
    if max(levels) // 2 > largest:
        raise ValueError(
            f"levels must be at most {2 * largest + 1} for values in {q.dtype} to tell them apart "
            f"(keep the codes, or the values in a wider dtype), got {levels}"
        )
    wide = upcast(q)
    row = lambda values: per_component(values, wide.ndim, wide.dtype)
    sizes = np.array(levels)
    steps = jnp.round(wide * row(sizes // 2)) + row(sizes // 2)
    in_range = (steps >= 0) & (steps < row(sizes))
    return pack_digits(jnp.where(in_range, steps, row(sizes)).astype(jnp.int32), levels)


@jax.custom_jvp
def _tanh(x: jax.Array) -> jax.Array:
    """Evaluates tanh x."""
    return jnp.tanh(x)


@_tanh.defjvp
def _tanh_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    # 1 - tanh(x)^2 loses its digits as tanh rounds, and is 0 from |x| = 9 on: a component that far
    # out would never return.
    (x,), (dx,) = primals, tangents
    decay = jnp.exp(-2 * jnp.abs(x))
    return _tanh(x), 4 * decay / jnp.square(1 + decay) * dx
