"""Rows over eight virtual devices: placed, drawn from without moving the set, and brought back."""

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.data import batches
from dvae.train import sharding

ROWS = np.arange(45 * 3, dtype=np.uint8).reshape(45, 3)  # not a multiple of eight


@pytest.fixture(name="mesh", params=[1, 8])
def make_mesh(request):
    return sharding.make_mesh(request.param)


def test_rows_are_placed_in_order_and_padded(mesh) -> None:
    placed = sharding.shard_rows(mesh, ROWS, 45)
    assert placed.shape == (45 + -45 % mesh.size, 3)
    np.testing.assert_array_equal(placed[:45], ROWS)
    assert not np.any(placed[45:])
    assert {shard.data.shape[0] for shard in placed.addressable_shards} == {-(-45 // mesh.size)}


def test_one_process_keeps_all_rows(mesh) -> None:
    assert sharding.local_rows(mesh, 45) == slice(0, 45)
    np.testing.assert_array_equal(sharding.gather_rows(mesh, ROWS, 45), ROWS)


def test_replicated_trees_keep_values_and_keys(mesh) -> None:
    tree = {"x": ROWS, "key": jax.random.key(3), "number": np.float32(2.5)}
    placed = sharding.replicate(mesh, tree)
    assert all(x.is_fully_replicated for x in jax.tree.leaves(placed))
    found = sharding.fetch({"x": placed["x"], "number": placed["number"]})
    np.testing.assert_array_equal(found["x"], ROWS)
    assert found["number"] == 2.5
    np.testing.assert_array_equal(
        jax.random.uniform(placed["key"], (4,)), jax.random.uniform(tree["key"], (4,))
    )


@pytest.mark.thorough
def test_a_batch_does_not_depend_on_where_the_rows_are() -> None:
    mesh, key = sharding.make_mesh(8), jax.random.key(0)
    draw = lambda images, step: batches.draw(key, images, step, batch_size=8, num_examples=45)
    for step in range(7):
        found = jax.jit(draw)(sharding.shard_rows(mesh, ROWS, 45), jnp.int32(step))
        np.testing.assert_array_equal(found, batches.draw(key, ROWS, step, batch_size=8))


def test_drawing_moves_the_batch_and_not_the_set() -> None:
    """What goes between devices in the compiled step is of the batch's size."""
    mesh, key = sharding.make_mesh(8), jax.random.key(0)
    images = sharding.shard_rows(mesh, np.zeros((4096, 5, 5, 1), np.uint8), 4096)

    def draw(images, step):
        batch = batches.draw(key, images, step, batch_size=16, num_examples=4096)
        return sharding.shard_batch(mesh, batch)

    text = jax.jit(draw).lower(images, jnp.int32(0)).compile().as_text()
    moves = re.findall(r"= \w+\[([\d,]*)\]\S* (?:all-\w+|collective-\w+|reduce-scatter)", text)
    assert moves, "the devices exchange nothing"
    sizes = [int(np.prod([int(n) for n in shape.split(",") if n])) for shape in moves]
    assert max(sizes) <= 16 * 25


@pytest.mark.parametrize(
    ("platform", "count", "expected"),
    [("cpu", 1, False), ("cpu", 2, True), ("gpu", 8, False), ("tpu", 4, False)],
)
def test_several_cpu_devices_of_a_process_alone_must_wait(platform, count, expected) -> None:
    devices = [types.SimpleNamespace(platform=platform)] * count
    assert sharding.must_wait(types.SimpleNamespace(local_devices=devices)) is expected
    assert sharding.must_wait(sharding.make_mesh(count if count < 8 else 1)) is (1 < count < 8)


def test_padding_rows_are_never_drawn() -> None:
    with pytest.raises(ValueError, match="num_examples=46 exceeds the 45 images"):
        batches.draw(jax.random.key(0), ROWS, 0, batch_size=8, num_examples=46)


def test_a_mesh_of_more_devices_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="a mesh of 9 devices cannot be made of the 8"):
        sharding.make_mesh(9)
