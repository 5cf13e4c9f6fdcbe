"""Codes of several components, as one integer or as a digit for each component.

A quantizer of d components with L_i values each has prod L_i codes:

    code = sum_i digit_i prod_{j<i} L_j,  digit_i in 0 .. L_i - 1

so the first component varies fastest, as the publications of FSQ, LFQ and BSQ have it. The radices
are the levels of `fsq`, (2,) * d for `lfq` and `bsq`, and (C,) * R for the stages of `residual`.

What has no code, because of a NaN, has one that is out of range: as a digit L_i, as an integer
prod L_i. Either is turned into the other, and into NaN by the quantizers' `lookup`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import ArrayLike
from dvae.vq._checks import as_codes, check_radices, count_codes
from dvae.vq._common import as_mask, check_mask, per_component
from dvae.vq.codebook import usage

__all__ = ["NO_CODE", "digit_usage", "mask_codes", "pack_digits", "unpack_codes"]

NO_CODE = -1  # counts nowhere: `usage` and `ema_update` leave it out


def pack_digits(digits: ArrayLike, radices: Sequence[int]) -> jax.Array:
    """Computes the integer code = sum_i digit_i prod_{j<i} L_j.

    Args:
        digits: [..., d] integer in 0 .. L_i - 1, such as the codes of `residual`, or bits.
        radices: L_i, d static integers >= 1 with a product below 2^31.

    Returns:
        [...] int32 in 0 .. prod L_i - 1; prod L_i where a digit is out of range.

    Raises:
        ValueError: the radices do not fit the digits, or their product does not fit int32.
        TypeError: the digits are not integers.
    """
    digits = as_codes(digits, "digits")
    if digits.ndim < 1:
        raise ValueError(f"digits must be [..., d], got {digits.shape}")
    radices = check_radices("radices", radices, digits.shape[-1])
    num_codes = count_codes(radices, "keep the digits on the last axis")
    limits = per_component(np.array(radices), digits.ndim, digits.dtype)
    places = per_component(_places(radices), digits.ndim, digits.dtype)
    in_range = (digits >= 0) & (digits < limits)
    code = jnp.sum(digits * places, axis=-1, dtype=jnp.int32)
    return jnp.where(jnp.all(in_range, axis=-1), code, num_codes)


def unpack_codes(codes: ArrayLike, radices: Sequence[int]) -> jax.Array:
    """Computes the digits of integer codes: digit_i = (code // prod_{j<i} L_j) mod L_i.

    Args:
        codes: [...] integer in 0 .. prod L_i - 1.
        radices: L_i, d static integers >= 1 with a product below 2^31.

    Returns:
        [..., d] int32 in 0 .. L_i - 1; L_i, all of them, for a code that is out of range.

    Raises:
        ValueError: the radices are no such integers.
        TypeError: the codes are not integers.
    """
    codes = as_codes(codes)[..., None]
    radices = check_radices("radices", radices)
    num_codes = count_codes(radices, "keep the digits on the last axis")
    limits = per_component(np.array(radices), codes.ndim, codes.dtype)
    places = per_component(_places(radices), codes.ndim, codes.dtype)
    in_range = (codes >= 0) & (codes < num_codes)
    return jnp.where(in_range, codes // places % limits, limits)


def mask_codes(codes: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Replaces the codes of positions that do not count by -1, `NO_CODE`.

    `usage` and `ema_update` leave those out. Look codes up before they are masked.

    Args:
        codes: [...] integer.
        mask: [...] boolean, true where a position counts.

    Returns:
        [...] int32.

    Raises:
        ValueError: the mask is not boolean or has another shape.
        TypeError: the codes are not integers.
    """
    codes = as_codes(codes)
    return jnp.where(as_mask(mask, codes.shape), codes, NO_CODE)


def digit_usage(
    digits: ArrayLike, radices: Sequence[int], *, mask: ArrayLike | None = None
) -> tuple[jax.Array, ...]:
    """Counts how often each value of each component occurs.

    It tells which levels, bits or stages are in use where prod L_i counts would not fit in memory.
    Sum the counts over batches before taking a `perplexity`.

    Args:
        digits: [..., d] integer; what is out of range is left out.
        radices: L_i, d static integers >= 1.
        mask: [...] boolean, true where a position counts; all by default.

    Returns:
        d arrays of counts, the i-th [L_i] int32.

    Raises:
        ValueError: the radices or the mask do not fit the digits.
        TypeError: the digits are not integers.
    """
    digits = as_codes(digits, "digits")
    if digits.ndim < 1:
        raise ValueError(f"digits must be [..., d], got {digits.shape}")
    radices = check_radices("radices", radices, digits.shape[-1])
    mask = check_mask(mask, digits.shape[:-1])
    if mask is not None:
        digits = jnp.where(mask[..., None], digits, NO_CODE)
    return tuple(usage(digits[..., i], size) for i, size in enumerate(radices))


def _places(radices: tuple[int, ...]) -> np.ndarray:
    """Returns the value of a one in each component: prod_{j<i} L_j."""
    return np.cumprod((1, *radices[:-1]), dtype=np.int64)
