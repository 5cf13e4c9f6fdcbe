"""Checks of codebooks, vectors, codes and radices: errors that name the shapes and the remedy."""

import math
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import ArrayLike


def check_codebook(codebook: jax.Array) -> None:
    """Raises unless the codebook is [C, D] with C and D at least 1."""
    if codebook.ndim != 2 or 0 in codebook.shape:
        raise ValueError(
            "codebook must be [C, D] with at least one code of one dimension (jax.vmap over a "
            f"leading axis of several codebooks), got {codebook.shape}"
        )


def check_dimensions(vectors: jax.Array, codebook: jax.Array) -> None:
    """Raises unless vectors are [..., D] and the codebook [C, D], with C and D at least 1."""
    check_codebook(codebook)
    if vectors.ndim < 1 or vectors.shape[-1] != codebook.shape[-1]:
        raise ValueError(
            "vectors [..., D] and codebook [C, D] must share D (jax.vmap over a leading axis of "
            f"several codebooks), got {vectors.shape} and {codebook.shape}"
        )


def check_pair(vectors: jax.Array, quantized: jax.Array) -> None:
    """Raises unless both have one shape [..., D]."""
    if vectors.shape != quantized.shape or vectors.ndim < 1:
        raise ValueError(
            "vectors and quantized must have one shape [..., D], got "
            f"{vectors.shape} and {quantized.shape}"
        )


def as_codes(codes: ArrayLike, name: str = "codes") -> jax.Array:
    """Returns integers as int32, those beyond its range as its ends, or raises TypeError."""
    if not isinstance(codes, jax.Array):
        codes = np.asarray(codes)  # JAX would wrap 64-bit integers to 32 bits
    if codes.dtype == bool:
        return jnp.asarray(codes, jnp.int32)
    if not jnp.issubdtype(codes.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got {codes.dtype}")
    if np.can_cast(codes.dtype, np.int32):
        return jnp.asarray(codes, jnp.int32)
    limits, own = jnp.iinfo(jnp.int32), jnp.iinfo(codes.dtype)
    library = jnp if isinstance(codes, jax.Array) else np
    return jnp.asarray(
        library.clip(codes, max(limits.min, own.min), min(limits.max, own.max)), jnp.int32
    )


def code_index(codes: ArrayLike, num_codes: int) -> jax.Array:
    """Returns codes as int32, with C in the place of all that are not in 0 .. C-1.

    JAX counts a negative index from the end, which would turn a mark such as -1 into the last code.
    """
    codes = as_codes(codes)
    return jnp.where((codes >= 0) & (codes < num_codes), codes, num_codes)


def check_radices(
    name: str, radices: Sequence[int], num_components: int | None = None, *, at_least: int = 1
) -> tuple[int, ...]:
    """Returns the radices as integers, or raises ValueError if they cannot be those."""
    wanted = f"{name} must be one or more integers, each >= {at_least}, got"
    try:
        values = tuple(operator.index(x) for x in radices)
    except TypeError as error:
        raise ValueError(f"{wanted} {radices}") from error
    if not values or min(values) < at_least:
        raise ValueError(f"{wanted} {values}")
    if num_components is not None and len(values) != num_components:
        raise ValueError(
            f"{name} must have one entry for each of the {num_components} components, got {values}"
        )
    return values


def count_codes(radices: tuple[int, ...], remedy: str) -> int:
    """Returns their product, or raises ValueError unless it is an int32."""
    num_codes = math.prod(radices)
    if num_codes >= 2**31:
        raise ValueError(
            f"codes must be fewer than 2^31 to be one integer each ({remedy}), got {num_codes} of "
            f"{len(radices)} components"
        )
    return num_codes
