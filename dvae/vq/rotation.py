"""The rotation trick: the gradient is rotated and scaled from the code back to the vector.

Source: Fifty et al. (2024), Restructuring Vector Quantization with the Rotation Trick,
arXiv:2410.06424, section 4.
"""

import jax
import jax.numpy as jnp
from jax import lax

from dvae._numerics import ArrayLike, as_float, wide_dtype
from dvae.vq._common import as_vectors, normalize

__all__ = ["rotation_trick"]


def rotation_trick(vectors: ArrayLike, quantized: ArrayLike) -> jax.Array:
    """Returns `quantized` exactly, as sg(|q| / |v| R) v with the rotation R that takes v^ to q^.

        R = I - 2 r r^T + 2 q^ v^^T = (I - 2 r r^T) (I - 2 v^ v^^T)
        v^ = v / |v|,  q^ = q / |q|,  r = (v^ + q^) / |v^ + q^|

    Use it in the place of `straight_through`. The gradient to `vectors` is |q| / |v| R^T g: the
    angle between gradient and vector becomes that between gradient and code. Applied as the two
    reflections, it keeps lengths to rounding however small v^ + q^ is. None flows to `quantized`.

    Exceptions: where v^ = -q^ to half the digits, R is the reflection I - 2 v^ v^^T, which takes v^
    to -v^ as well. Where |v| <= 1e-7 |q| (float32), a zero vector included, the gradient is the
    identity. A zero code gives a zero gradient, as |q| = 0.

    Args:
        vectors: [..., D] real, the encoder's output.
        quantized: [..., D] real, the chosen code vectors.

    Returns:
        [..., D], in the dtype of `quantized`.

    Raises:
        ValueError: the shapes differ.
    """
    vectors, quantized = as_vectors(vectors), as_float(quantized)
    if vectors.shape != quantized.shape:
        raise ValueError(
            f"vectors and quantized must have one shape, got {vectors.shape} and {quantized.shape}"
        )
    return _rotation_trick(vectors, quantized)


@jax.custom_jvp
def _rotation_trick(vectors: jax.Array, quantized: jax.Array) -> jax.Array:
    """Returns quantized."""
    return quantized


@_rotation_trick.defjvp
def _rotation_trick_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    vectors, quantized = primals
    wide = wide_dtype(vectors, quantized)
    eps = jnp.finfo(wide).eps
    v, q = (lax.stop_gradient(x).astype(wide) for x in primals)
    v_unit, v_length = normalize(v)
    q_unit, q_length = normalize(q)
    # Not so for a NaN. The quotient would be 0 / 0 or overflow.
    is_identity = v_length <= eps * q_length
    scale = q_length / jnp.where(is_identity, 1, v_length)
    bisector, length = normalize(v_unit + q_unit)
    # The rounding of v^ + q^ turns the bisector by eps / length; a reflection misses q^ by length.
    bisector = jnp.where(jnp.square(length) < eps, 0, bisector)
    dv = tangents[0].astype(wide)
    rotated = scale * _reflect(_reflect(dv, v_unit), bisector)
    out = _rotation_trick(vectors, quantized)
    return out, jnp.where(is_identity, dv, rotated).astype(out.dtype)


def _reflect(x: jax.Array, unit: jax.Array) -> jax.Array:
    """Returns (I - 2 u u^T) x."""
    return x - 2 * unit * jnp.sum(unit * x, axis=-1, keepdims=True)
