"""Codebooks of C vectors in R^D: distances, lookup, straight-through gradients, code usage.

Reference: van den Oord, Vinyals, Kavukcuoglu (2017), Neural Discrete Representation Learning,
arXiv:1711.00937, eq. 3.
"""

import jax
import jax.numpy as jnp
from jax import lax

_BLOCK_SCORES = 2**17  # float32 scores that stay in a core's cache, four times the speed


def wide_dtype(*arrays: jax.Array) -> jnp.dtype:
    """Float32, or float64 where an input already is."""
    return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def check_dimensions(vectors: jax.Array, codebook: jax.Array) -> None:
    """Raise unless vectors are [..., D] and the codebook [C, D]."""
    if codebook.ndim != 2 or vectors.ndim < 1 or vectors.shape[-1] != codebook.shape[-1]:
        raise ValueError(
            "vectors [..., D] and codebook [C, D] must share D (jax.vmap over a leading axis of "
            f"several codebooks), got {vectors.shape} and {codebook.shape}"
        )


def _dot(vectors: jax.Array, codebook: jax.Array) -> jax.Array:
    """Inner products [..., C] of vectors [..., D] and codes [C, D], accumulated in float32."""
    # Full precision: the TF32 or bfloat16 products that GPUs and TPUs use by default for float32
    # have errors of 1e-3 |v| |m|, enough to pick a wrong code. It costs bfloat16 inputs nothing.
    return jnp.matmul(
        vectors,
        codebook.T,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=wide_dtype(vectors, codebook),
    )


def _per_code(values: jax.Array, ndim: int) -> jax.Array:
    """Values [C] with leading axes of size one, ready to broadcast against ndim axes."""
    return values.reshape((1,) * (ndim - 1) + values.shape)


@jax.custom_jvp
def squared_distances(vectors: jax.Array, codebook: jax.Array) -> jax.Array:
    """Compute the squared Euclidean distance of every vector to every code with one matmul.

        |v - m_k|^2 = |v|^2 - 2 v.m_k + |m_k|^2

    Rounding leaves an error of about 1e-7 (|v|^2 + |m|^2) (float32), which makes a vector that is
    very close to its code come out negative; such results are clipped at 0. The gradient is
    2 (v - m) also where the clip acts, and is accumulated in float32.

    Args:
        vectors: [..., D], float.
        codebook: [C, D], float. Two bfloat16 inputs are multiplied as bfloat16.

    Returns:
        [..., C], float32 also for half-precision inputs, >= 0.

    Raises:
        ValueError: the shapes do not fit.
    """
    check_dimensions(vectors, codebook)
    wide = wide_dtype(vectors, codebook)
    vector_norms = jnp.sum(jnp.square(vectors.astype(wide)), axis=-1, keepdims=True)
    code_norms = jnp.sum(jnp.square(codebook.astype(wide)), axis=-1)
    distances = vector_norms - 2 * _dot(vectors, codebook) + _per_code(code_norms, vectors.ndim)
    return jnp.maximum(distances, 0)  # a square root or logarithm of it would be NaN below 0


@squared_distances.defjvp
def _squared_distances_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    # The automatic rule has no gradient where the clip acts, and adds two nearly opposite bfloat16
    # terms for bfloat16 vectors; here both terms are float32 and rounded once.
    distances = squared_distances(*primals)
    v, m, dv, dm = (x.astype(distances.dtype) for x in (*primals, *tangents))
    own = jnp.sum(v * dv, axis=-1, keepdims=True) - _dot(dv, m)
    code = _per_code(jnp.sum(m * dm, axis=-1), v.ndim) - _dot(v, dm)
    return distances, 2 * (own + code)


def _nearest(vectors: jax.Array, codebook: jax.Array) -> jax.Array:
    """Lowest index [...] of the smallest |m_k|^2 / 2 - v.m_k."""
    products = _dot(vectors, codebook)
    half_norms = 0.5 * jnp.sum(jnp.square(codebook.astype(products.dtype)), axis=-1)
    scores = _per_code(half_norms, products.ndim) - products
    # Two reductions over floats, which CPUs vectorize; they run argmin one element at a time.
    index = lax.broadcasted_iota(scores.dtype, scores.shape, scores.ndim - 1)
    best = jnp.min(scores, axis=-1, keepdims=True)
    return jnp.min(jnp.where(scores == best, index, codebook.shape[0]), axis=-1).astype(jnp.int32)


def _nearest_in_blocks(vectors: jax.Array, codebook: jax.Array) -> jax.Array:
    """The same, a few rows at a time."""
    dim = codebook.shape[-1]
    rows = max(1, _BLOCK_SCORES // codebook.shape[0])
    codes = lax.map(
        lambda vector: _nearest(vector, codebook), vectors.reshape(-1, dim), batch_size=rows
    )
    return codes.reshape(vectors.shape[:-1])


def nearest_code(vectors: jax.Array, codebook: jax.Array) -> jax.Array:
    """Find the index of the nearest code: argmin_k |m_k|^2 / 2 - v.m_k.

    The term |v|^2 is common to all codes and left out, which also spares its rounding error.

    Args:
        vectors: [..., D], float.
        codebook: [C, D], float.

    Returns:
        [...], int32 in 0 .. C-1, the lowest index where codes tie. A vector with a NaN gets C,
        which `lookup` turns into NaN and `ema_update` leaves out.

    Raises:
        ValueError: the shapes do not fit.
    """
    check_dimensions(vectors, codebook)
    vectors, codebook = lax.stop_gradient((vectors, codebook))
    return lax.platform_dependent(vectors, codebook, cpu=_nearest_in_blocks, default=_nearest)


def lookup(codes: jax.Array, codebook: jax.Array) -> jax.Array:
    """Gather the code vectors m[codes]; the gradient is a scatter-add into the codebook.

    The scatter-add is done in float32: in bfloat16 a code's gradient would stop growing after some
    256 vectors. A code of C or more gives NaN, so that a bug shows in the loss.

    Args:
        codes: [...], integer in 0 .. C-1.
        codebook: [C, D], float.

    Returns:
        [..., D], in the codebook's dtype.
    """
    return jnp.take(codebook.astype(wide_dtype(codebook)), codes, axis=0).astype(codebook.dtype)


@jax.custom_jvp
def straight_through(vectors: jax.Array, quantized: jax.Array) -> jax.Array:
    """Return `quantized` exactly, with the identity as gradient to `vectors` and none to itself.

    v + sg(q - v), the usual form, differs from q by rounding; this does not.

    Source: van den Oord et al. (2017), section 3.2.

    Args:
        vectors: [..., D], float, the encoder's output.
        quantized: [..., D], float, the chosen code vectors.

    Returns:
        [..., D], in the dtype of `quantized`.

    Raises:
        ValueError: the shapes differ.
    """
    if vectors.shape != quantized.shape:
        raise ValueError(
            f"vectors and quantized must have one shape, got {vectors.shape} and {quantized.shape}"
        )
    return quantized


@straight_through.defjvp
def _straight_through_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    quantized = straight_through(*primals)
    return quantized, tangents[0].astype(quantized.dtype)


def codebook_loss(vectors: jax.Array, quantized: jax.Array) -> jax.Array:
    """Compute |sg(v) - q|^2 summed over D, which moves the codes towards the vectors.

    Source: van den Oord et al. (2017), eq. 3, second term.

    Args:
        vectors: [..., D], float; receives no gradient.
        quantized: [..., D], float, from `lookup` (not from `straight_through`).

    Returns:
        [...], float32, >= 0.
    """
    wide = wide_dtype(vectors, quantized)
    difference = lax.stop_gradient(vectors).astype(wide) - quantized.astype(wide)
    return jnp.sum(jnp.square(difference), axis=-1)


def commitment_loss(vectors: jax.Array, quantized: jax.Array) -> jax.Array:
    """Compute |v - sg(q)|^2 summed over D, which holds the vectors near their codes.

    Source: van den Oord et al. (2017), eq. 3, third term, without its weight (0.25 there).

    Args:
        vectors: [..., D], float.
        quantized: [..., D], float; receives no gradient.

    Returns:
        [...], float32, >= 0.
    """
    return codebook_loss(quantized, vectors)


def usage(codes: jax.Array, num_codes: int) -> jax.Array:
    """Count how often each code occurs.

    Args:
        codes: [...], integer in 0 .. C-1.
        num_codes: C.

    Returns:
        [C], int32.
    """
    codes = codes.reshape(-1)
    return jax.ops.segment_sum(jnp.ones_like(codes, jnp.int32), codes, num_segments=num_codes)


def perplexity(counts: jax.Array) -> jax.Array:
    """Compute exp(entropy) of the code frequencies: the effective number of codes in use.

    Args:
        counts: [..., C], integer or float, >= 0: a `usage`, a sum of them, or EMA counts.

    Returns:
        [...], float32 in [1, C]; 1 where all counts are 0.
    """
    counts = counts.astype(wide_dtype(counts))
    total = jnp.sum(counts, axis=-1, keepdims=True)
    frequencies = counts / jnp.where(total > 0, total, 1)  # no data yet: 0 / 0 = NaN
    return jnp.exp(jnp.sum(jax.scipy.special.entr(frequencies), axis=-1))


def num_dead(counts: jax.Array, *, threshold: float = 1.0) -> jax.Array:
    """Count the codes with counts < threshold: those of a `usage` that never occurred.

    Args:
        counts: [..., C], integer or float.
        threshold: in the unit of counts; for EMA counts that of `restart_dead_codes`.

    Returns:
        [...], int32.
    """
    return jnp.sum(counts < threshold, axis=-1, dtype=jnp.int32)
