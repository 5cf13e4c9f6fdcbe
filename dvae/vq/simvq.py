"""SimVQ: a fixed random codebook seen through one learned matrix, so that all codes move together.

    basis, weights = simvq.init(key, num_codes=512, dim=64)    # train `weights` only
    q, codes = simvq.quantize(v, basis, weights)
    losses = simvq.losses(v, codes, basis, weights)
    penalty = losses.codebook + 0.25 * losses.commitment

A step that moves one code moves W, and with it every code: none dies for want of vectors. The
functions of `vq` see an ordinary codebook, `simvq.codebook(basis, weights)`.

Source: Zhu et al. (2024), Addressing Representation Collapse in Vector Quantized Models with One
Linear Layer, arXiv:2411.02038, section 4.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dvae._checks import check_count, check_key
from dvae._numerics import ArrayLike, as_float, float_dtype, wide_dtype
from dvae.vq._checks import check_dimensions
from dvae.vq._common import (
    Quantized,
    VQLosses,
    as_vectors,
    check_codes,
    check_mask,
    gather,
    mean,
    select,
)
from dvae.vq.codebook import codebook_loss, nearest_code, straight_through

__all__ = ["SimVQ", "codebook", "init", "lookup", "losses", "quantize"]


class SimVQ(NamedTuple):
    """A codebook M W."""

    basis: jax.Array  # M [C, D], fixed: no gradient flows to it
    weights: jax.Array  # W [D, D], learned


def init(key: jax.Array, *, num_codes: int, dim: int) -> SimVQ:
    """Draws M from N(0, 1/D), rows of mean squared length 1, and starts W at the identity.

    Args:
        key: typed PRNG key.
        num_codes: C, at least 1.
        dim: D, at least 1.

    Returns:
        SimVQ in float32.

    Raises:
        ValueError: num_codes or dim is less than 1, or key is an array of keys.
        TypeError: key is not a typed key.
    """
    check_key(key)
    num_codes, dim = check_count("num_codes", num_codes), check_count("dim", dim)
    basis = jax.random.normal(key, (num_codes, dim), jnp.float32) * dim**-0.5
    return SimVQ(basis, jnp.eye(dim, dtype=jnp.float32))


def codebook(basis: ArrayLike, weights: ArrayLike) -> jax.Array:
    """Computes the codes M W, with a gradient to W alone.

    Args:
        basis: M [C, D] real.
        weights: W [D, D] real.

    Returns:
        [C, D], in the wider of the dtypes; summed in float32 at least.

    Raises:
        ValueError: the shapes do not fit.
    """
    return _codes(basis, weights).astype(float_dtype(basis, weights))


def quantize(v: ArrayLike, basis: ArrayLike, weights: ArrayLike) -> Quantized:
    """Finds the nearest row of M W, with a straight-through gradient.

    Args:
        v: [..., D] real.
        basis: M [C, D] real.
        weights: W [D, D] real; receives its gradient from `losses`, none from here.

    Returns:
        q [..., D], in the widest of the dtypes, and codes [...] int32 in 0 .. C-1. A vector
        that is not finite gets C and NaN.

    Raises:
        ValueError: the shapes do not fit.

    Source: Zhu et al. (2024), section 4.
    """
    v = as_vectors(v)
    wide = v.astype(wide_dtype(v, basis, weights))
    rows = _codes(basis, weights).astype(wide.dtype)
    codes = nearest_code(wide, rows)
    q = straight_through(wide, gather(codes, rows))
    return Quantized(q.astype(float_dtype(v, basis, weights)), codes)


def lookup(codes: ArrayLike, basis: ArrayLike, weights: ArrayLike) -> jax.Array:
    """Gathers rows of M W, with a gradient to W.

    Args:
        codes: [...] integer in 0 .. C-1.
        basis: M [C, D] real.
        weights: W [D, D] real.

    Returns:
        [..., D], in the wider of the dtypes; NaN for a code that is out of range.

    Raises:
        ValueError: the shapes do not fit.
        TypeError: the codes are not integers.
    """
    return gather(codes, _codes(basis, weights)).astype(float_dtype(basis, weights))


def losses(
    v: ArrayLike,
    codes: ArrayLike,
    basis: ArrayLike,
    weights: ArrayLike,
    *,
    mask: ArrayLike | None = None,
) -> VQLosses:
    """Computes the means of |sg(v) - q|^2 and |v - q|^2, q the rows of M W; both reach W.

    The second is not stopped at q, as `vq.commitment_loss` is: with weight b the gradient to W is
    that of 1 + b times the first, to v that of b times |v - sg(q)|^2.

    Args:
        v: [..., D] real.
        codes: [...] integer, those of `quantize`.
        basis: M [C, D] real.
        weights: W [D, D] real.
        mask: [...] boolean, true where a position counts; all by default. Without one the losses
            are 0.

    Returns:
        VQLosses, scalars >= 0, float32 at least.

    Raises:
        ValueError: the shapes do not fit.
        TypeError: the codes are not integers.
    """
    v = as_vectors(v)
    mask = check_mask(mask, v.shape[:-1])
    codes = select(check_codes(codes, v.shape[:-1]), mask)
    wide = select(v.astype(wide_dtype(v, basis, weights)), mask)
    rows = _codes(basis, weights).astype(wide.dtype)
    check_dimensions(wide, rows)
    q = gather(codes, rows)
    return VQLosses(
        mean(codebook_loss(wide, q), mask, v.ndim - 1),
        mean(jnp.sum(jnp.square(wide - q), axis=-1), mask, v.ndim - 1),
    )


def _codes(basis: ArrayLike, weights: ArrayLike) -> jax.Array:
    """Rows of M W [C, D], float32 at least."""
    basis, weights = as_float(basis), as_float(weights)
    if basis.ndim != 2 or weights.shape != (basis.shape[1],) * 2:
        raise ValueError(
            f"basis [C, D] and weights [D, D] must share D, got {basis.shape} and {weights.shape}"
        )
    wide = wide_dtype(basis, weights)
    basis = lax.stop_gradient(basis).astype(wide)
    return jnp.matmul(basis, weights.astype(wide), precision=lax.Precision.HIGHEST)
