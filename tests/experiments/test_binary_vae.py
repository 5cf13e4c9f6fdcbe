"""The binary: every estimator trains, seeds, devices, resuming, evaluation, results and errors."""

import dataclasses
import json

import command_line
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trained_runs

import dvae
from dvae import data
from dvae.boltzmann import edge_lists
from dvae.distributions import bernoulli
from dvae.models import binary as binary_model
from dvae.train import sharding
from experiments import encode, export
from experiments.binary_vae import __main__ as binary_vae
from experiments.binary_vae import evaluation as binary_evaluation
from experiments.binary_vae import names
from experiments.binary_vae import task as binary_vae_task
from experiments.binary_vae.config import Config
from experiments.binary_vae.presets import PRESETS, TABLE1_CELLS
from experiments.boltzmann.names import ANNEALING, PCD, TEMPERING

TINY = PRESETS["smoke"]


@pytest.fixture(name="images", scope="module")
def load_images():
    return data.load("digits")


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


BOLTZMANN = dict(prior="rbm", num_chains=8, num_sweeps=1, ais_temperatures=20, ais_chains=20)
BOLTZMANN |= dict(log_z_interval=3, normalization="batch")


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            dict(estimator=names.NVIL, gradient_draws=2, num_training_images=24),
            id=names.NVIL,
            marks=pytest.mark.slow,
        ),
        pytest.param(dict(condition=names.LABELS), id=names.LABELS, marks=pytest.mark.slow),
        pytest.param(
            dict(BOLTZMANN, sampler=PCD),
            id=PCD,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            dict(BOLTZMANN, sampler=TEMPERING),
            id=TEMPERING,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            dict(BOLTZMANN, sampler=ANNEALING),
            id=ANNEALING,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            dict(BOLTZMANN, prior=names.GENERAL, graph="four_partite", sampler=ANNEALING),
            id="graph",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            dict(
                BOLTZMANN,
                prior=names.GENERAL,
                graph="four_partite",
                num_chains=12,
                condition=names.LABELS,
            ),
            id="graph given labels",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_interrupted_run_of_seeds_ends_like_a_whole_one(tmp_path, monkeypatch, kind) -> None:
    settings = {**TINY, **kind, "num_groups": 2, "num_seeds": 2, "num_validation_images": 12}
    whole = binary_vae.run(Config(**settings, workdir=str(tmp_path / "whole")))
    cut = Config(**settings, workdir=str(tmp_path / "cut"))
    evaluate = binary_evaluation.Evaluator.evaluate
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(binary_evaluation.Evaluator, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            binary_vae.run(cut)
    assert not (tmp_path / "cut" / "summary.json").exists()
    resumed = binary_vae.run(cut)
    parts = ("validation", "test", "evaluated_step", "log_z", "training", "gradient_variance")
    parts += ("classes",)
    assert ("training" in whole) == ("gradient_variance" in whole) == ("estimator" in kind)
    assert ("classes" in whole) == ("classes.png" in whole["files"]) == ("condition" in kind)
    for name in parts:
        assert resumed.get(name) == whole.get(name)
    files = {p.name for p in (tmp_path / "cut").iterdir()}
    assert files >= {
        "config.json", "metrics.jsonl", "tensorboard", "checkpoints", "summary.json",
        "reconstructions.png", "samples.png", "active_units.png", "bounds.png",
    }  # fmt: skip

    digits = data.load("digits")
    labels = digits.test_labels if "condition" in kind else None
    trained_runs.check(tmp_path / "whole", whole, digits.test, labels)
    if labels is not None:
        settings = encode.Config(model_seed="1", split="test", batch_size=60)  # the last is padded
        model, images = encode.prepare(settings, tmp_path / "whole", "digits")
        codes = encode.encode(settings, model, images)["test"]
        np.testing.assert_array_equal(codes, model.encode(None, digits.test, labels=labels))
        (exported, _) = export.make(cut, images, sharding.make_mesh(1))
        assert exported.functions == model.functions

    # Two seeds, each evaluated at the step of its lowest validation NLL, and their spread.
    assert json.loads((tmp_path / "whole" / "summary.json").read_text()) == whole
    test = whole["test"]
    assert (whole["validation"]["num_images"], test["num_images"]) == (12, 16)
    assert np.shape(test["kl_nats"]) == (2, 1 if "prior" in kind else 2)
    if "prior" in kind:
        shape = (2, 10) if "condition" in kind else (2,)
        assert np.shape(whole["log_z"]["nats"]) == shape
        rbm = kind["prior"] == names.BOLTZMANN
        if rbm:
            with np.load(tmp_path / "whole" / "prior.npz") as machine:
                assert machine["weights"].shape == (2, 6, 6)
        for seed in range(2):
            folder = tmp_path / "whole" / "model" / f"seed_{seed}"
            machines = [edge_lists.read(folder / name) for name in ("machine.csv", "machine.npz")]
            params = dvae.load(folder).params
            for machine in machines:
                np.testing.assert_array_equal(machine.weights, params["prior"].weights.ravel())
                edges = 36 if rbm else 54
                assert machine.graph.num_edges == edges + (120 if "condition" in kind else 0)
            again = dvae.load(tmp_path / "cut", seed=seed).params
            jax.tree.map(np.testing.assert_array_equal, again, params)
    np.testing.assert_allclose(
        test["nll_nats_mean_over_seeds"], np.mean(test["nll_nats"]), atol=2e-4
    )
    spread = test["nll_nats_standard_deviation_over_seeds"]
    np.testing.assert_allclose(spread, np.std(test["nll_nats"], ddof=1), atol=2e-4)
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    values = {
        r["step"]: r["validation/nll"] for r in map(json.loads, lines) if "validation/nll" in r
    }
    for seed, step in enumerate(whole["evaluated_step"]):
        assert step == min(values, key=lambda step: values[step][seed])


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
    assert len(TABLE1_CELLS) == 10


@pytest.mark.real_data
@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize(
    "dataset",
    [
        pytest.param("mnist_static", marks=pytest.mark.slow),
        pytest.param("omniglot", marks=pytest.mark.slow),
        pytest.param("caltech101_silhouettes", marks=pytest.mark.slow),
    ],
)
def test_real_data_trains_and_is_evaluated(tmp_path, data_dir, dataset) -> None:
    settings = {**TINY, "dataset": dataset, "data_dir": data_dir, "workdir": str(tmp_path)}
    summary = binary_vae.run(Config(**settings))
    assert summary["dataset"].startswith(dataset)
    assert 100 < summary["test"]["nll_nats"] < 600


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("estimator", names.ESTIMATORS)
def test_training_gains_a_nat_on_digits(tmp_path, estimator) -> None:
    settings = {**PRESETS["demo"], "num_steps": 2_000, "test_samples": 20, "num_latents": 10}
    settings |= {"workdir": str(tmp_path), "estimator": estimator}
    settings |= {"log_interval": 100, "steps_per_call": 100}
    binary_vae.run(Config(**settings))
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    objective = [r["train/objective"] for r in records if "train/objective" in r]
    assert objective[-1] > objective[0] + 1
