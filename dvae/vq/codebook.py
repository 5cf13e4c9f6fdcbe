"""Codebooks of C vectors in R^D: distances, lookup, straight-through gradients, losses, usage.

Reference: van den Oord, Vinyals, Kavukcuoglu (2017), Neural Discrete Representation Learning,
arXiv:1711.00937, eq. 3.
"""

import operator

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from dvae._numerics import ArrayLike, as_float, partition, spec_of, upcast, wide_dtype
from dvae.vq import _products, _search
from dvae.vq._checks import check_codebook, check_dimensions, check_pair, code_index

__all__ = [
    "codebook_loss",
    "commitment_loss",
    "lookup",
    "nearest_code",
    "squared_distances",
    "straight_through",
    "usage",
]


def squared_distances(vectors: ArrayLike, codebook: ArrayLike) -> jax.Array:
    """Computes the squared Euclidean distance of every vector to every code with one matmul.

        |v - m_k|^2 = |v - c|^2 - 2 (v - c).(m_k - c) + |m_k - c|^2

    The origin c is a code near the mean of all where most codes are at most half as far from it as
    from 0, else 0. Rounding leaves an error of about 1e-7 (|v - c|^2 + |m - c|^2) (float32), which
    makes a vector that is very close to its code come out negative; such results are clipped at 0.
    The gradient is 2 (v - m) also where the clip acts. A square beyond the range of the dtype gives
    inf or NaN.

    Args:
        vectors: [..., D], real.
        codebook: [C, D], real. A code that is not finite makes its own distances NaN only.

    Returns:
        [..., C], >= 0; float64 where an input is, else float32, for half precision too.

    Raises:
        ValueError: the shapes do not fit.
    """
    wide = wide_dtype(vectors, codebook)
    vectors, codebook = jnp.asarray(vectors), jnp.asarray(codebook)
    check_dimensions(vectors, codebook)
    vectors, codebook = vectors.astype(wide), codebook.astype(wide)
    origin = _search.origin(codebook)
    return _distances(vectors - _search.per_code(origin, vectors.ndim), codebook - origin[None])


@jax.custom_jvp
def _distances(vectors: jax.Array, codebook: jax.Array) -> jax.Array:
    """Returns the squared distances to codes around the origin, all of one dtype."""
    vector_norms = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    code_norms = jnp.sum(jnp.square(codebook), axis=-1)
    products = _search.dot(vectors, codebook)
    distances = vector_norms - 2 * products + _search.per_code(code_norms, vectors.ndim)
    return jnp.maximum(distances, 0)  # a square root or logarithm of it would be NaN below 0


@_distances.defjvp
def _distances_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    # The automatic rule has no gradient where the clip acts.
    (v, m), (dv, dm) = primals, tangents
    own = jnp.sum(v * dv, axis=-1, keepdims=True) - _search.dot(dv, m)
    code = _search.per_code(jnp.sum(m * dm, axis=-1), v.ndim) - _search.dot(v, dm)
    return _distances(v, m), 2 * (own + code)


def nearest_code(vectors: ArrayLike, codebook: ArrayLike) -> jax.Array:
    """Finds the index of the nearest code: argmin_k |m_k - c|^2 / 2 - (v - c).(m_k - c).

    The term |v - c|^2 is common to all codes and left out, which also spares its rounding error.
    The origin c is that of `squared_distances`. A code is wrong only where two are equally near up
    to about 1e-7 |v - c| |m - c| (float32), at any scale of the numbers.

    Args:
        vectors: [..., D], real.
        codebook: [C, D], real. A code that is not finite is never the nearest.

    Returns:
        [...], int32 in 0 .. C-1, the lowest index where codes tie. A vector that is not finite gets
        C, and so do all vectors where no code is finite; `lookup` turns C into NaN, `usage` and
        `ema_update` leave it out.

    Raises:
        ValueError: the shapes do not fit.
    """
    wide = wide_dtype(vectors, codebook)
    vectors, codebook = jnp.asarray(vectors), jnp.asarray(codebook)
    check_dimensions(vectors, codebook)
    vectors, codebook = lax.stop_gradient((vectors, codebook))
    return _search.nearest(vectors.astype(wide), codebook.astype(wide))


def lookup(codes: ArrayLike, codebook: ArrayLike) -> jax.Array:
    """Gathers the code vectors m[codes]; the gradient adds the cotangents of each code.

    They are added in float32: in bfloat16 a code's gradient would stop growing after some 256
    vectors. A negative code or one of C or more gives NaN, so that a bug shows in the loss, and
    passes no gradient.

    Args:
        codes: [...], integer in 0 .. C-1.
        codebook: [C, D], real.

    Returns:
        [..., D], in the codebook's dtype; the default float for integers.

    Raises:
        ValueError: the codebook is not [C, D], or is empty.
        TypeError: the codes are not integers.
    """
    codebook = as_float(codebook)
    check_codebook(codebook)
    codes = code_index(codes, codebook.shape[0])
    out_spec = PartitionSpec(*spec_of(codes), None)
    return partition(_products.take, out_spec, upcast(codebook), codes).astype(codebook.dtype)


def straight_through(vectors: ArrayLike, quantized: ArrayLike) -> jax.Array:
    """Returns `quantized` exactly, with the identity as gradient to `vectors` and none to itself.

    v + sg(q - v), the usual form, differs from q by rounding; this does not.

    Source: van den Oord et al. (2017), section 3.2.

    Args:
        vectors: [..., D], real, the encoder's output.
        quantized: [..., D], real, the chosen code vectors.

    Returns:
        [..., D], in the dtype of `quantized`; the default float for integers.

    Raises:
        ValueError: the shapes differ.
    """
    vectors, quantized = as_float(vectors), as_float(quantized)
    check_pair(vectors, quantized)
    return _straight_through(vectors, quantized)


@jax.custom_jvp
def _straight_through(vectors: jax.Array, quantized: jax.Array) -> jax.Array:
    """Returns quantized."""
    return quantized


@_straight_through.defjvp
def _straight_through_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    quantized = _straight_through(*primals)
    return quantized, tangents[0].astype(quantized.dtype)


def codebook_loss(vectors: ArrayLike, quantized: ArrayLike) -> jax.Array:
    """Computes |sg(v) - q|^2 summed over D, which moves the codes toward the vectors.

    Source: van den Oord et al. (2017), eq. 3, second term.

    Args:
        vectors: [..., D], real; receives no gradient.
        quantized: [..., D], real, from `lookup` (not from `straight_through`).

    Returns:
        [...], >= 0; float64 where an input is, else float32.

    Raises:
        ValueError: the shapes differ.
    """
    vectors, quantized = _pair(vectors, quantized)
    return jnp.sum(jnp.square(lax.stop_gradient(vectors) - quantized), axis=-1)


def commitment_loss(vectors: ArrayLike, quantized: ArrayLike) -> jax.Array:
    """Computes |v - sg(q)|^2 summed over D, which holds the vectors near their codes.

    Source: van den Oord et al. (2017), eq. 3, third term, without its weight (0.25 there).

    Args:
        vectors: [..., D], real.
        quantized: [..., D], real; receives no gradient.

    Returns:
        [...], >= 0; float64 where an input is, else float32.

    Raises:
        ValueError: the shapes differ.
    """
    vectors, quantized = _pair(vectors, quantized)
    return jnp.sum(jnp.square(vectors - lax.stop_gradient(quantized)), axis=-1)


def _pair(vectors: ArrayLike, quantized: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Returns both in their common dtype, float32 at least."""
    wide = wide_dtype(vectors, quantized)
    vectors, quantized = jnp.asarray(vectors), jnp.asarray(quantized)
    check_pair(vectors, quantized)
    return vectors.astype(wide), quantized.astype(wide)


def usage(codes: ArrayLike, num_codes: int) -> jax.Array:
    """Counts how often each code occurs.

    Codes that are negative, or C or more, are left out: positions that do not count are marked so.

    Args:
        codes: [...], integer, sharded or not.
        num_codes: C, at least 1.

    Returns:
        [C], int32.

    Raises:
        ValueError: num_codes is less than 1.
        TypeError: the codes are not integers.
    """
    num_codes = operator.index(num_codes)
    if num_codes < 1:
        raise ValueError(f"num_codes must be at least 1, got {num_codes}")
    codes = code_index(codes, num_codes)

    count = lambda codes: _products.count_by_code(codes.reshape(-1), num_codes)
    return partition(count, PartitionSpec(), codes)
