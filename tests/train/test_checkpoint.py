"""Working directories and configurations."""

import json
import os

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
