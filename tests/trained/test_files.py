"""The folder of a trained model: what is written is read back, and what is wrong is named."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest
import safetensors.numpy

import dvae
from dvae import trained
from dvae.boltzmann import edge_lists, energy
from dvae.models import boltzmann

CARD = trained.Card("noise", step=7, seed=3, metrics={"elbo_nats": -1.5}, license="CC0-1.0")


def write(folder, name="machine", card=CARD):
    model = models.make(name)
    trained.save(folder, model.functions, model.params, card)
    return model


@pytest.mark.parametrize("name", sorted(models.FUNCTIONS))
def test_a_model_is_read_back(tmp_path, name) -> None:
    model = write(tmp_path / "model", name)
    again = dvae.load(tmp_path / "model" if name == "nearest" else str(tmp_path))
    assert again.functions == model.functions
    assert jax.tree.structure(again.params) == jax.tree.structure(model.params)
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
    assert again.info["step"] == 7
    assert again.info["license"] == "CC0-1.0"
    files = {path.name for path in (tmp_path / "model").iterdir()}
    own = {"prior"} if name == "code_prior" else set()
    own |= {"machine.csv", "machine.npz"} if name in ("machine", "graph", "dvaepp") else set()
    assert files == {"model.safetensors", "model.json", "README.md", *own}
    card = (tmp_path / "model" / "README.md").read_text()
    assert "elbo_nats: -1.5" in card
    assert "CC0-1.0" in card
    assert "noise" in repr(again)


def test_a_machine_is_an_edge_list_beside_the_model(tmp_path) -> None:
    for name in ("machine", "graph"):
        model = write(tmp_path, name)
        z = np.random.default_rng(0).integers(0, 2, (9, sum(model.functions.network.group_sizes)))
        expected = -boltzmann.log_prob(model.params["prior"], 0.0, [jnp.asarray(z, jnp.float32)])
        for file in trained.MACHINE_FILES:
            machine = edge_lists.read(tmp_path / file)
            found = energy(machine, jnp.asarray(z, jnp.float32))
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    topology = json.loads((tmp_path / "model.json").read_text())["settings"]["topology"]
    assert (topology["name"], topology["num_units"]) == ("grid", 5)
    assert "5 units and 5 edges on the graph grid" in (tmp_path / "README.md").read_text()
    write(tmp_path, "directed")
    assert not any((tmp_path / file).exists() for file in trained.MACHINE_FILES)


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ({"num_units": 4}, "the graph must have 5 units, got 4"),
        ({"edges": "0-1 2"}, "edges must be pairs of units such as 0-1"),
        ({"edges": "0-1 1-0 2-3 3-4 0-4"}, "both join units 0 and 1"),
        ({"colors": "0 0 1 0 1"}, "share an edge and color"),
        ({"edges": "0-1"}, r"weights must be float32 \(1,\) by the settings"),
    ],
)
def test_a_damaged_graph_is_named(tmp_path, topology, message) -> None:
    write(tmp_path, "graph")
    record = json.loads((tmp_path / "model.json").read_text())
    if "num_units" in topology:
        topology = {**topology, "edges": "0-1", "colors": "0 1 0 0"}
    record["settings"]["topology"] |= topology
    (tmp_path / "model.json").write_text(json.dumps(record))
    with pytest.raises(trained.ModelError, match=message) as raised:
        dvae.load(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_model_of_each_seed(tmp_path) -> None:
    for seed in (2, 10):
        write(tmp_path / "model" / trained.seed_folder(seed), card=trained.Card("noise", seed=seed))
    assert dvae.load(tmp_path, seed=10).info["seed"] == 10
    assert dvae.load(tmp_path / "model" / "seed_2").info["seed"] == 2
    with pytest.raises(trained.ModelError, match=r"seeds 2, 10; name one: dvae.load\(path, seed=2"):
        dvae.load(tmp_path)
    with pytest.raises(trained.ModelError, match="seeds 2, 10, and none of seed 3"):
        dvae.load(tmp_path, seed=3)
    with pytest.raises(trained.ModelError, match="holds one model, and not that of seed 3"):
        dvae.load(tmp_path / "model" / "seed_2", seed=3)


def test_places_without_a_model(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for path, message in (
        ("nothing", "does not exist"),
        ("file", "is a file"),
        ("", "no trained model.*python -m experiments.export"),
    ):
        with pytest.raises(trained.ModelError, match=message) as caught:
            dvae.load(tmp_path / path)
        assert len(str(caught.value).splitlines()) == 1


def change(folder, **changes):
    record = json.loads((folder / "model.json").read_text())
    settings = {**record["settings"], **changes.pop("settings", {})}
    (folder / "model.json").write_text(json.dumps({**record, "settings": settings, **changes}))


NETWORK = {"group_sizes": [2, 2], "num_pixels": 6, "directed": False}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(format="other"), "is not the description of a dvae model"),
        (dict(format_version=2), "format version 2, written by dvae .* install a newer dvae"),
        (dict(format_version="1"), "names no version"),
        (dict(kind="gan"), "is of kind 'gan', and this version knows binary_vae"),
        (dict(kind="joint_vae"), "no settings of a model.*is no setting of this version"),
        (dict(settings={"image_shape": [3, 3, 1]}), "do not have the 6 pixels"),
        (dict(settings={"image_shape": "3"}), "image_shape must be a list of integers, got '3'"),
        (dict(settings={"num_chains": 5.0}), "num_chains must be of type int, got 5.0"),
        (dict(settings={"num_chains": 6}), r"chains/z1 must be float32 \(6, 2\).*got float"),
        (dict(settings={"weighted_chains": False}), "has, beyond the settings, the array chains/l"),
        (dict(settings={"network": {**NETWORK, "hidden": [2]}}), "lacks the array network/.* more"),
        (dict(settings={"network": {**NETWORK, "product_dtype": "int8"}}), "must be one of float"),
        (dict(settings={"network": {**NETWORK, "group_sizes": []}}), "at least one group"),
        (dict(settings={"network": 3}), "settings.network must be an object, got 3"),
        (dict(settings={"num_chains": 2**40}), r"num_chains must be below 2\^31"),
        (dict(settings={"image_shape": [2**40, 2**40, 1]}), r"image_shape must be below 2\^31"),
        (dict(settings={"image_shape": [2**20, 2**20, 1]}), r"has 2\^31 numbers or more"),
        (dict(settings={"num_chains": 2**30}), r"chains/z1 must be float32 \(1073741824, 2\)"),
    ],
)
def test_records_that_do_not_fit(tmp_path, changes, message) -> None:
    write(tmp_path)
    change(tmp_path, **changes)
    with pytest.raises(trained.ModelError, match=message) as caught:
        dvae.load(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", sorted(models.FUNCTIONS))
def test_a_model_is_read_where_doubles_are_enabled(tmp_path, name) -> None:
    write(tmp_path / "model", name)
    with jax.enable_x64(True):
        again = dvae.load(tmp_path)
    kinds = {x.dtype for x in jax.tree.leaves(again.params)}
    assert jnp.dtype(jnp.float64) not in kinds


def test_an_integer_is_a_float_of_the_settings(tmp_path) -> None:
    model = models.make("code_prior")
    prior = dataclasses.replace(model.functions.prior, dropout=0)
    functions = dataclasses.replace(model.functions, prior=prior)
    trained.save(tmp_path / "model", functions, model.params, CARD)
    assert dvae.load(tmp_path).functions == functions


def test_damaged_files(tmp_path) -> None:
    write(tmp_path)
    arrays = tmp_path / "model.safetensors"
    whole = arrays.read_bytes()
    for content in (b"", b"\x80\x04pickle", whole[:-1], whole[:100]):
        arrays.write_bytes(content)
        with pytest.raises(trained.ModelError, match="cannot be read as safetensors"):
            dvae.load(tmp_path)
    values = safetensors.numpy.load(whole)
    values["mean"] = values["mean"].astype(np.float64)
    arrays.write_bytes(safetensors.numpy.save(values))
    with pytest.raises(trained.ModelError, match=r"mean must be float32 \(6,\).*got float64"):
        dvae.load(tmp_path)
    arrays.unlink()
    with pytest.raises(trained.ModelError, match="cannot be read as safetensors"):
        dvae.load(tmp_path)
    (tmp_path / "model.json").write_text("{" * 5_000)
    with pytest.raises(trained.ModelError, match=r"model\.json cannot be read"):
        dvae.load(tmp_path)


def test_an_interrupted_export_leaves_no_mixture(tmp_path, monkeypatch) -> None:
    write(tmp_path)
    replace = trained._files._replace

    def fail(path, content):
        if path.name == "README.md":
            raise OSError(28, "No space left on device")
        replace(path, content)

    monkeypatch.setattr(trained._files, "_replace", fail)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, "directed")
    with pytest.raises(trained.ModelError, match="no trained model"):
        dvae.load(tmp_path)


def test_arrays_that_do_not_fit_are_not_written(tmp_path) -> None:
    model = models.make("directed")
    with pytest.raises(ValueError, match="params lacks the array mean"):
        trained.save(tmp_path / "model", model.functions, {**model.params, "mean": None}, CARD)
    assert not (tmp_path / "model").exists()


@pytest.mark.thorough
def test_loading_needs_neither_the_programs_nor_the_training(tmp_path) -> None:
    write(tmp_path)
    code = (
        f"import sys, dvae; before = 'flax' in sys.modules; dvae.load({str(tmp_path)!r}); print("
        "before, [m for m in ('experiments', 'optax', 'orbax', 'matplotlib') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert result.stdout.split(maxsplit=1) == ["False", "[]\n"]
