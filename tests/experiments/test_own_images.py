"""Programs on images of one's own, in the devices' memory, in the host's and in files."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dvae.train import loop, sharding, state
from experiments import encode
from experiments.binary_vae import __main__ as binary_vae
from experiments.binary_vae import presets as binary_presets
from experiments.binary_vae.config import Config as BinaryConfig
from experiments.cifar_vq import __main__ as cifar_vq
from experiments.cifar_vq import config as vq_config
from experiments.cifar_vq import presets as vq_presets
from experiments.common import pixels, workdirs
from experiments.dvaepp import config as dvaepp_config
from experiments.dvaepp import presets as dvaepp_presets
from experiments.dvaepp import task as dvaepp_task
from experiments.joint_vae import __main__ as joint_vae
from experiments.joint_vae import config as joint_config

GRAY = np.random.default_rng(0).integers(0, 256, (50, 8, 16), dtype=np.uint8)
COLOR = np.random.default_rng(1).integers(0, 256, (50, 8, 16, 3), dtype=np.uint8)
LABELS = np.arange(50) % 3
SMOKE = {
    "cifar_vq": (cifar_vq, vq_config.Config, vq_presets.PRESETS["smoke"]),
    "binary_vae": (binary_vae, BinaryConfig, binary_presets.PRESETS["smoke"]),
    "joint_vae": (joint_vae, joint_config.Config, joint_config.PRESETS["smoke"]),
}


@pytest.fixture(name="places", scope="module")
def write_images(tmp_path_factory):
    """Images by kind: an archive, a folder of files, and one of mapped arrays."""
    folder = tmp_path_factory.mktemp("own")
    np.savez(folder / "gray.npz", train=GRAY, test=GRAY[:9], train_labels=LABELS)
    (folder / "color").mkdir()
    for i, image in enumerate(COLOR):
        Image.fromarray(image).save(folder / "color" / f"{i}.png")
    (folder / "mapped").mkdir()
    for name, array in (("train", GRAY), ("test", GRAY[:9])):
        np.save(folder / "mapped" / f"{name}.npy", array)
    return {"gray": folder / "gray.npz", "color": folder / "color", "mapped": folder / "mapped"}


def configure(program, places, kind, **changed):
    _, config_class, smoke = SMOKE[program]
    settings = {**smoke, "dataset": str(places[kind]), "num_steps": 8, **changed}
    if kind == "color":
        settings["test_share"] = 0.2
    return config_class(**settings)


def train(program, config, workdir, num_steps=8, devices=1):
    """The parameters after some steps, without evaluations."""
    module, mesh = SMOKE[program][0], sharding.make_mesh(devices)
    images = load(program, config, mesh)
    task = module.make_task(config, images, mesh)
    values = {task.monitor or "": np.float32(0)}
    lengths = dataclasses.replace(config.loop(), num_steps=num_steps, eval_interval=0)
    result = loop.fit(task._replace(evaluate=lambda _: values), lengths, workdir, mesh)
    return jax.device_get((result.state.params, result.state.model_state))


def load(program, config, mesh):
    keep = functools.partial(sharding.local_rows, mesh)
    return SMOKE[program][0].task.prepare(config, keep)


def assert_same(a, b) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


DRAWS = {
    "binary_vae": lambda config, *rest: binary_vae.task.draw_fn(config, True, *rest),
    "cifar_vq": cifar_vq.task.draw_fn,
    "joint_vae": joint_vae.task.draw_fn,
}


@pytest.mark.thorough
@pytest.mark.parametrize("program", SMOKE)
def test_steps_see_the_same_images_wherever_they_are(places, program) -> None:
    kind = "color" if program == "joint_vae" else "gray"
    own = {"binary_vae": {"binarization": "dynamic"}, "cifar_vq": {"crop": 4}}
    settings = own.get(program, {"image_size": 0})
    config = configure(program, places, kind, **settings)
    stored = dataclasses.replace(config, data_on="files" if kind == "color" else "host")
    mesh = sharding.make_mesh(1)
    images, fetched = (load(program, c, mesh) for c in (config, stored))
    task = SMOKE[program][0].make_task(stored, fetched, mesh)
    key, feed = state.draw_key(task.key_train), task.feed(5, 1)
    resident, streamed = (DRAWS[program](c, mesh, images.num_train) for c in (config, stored))
    for step in (5, 6):
        expected = resident(key, images.train, jnp.int32(step))
        np.testing.assert_array_equal(streamed(key, next(feed), jnp.int32(step)), expected)
    feed.close()


BITS = {"binarization": "dynamic"}
CASES = [
    pytest.param(
        "binary_vae", "gray", {**BITS, "num_seeds": 2}, "host", marks=pytest.mark.thorough
    ),
    pytest.param("binary_vae", "mapped", BITS, "files", marks=pytest.mark.slow),
    pytest.param(
        *("cifar_vq", "gray", {"crop": 4, "estimator": "vq_ema"}, "host"), marks=pytest.mark.slow
    ),
    pytest.param("joint_vae", "color", {"image_size": 0}, "files", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("program", "kind", "settings", "place"), CASES)
def test_where_images_are_changes_no_more_than_rounding(
    places, tmp_path, program, kind, settings, place
) -> None:
    """XLA rounds sums by the program around them; a stopped run goes on bit for bit."""
    config = configure(program, places, kind, **settings)
    streamed = dataclasses.replace(config, data_on=place)
    whole = train(program, streamed, tmp_path / "whole")
    train(program, streamed, tmp_path / place, num_steps=4)
    assert_same(train(program, streamed, tmp_path / place), whole)
    resident = train(program, config, tmp_path / "device")
    for x, y in zip(jax.tree.leaves(whole), jax.tree.leaves(resident), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6)


def test_devices_share_streamed_batches(places) -> None:
    config = configure("binary_vae", places, "gray", data_on="host", binarization="dynamic")
    mesh = sharding.make_mesh(2)
    images = load("binary_vae", config, mesh)
    task = binary_vae.make_task(config, images, mesh)
    feed = task.feed(6, 2)
    (rows, positions), _ = next(feed), feed.close()
    assert rows.shape == (2, 8, 128)
    assert rows.sharding.shard_shape(rows.shape) == (2, 4, 128)
    np.testing.assert_array_equal(positions, [range(8)] * 2)
    known = {row.tobytes() for row in images.train.reshape(len(images.train), -1)}
    seen = {row.tobytes() for row in np.asarray(rows).reshape(16, -1)}
    assert seen <= known
    assert len(seen) > 8, "steps see different images"


@pytest.mark.thorough
def test_a_run_on_own_images_is_evaluated(places, tmp_path, one_device, capsys) -> None:
    workdir = tmp_path / "run"
    config = configure(
        "joint_vae", places, "color", image_size=0, workdir=str(workdir), data_on="files"
    )
    summary = joint_vae.run(config)
    assert summary["dataset"] == "color"
    assert summary["pixels"].startswith("levels in [0, 1] at 8x16")
    assert summary["config"]["dataset"] == str(places["color"])
    assert "finished" not in capsys.readouterr().out
    joint_vae.run(dataclasses.replace(config, data_on="device"))
    assert "this run is finished" in capsys.readouterr().out


def test_images_in_files_are_encoded_as_arrays(places) -> None:
    config = configure("joint_vae", places, "color", data_on="files", image_size=0)
    images = load("joint_vae", config, sharding.make_mesh(1))
    assert not isinstance(images.train, np.ndarray)

    def mean(key, rows, *, labels):
        assert isinstance(rows, np.ndarray)
        return rows.mean((1, 2, 3))

    model = SimpleNamespace(functions=None, encode=mean)
    settings = encode.Config(split="train", batch_size=5)
    found = encode.encode(settings, model, images)["train"]
    np.testing.assert_allclose(found, np.asarray(images.train).mean((1, 2, 3)))


@pytest.mark.thorough
def test_a_dry_run_is_fed_like_a_run(places, tmp_path, one_device, capsys) -> None:
    config = configure(
        *("binary_vae", places, "gray"),
        **dict(binarization="dynamic", data_on="host", dry_run=True, workdir=str(tmp_path / "run")),
    )
    binary_vae.run(config)
    assert not (tmp_path / "run").exists()


def test_dvaepp_takes_levels_or_bits(places) -> None:
    smoke = {**dvaepp_presets.PRESETS["smoke"], "dataset": str(places["gray"])}
    config = dvaepp_config.Config(**smoke, image_size=8)
    images = dvaepp_task.prepare(config)
    assert config.colored
    assert config.model(images.train.shape[1:]).config.decoder.num_mixtures == 10
    bits = dvaepp_config.Config(**smoke, image_size=8, binarization="threshold")
    assert not bits.colored
    assert dvaepp_task.prepare(bits).binarization == "static"
    wide = dvaepp_config.Config(**smoke)
    assert wide.model(dvaepp_task.prepare(wide).train.shape[1:]).config.local_sides == (2, 4)
    with pytest.raises(ValueError, match=r"6x6 pixels; sides must be multiples of 4"):
        dvaepp_task.prepare(dvaepp_config.Config(**smoke, image_size=6))


@pytest.mark.parametrize(
    ("program", "kind", "settings", "message"),
    [
        (
            "binary_vae",
            "gray",
            {},
            r"=dynamic samples .*, --binarization=once once, .*=threshold",
        ),
        ("binary_vae", "color", {}, r"levels of color, and .*--binarization=.*three bits a pixel"),
        ("cifar_vq", "color", {"image_size": 6}, "--image_size=6 must be a multiple of 4"),
        ("joint_vae", "color", {"image_size": 12}, "--image_size=12 must be a multiple of 8"),
        ("joint_vae", "gray", {"test_share": 0.5}, "gray.npz has a test split"),
        ("binary_vae", "gray", {"coordinator": "h:1", "data_on": "host"}, "--data_on=host is of"),
    ],
)
def test_what_a_program_does_not_take(places, program, kind, settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        load(program, configure(program, places, kind, **settings), sharding.make_mesh(1))


@pytest.mark.parametrize("kind", ["gray", "color"])
def test_bits_of_color_are_said_to_be_three_a_pixel(places, capsys, kind) -> None:
    config = configure("binary_vae", places, kind, binarization="threshold")
    mesh = sharding.make_mesh(1)
    binary_vae.make_task(config, load("binary_vae", config, mesh), mesh)
    said = "color: color gives three bits a pixel, and the NLL is in nats over all channels\n"
    assert (said in capsys.readouterr().err) == (kind == "color")


def test_files_go_with_what_is_in_files(places, tmp_path, one_device, capsys) -> None:
    config = configure(
        "cifar_vq", places, "gray", crop=4, data_on="files", workdir=str(tmp_path / "run")
    )
    with pytest.raises(SystemExit):
        cifar_vq.run(config)
    (line,) = capsys.readouterr().err.splitlines()
    assert "--data_on=files: the training images of gray.npz are in memory already" in line
    for change in ("once", "threshold"):
        config = configure("binary_vae", places, "mapped", binarization=change, data_on="files")
        with pytest.raises(ValueError, match=f"--binarization={change} .* use --data_on=host"):
            load("binary_vae", config, sharding.make_mesh(1))


def test_pixels_of_named_sets_are_as_before() -> None:
    config = BinaryConfig(dataset="digits")
    grown = dataclasses.replace(config, image_size=12)
    images = pixels.load(grown, "digits", "as_stored", lambda n: slice(0, n))
    assert images.binarization == "dynamic"
    assert images.train.shape[1:] == (12, 12, 1)
    for binarization in ("once", "threshold"):
        changed = pixels.load(config, "digits", binarization, lambda n: slice(0, n))
        assert changed.binarization == "static"


@pytest.mark.parametrize("program", SMOKE)
def test_runs_that_are_older_than_a_field_go_on(program, tmp_path) -> None:
    _, config_class, smoke = SMOKE[program]
    config = config_class(**smoke)
    new = {"test_share", "data_on"} | ({"image_size"} if program != "joint_vae" else set())
    saved = {**dataclasses.asdict(config), "program": program}
    old = {name: value for name, value in saved.items() if name not in new}
    (tmp_path / "config.json").write_text(json.dumps(old))
    with workdirs.claim(config, tmp_path):
        written = json.loads((tmp_path / "config.json").read_text())
    assert {name: written[name] for name in old} == old
    assert written["test_share"] == 0.0
    with pytest.raises(ValueError, match=r"test_share \(there: 0.0, now: 0.5\)"):
        workdirs.examine(dataclasses.replace(config, test_share=0.5), tmp_path)


def test_workdirs_of_own_images_have_names_of_their_own(places) -> None:
    names = {kind: configure("cifar_vq", places, kind).default_workdir() for kind in places}
    assert len(set(names.values())) == len(names)
    assert all(
        name.startswith(f"runs/cifar_vq-{places[kind].name}-") for kind, name in names.items()
    )
