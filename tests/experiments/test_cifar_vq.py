"""The binary: every estimator, devices, seeds, interruption, results and errors."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import command_line
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trained_runs

from dvae import data
from dvae.train import checkpoint, sharding
from experiments.cifar_vq import __main__ as cifar_vq
from experiments.cifar_vq import evaluation as vq_evaluation
from experiments.cifar_vq import names, objectives
from experiments.cifar_vq import task as cifar_vq_task
from experiments.cifar_vq.config import Config
from experiments.cifar_vq.presets import PRESETS

ROOT = Path(__file__).parents[2]
TINY = {**PRESETS["smoke"], "features": 4, "code_dim": 4, "crop": 8}


def train(config, images, num_devices, num_steps=2):
    mesh = sharding.make_mesh(num_devices)
    everywhere = sharding.replicated(mesh)
    task = cifar_vq.make_task(config, images, mesh)
    train_state = jax.jit(task.init, out_shardings=everywhere)(task.key_init, images.train)
    step = jax.jit(task.step)
    train_data = jax.device_put(task.data, everywhere)
    for _ in range(num_steps):
        train_state, metrics = step(train_state, train_data, task.key_train)
    return train_state, metrics


@pytest.mark.thorough
@pytest.mark.parametrize(
    "estimator",
    [
        names.VQ_EMA,
        pytest.param(names.GS_SOFT, marks=pytest.mark.slow),
        pytest.param(names.VIMCO, marks=pytest.mark.slow),
        pytest.param(names.GS_HARD, marks=pytest.mark.slow),
        pytest.param(names.VQ, marks=pytest.mark.slow),
    ],
)
def test_eight_devices_train_like_one(patches, estimator) -> None:
    config = Config(**{**TINY, "estimator": estimator})
    one, metrics = train(config, patches, 1)
    eight, sharded_metrics = train(config, patches, 8)
    assert set(metrics) >= {"loss", "grad_norm", "bits_per_dim", "rate", "distortion", "perplexity"}
    for name, value in metrics.items():
        assert np.isfinite(value), name
        np.testing.assert_allclose(sharded_metrics[name], value, rtol=1e-4, err_msg=name)
    for a, b in zip(jax.tree.leaves(eight), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)
    assert int(one.step) == 2


@pytest.mark.thorough
def test_every_parameter_moves(patches) -> None:
    config = Config(**{**TINY, "estimator": "gs_soft"})
    task = cifar_vq.make_task(config, patches, sharding.make_mesh(1))
    before = jax.jit(task.init)(task.key_init, patches.train)
    after, _ = train(config, patches, 1)
    paths = jax.tree_util.tree_leaves_with_path(after.params)
    for (path, a), b in zip(paths, jax.tree.leaves(before.params), strict=True):
        assert not np.array_equal(a, b), jax.tree_util.keystr(path)


@pytest.mark.slow
def test_seeds_trained_together_are_those_trained_alone(patches) -> None:
    together, _ = train(Config(**{**TINY, "num_seeds": 2, "seed": 3}), patches, 1)
    alone, _ = train(Config(**{**TINY, "seed": 4}), patches, 1)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-3, atol=2e-5)


@pytest.mark.thorough
def test_initialization_follows_its_options(patches) -> None:
    def initial(**settings):
        config = Config(**{**TINY, **settings})
        init = cifar_vq_task.init_fn(
            config, cifar_vq_task.log_pixel_histogram(patches.train), len(patches.train)
        )
        return jax.jit(init)(jax.random.key(0), patches.train)[0]

    default = initial()
    histogram = cifar_vq_task.log_pixel_histogram(patches.train)
    np.testing.assert_array_equal(default["network"]["head"]["bias"], histogram)
    zeros = initial(output_bias_init="zeros")
    np.testing.assert_array_equal(zeros["network"]["head"]["bias"], 0)
    normal = initial(codebook_init="normal")
    assert not np.allclose(normal["codebook"], default["codebook"])
    wide = initial(initial_logit_std=6.0)["network"]["log_scale"]
    np.testing.assert_allclose(wide - default["network"]["log_scale"], np.log(2), rtol=1e-4)


@pytest.mark.thorough
def test_evaluation_counts_each_image_once_whatever_the_batch(patches) -> None:
    results = []
    for size, num_devices in ((20, 1), (7, 8)):
        config = Config(**{**TINY, "eval_batch_size": size})
        mesh = sharding.make_mesh(num_devices)
        task = cifar_vq.make_task(config, patches, mesh)
        evaluator = vq_evaluation.Evaluator(config, patches, mesh)
        start = jax.jit(task.init)(task.key_init, patches.train)
        results.append(evaluator.evaluate(start.params, start.model_state, patches.test))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert results[0].rate.shape == (1, 20)
    assert (results[0].counts.sum(-1) == 20 * 64).all()
    nats = results[0].rate + results[0].distortion
    np.testing.assert_allclose(results[0].bits_per_dim, nats / 3072 / np.log(2), rtol=1e-6)


@pytest.mark.thorough
def test_evaluated_rate_is_the_exact_kl(patches) -> None:
    config = Config(**TINY)
    mesh = sharding.make_mesh(1)
    task = cifar_vq.make_task(config, patches, mesh)
    train_state = jax.jit(task.init)(task.key_init, patches.train)
    trained = train_state.params, train_state.model_state
    found = vq_evaluation.Evaluator(config, patches, mesh).evaluate(*trained, patches.test)
    network, codebook = train_state.params["network"], train_state.params["codebook"]
    vectors = objectives.apply(config.model(), network, "encode", jnp.asarray(patches.test))
    logits = objectives.apply(config.model(), network, "posterior_logits", vectors, codebook)
    q = np.asarray(jax.nn.softmax(logits), np.float64)
    kl = (q * (np.log(q) + np.log(config.codebook_size))).sum((1, 2, 3, 4))  # uniform at first
    np.testing.assert_allclose(found.rate[0], kl, rtol=1e-4)


def test_histogram_baseline() -> None:
    train_images = np.zeros((1, 32, 32, 3), np.uint8)
    train_images[:, 16:] = 7
    expected = -np.log2((512 + 1) / (1024 + 256))
    found = vq_evaluation.histogram_bits_per_dim(train_images, train_images)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((30, 32, 3), {}, "30x32 pixels; heights and widths must be multiples of 4"),
        ((16, 32, 1), {"crop": 20}, "--crop=20 must be at most 16, as the images of"),
    ],
)
def test_images_that_the_model_does_not_take_are_refused(patches, shape, settings, message) -> None:
    other = patches._replace(train=np.zeros((4, *shape), np.uint8))
    with pytest.raises(ValueError, match=message):
        Config(**settings).check_images(other)


def start(*arguments, cache=""):
    """Starts the binary on one device; processes that share a cache compile once."""
    environment = {
        **os.environ,
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1"),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, "-m", "experiments.cifar_vq", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def finish(process):
    """Returns the exit status and what was written to stderr."""
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def wait_for_checkpoint(workdir):
    checkpoints = workdir / "checkpoints"
    for _ in range(1200):
        if checkpoints.exists() and any(p.name.isdigit() for p in checkpoints.iterdir()):
            return
        time.sleep(0.05)
    pytest.fail("no checkpoint within a minute")


def last_checkpoint(workdir, config, images):
    """Every array of the train state that a run ended with."""
    mesh = sharding.make_mesh(1)
    task = cifar_vq.make_task(config, images, mesh)
    like = jax.eval_shape(task.init, task.key_init, images.train)
    store = checkpoint.Checkpoints(workdir)
    assert store.latest_step == config.num_steps
    return store.restore(config.num_steps, like, sharding.replicated(mesh))[0]


# Three processes that compile; the loop's tests stop and resume within one.
@pytest.mark.slow
def test_killed_run_continues_to_the_same_bits(tmp_path, patches) -> None:
    """kill -9 after the first checkpoint, and the same command again, against one whole run."""
    settings = {**TINY, "num_steps": 60, "eval_interval": 0, "checkpoint_interval": 5}
    settings = {**settings, "estimator": "vq_ema", "num_test_images": 16}  # all kinds of state
    flags = [f"--{name}={value}" for name, value in settings.items()]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    cached = functools.partial(start, *flags, cache=tmp_path / "cache")
    process = cached(f"--workdir={killed}")
    wait_for_checkpoint(killed)
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    assert not (killed / "summary.json").exists()
    status, errors = finish(cached(f"--workdir={killed}"))
    assert status == 0, errors
    assert "continuing from step" in errors
    assert finish(cached(f"--workdir={whole}"))[0] == 0
    states = [last_checkpoint(d, Config(**settings), patches) for d in (killed, whole)]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)
    one, other = (json.loads((d / "summary.json").read_text()) for d in (killed, whole))
    assert one["test"] == other["test"]

    # The workdir holds what it should, and refuses another configuration by field.
    names = {p.name for p in whole.iterdir()}
    assert names >= {
        "config.json", "metrics.jsonl", "tensorboard", "checkpoints", "summary.json",
        "reconstructions.png", "samples.png", "codebooks.png", "explained_variance.png",
        "learning_curve.png", "photographs.png",
    }  # fmt: skip
    assert one["seeds"] == [0]
    assert one["num_steps"] == 60
    assert len(one["test"]["perplexity"]) == len(one["test"]["dead_codes"]) == 2
    status, errors = finish(cached(f"--workdir={killed}", "--seed=1"))
    assert status == 2
    assert "seed (there: 0, now: 1)" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--estimator=vimco", "--num_samples=1"), "at least 2 for vimco"),
        (("--estimator=vimco", "--hard_share=0.2"), "--hard_share=0.2 goes with --estimator=gs_"),
        (("--hard_share=1.5",), "--hard_share=1.5 must be at most 1, the whole run"),
        (("--validation=0", "--eval_interval=2"), "goes with --validation=true"),
        (("--validation=0", "--data_on=files"), "joins images in memory, got --data_on=files"),
        (("--ema_params=1",), "--ema_params=1.0 must be below 1"),
        (("--batch_size=12",), "not divisible by the 8 devices; use 8 or 16"),
        (("--steps_per_call=3",), "must be a non-negative multiple of --steps_per_call=3"),
        (("--dataset=cifar10", "--data_dir=nowhere"), "(--dataset): patches (color)"),
        (("--workdir=/proc/none",), "choose another --workdir"),
        (("more",), "unexpected arguments: more"),
        (("--seed=4294967296",), "--seed=4294967296 must be at most 4294967295"),
        (("--num_steps=3000000000",), "--num_steps=3000000000 must be at most 2147483647"),
        (("--batch_size=80000",), "--batch_size=80000 must be at most 20000"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, tuple) else "",
)
def test_mistakes_end_in_one_line(tmp_path, monkeypatch, capsys, arguments, message) -> None:
    given = ["--preset=smoke", f"--workdir={tmp_path / 'run'}", *arguments]
    error = command_line.error_of(monkeypatch, capsys, cifar_vq, Config, PRESETS, given)
    assert message in error
    assert not (tmp_path / "run").exists(), "nothing is written before everything is checked"


def test_unknown_flag() -> None:
    status, errors = finish(start("--preset=smoke", "--codebook_sise=3"))
    assert status == 2
    assert len(errors.splitlines()) == 1
    assert "Unknown command line flag 'codebook_sise'. Did you mean: codebook_size" in errors


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_several_seeds_and_steps_in_one_call(tmp_path) -> None:
    settings = {**TINY, "num_seeds": 2, "seed": 5, "steps_per_call": 2, "num_test_images": 16}
    summary = cifar_vq.run(Config(**{**settings, "workdir": str(tmp_path)}))
    assert summary["seeds"] == [5, 6]
    bits, dead = summary["test"]["bits_per_dim"], summary["test"]["dead_codes"]
    assert len(bits) == 2
    assert bits[0] != bits[1]
    assert np.shape(dead) == (2, 2)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(len(r["train/loss"]) == 2 for r in records if "train/loss" in r)
    assert np.load(tmp_path / "codebook.npy").shape == (2, 8, 4)
    trained_runs.check(tmp_path, summary, data.load("patches").test)


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("estimator", names.ESTIMATORS)
def test_training_beats_the_histogram(tmp_path, estimator) -> None:
    settings = {**PRESETS["demo"], "num_steps": 200, "features": 16, "num_latents": 4}
    settings = {**settings, "kl_warmup_steps": 100, "eval_interval": 0, "num_test_images": 200}
    summary = cifar_vq.run(Config(**{**settings, "estimator": estimator, "workdir": str(tmp_path)}))
    assert summary["test"]["bits_per_dim"] < summary["baseline"]["bits_per_dim"]


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.usefixtures("one_device")
def test_cifar10_trains_and_is_evaluated(tmp_path, data_dir) -> None:
    settings = {**TINY, "dataset": "cifar10", "num_test_images": 50, "data_dir": data_dir}
    summary = cifar_vq.run(Config(**{**settings, "workdir": str(tmp_path)}))
    assert summary["dataset"] == "cifar10"
    assert summary["test"]["num_images"] == 50
    assert 7.8 < summary["baseline"]["bits_per_dim"] < 8.0
    assert os.path.exists(tmp_path / "rate_distortion.png")
