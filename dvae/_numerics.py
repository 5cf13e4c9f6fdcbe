"""Numerical guards and noise shared by the library.

Each function exists because the plain expression returns NaN, infinity or a biased draw somewhere
that training reaches; its docstring names the place. Half-precision inputs are computed in float32
(`upcast`) and cast back to `float_dtype` by the caller, so that floating dtypes are kept, integers
become floats, and nothing turns into float64.
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dvae import _jax_release
from dvae._checks import check_key

_jax_release.warn()

ArrayLike = jax.typing.ArrayLike
_THREEFRY_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def float_dtype(*xs: ArrayLike) -> jnp.dtype:
    """Returns the dtype of a result computed from xs: their common floating one.

    Integers and booleans have no say; without a floating x it is JAX's default float. Prevents
    truncation, to 1 for 1.72, where a result is cast back to the dtype of integer inputs.

    Raises:
        TypeError: if an x is complex.
    """
    xs = tuple(jnp.asarray(x) if isinstance(x, Sequence) else x for x in xs)
    for x in xs:
        if jnp.issubdtype(jnp.result_type(x), jnp.complexfloating):
            raise TypeError(f"expected real numbers, got {jnp.result_type(x)}")
    floating = [x for x in xs if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
    return jnp.result_type(*floating) if floating else jnp.result_type(float)


def wide_dtype(*xs: ArrayLike) -> jnp.dtype:
    """Returns `float_dtype(*xs)`, but at least float32."""
    dtype = float_dtype(*xs)
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def as_float(x: ArrayLike) -> jax.Array:
    """Returns x as an array of a floating dtype: its own, or for integers the default float."""
    return jnp.asarray(x, float_dtype(x))


def upcast(x: ArrayLike) -> jax.Array:
    """Returns x in at least float32: bfloat16 and float16 lose a sum's digits after a few terms."""
    return jnp.asarray(x).astype(wide_dtype(x))


def widen(*xs: ArrayLike) -> tuple[list[jax.Array], jnp.dtype]:
    """Returns xs as arrays of one dtype, float32 at least, and the dtype `float_dtype(*xs)`.

    A function of several arrays computes with the former and casts its result to the latter.
    Python numbers follow the arrays beside them, as in JAX. NumPy numbers, which have a dtype of
    their own there, and lists of numbers count as arrays.
    """
    return [jnp.asarray(x, wide_dtype(*xs)) for x in xs], float_dtype(*xs)


def vary_like(tree: Any, *examples: Any) -> Any:
    """Marks the arrays of a tree as varying over the mesh axes over which the examples vary.

    Inside `jax.shard_map` the carry of a loop keeps one type throughout. Constants that it starts
    from are the same on all devices, what it computes from sharded arrays is not. Elsewhere the
    tree comes back as it is.
    """
    axes = frozenset[str]().union(*(_varying(x) for x in jax.tree.leaves(examples)))

    def mark(x: jax.Array) -> jax.Array:
        missing = axes - _varying(x)
        return jax.lax.pcast(x, tuple(sorted(missing)), to="varying") if missing else x

    return jax.tree.map(mark, tree) if axes else tree


def _varying(x: jax.Array) -> frozenset[str]:
    """Returns the mesh axes over which x varies."""
    abstract = jax.typeof(x)
    axis_types = getattr(abstract, "mat", None)  # since JAX 0.10.2
    return axis_types.varying if axis_types is not None else getattr(abstract, "vma", frozenset())


def partition(function: Callable[..., Any], out_specs: Any, *arrays: Any) -> Any:
    """Calls function(*arrays), partitioned by the compiler over the mesh axes that are explicit.

    Gathers, scatters and reshapes of sharded arrays have no rule of their own for explicit axes;
    prevents the ShardingTypeError that they raise. Without an explicit axis it is a plain call.

    Args:
        function: of arrays.
        out_specs: how its result is sharded, a PartitionSpec or a tree of them.
        *arrays: arrays or trees of them.
    """
    meshes = [jax.typeof(x).sharding.mesh for x in jax.tree.leaves(arrays)]
    meshes = [mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types]
    if not meshes:
        return function(*arrays)
    is_spec = lambda x: isinstance(x, PartitionSpec)
    shardings = jax.tree.map(lambda x: NamedSharding(meshes[0], x), out_specs, is_leaf=is_spec)
    return jax.sharding.auto_axes(function, out_sharding=shardings)(*arrays)


def spec_of(x: jax.Array) -> PartitionSpec:
    """Returns how x is sharded over the mesh axes that are explicit."""
    return jax.typeof(x).sharding.spec


def is_staged() -> bool:
    """Tells whether operations are being traced into a program (jit, scan, ...), not executed."""
    return isinstance(jnp.zeros(()), jax.core.Tracer)


def mass_times(mass: jax.Array, x: jax.Array) -> jax.Array:
    """Multiplies by a probability mass with the convention 0 * (+-inf or NaN) = 0.

    Prevents the NaN of 0 * log 0 in entropies, divergences and expectations, in value and in
    gradient: an x without mass receives a zero gradient. A finite x keeps both of its gradients,
    so a straight-through gradient into `mass` still passes.

    Args:
        mass: [...] float, non-negative.
        x: [...] float of the same shape, possibly infinite or NaN where mass is zero.

    Returns:
        [...] the products.
    """
    empty = (mass == 0) & ~jnp.isfinite(x)
    # The inner select keeps the infinite x out of the product's derivative as well.
    return mass * jnp.where(empty, 0, x)


def mark_nan(z: jax.Array, x: jax.Array) -> jax.Array:
    """Returns z with NaN where x, which broadcasts with it, is NaN; gradients are those of z.

    A comparison with NaN is False: a bit drawn by `u < p` would be an ordinary 0 for p = NaN.
    """
    missing, z = jnp.broadcast_arrays(jnp.isnan(x), z)
    return jnp.where(missing, jnp.asarray(jnp.nan, z.dtype), z)


def meet(x: jax.Array, *others: jax.Array) -> jax.Array:
    """Broadcasts x against the others; on a mesh with explicit axes it is sharded as they are.

    Adding takes operands of different shardings, selecting does not: noise is replicated until it
    meets sharded parameters. Elsewhere the zeros that are added vanish in compilation.
    """
    for other in others:
        x = x + jnp.zeros_like(other, x.dtype)
    return x


def as_shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    """Returns a shape as a tuple: n means (n,), as for the samplers of `jax.random`."""
    return tuple(shape) if isinstance(shape, Sequence) else (operator.index(shape),)


def uniform_from_bits(bits: jax.Array) -> jax.Array:
    """Maps 32 random bits to a float32 strictly inside (0, 1): (bits + 1/2) / 2^32.

    All 32 bits are used, so the resolution near zero is 2^-32 (`jax.random.uniform` stops at
    2^-23, and includes 0). Prevents log(0) at u = 0; the minimum below prevents log1p(-1) at
    u = 1, to which the largest words would round.

    Args:
        bits: [...] uint32.

    Returns:
        [...] float32 in [2^-33, 1 - 2^-24].
    """
    u = (bits.astype(jnp.float32) + 0.5) * np.float32(2.0**-32)
    return jnp.minimum(u, np.float32(1 - 2.0**-24))


def open_uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws uniforms strictly inside (0, 1); float32 [*shape] (see `uniform_from_bits`)."""
    return uniform_from_bits(random_bits(key, shape))


def random_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws what `jax.random.bits` draws, uint32 [*shape], four times faster on CPUs.

    There JAX runs the rounds of its generator, Threefry-2x32, in a loop over arrays, to compile
    fast. Written out they fuse into whatever uses the bits. Keys of other generators, more than
    2^32 bits' worth of positions and JAX without `jax_threefry_partitionable` draw by
    `jax.random.bits`.

    Source: Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (2011).

    Raises:
        ValueError: if key is an array of keys.
        TypeError: if key is not a key.
    """
    check_key(key)
    if (
        jax.random.key_impl(key) != "threefry2x32"
        or not jax.threefry_partitionable.value
        or math.prod(shape) > 2**32
    ):
        return jax.random.bits(key, shape, jnp.uint32)
    # Draws nothing. It refuses what is no single key as JAX does, and lets `jax_debug_key_reuse`
    # know that the key is used, which reading its data does not.
    jax.random.bits(key, (0,), jnp.uint32)
    # Every element encrypts its position in the array, so that no sharding changes a draw.
    position = jnp.zeros(shape, jnp.uint32)
    for axis, length in enumerate(shape):
        index = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        position = position * np.uint32(length) + index
    data = jax.random.key_data(key)
    return threefry(data[0], data[1], position)


def threefry(k0: jax.Array, k1: jax.Array, position: jax.Array) -> jax.Array:
    """Encrypts positions, uint32 [...], by a key: the bits of `random_bits`, uint32 [...]."""
    schedule = (k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA))
    x, y = schedule[0], position + schedule[1]
    for block in range(5):
        for rotation in _THREEFRY_ROTATIONS[block % 2]:
            x = x + y
            y = x ^ (y << np.uint32(rotation) | y >> np.uint32(32 - rotation))
        x = x + schedule[(block + 1) % 3]
        y = y + (schedule[(block + 2) % 3] + np.uint32(block + 1))
    return x ^ y


def standard_gumbel(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws standard Gumbel noise, -log(-log(1 - u)), finite always: float32 [*shape].

    Writing 1 - u for the uniform puts its fine end on the upper tail, the one that decides an
    argmax: draws reach 22.9, where -log(-log u) with 23-bit uniforms stops at 15.9.
    """
    return gumbel_from_bits(random_bits(key, shape))


def gumbel_from_bits(bits: jax.Array) -> jax.Array:
    """Maps 32 random bits to standard Gumbel noise (see `standard_gumbel`): uint32 to float32."""
    return -jnp.log(-jnp.log1p(-uniform_from_bits(bits)))


def same_rank(*xs: jax.Array) -> list[jax.Array]:
    """Puts axes of length 1 in front, up to the largest rank; the arrays then broadcast.

    Unlike `jnp.broadcast_arrays` it leaves a scalar a single number, so that functions of it are
    computed once and not once an element.
    """
    rank = max(x.ndim for x in xs)
    return [x.reshape((1,) * (rank - x.ndim) + x.shape) for x in xs]


def logit(p: jax.Array) -> jax.Array:
    """Evaluates log p - log(1 - p), accurate at both ends of (0, 1)."""
    return jnp.log(p) - jnp.log1p(-p)


def within(x: jax.Array, low: ArrayLike, high: ArrayLike) -> jax.Array:
    """Clips x, with slope 1 at the ends, which `jnp.clip` halves, and exactly 0 beyond them."""
    return jnp.where(x < low, low, jnp.where(x > high, high, x))


@jax.custom_jvp
def sigmoid(x: jax.Array) -> jax.Array:
    """Evaluates s(x) = 1 / (1 + e^{-x}) with the derivative s(x) s(-x).

    That of `jax.nn.sigmoid`, s (1 - s), is 0 from x = 17 on, where s rounds to 1: logits would get
    a gradient on their negative side only.
    """
    return jax.nn.sigmoid(x)


@sigmoid.defjvp
def _sigmoid_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    value = sigmoid(primals[0])
    return value, value * sigmoid(-primals[0]) * tangents[0]


def bit_score(z: jax.Array, logits: jax.Array) -> jax.Array:
    """Evaluates d log q(z) / dl of bits, z sigmoid(-l) - (1 - z) sigmoid(l).

    It is z - sigmoid(l), which as written is 0 for z = 1 from l = 17 on, where sigmoid(l) rounds
    to 1. A gradient estimate would be 0 there, and exact at -l.
    """
    return z * sigmoid(-logits) - (1 - z) * sigmoid(logits)


def softplus_rise(old: jax.Array, new: jax.Array) -> jax.Array:
    """Evaluates softplus(new) - softplus(old) by one logarithm, which is half of the cost."""
    ratio = (1 + jnp.exp(-jnp.abs(new))) / (1 + jnp.exp(-jnp.abs(old)))
    return jnp.maximum(new, 0) - jnp.maximum(old, 0) + jnp.log(ratio)
