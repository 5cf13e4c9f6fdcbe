"""Restricted Boltzmann machines: parameters, their check, and what every sampler needs of them."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import as_float, upcast, wide_dtype
from dvae.rbm._checks import check_finite


class RBM(NamedTuple):
    """Parameters of a restricted Boltzmann machine."""

    bias1: jax.Array  # [n1] a1, of the left side
    bias2: jax.Array  # [n2] a2, of the right side
    weights: jax.Array  # [n1, n2] W


def check_rbm(params: RBM) -> RBM:
    """Returns the parameters as arrays of floating dtypes; integers become the default one.

    Raises:
        ValueError: if their sizes do not fit, a side has no unit, or known values are not finite.
    """
    shapes = tuple(np.shape(p) for p in params)
    if len(shapes[0]) != 1 or len(shapes[1]) != 1 or shapes[2] != shapes[0] + shapes[1]:
        raise ValueError(
            "an RBM has bias1 [n1], bias2 [n2] and weights [n1, n2], got shapes "
            f"{shapes[0]}, {shapes[1]} and {shapes[2]}"
        )
    if 0 in shapes[2]:
        raise ValueError(
            f"an RBM needs at least one unit on each side, got {shapes[2][0]} and {shapes[2][1]}"
        )
    for name, value in zip(RBM._fields, params, strict=True):
        check_finite(f"{name} of the RBM", value)
    return RBM(*map(as_float, params))


def dtype_of(params: RBM) -> jnp.dtype:
    """Returns the dtype of sums over the machine's units: at least float32."""
    return functools.reduce(jnp.promote_types, map(wide_dtype, params))


def transpose(params: RBM) -> RBM:
    """Exchanges the two sides."""
    return RBM(params.bias2, params.bias1, params.weights.T)


def product(z: jax.Array, weights: jax.Array) -> jax.Array:
    """Multiplies units [..., n] by weights [n, m] or biases [n], with sums in at least float32."""
    if z.dtype != weights.dtype:
        z, weights = upcast(z), upcast(weights)
    wide = wide_dtype(z, weights)
    # By default GPUs round float32 to 10 bits in products, and TPUs to 7.
    precision = jax.lax.Precision.HIGHEST if z.dtype == wide else None
    return jnp.matmul(z, weights, precision=precision, preferred_element_type=wide)
