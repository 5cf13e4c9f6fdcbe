"""Lookup-free quantization: the signs of d components are the code, one of 2^d.

    q, codes = lfq.quantize(v)                     # v [..., d]
    losses = lfq.losses(v, inverse_temperature=100.0)
    penalty = 0.25 * losses.commitment + 0.1 * (
        losses.conditional_entropy - losses.marginal_entropy
    )

The entropies are sums over bits; nothing here has 2^d entries. The first makes every vector sure of
its code, the second spreads the codes.

Source: Yu et al. (2023), Language Model Beats Diffusion: Tokenizer is Key to Visual Generation,
arXiv:2310.05737, section 3.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dvae._checks import check_positive
from dvae._numerics import ArrayLike, sigmoid, upcast
from dvae.distributions import bernoulli
from dvae.vq._checks import count_codes
from dvae.vq._common import (
    Quantized,
    QuantizedDigits,
    as_codes,
    as_vectors,
    check_mask,
    mean,
    select,
)
from dvae.vq.codebook import commitment_loss, straight_through
from dvae.vq.digits import pack_digits, unpack_codes

__all__ = ["Losses", "lookup", "lookup_bits", "losses", "quantize", "quantize_bits"]


class Losses(NamedTuple):
    """Commitment and entropies, without weights: means over the positions that count."""

    commitment: jax.Array  # [], mean of |v - sg(q)|^2
    conditional_entropy: jax.Array  # [] nats, mean_x H(p(.|x)): to be small
    marginal_entropy: jax.Array  # [] nats, of the mean bits, >= H(mean_x p(.|x)): to be large


def quantize(v: ArrayLike) -> Quantized:
    """Takes signs, q = 1 if v > 0 else -1, with the identity as gradient.

    Args:
        v: [..., d] real, d at most 30.

    Returns:
        q [..., d] exactly 1 or -1, in the dtype of v, and codes [...] int32, sum_i 2^i [v_i > 0].
        A NaN gives NaN, and the code 2^d.

    Raises:
        ValueError: d is 0, or 2^d codes do not fit int32.

    Source: Yu et al. (2023), section 3.1.
    """
    v = as_vectors(v)
    _check_bits(v.shape[-1])
    q, bits = quantize_bits(v)
    return Quantized(q, pack_digits(bits, (2,) * v.shape[-1]))


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
    bits = jnp.where(jnp.isnan(v), 2, (v > 0).astype(jnp.int32))
    return QuantizedDigits(straight_through(v, lookup_bits(bits, dtype=v.dtype)), bits)


def lookup(codes: ArrayLike, num_bits: int, *, dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Computes the values of codes.

    Args:
        codes: [...] integer in 0 .. 2^d - 1.
        num_bits: d, from 1 to 30.
        dtype: of the result.

    Returns:
        [..., d] exactly 1 or -1; NaN for a code that is out of range.

    Raises:
        ValueError: d is out of range.
        TypeError: the codes are not integers.
    """
    _check_bits(num_bits)
    return lookup_bits(unpack_codes(codes, (2,) * num_bits), dtype=dtype)


def lookup_bits(bits: ArrayLike, *, dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Computes the values of bits, 2 bit - 1.

    Args:
        bits: [..., d] integer or boolean.
        dtype: of the result.

    Returns:
        [..., d] exactly 1 or -1; NaN for what is no bit.

    Raises:
        TypeError: the bits are neither integers nor booleans.
    """
    bits = as_codes(bits)
    return jnp.where((bits == 0) | (bits == 1), (2 * bits - 1).astype(dtype), jnp.nan).astype(dtype)


def losses(
    v: ArrayLike, *, inverse_temperature: ArrayLike = 100.0, mask: ArrayLike | None = None
) -> Losses:
    """Computes the commitment and the entropies of the soft assignment p(c|v).

        p(c|v) proportional to exp(-beta |v - c|^2), c in {-1, 1}^d: bits with logits 4 beta v_i
        conditional_entropy = mean_v sum_i H(p(c_i|v)), which is mean_v H(p(c|v))
        marginal_entropy = sum_i H(mean_v p(c_i|v)) >= H(mean_v p(c|v))

    The marginal entropy is that of independent bits. It exceeds the one over all 2^d codes by what
    the bits tell of each other (their total correlation).

    Under `jax.jit` with v sharded over devices the means are global; inside `jax.shard_map` they
    are those of a shard.

    Args:
        v: [..., d] real.
        inverse_temperature: beta, scalar, > 0.
        mask: [...] boolean, true where a position counts; all by default. Without one the losses
            are 0.

    Returns:
        Losses, scalars in float32 at least; both entropies in nats, from 0 to d log 2.

    Raises:
        ValueError: d is 0, beta is not positive, or the mask does not fit v.

    Source: Yu et al. (2023), section 3.1; for the sum over bits Zhao, Xiong and Krähenbühl (2024),
        arXiv:2406.07548, section 4.
    """
    check_positive("inverse_temperature", inverse_temperature)
    v = upcast(as_vectors(v))
    mask = check_mask(mask, v.shape[:-1])
    v = select(v, mask)
    num_axes = v.ndim - 1
    commitment = commitment_loss(v, quantize_bits(v).q)
    logits = 4 * jnp.asarray(inverse_temperature, v.dtype) * v
    entropy = jnp.sum(bernoulli.entropy(logits), axis=-1)
    # Both means: 1 - mean would lose the digits of a small one.
    on = mean(sigmoid(logits), mask, num_axes)
    off = mean(sigmoid(-logits), mask, num_axes)
    return Losses(
        mean(commitment, mask, num_axes),
        mean(entropy, mask, num_axes),
        jnp.sum(_surprise(on, off) + _surprise(off, on), axis=-1),
    )


def _surprise(p: jax.Array, rest: jax.Array) -> jax.Array:
    """Evaluates -p log p for p = 1 - rest, accurate at both ends; 0 where p has underflowed."""
    is_small = p < rest
    # Each logarithm is kept from the end at which it, or its slope, is infinite.
    of_small = jnp.log(jnp.where(is_small & (p > 0), p, 1))
    return -p * jnp.where(is_small, of_small, jnp.log1p(-jnp.where(is_small, 0, rest)))


def _check_bits(num_bits: int) -> None:
    """Raises ValueError unless 2^num_bits codes fit int32."""
    if num_bits < 1:
        raise ValueError(f"num_bits must be at least 1, got {num_bits}")
    count_codes((2,) * num_bits, "call quantize_bits and lookup_bits")
