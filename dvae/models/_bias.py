"""Biases, with a gradient that is added in the order that each platform runs fastest.

XLA adds up to 4,096 rows in one go on GPUs, with a block of threads for 128 columns: two of them
for 256 maps, on a chip that has 132 cores. There the gradient is added over each image first, which
keeps them all busy, and then over the images. `_convolution.use_matmul` chooses.
"""

import jax
import jax.numpy as jnp
from jax import lax

from dvae._numerics import wide_dtype
from dvae.models import _convolution
from dvae.models._bilinear import Bilinear


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds a bias over the last axes, in x's dtype, with sums (its gradient's too) in float32."""
    dtype, leading = wide_dtype(x), x.ndim - bias.ndim
    bias = bias.astype(dtype)
    if _convolution.use_matmul() or leading < 2:
        expanded = jnp.expand_dims(bias, range(leading))
    else:
        expanded = _repeat(jnp.ones(x.shape[:leading], dtype), bias)
    return (x.astype(dtype) + expanded).astype(x.dtype)


def _repeated(ones: jax.Array, bias: jax.Array) -> jax.Array:
    """Repeats the bias over leading axes, those of `ones`."""
    leading, own = tuple(range(ones.ndim)), tuple(range(ones.ndim, ones.ndim + bias.ndim))
    return jnp.expand_dims(ones, own) * jnp.expand_dims(bias, leading)


def _inner_products(bias: jax.Array, y: jax.Array) -> jax.Array:
    """Multiplies y [..., *bias.shape] by the bias, summed over its axes: [...]."""
    leading = y.ndim - bias.ndim
    products = y * jnp.expand_dims(bias, tuple(range(leading)))
    return products.sum(tuple(range(leading, y.ndim)))


def _sum_in_two(ones: jax.Array, y: jax.Array) -> jax.Array:
    """Adds y over the leading axes, those of `ones`: first over all but one, then over that."""
    rows = jnp.expand_dims(ones, tuple(range(ones.ndim, y.ndim))) * y
    return lax.optimization_barrier(rows.sum(tuple(range(1, ones.ndim)))).sum(0)


_repeat = Bilinear(_repeated, _inner_products, _sum_in_two)
