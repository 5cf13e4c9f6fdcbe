"""The binary: every estimator trains, seeds, devices, resuming, evaluation, results and errors."""

import dataclasses

import command_line
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.distributions import bernoulli
from dvae.models import binary as binary_model
from dvae.train import sharding
from experiments.binary_vae import __main__ as binary_vae
from experiments.binary_vae import evaluation as binary_evaluation
from experiments.binary_vae import names
from experiments.binary_vae import task as binary_vae_task
from experiments.binary_vae.config import Config
from experiments.binary_vae.presets import PRESETS

TINY = PRESETS["smoke"]


def train(config, images, num_devices, num_steps=2):
    mesh = sharding.make_mesh(num_devices)
    everywhere = sharding.replicated(mesh)
    task = binary_vae.make_task(config, images, mesh)
    train_data = jax.device_put(task.data, everywhere)
    train_state = jax.jit(task.init, out_shardings=everywhere)(task.key_init, train_data)
    step = jax.jit(task.step)
    for _ in range(num_steps):
        train_state, metrics = step(train_state, train_data, task.key_train)
    return train_state, metrics


# The others share its code, and test_binary_objectives differentiates each kind.
QUICK = ("exponential",)


@pytest.mark.parametrize(
    "estimator",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in names.ESTIMATORS
    ],
)
def test_every_estimator_moves_every_parameter(images, estimator) -> None:
    config = Config(**{**TINY, "estimator": estimator, "num_samples": 2})
    task = binary_vae.make_task(config, images, sharding.make_mesh(1))
    before = jax.jit(task.init)(task.key_init, task.data)
    after, metrics = jax.jit(task.step)(before, task.data, task.key_train)
    after, metrics = jax.jit(task.step)(after, task.data, task.key_train)
    assert all(np.isfinite(value) for value in metrics.values())
    paths = jax.tree_util.tree_leaves_with_path(after.params)
    for (path, a), b in zip(paths, jax.tree.leaves(before.params), strict=True):
        # A constant added to relax's control variate has no effect.
        constant = "free" in str(path) and "output" in str(path) and "bias" in str(path)
        assert constant or not np.array_equal(a, b), jax.tree_util.keystr(path)


@pytest.mark.thorough
@pytest.mark.parametrize("estimator", [names.NVIL])
def test_eight_devices_train_like_one(images, estimator) -> None:
    config = Config(**{**TINY, "estimator": estimator})
    one, metrics = train(config, images, 1)
    eight, sharded_metrics = train(config, images, 8)
    for name, value in metrics.items():
        np.testing.assert_allclose(sharded_metrics[name], value, rtol=1e-4, err_msg=name)
    for a, b in zip(jax.tree.leaves(eight.params), jax.tree.leaves(one.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(dict(num_groups=2, bound=names.MARGINAL), marks=pytest.mark.slow),
        dict(estimator=names.NVIL),
        pytest.param(dict(estimator=names.RELAX), marks=pytest.mark.slow),
    ],
    ids=["marginal", names.NVIL, names.RELAX],
)
def test_seeds_trained_together_are_those_trained_alone(images, kind) -> None:
    settings = {**TINY, **kind}
    together, _ = train(Config(**{**settings, "num_seeds": 2, "seed": 3}), images, 1)
    alone, _ = train(Config(**{**settings, "seed": 4}), images, 1)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-3, atol=2e-5)


def test_start_is_centered_and_predicts_the_mean(images) -> None:
    config = Config(**TINY)
    task = binary_vae.make_task(config, images, sharding.make_mesh(1))
    start = jax.jit(task.init)(task.key_init, task.data)
    mean = images.train.reshape(len(images.train), -1).mean(0) / 255
    np.testing.assert_allclose(start.model_state["mean"], mean, rtol=1e-4, atol=1e-6)
    bias = start.params["network"]["decoder"]["output"]["bias"]
    np.testing.assert_allclose(jax.nn.sigmoid(bias), np.clip(mean, 1e-3, 1 - 1e-3), rtol=1e-4)


def test_the_mean_of_bits_is_that_of_bits(monkeypatch, images) -> None:
    means = []
    monkeypatch.setattr(
        binary_vae_task, "init_fn", lambda config, mean, condition: means.append(mean)
    )
    bits = images._replace(train=images.train // 128, binarization="static")
    binary_vae.make_task(Config(**TINY), bits, sharding.make_mesh(1))
    expected = bits.train.reshape(len(bits.train), -1).mean(0)
    np.testing.assert_allclose(means[0], expected, rtol=1e-5)


def test_dynamic_pixels_change_with_the_step_and_keep_their_mean() -> None:
    images = np.full((16, 4, 4, 1), 64, np.uint8)
    draw = jax.jit(
        binary_vae_task.draw_fn(Config(**TINY), True, sharding.make_mesh(1), len(images))
    )
    first, second = (
        np.asarray(draw(jax.random.key(0), images.reshape(16, -1), jnp.int32(step)))
        for step in (0, 1)
    )
    assert set(np.unique(first)) == {0.0, 1.0}
    assert not np.array_equal(first, second)
    draws = [draw(jax.random.key(0), images.reshape(16, -1), jnp.int32(t)) for t in range(50)]
    error = np.sqrt(0.25 * 0.75 / (50 * 8 * 16))
    assert abs(np.mean(draws) - 64 / 255) < 5 * error


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("num_groups", [1, 2])
def test_evaluation_approaches_the_enumerated_log_likelihood(images, num_groups) -> None:
    settings = {**TINY, "num_latents": 4 // num_groups, "num_groups": num_groups}
    config = Config(**settings)
    mesh = sharding.make_mesh(1)
    task = binary_vae.make_task(config, images, mesh)
    start = jax.jit(task.init)(task.key_init, task.data)
    x = images.test[:12]
    evaluator = binary_evaluation.Evaluator(config, images, mesh)
    results = evaluator.evaluate(start.params, start.model_state, x, num_samples=2_000)
    pixels = jnp.asarray(x.reshape(12, -1), jnp.float32)
    model = binary_model.bind(
        config.model(64), start.params["network"], start.model_state["mean"], pixels
    )
    states = np.array(np.meshgrid(*[[0.0, 1.0]] * 4)).reshape(4, -1).T.astype(np.float32)
    z = [
        jnp.broadcast_to(g[:, None], (16, 12, g.shape[1])) for g in np.split(states, num_groups, 1)
    ]
    log_prior = sum(
        bernoulli.log_prob(group, jnp.broadcast_to(model.prior_logits(z[:g]), group.shape)).sum(-1)
        for g, group in enumerate(z)
    )
    exact = jax.nn.logsumexp(model.log_likelihood(z) + log_prior, 0)
    np.testing.assert_allclose(results.log_likelihood[0], exact, atol=0.05)
    assert (results.ess > 1).all()
    assert results.elbo.mean() < results.log_likelihood.mean()
    assert results.kl.shape == (1, 12, num_groups)
    q = jax.nn.sigmoid(model.posterior_logits([]))
    np.testing.assert_allclose(results.unit_variance[0], np.var(q, 0), rtol=1e-3)
    if num_groups == 1:  # more devices and the same batches: the same numbers
        several = binary_evaluation.Evaluator(config, images, sharding.make_mesh(4))
        again = several.evaluate(start.params, start.model_state, x, num_samples=2_000)
        np.testing.assert_allclose(again.log_likelihood, results.log_likelihood, rtol=1e-5)
        coarse = dataclasses.replace(config, eval_dtype="bfloat16")
        rounded = binary_evaluation.Evaluator(coarse, images, mesh).evaluate(
            start.params, start.model_state, x, num_samples=2_000
        )
        assert not np.array_equal(rounded.log_likelihood, results.log_likelihood)
        assert abs(rounded.log_likelihood.mean() - results.log_likelihood.mean()) < 5e-3
        np.testing.assert_allclose(rounded.log_likelihood, results.log_likelihood, atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--bound=marginal", "--estimator=nvil"), "use --bound=joint"),
        (("--bound=marginal", "--estimator=spike_exp"), "whose zeta has a density"),
        (("--estimator=rebar", "--num_groups=2"), "takes one group of bits"),
        (("--estimator=exact", "--num_latents=18"), "got --num_latents=18 and --batch_size=8"),
        (("--beta=inf",), "--beta=inf must be finite"),
        (("--estimator=vimco", "--num_samples=1"), "at least 2 for vimco"),
        (("--beta=0",), "--beta=0.0 must be greater than 0"),
        (("--temperature=-1",), "must be greater than 0"),
        (("--dataset=fashion_mnist", "--data_dir=nowhere"), "digits (binary)"),
        (("--estimator=exponental",), "must be one of"),
        (("--batch_size=12",), "not divisible by the 8 devices; use 8 or 16"),
        (("--batch_size=2000",), "must be at most 1297"),
        (("more",), "unexpected arguments: more"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, tuple) else "",
)
def test_mistakes_end_in_one_line(tmp_path, monkeypatch, capsys, arguments, message) -> None:
    given = ["--preset=smoke", f"--workdir={tmp_path / 'run'}", *arguments]
    error = command_line.error_of(monkeypatch, capsys, binary_vae, Config, PRESETS, given)
    assert message in error
    assert not (tmp_path / "run").exists(), "nothing is written before everything is checked"


def test_images_that_are_not_binary_are_refused(images) -> None:
    grey = images._replace(binarization="none")
    with pytest.raises(ValueError, match="--binarization=dynamic samples them"):
        binary_vae_task.check_images(grey)
    static = images._replace(binarization="static")
    with pytest.raises(ValueError, match=r"train must hold images with pixels 0 or 1, found"):
        binary_vae_task.check_images(static)
    with pytest.raises(ValueError, match=r"test must hold images.*found 0 images"):
        binary_vae_task.check_images(images._replace(test=images.test[:0]))


def test_asking_for_sampled_pixels(monkeypatch, images) -> None:
    config = Config(**{**TINY, "binarization": names.DYNAMIC})
    assert binary_vae_task.prepare(config).binarization == "dynamic"  # digits are sampled anyway
    grey = images._replace(validation=images.train[:9], test=images.train[9:20])
    monkeypatch.setattr(
        binary_vae.data, "load", lambda *_, **__: grey._replace(binarization="none", name="grey")
    )
    sampled = binary_vae_task.prepare(config)
    assert sampled.binarization == "dynamic"
    assert sampled.train.max() == 255
    assert sampled.test.max() == 1
    static = images._replace(binarization="static", train=images.train // 128)
    monkeypatch.setattr(binary_vae.data, "load", lambda *_, **__: static)
    with pytest.raises(ValueError, match="0 or 1 already; use --binarization=as_stored"):
        binary_vae_task.prepare(config)


def test_presets_are_valid() -> None:
    for name, settings in PRESETS.items():
        assert Config(**settings).loop(), name
