"""Working directories and configurations."""

import json
import os
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.train import checkpoint, sharding


def test_another_configuration_is_refused_by_field(tmp_path) -> None:
    checkpoint.prepare_workdir(tmp_path / "run", {"seed": 0, "size": 3, "name": "a"})
    checkpoint.prepare_workdir(tmp_path / "run", {"seed": 0, "size": 3, "name": "a"})
    with pytest.raises(ValueError, match="another configuration") as error:
        checkpoint.prepare_workdir(tmp_path / "run", {"seed": 1, "size": 3, "extra": 2.5})
    message = str(error.value)
    assert "seed (there: 0, now: 1)" in message
    assert "name (there: a, now: (absent))" in message
    assert "extra (there: (absent), now: 2.5)" in message
    assert "size" not in message
    checkpoint.prepare_workdir(tmp_path / "run", {"seed": 2, "size": 3, "name": "a"}, free={"seed"})
    assert "\n" not in message


def test_workdir_that_cannot_be_written(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write to workdir"):
        checkpoint.prepare_workdir(tmp_path / "file" / "run", {})
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(ValueError, match="cannot write to workdir"):
            checkpoint.prepare_workdir(tmp_path / "closed" / "run", {})


def test_broken_configuration_file(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"seed":')
    with pytest.raises(ValueError, match="not valid JSON"):
        checkpoint.prepare_workdir(tmp_path, {"seed": 0})


def test_json_is_whole_or_absent(tmp_path) -> None:
    path = tmp_path / "value.json"
    checkpoint.write_json(path, {"a": [1, 2]})
    with pytest.raises(TypeError):
        checkpoint.write_json(path, {"a": object()})
    with pytest.raises(ValueError, match="not JSON compliant"):
        checkpoint.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": [1, 2]}


def test_round_trip_keeps_bits_types_and_sharding(tmp_path) -> None:
    mesh = sharding.make_mesh(8)
    everywhere = sharding.replicated(mesh)
    tree = {
        "a": jax.random.normal(jax.random.key(0), (3, 2)),
        "b": jnp.arange(5, dtype=jnp.int32),
        "c": (jnp.ones((), jnp.bfloat16), ()),
    }
    store = checkpoint.Checkpoints(tmp_path)
    store.save(7, tree, {"seconds": 1.5})
    store.close()
    store = checkpoint.Checkpoints(tmp_path)
    restored, info = store.restore(7, jax.eval_shape(lambda: tree), everywhere)
    assert info == {"seconds": 1.5}
    assert jax.tree.structure(restored) == jax.tree.structure(tree)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(tree), strict=True):
        assert a.dtype == b.dtype
        assert a.sharding == everywhere
        np.testing.assert_array_equal(a, b)


def test_last_two_checkpoints_are_kept(tmp_path) -> None:
    store = checkpoint.Checkpoints(tmp_path)
    for step in (1, 2, 3):
        store.save(step, {"a": jnp.zeros(1)}, {})
    store.close()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]


@pytest.mark.parametrize(("batch_size", "hint"), [(12, "use 8 or 16"), (4, "use 8 or 8")])
def test_batch_that_devices_cannot_share(batch_size, hint) -> None:
    with pytest.raises(ValueError, match=hint):
        sharding.check_batch_size(batch_size, sharding.make_mesh(8))


def save_two(workdir):
    """Writes the checkpoints of steps 1 and 2; returns what step 1 holds."""
    states = [{"a": jnp.arange(50_000, dtype=jnp.float32) + step} for step in (1, 2)]
    store = checkpoint.Checkpoints(workdir)
    for step, state in enumerate(states, 1):
        store.save(step, state, {"seconds": float(step)})
    store.close()
    return states[0]


def restore(workdir, step, like):
    store = checkpoint.Checkpoints(workdir)
    try:
        return store.restore(step, like, sharding.replicated(sharding.make_mesh(1)))
    finally:
        store.close()


@pytest.mark.parametrize("damage", ["state", "info", "all"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_good(tmp_path, damage) -> None:
    first = save_two(tmp_path)
    folder = tmp_path / "checkpoints" / "2"
    damaged = folder if damage == "all" else folder / damage
    for file in damaged.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(checkpoint.CheckpointError, match="cannot be read") as error:
        restore(tmp_path, 2, first)
    assert str(folder) in str(error.value)
    assert "delete that folder to continue from step 1" in str(error.value)
    shutil.rmtree(folder)
    state, info = restore(tmp_path, 1, first)
    np.testing.assert_array_equal(state["a"], first["a"])
    assert info == {"seconds": 1.0}


class Plain(NamedTuple):
    params: dict
    key: jax.Array
    rest: tuple = ()


@pytest.mark.parametrize(
    ("like", "differing"),
    [
        (dict(w=jnp.zeros((1, 3))), r"params/w: \(3,\) there, \(1, 3\) here"),
        (
            dict(v=jnp.zeros(3)),
            r"params/v: absent there, \(3,\) here, params/w: \(3,\) th",
        ),
        (dict(w=jnp.zeros(3), b=jnp.zeros(())), r"params/b: absent there, \(\) here"),
    ],
)
def test_a_checkpoint_of_another_model_says_what_differs(tmp_path, like, differing) -> None:
    state = Plain({"w": jnp.zeros(3)}, jax.random.key(0))
    store = checkpoint.Checkpoints(tmp_path)
    store.save(1, state, {})
    store.close()
    with pytest.raises(checkpoint.CheckpointError) as error:
        restore(tmp_path, 1, state._replace(params=like))
    said = str(error.value)
    assert re.search(rf"state of another model \({differing}.*\); choose another workdir, or", said)
    assert "--" not in said
    found, _ = restore(tmp_path, 1, state)
    assert jax.tree.structure(found) == jax.tree.structure(state)


FULL_DISK = """
import resource, sys
import jax.numpy as jnp, numpy as np
from pathlib import Path
from dvae.train import checkpoint

state = {"a": jnp.asarray(np.random.default_rng(0).normal(size=300_000))}
store = checkpoint.Checkpoints(Path(sys.argv[1]))
store.save(1, state, {})
store._manager.wait_until_finished()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # a file cannot grow further
try:
    store.save(2, state, {})
    store.close()
except checkpoint.CheckpointError as error:
    print(error)
"""


@pytest.mark.thorough
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "cannot be written to" in ran.stdout, ran.stderr
    assert "File too large" in ran.stdout
    assert "that of step 1 is kept; make room there" in ran.stdout
    state, _ = restore(tmp_path, 1, {"a": jnp.zeros(300_000)})
    expected = np.random.default_rng(0).normal(size=300_000).astype(np.float32)
    np.testing.assert_array_equal(state["a"], expected)
    assert checkpoint.Checkpoints(tmp_path).latest_step == 1
