"""What the quantizers share: their results, unit vectors, means over positions that count."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dvae._numerics import ArrayLike, as_float
from dvae.vq._checks import as_codes
from dvae.vq.codebook import lookup


class Quantized(NamedTuple):
    """What a decoder reads, and what is transmitted."""

    q: jax.Array  # [..., D], the values of the codes, with a gradient to the vectors
    codes: jax.Array  # [...] int32 in 0 .. C-1; residual: [..., R], one for each stage


class QuantizedDigits(NamedTuple):
    """What a decoder reads, and the code component by component."""

    q: jax.Array  # [..., d], the values of the digits, with a gradient to the vectors
    digits: jax.Array  # [..., d] int32 in 0 .. L_i - 1


class VQLosses(NamedTuple):
    """The two losses of a codebook, without weights: means over the positions that count."""

    codebook: jax.Array  # [] (residual: [R]), which moves the codes to the vectors
    commitment: jax.Array  # [] (residual: [R]), which holds the vectors near their codes


def as_vectors(v: ArrayLike) -> jax.Array:
    """Returns v as a float array [..., D], or raises ValueError if it has no component."""
    v = as_float(v)
    if v.ndim < 1 or v.shape[-1] == 0:
        raise ValueError(f"v must be [..., D] with D of at least 1, got {v.shape}")
    return v


def check_codes(codes: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Returns codes as an int32 array, or raises ValueError unless they have that shape."""
    codes = as_codes(codes)
    if codes.shape != shape:
        raise ValueError(f"codes must be {shape}, those of v, got {codes.shape}")
    return codes


def gather(codes: ArrayLike, codebook: jax.Array) -> jax.Array:
    """Returns the rows [..., D] of a codebook [C, D]; NaN for codes that are out of range."""
    return lookup(as_codes(codes), codebook)


def per_component(values: ArrayLike, ndim: int, dtype: jnp.dtype) -> jax.Array:
    """Returns values [D] of a dtype with axes of size one in front, ndim axes in all."""
    values = jnp.asarray(values, dtype)
    return values.reshape((1,) * (ndim - 1) + values.shape)


def normalize(v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns v / |v| and |v| of vectors that are float32 at least.

    A vector shorter than about 1e-31 (float32) counts as zero: the result and its gradient are 0
    there, where the derivative 1 / |v| would overflow. Long vectors do not overflow in |v|^2.

    Args:
        v: [..., D] float32 or float64.

    Returns:
        [..., D] unit vectors, and [..., 1] lengths.
    """
    info = jnp.finfo(v.dtype)
    scale = lax.stop_gradient(jnp.max(jnp.abs(v), axis=-1, keepdims=True))
    is_zero = scale < info.tiny / info.eps  # not so for a NaN, which is to stay one
    scaled = v / jnp.where(is_zero, 1, scale)
    squares = jnp.sum(jnp.square(scaled), axis=-1, keepdims=True)
    length = jnp.sqrt(jnp.where(is_zero, 1, squares))  # the slope of a root is infinite at 0
    return jnp.where(is_zero, 0, scaled / length), jnp.where(is_zero, 0, scale * length)


def check_mask(mask: ArrayLike | None, shape: tuple[int, ...]) -> jax.Array | None:
    """Returns the mask as `as_mask` does; None, where all positions count, stays."""
    return None if mask is None else as_mask(mask, shape)


def as_mask(mask: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Returns the mask as an array, or raises ValueError unless it is boolean and of that shape."""
    mask = jnp.asarray(mask)
    if mask.dtype != jnp.bool_ or mask.shape != shape:
        raise ValueError(
            f"mask must be boolean {shape}, one for each vector (broadcast it, or compare it with "
            f"0), got {mask.dtype} {mask.shape}"
        )
    return mask


def select(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Returns vectors [..., D] or codes [...] with zeros where the mask [...] is false.

    What is not to count may be NaN or no code; left in place it would make the gradient NaN.
    """
    if mask is None:
        return x
    return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, 0)


def mean(x: jax.Array, mask: jax.Array | None, num_axes: int) -> jax.Array:
    """Returns the mean over the first num_axes axes, where the mask counts; 0 if none does."""
    axes = tuple(range(num_axes))
    if mask is None:
        size = 1
        for axis in axes:
            size *= x.shape[axis]
        return jnp.sum(x, axis=axes) / max(size, 1)
    counts = jnp.sum(mask, dtype=jnp.int32)
    mask = mask.reshape(mask.shape + (1,) * (x.ndim - num_axes))
    total = jnp.sum(jnp.where(mask, x, 0), axis=axes)
    return total / jnp.maximum(counts, 1).astype(x.dtype)


def is_dead(counts: jax.Array, threshold: ArrayLike) -> jax.Array:
    """Tells which counts [...] are less than the threshold, or NaN: bool [...]."""
    threshold = jnp.asarray(threshold, counts.dtype)
    if threshold.ndim:
        raise ValueError(f"threshold must be a scalar, got shape {threshold.shape}")
    return ~(counts >= threshold)
