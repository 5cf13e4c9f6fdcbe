"""Codebooks searched by angle: vectors and codes are put on the unit sphere first.

    q, codes = cosine.quantize(v, codebook)        # v [..., D], codebook [C, D] of any lengths
    losses = cosine.losses(v, codes, codebook)
    penalty = losses.codebook + 0.25 * losses.commitment

Source: Yu et al. (2021), Vector-quantized Image Modeling with Improved VQGAN, arXiv:2110.04627,
section 3.2.
"""

import jax
import jax.numpy as jnp
from jax import lax

from dvae._numerics import ArrayLike, as_float, float_dtype, upcast, wide_dtype
from dvae.vq._checks import check_dimensions
from dvae.vq._common import (
    Quantized,
    VQLosses,
    as_vectors,
    check_codes,
    check_mask,
    gather,
    mean,
    normalize,
    select,
)
from dvae.vq.codebook import codebook_loss, commitment_loss, nearest_code, straight_through

__all__ = ["lookup", "losses", "quantize", "unit"]


def unit(v: ArrayLike) -> jax.Array:
    """Returns u = v / |v|, accurate for lengths from 1e-31 to 1e38 (float32).

    A zero vector has no direction: it becomes the first axis, (1, 0, ..., 0), without a gradient.

    Args:
        v: [..., D] real.

    Returns:
        [..., D] of length 1, in the dtype of v; NaN where v is not finite.

    Raises:
        ValueError: D is 0.
    """
    v = as_vectors(v)
    return _unit(upcast(v)).astype(v.dtype)


def quantize(v: ArrayLike, codebook: ArrayLike) -> Quantized:
    """Finds the code at the smallest angle: argmax_k u.m^_k, u = v / |v|, m^_k = m_k / |m_k|.

    The gradient is the identity to u, hence (I - u u^T) / |v| to v; none flows to the codebook.

    Args:
        v: [..., D] real.
        codebook: [C, D] real, of any lengths.

    Returns:
        q [..., D], the code of length 1, in the wider of the dtypes, and codes [...] int32 in
        0 .. C-1. A vector that is not finite gets C and NaN.

    Raises:
        ValueError: the shapes do not fit.

    Source: Yu et al. (2021), section 3.2.
    """
    v, codebook = as_vectors(v), as_float(codebook)
    wide = wide_dtype(v, codebook)
    units, unit_codes = _unit(v.astype(wide)), _unit(lax.stop_gradient(codebook).astype(wide))
    codes = nearest_code(units, unit_codes)
    q = straight_through(units, gather(codes, unit_codes))
    return Quantized(q.astype(float_dtype(v, codebook)), codes)


def lookup(codes: ArrayLike, codebook: ArrayLike) -> jax.Array:
    """Gathers unit codes m_k / |m_k|, with a gradient to the codebook.

    Args:
        codes: [...] integer in 0 .. C-1.
        codebook: [C, D] real.

    Returns:
        [..., D] of length 1, in the dtype of the codebook; NaN for a code that is out of range.

    Raises:
        ValueError: the codebook is not [C, D].
        TypeError: the codes are not integers.
    """
    codebook = as_float(codebook)
    return gather(codes, _unit(upcast(codebook))).astype(codebook.dtype)


def losses(
    v: ArrayLike, codes: ArrayLike, codebook: ArrayLike, *, mask: ArrayLike | None = None
) -> VQLosses:
    """Computes the means of |sg(u) - m^|^2 and |u - sg(m^)|^2, both 2 - 2 cos of the angle.

    Args:
        v: [..., D] real.
        codes: [...] integer, those of `quantize`.
        codebook: [C, D] real.
        mask: [...] boolean, true where a position counts; all by default. Without one the losses
            are 0.

    Returns:
        VQLosses, scalars in [0, 4], float32 at least.

    Raises:
        ValueError: the shapes do not fit.
        TypeError: the codes are not integers.

    Source: Yu et al. (2021), section 3.2; the weights, 1 and 0.25 there, are left to the caller.
    """
    v, codebook = as_vectors(v), as_float(codebook)
    check_dimensions(v, codebook)
    mask = check_mask(mask, v.shape[:-1])
    codes = select(check_codes(codes, v.shape[:-1]), mask)
    wide = wide_dtype(v, codebook)
    units = _unit(select(v.astype(wide), mask))
    q = gather(codes, _unit(codebook.astype(wide)))
    return VQLosses(
        mean(codebook_loss(units, q), mask, v.ndim - 1),
        mean(commitment_loss(units, q), mask, v.ndim - 1),
    )


def _unit(v: jax.Array) -> jax.Array:
    """Returns unit vectors, the first axis for zero vectors; v is float32 at least."""
    units, length = normalize(v)
    first = lax.broadcasted_iota(jnp.int32, v.shape, v.ndim - 1) == 0
    return jnp.where(length == 0, first.astype(v.dtype), units)
