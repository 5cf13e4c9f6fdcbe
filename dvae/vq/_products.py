"""Products of floats, and sums by code, in the form that each platform runs fastest.

On accelerators the vectors of each code are added by a matrix product with the one-hot of the
codes, and codes are counted by comparing. The compiler makes the one-hot in the product's tiles.
Adding by scatter takes turns at a code's memory there, in an order that differs from run to run. On
the CPU a scatter is a loop over the vectors and costs least. `adds_by_product` is the one place
that chooses; both forms add the same float32 numbers, in another order, and are tested equal.

Products are in full float32. The TF32 or bfloat16 products that GPUs and TPUs use by default for
float32 have errors of 1e-3 |v| |m|, enough to pick a wrong code. NVIDIA GPUs have no tensor cores
for float32; there a number is split into three bfloat16 ones, 8 digits each, and six of the nine
products of parts are added in float32:

    v m = v1 m1 + (v1 m2 + v2 m1) + (v1 m3 + v2 m2 + v3 m1),    v = v1 + v2 + v3.

What is left out is below 2^-25 |v| |m|, less than the rounding of the sum. A one-hot is one part,
so that its products are exact.
"""

import jax
import jax.numpy as jnp
from jax import lax

_MAX_CODES = 4096  # the product's work grows with the codes, that of a scatter does not
_SIX_PRODUCTS = lax.DotAlgorithmPreset.BF16_BF16_F32_X6


def adds_by_product(num_codes: int) -> bool:
    """Tells whether vectors are added by code with a matrix product on this platform."""
    return jax.default_backend() != "cpu" and num_codes <= _MAX_CODES


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes a b in the full precision of its operands, as its gradients are.

    Args:
        a: float32 or float64 [..., I].
        b: [I, O], of that dtype.

    Returns:
        [..., O], of that dtype.
    """
    if a.dtype != jnp.float32:
        return _full(a, b)
    return lax.platform_dependent(a, b, cuda=_six_products, default=_full)


def _full(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _six_products(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=_SIX_PRODUCTS)


def take(rows: jax.Array, codes: jax.Array) -> jax.Array:
    """Gathers rows; the gradient is `sum_by_code`.

    In the product's form a cotangent that is not finite makes the gradient of all codes NaN, not
    of its own alone.

    Args:
        rows: float32 or float64 [C, D].
        codes: int32 [...].

    Returns:
        [..., D], NaN without gradient where the code is not in 0 .. C-1.
    """
    return _take(codes, rows) if adds_by_product(rows.shape[0]) else _gather(codes, rows)


def _gather(codes: jax.Array, rows: jax.Array) -> jax.Array:
    return jnp.take(rows, codes, axis=0)


_take = jax.custom_jvp(_gather)


@_take.defjvp
def _take_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    codes, rows = primals
    # Without `checkpoint` the one-hot would be kept for the backward pass; by its barrier on the
    # codes XLA would write it out.
    expand = jax.checkpoint(_expand, prevent_cse=False)
    return _take(codes, rows), expand(codes, tangents[1])


def _expand(codes: jax.Array, rows: jax.Array) -> jax.Array:
    """Computes `take` as a product, 0 where there is no code."""
    num_codes, dim = rows.shape
    flat = codes.reshape(-1)
    if dim == 1:
        product = jnp.where(_has_code(flat, num_codes), rows, 0).sum(0)
    else:
        product = matmul(_one_hot(flat, num_codes, rows.dtype), rows)
    return product.reshape(*codes.shape, dim)


def _one_hot(codes: jax.Array, num_codes: int, dtype: jnp.dtype) -> jax.Array:
    """Returns 1 where k is the code, [R, C], of codes [R]; for products."""
    # Without the barrier XLA would write out [R, C] numbers, not make them in the product's tiles.
    numbers = lax.optimization_barrier(lax.iota(jnp.int32, num_codes))
    return (codes[:, None] == numbers[None]).astype(dtype)


def _has_code(codes: jax.Array, num_codes: int) -> jax.Array:
    """Tells where k is the code, bool [C, R], of codes [R]; for sums over one of the axes.

    As the transpose of `_one_hot` XLA would compute it once for a product and a sum, in memory.
    """
    return lax.iota(jnp.int32, num_codes)[:, None] == codes[None]


def sum_by_code(vectors: jax.Array, codes: jax.Array, num_codes: int) -> jax.Array:
    """Adds the vectors of each code.

    Args:
        vectors: float32 or float64 [R, D], finite where they have a code.
        codes: int32 [R]; vectors whose code is not in 0 .. C-1 are left out.
        num_codes: C.

    Returns:
        [C, D], of the vectors' dtype.
    """
    if not adds_by_product(num_codes):
        return jax.ops.segment_sum(vectors, codes, num_segments=num_codes)
    has_code = (codes >= 0) & (codes < num_codes)
    vectors = jnp.where(has_code[:, None], vectors, 0)  # 0 times NaN is NaN
    return matmul(_one_hot(codes, num_codes, vectors.dtype).T, vectors)


def count_by_code(codes: jax.Array, num_codes: int) -> jax.Array:
    """Counts the codes [R] that are 0 .. C-1: int32 [C]."""
    if not adds_by_product(num_codes):
        return jax.ops.segment_sum(jnp.ones_like(codes), codes, num_segments=num_codes)
    return _has_code(codes, num_codes).sum(1, dtype=jnp.int32)
