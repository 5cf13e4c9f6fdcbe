"""Vectors sharded over a batch axis, codebooks on every device: the results of one device."""

import contextlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dvae import vq

NUM_CODES = 5
MESH = (4,), ("batch",)
BATCH, WHOLE = PartitionSpec("batch"), PartitionSpec()


def arrays(shape=(32, 4)):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=shape).astype(np.float32)
    vectors += np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)) / np.float32(16)
    codebook = rng.normal(size=(NUM_CODES, shape[-1])).astype(np.float32)
    codes = rng.integers(-1, NUM_CODES + 1, shape[:-1])
    return vectors, codebook, codes.astype(np.int32)


def update(vectors, codebook, codes):
    return vq.ema_update(vq.ema_init(codebook), vectors, codes, decay=0.9)


def restart(vectors, codebook, codes):
    state = update(vectors, codebook, codes)
    return vq.restart_dead_codes(jax.random.key(0), state, vectors, threshold=1.3)


def losses(vectors, codebook, codes):
    quantized = vq.lookup(vq.nearest_code(vectors, codebook), codebook)
    return (
        vq.straight_through(vectors, quantized),
        vq.codebook_loss(vectors, quantized),
        vq.commitment_loss(vectors, quantized),
    )


def gradients(vectors, codebook, codes):
    def loss(vectors, codebook):
        used = (codes >= 0) & (codes < NUM_CODES)
        quantized = jnp.where(used[..., None], vq.lookup(codes, codebook), 0)
        near = jnp.log1p(vq.squared_distances(vectors, codebook))
        return near.sum() + vq.codebook_loss(vectors, quantized).sum()

    return jax.grad(loss, (0, 1))(vectors, codebook)


# How the results are sharded: like the vectors, or not at all.
FUNCTIONS = {
    "squared_distances": (lambda v, m, k: vq.squared_distances(v, m), BATCH),
    "nearest_code": (lambda v, m, k: vq.nearest_code(v, m), BATCH),
    "lookup": (lambda v, m, k: vq.lookup(k, m), BATCH),
    "usage": (lambda v, m, k: vq.usage(k, NUM_CODES), WHOLE),
    "health": (
        lambda v, m, k: (
            vq.perplexity(vq.usage(k, NUM_CODES)),
            vq.num_dead(vq.usage(k, NUM_CODES)),
        ),
        WHOLE,
    ),
    "losses": (losses, BATCH),
    "gradients": (gradients, (BATCH, WHOLE)),
    "ema_update": (update, WHOLE),
    "restart_dead_codes": (restart, WHOLE),
}


def is_spec(x):
    return isinstance(x, PartitionSpec)


def check(function, spec, inputs, *, in_mesh, jitted):
    mesh = jax.make_mesh(*MESH, axis_types=(AxisType.Explicit,))
    expected = function(*map(jnp.asarray, inputs))
    placed = [
        jax.device_put(x, NamedSharding(mesh, s))
        for x, s in zip(inputs, (BATCH, WHOLE, BATCH), strict=False)
    ]
    with jax.set_mesh(mesh) if in_mesh else contextlib.nullcontext():
        value = (jax.jit(function) if jitted else function)(*placed)
    chex.assert_trees_all_close(value, expected, rtol=1e-5, atol=1e-6)
    specs = jax.tree.broadcast(spec, value, is_leaf=is_spec)
    specs = jax.tree.leaves(specs, is_leaf=is_spec)
    for leaf, leaf_spec in zip(jax.tree.leaves(value), specs, strict=True):
        assert leaf.sharding.is_equivalent_to(NamedSharding(mesh, leaf_spec), leaf.ndim)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize(("shape", "in_mesh"), [((32, 4), False), ((8, 3, 2, 4), True)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_explicit_axes_in_a_compiled_program(name, shape, in_mesh):
    check(*FUNCTIONS[name], arrays(shape), in_mesh=in_mesh, jitted=True)


# Without a mesh around it JAX itself cannot start the gradient of a sharded sum.
@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "gradients"])
def test_explicit_axes_without_compiling(name):
    check(*FUNCTIONS[name], arrays(), in_mesh=False, jitted=False)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize(("in_mesh", "jitted"), [(True, True), (False, False)])
def test_kmeans_of_points_on_explicit_axes(in_mesh, jitted):
    options = {"num_codes": NUM_CODES, "chunk_size": 10}
    seeds = lambda points: vq.kmeans_plus_plus(jax.random.key(0), points, **options)
    clusters = lambda points: vq.kmeans(jax.random.key(0), points, num_iters=3, **options)
    points = arrays()[:1]
    check(seeds, WHOLE, points, in_mesh=in_mesh, jitted=jitted)
    check(clusters, (WHOLE, BATCH), points, in_mesh=in_mesh, jitted=jitted)


@pytest.mark.many_cases
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_shard_of_a_shard_map_is_a_batch(name):
    function, _ = FUNCTIONS[name]
    vectors, codebook, codes = arrays()
    mesh = jax.make_mesh(*MESH, axis_types=(AxisType.Auto,))
    # A codebook that is the same everywhere, and one that every shard has for itself.
    for codebooks, spec in ((codebook, WHOLE), (np.stack([codebook] * 4), BATCH)):

        def shard(vectors, codebook, codes):
            value = function(vectors, codebook.reshape(NUM_CODES, -1), codes)
            return jax.tree.map(lambda x: x[None], value)

        if name == "gradients" and spec == WHOLE:
            continue  # the gradient of what is the same everywhere is a sum over shards
        mapped = jax.shard_map(shard, mesh=mesh, in_specs=(BATCH, spec, BATCH), out_specs=BATCH)
        value = jax.jit(mapped)(vectors, codebooks, codes)
        for i in range(4):
            rows = slice(8 * i, 8 * i + 8)
            expected = jax.jit(function)(vectors[rows], codebook, codes[rows])
            shard_value = jax.tree.map(lambda x, i=i: x[i], value)
            chex.assert_trees_all_close(shard_value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.thorough
def test_kmeans_inside_a_shard_map():
    points, seeds = arrays()[0], np.arange(4)
    mesh = jax.make_mesh(*MESH, axis_types=(AxisType.Auto,))

    def cluster(seed, points):
        key = jax.random.key(seed.reshape(()))
        return vq.kmeans(key, points, num_codes=3, num_iters=2, chunk_size=5)

    def shard(seed, points):
        codebook, codes = cluster(seed, points)
        return codebook[None], codes

    # Other points, or other keys, on every device.
    mapped = jax.shard_map(shard, mesh=mesh, in_specs=(WHOLE, BATCH), out_specs=BATCH)
    codebooks, codes = jax.jit(mapped)(seeds[:1], points)
    mapped = jax.shard_map(shard, mesh=mesh, in_specs=(BATCH, WHOLE), out_specs=BATCH)
    by_key, _ = jax.jit(mapped)(seeds, points)
    for i in range(4):
        codebook, code = cluster(seeds[0], points[8 * i : 8 * i + 8])
        np.testing.assert_allclose(codebooks[i], codebook, rtol=1e-5)
        np.testing.assert_array_equal(codes[8 * i : 8 * i + 8], code)
        np.testing.assert_allclose(by_key[i], cluster(seeds[i], points)[0], rtol=1e-5)
