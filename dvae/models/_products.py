"""Matrix products whose gradients are written out, for speed and for precision.

`matmul` is `Bilinear`: its gradients are the forms below in every mode of differentiation, forward
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
    # XLA's product for CPUs takes up to three times as long when x is the wider one.
    if jax.default_backend() == "cpu" and y.shape[1] < x.shape[1] and y.shape[1] <= x.shape[0]:
        # Without the barrier the two transpositions would be simplified away.
        return lax.optimization_barrier(_sum_over_rows(y, x)).T
    return _sum_over_rows(x, y)


def _sum_over_rows(x: jax.Array, y: jax.Array) -> jax.Array:
    """Computes x^T y, as it is written."""
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
    """Flattens the leading axes: [..., I] to [R, I]."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


# The automatic rule would multiply a float32 cotangent by bfloat16 operands, which no CPU has fast
# code for.
_matmul = Bilinear(
    lambda x, w: jnp.matmul(x, w.astype(x.dtype), preferred_element_type=wide_dtype(x)),
    lambda w, y: jnp.matmul(y, w.T.astype(y.dtype), preferred_element_type=wide_dtype(y)),
    lambda x, y: matmul_transposed(_rows(x), _rows(y)),
)
