"""Every model in the contexts in which JAX code is used; most of it by tracing alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from model_cases import CASES

ROWS = PartitionSpec("shards")


def gradient(case):
    return jax.grad(lambda params, batch: case.loss(params, batch).sum())


def structs(tree, sharding=None):
    like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    return jax.tree.map(like, tree)


def traced(case):
    """Structs of parameters and of a batch."""
    batch = structs(case.batch(4))
    return jax.eval_shape(case.init, jax.random.key(0), batch), batch


def floats(tree):
    return {x.dtype for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)}


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("name", CASES)
def test_nothing_turns_double_where_doubles_are_enabled(name) -> None:
    case = CASES[name]
    with jax.enable_x64(True):
        params, batch = traced(case)
        found = params, jax.eval_shape(case.forward, params, batch)
        found = found, jax.eval_shape(gradient(case), params, batch)
    assert floats(found) == {jnp.dtype(jnp.float32)}


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("name", CASES)
def test_strict_promotion(name) -> None:
    case = CASES[name]
    with jax.numpy_dtype_promotion("strict"):
        params, batch = traced(case)
        jax.eval_shape(case.forward, params, batch)
        jax.eval_shape(gradient(case), params, batch)


def in_shards(function, out_specs):
    mesh = jax.make_mesh((2,), ("shards",), axis_types=(AxisType.Auto,))
    specs = (PartitionSpec(), ROWS)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out_specs)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("name", CASES)
def test_inside_shard_map(name) -> None:
    """The gradient by parameters that all devices share has their type: it is summed over them."""
    case = CASES[name]
    params, batch = traced(case)
    if name != "vq, fused":
        jax.eval_shape(in_shards(case.forward, ROWS), params, batch)
    jax.eval_shape(in_shards(gradient(case), PartitionSpec()), params, batch)


@pytest.mark.thorough
def test_gradients_inside_shard_map_are_those_of_the_whole_batch() -> None:
    case = CASES["vq, fused"]
    batch = case.batch(4)
    params = jax.jit(case.init)(jax.random.key(0), batch)
    found = jax.jit(in_shards(gradient(case), PartitionSpec()))(params, batch)
    expected = jax.jit(gradient(case))(params, batch)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(jnp.abs(b).max()))


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("name", CASES)
def test_a_mesh_with_explicit_axes(name) -> None:
    """What has one row an image is sharded like the images."""
    case = CASES[name]
    params, batch = traced(case)
    mesh = jax.make_mesh((2,), ("shards",))
    with jax.set_mesh(mesh):
        params = structs(params, NamedSharding(mesh, PartitionSpec()))
        batch = structs(batch, NamedSharding(mesh, ROWS))
        found = jax.eval_shape(case.forward, params, batch)
        jax.eval_shape(gradient(case), params, batch)
    assert {leaf.sharding.spec[0] for leaf in jax.tree.leaves(found)} == {"shards"}


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("name", ["vq, fused", "mlp", "joint", "dvaepp"])
def test_an_empty_batch(name) -> None:
    case = CASES[name]
    params = jax.jit(case.init)(jax.random.key(0), case.batch(1))

    @jax.jit
    def everything(params, batch):
        return case.forward(params, batch), gradient(case)(params, batch)

    found, gradients = everything(params, case.batch(0))
    assert {len(leaf) for leaf in jax.tree.leaves(found)} == {0}
    for leaf in jax.tree.leaves(gradients):
        np.testing.assert_array_equal(leaf, 0)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("name", CASES)
def test_second_derivatives(name) -> None:
    """Forward mode, and Hessian-vector products, which is it over reverse mode, compile."""
    case = CASES[name]
    params, batch = traced(case)

    @jax.jit
    def directional(params, batch):
        return jax.jvp(lambda p: case.loss(p, batch), (params,), (params,))

    @jax.jit
    def product(params, batch):
        return jax.jvp(lambda params: gradient(case)(params, batch), (params,), (params,))

    directional.lower(params, batch)
    product.lower(params, batch)
