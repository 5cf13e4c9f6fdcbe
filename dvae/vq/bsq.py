"""Binary spherical quantization: the signs of a unit vector, scaled back to the unit sphere.

    q, codes = bsq.quantize(v)                     # v [..., d]
    losses = bsq.losses(v, inverse_temperature=100.0)

Codes are those of `lfq`: an integer for d up to 30, bits beyond. |v - q| is bounded, so the
commitment may have weight 0.

Source: Zhao, Xiong and Krähenbühl (2024), Image and Video Tokenization with Binary Spherical
Quantization, arXiv:2406.07548, section 4.
"""

import math

import jax
import jax.numpy as jnp

from dvae._checks import check_positive
from dvae._numerics import ArrayLike, upcast
from dvae.vq import lfq
from dvae.vq._common import (
    Quantized,
    QuantizedDigits,
    as_vectors,
    check_mask,
    normalize,
    select,
)
from dvae.vq.codebook import straight_through

__all__ = ["lookup", "lookup_bits", "losses", "quantize", "quantize_bits"]


def quantize(v: ArrayLike) -> Quantized:
    """Takes signs of the unit vector u = v / |v|: q = sign(u) / sqrt d.

    The gradient is the identity to u, hence (I - u u^T) / |v| to v. It is 0 for a zero vector.

    Args:
        v: [..., d] real, d at most 30.

    Returns:
        q [..., d] of length 1, in the dtype of v, and codes [...] int32, sum_i 2^i [v_i > 0]. A NaN
        gives NaN, and the code 2^d.

    Raises:
        ValueError: d is 0, or 2^d codes do not fit int32.

    Source: Zhao et al. (2024), section 4.
    """
    v = as_vectors(v)
    codes = lfq.quantize(v).codes
    return Quantized(quantize_bits(v).q, codes)


def quantize_bits(v: ArrayLike) -> QuantizedDigits:
    """Takes signs as `quantize` does, of any number of components, and returns them as bits.

    Args:
        v: [..., d] real.

    Returns:
        q [..., d] in the dtype of v, and digits [..., d] int32, 1 where v > 0, else 0. A NaN gives
        NaN, and the digit 2.

    Raises:
        ValueError: d is 0.
    """
    v = as_vectors(v)
    bits = lfq.quantize_bits(v).digits
    unit, _ = normalize(upcast(v))
    q = straight_through(unit, lookup_bits(bits, dtype=unit.dtype))
    return QuantizedDigits(q.astype(v.dtype), bits)


def lookup(codes: ArrayLike, num_bits: int, *, dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Computes the values of codes.

    Args:
        codes: [...] integer in 0 .. 2^d - 1.
        num_bits: d, from 1 to 30.
        dtype: of the result.

    Returns:
        [..., d] of length 1; NaN for a code that is out of range.

    Raises:
        ValueError: d is out of range.
        TypeError: the codes are not integers.
    """
    wide = jnp.promote_types(dtype, jnp.float32)
    return (lfq.lookup(codes, num_bits, dtype=wide) * num_bits**-0.5).astype(dtype)


def lookup_bits(bits: ArrayLike, *, dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Computes the values of bits, (2 bit - 1) / sqrt d.

    Args:
        bits: [..., d] integer or boolean.
        dtype: of the result.

    Returns:
        [..., d] of length 1; NaN for what is no bit.

    Raises:
        ValueError: d is 0.
        TypeError: the bits are neither integers nor booleans.
    """
    wide = jnp.promote_types(dtype, jnp.float32)
    values = lfq.lookup_bits(bits, dtype=wide)
    return (values * as_vectors(values).shape[-1] ** -0.5).astype(dtype)


def losses(
    v: ArrayLike, *, inverse_temperature: ArrayLike = 100.0, mask: ArrayLike | None = None
) -> lfq.Losses:
    """Computes the commitment |u - sg(q)|^2 and the entropies of the soft assignment p(c|u).

        p(c|u) proportional to exp(-beta |u - c|^2), c in {-1, 1}^d / sqrt d

    On the sphere |u - c|^2 = 2 - 2 u.c, so that this is exp(2 beta u.c), up to a factor. The
    entropies are sums over bits, and the marginal one an upper bound, as in `lfq.losses`.

    Args:
        v: [..., d] real.
        inverse_temperature: beta, scalar, > 0.
        mask: [...] boolean, true where a position counts; all by default. Without one the losses
            are 0.

    Returns:
        lfq.Losses, scalars in float32 at least; both entropies in nats, from 0 to d log 2.

    Raises:
        ValueError: d is 0, beta is not positive, or the mask does not fit v.

    Source: Zhao et al. (2024), section 4.
    """
    check_positive("inverse_temperature", inverse_temperature)
    v = upcast(as_vectors(v))
    mask = check_mask(mask, v.shape[:-1])
    dim = v.shape[-1]
    unit, _ = normalize(select(v, mask))
    # In units of 1 / sqrt d the codes are those of lfq, and squared distances d times larger.
    found = lfq.losses(
        math.sqrt(dim) * unit,
        inverse_temperature=jnp.asarray(inverse_temperature, v.dtype) / dim,
        mask=mask,
    )
    return found._replace(commitment=found.commitment / dim)
