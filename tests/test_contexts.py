"""Every public function in the contexts in which JAX code is used.

The functions are the cases of `property_cases`. Most contexts are checked by tracing alone, in
milliseconds: a wrong dtype of a loop's carry, a promotion or a type of `shard_map` shows there.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import property_cases
import property_cases_boltzmann
import property_cases_quantizers
import property_cases_rbm
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from property_cases import SHAPE, Case

CASES = {
    **property_cases.CASES,
    **property_cases_rbm.CASES,
    **property_cases_boltzmann.CASES,
    **property_cases_quantizers.CASES,
}
# Whose cases have a batch axis in front of all arrays; of others the modules' own tests say what
# may be sharded.
BATCHED = [
    name
    for name in CASES
    if not name.startswith(("rbm.", "boltzmann.", "vq.", "bounds."))
    and not name.endswith("vimco_surrogate")
    and name not in property_cases_quantizers.UNBATCHED
]
DIFFERENTIABLE = [name for name, case in CASES.items() if case.differentiable]
COMPILATION = "/jax/core/compile/backend_compile_duration"


def inputs(case: Case, dtype=np.float32, shape=SHAPE) -> list[np.ndarray]:
    """Arrays inside the ranges of the case; integers where the dtype is one."""
    rng = np.random.default_rng(0)
    arrays = []
    for low, high in case.ranges:
        low, high = max(low, -3.0), min(high, 3.0)
        x = rng.uniform(low, high, shape)
        if np.issubdtype(dtype, np.integer):
            # Inside an open interval there may be no integer: then its upper end.
            x = np.clip(np.rint(x), np.ceil(low), max(np.floor(high), 1))
        arrays.append(x.astype(dtype))
    return arrays


def floats(tree) -> list:
    return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]


def total(case: Case) -> Callable[..., jax.Array]:
    """The sum of all floats that the function returns."""
    return lambda *arrays: sum(x.astype(jnp.float32).sum() for x in floats(case.function(*arrays)))


@pytest.mark.many_cases(every=10)
@pytest.mark.parametrize("name", CASES)
def test_double_precision(name) -> None:
    case = CASES[name]
    with jax.enable_x64(True):
        shapes = [jax.ShapeDtypeStruct(SHAPE, jnp.float64)] * len(case.ranges)
        leaves = floats(jax.eval_shape(case.function, *shapes))
    allowed = (jnp.float32, jnp.float64)  # bits, noise and weights of chains may stay narrow
    assert all(leaf.dtype in allowed for leaf in leaves)
    if case.keeps_dtype is not None and case.differentiable:
        assert all(leaf.dtype == jnp.float64 for leaf in leaves)


@pytest.mark.many_cases(every=10)
@pytest.mark.parametrize("name", CASES)
def test_float32_arrays_where_doubles_are_enabled(name) -> None:
    case = CASES[name]
    with jax.enable_x64(True):
        shapes = [jax.ShapeDtypeStruct(SHAPE, jnp.float32)] * len(case.ranges)
        leaves = floats(jax.eval_shape(case.function, *shapes))
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)


@pytest.mark.many_cases(every=10)
@pytest.mark.parametrize("name", CASES)
def test_strict_promotion(name) -> None:
    case = CASES[name]
    for dtype in (jnp.float32, jnp.bfloat16):
        shapes = [jax.ShapeDtypeStruct(SHAPE, dtype)] * len(case.ranges)
        with jax.numpy_dtype_promotion("strict"):
            jax.eval_shape(case.function, *shapes)


@pytest.mark.many_cases(every=10)
@pytest.mark.parametrize("name", CASES)
def test_inside_shard_map(name) -> None:
    case = CASES[name]
    mesh = jax.make_mesh((2,), ("shards",), axis_types=(AxisType.Auto,))
    # One row more for each output: what a shard computes need not have a batch axis.
    shard = lambda *arrays: jax.tree.map(lambda x: x[None], case.function(*arrays))
    each = PartitionSpec("shards")
    mapped = jax.shard_map(shard, mesh=mesh, in_specs=each, out_specs=each)
    shape = (2 * SHAPE[0], *SHAPE[1:])
    jax.eval_shape(mapped, *[jax.ShapeDtypeStruct(shape, jnp.float32)] * len(case.ranges))


@pytest.mark.many_cases(every=10)
@pytest.mark.parametrize("name", CASES)
def test_replicated_over_an_explicit_mesh(name) -> None:
    case = CASES[name]
    mesh = jax.make_mesh((2,), ("shards",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        sharding = NamedSharding(mesh, PartitionSpec())
        shapes = [jax.ShapeDtypeStruct(SHAPE, jnp.float32, sharding=sharding)] * len(case.ranges)
        jax.eval_shape(case.function, *shapes)


@pytest.mark.many_cases(every=10)
@pytest.mark.parametrize("name", BATCHED)
def test_sharded_over_an_explicit_mesh(name) -> None:
    case = CASES[name]
    mesh = jax.make_mesh((2,), ("shards",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        sharding = NamedSharding(mesh, PartitionSpec("shards"))
        shapes = [jax.ShapeDtypeStruct(SHAPE, jnp.float32, sharding=sharding)] * len(case.ranges)
        jax.eval_shape(case.function, *shapes)


@pytest.mark.many_cases(every=10)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_forward_mode_and_hessian_vector_products(name) -> None:
    case = CASES[name]
    shapes = [jax.ShapeDtypeStruct(SHAPE, jnp.float32)] * len(case.ranges)
    scalar = total(case)
    for function in (scalar, jax.jit(scalar)):
        gradient = jax.grad(function, range(len(shapes)))
        for direction in (function, gradient):
            jax.eval_shape(lambda *x, f=direction: jax.jvp(f, x, x), *shapes)
        along = lambda *x, f=function: jax.jvp(f, x, x)[1]
        jax.eval_shape(jax.grad(along, range(len(shapes))), *shapes)


@pytest.mark.many_cases(every=10)
@pytest.mark.parametrize("name", CASES)
def test_integers_count_as_floats(name) -> None:
    case = CASES[name]
    integers = inputs(case, np.int32)

    @jax.jit
    def both(*arrays):
        wide = (x.astype(jnp.float32) for x in arrays)
        return case.function(*arrays), case.function(*wide)

    value, expected = both(*integers)
    for leaf, like in zip(jax.tree.leaves(value), jax.tree.leaves(expected), strict=True):
        assert leaf.dtype == like.dtype
        np.testing.assert_allclose(leaf, like, rtol=1e-6)


@pytest.mark.many_cases(every=10)
@pytest.mark.parametrize("name", CASES)
def test_numpy_arrays(name) -> None:
    case = CASES[name]
    # Closed over, not passed: as arguments they would arrive as JAX's arrays.
    for dtype in (np.float32, np.float64):
        arrays = inputs(case, dtype)
        leaves = floats(jax.eval_shape(lambda case=case, arrays=arrays: case.function(*arrays)))
        assert all(leaf.dtype == jnp.float32 for leaf in leaves)


@pytest.mark.parametrize("name", CASES)
def test_key_arrays_are_refused(name, monkeypatch) -> None:
    case, calls, new_key = CASES[name], [], jax.random.key

    def new_keys(seed):
        calls.append(seed)
        return jax.random.split(new_key(seed), 2)

    monkeypatch.setattr(jax.random, "key", new_keys)
    shapes = [jax.ShapeDtypeStruct(SHAPE, jnp.float32)] * len(case.ranges)
    refused = False
    try:
        jax.eval_shape(case.function, *shapes)
    except ValueError as error:
        refused = "key" in str(error)
    assert refused or not calls, "a key array was taken for a key"


@pytest.mark.many_cases(every=10)
@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_kept_without_compiling(name) -> None:
    case = CASES[name]
    for dtype in (jnp.bfloat16, jnp.float16):
        shapes = [jax.ShapeDtypeStruct(SHAPE, dtype)] * len(case.ranges)
        allowed = {True: (dtype,), False: (jnp.float32,), None: (dtype, jnp.float32)}
        for leaf in floats(jax.eval_shape(case.function, *shapes)):
            assert leaf.dtype in allowed[case.keeps_dtype]


class Compilations:
    """Counts what the backend compiles."""

    count = 0

    def __call__(self, event: str, duration: float, **_: object) -> None:
        self.count += event == COMPILATION


@functools.cache
def compilations() -> Compilations:
    counter = Compilations()
    jax.monitoring.register_event_duration_secs_listener(counter)
    return counter


@pytest.mark.many_cases(every=10)
@pytest.mark.parametrize("name", CASES)
def test_a_second_call_compiles_nothing(name) -> None:
    case, counter = CASES[name], compilations()
    first = [jnp.asarray(x) for x in inputs(case)]
    second = [jnp.asarray(x * np.float32(0.97)) for x in inputs(case)]
    jax.block_until_ready(case.function(*first))
    before = counter.count
    jax.block_until_ready(case.function(*second))
    assert counter.count == before
