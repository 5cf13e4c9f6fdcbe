"""Products of the image models whose gradients are written out, for speed and for precision.

Both are `Bilinear`: their gradients are the forms below in every mode of differentiation, forward
and reverse, of any order.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dvae._numerics import wide_dtype
from dvae.models._bilinear import Bilinear


def matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """Computes x w, accumulated in at least float32; so is its gradient by w.

    Args:
      x: float [..., I].
      w: float [I, O], rounded to x's dtype.

    Returns:
      [..., O] in x's dtype.

    Raises:
      ValueError: the shapes do not fit.
    """
    if x.ndim < 1 or w.ndim != 2 or x.shape[-1] != w.shape[0]:
        raise ValueError(f"matmul needs x [..., I] and w [I, O], got {x.shape} and {w.shape}")
    return _matmul(x, w)


def matmul_transposed(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns x^T y in at least float32: x [R, I], y [R, O] to [I, O]."""
    mesh = jax.typeof(x).sharding.mesh
    # On a mesh with explicit axes the sum over sharded rows must be sent somewhere: to all devices.
    is_explicit = AxisType.Explicit in mesh.axis_types
    return lax.dot_general(
        x,
        y,
        (((0,), (0,)), ((), ())),
        preferred_element_type=wide_dtype(x),
        out_sharding=NamedSharding(mesh, PartitionSpec()) if is_explicit else None,
    )


def _rows(x: jax.Array) -> jax.Array:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


# The automatic rule would multiply a float32 cotangent by bfloat16 operands, which no CPU has fast
# code for.
_matmul = Bilinear(
    lambda x, w: jnp.matmul(x, w.astype(x.dtype), preferred_element_type=wide_dtype(x)),
    lambda w, y: jnp.matmul(y, w.T.astype(y.dtype), preferred_element_type=wide_dtype(y)),
    lambda x, y: matmul_transposed(_rows(x), _rows(y)),
)


def conv_transpose_by_gradient(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes `blocks.conv_transpose` in the forms that have kernels of their own in cuDNN.

    A convolution of x with zeros in between is the same map, but XLA hands that to cuDNN as it is
    written, with four times the products. A strided convolution and its gradients by its input and
    by its kernel are recognized.

    Args:
      x: float [B, H, W, I].
      kernel: float [4, 4, I, O], rounded to x's dtype.

    Returns:
      [B, 2H, 2W, O] in x's dtype.
    """
    return _conv_transpose(x, kernel)


def _upsampled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The input's gradient of `_downsampled`."""
    # Two mirrorings in a row would be simplified away, and with them the form XLA recognizes.
    mirrored = _mirrored(lax.optimization_barrier(_mirrored(kernel).astype(x.dtype)))
    return lax.conv_general_dilated(
        x,
        mirrored,
        (1, 1),
        ((2, 2), (2, 2)),
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _downsampled(kernel: jax.Array, y: jax.Array) -> jax.Array:
    """The convolution of stride 2, y [B, 2H, 2W, O] to [B, H, W, I]."""
    return lax.conv_general_dilated(
        y,
        _mirrored(kernel).astype(y.dtype),
        (2, 2),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWOI", "NHWC"),
    )


def _kernel_gradient(x: jax.Array, y: jax.Array) -> jax.Array:
    """The kernel's gradient of `_downsampled`."""
    return _mirrored(
        lax.conv_general_dilated(
            y,
            x,
            (1, 1),
            ((1, 1), (1, 1)),
            rhs_dilation=(2, 2),
            dimension_numbers=("CHWN", "IHWO", "HWCN"),
        )
    )


def _mirrored(kernel: jax.Array) -> jax.Array:
    return lax.rev(kernel, (0, 1))


_conv_transpose = Bilinear(_upsampled, _downsampled, _kernel_gradient)
