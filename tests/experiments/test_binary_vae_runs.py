"""Whole runs of the binary: resuming, the files that they leave, real data, a nat gained."""

import json
from pathlib import Path

import cut_runs
import jax
import numpy as np
import pytest
import trained_runs

import dvae
from dvae import data
from dvae.boltzmann import edge_lists
from dvae.train import sharding
from experiments import encode, export
from experiments.binary_vae import __main__ as binary_vae
from experiments.binary_vae import names
from experiments.binary_vae.config import Config
from experiments.binary_vae.presets import PRESETS
from experiments.boltzmann.names import ANNEALING, PCD, TEMPERING

TINY = PRESETS["smoke"]

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
    cut_runs.until_second_evaluation(monkeypatch, binary_vae, cut)
    assert not (tmp_path / "cut" / "summary.json").exists()
    resumed = binary_vae.run(cut)
    parts = ("validation", "test", "evaluated_step", "log_z", "training", "gradient_variance")
    for name in (*parts, "classes"):
        assert resumed.get(name) == whole.get(name)
    assert ("training" in whole) == ("gradient_variance" in whole) == ("estimator" in kind)
    assert ("classes" in whole) == ("classes.png" in whole["files"]) == ("condition" in kind)
    files = {p.name for p in (tmp_path / "cut").iterdir()}
    assert files >= {
        "config.json", "metrics.jsonl", "tensorboard", "checkpoints", "summary.json",
        "reconstructions.png", "samples.png", "active_units.png", "bounds.png",
    }  # fmt: skip
    check_summary(tmp_path / "whole", whole, kind)
    check_trained_models(cut, resumed, kind)
    if "prior" in kind:
        check_machines(tmp_path / "whole", kind)
        for seed in range(2):
            params = dvae.load(tmp_path / "whole", seed=seed).params
            again = dvae.load(tmp_path / "cut", seed=seed).params
            jax.tree.map(np.testing.assert_array_equal, again, params)


def check_summary(folder, summary, kind) -> None:
    """Checks the files, the spread of two seeds, and that each has its best validation step."""
    assert json.loads((folder / "summary.json").read_text()) == summary
    test = summary["test"]
    assert (summary["validation"]["num_images"], test["num_images"]) == (12, 16)
    assert np.shape(test["kl_nats"]) == (2, 1 if "prior" in kind else 2)
    mean, spread = np.mean(test["nll_nats"]), np.std(test["nll_nats"], ddof=1)
    np.testing.assert_allclose(test["nll_nats_mean_over_seeds"], mean, atol=2e-4)
    np.testing.assert_allclose(test["nll_nats_standard_deviation_over_seeds"], spread, atol=2e-4)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    values = {
        r["step"]: r["validation/nll"] for r in map(json.loads, lines) if "validation/nll" in r
    }
    for seed, step in enumerate(summary["evaluated_step"]):
        assert step == min(values, key=lambda step: values[step][seed])


def check_trained_models(config, summary, kind) -> None:
    """Checks that what `dvae.load` gives, `encode` writes and `export` makes are one model."""
    folder, digits = Path(config.workdir), data.load("digits")
    labels = digits.test_labels if "condition" in kind else None
    trained_runs.check(folder, summary, digits.test, labels)
    if labels is None:
        return
    settings = encode.Config(model_seed="1", split="test", batch_size=60)  # the last is padded
    model, images = encode.prepare(settings, folder, "digits")
    codes = encode.encode(settings, model, images)["test"]
    np.testing.assert_array_equal(codes, model.encode(None, digits.test, labels=labels))
    (exported, _) = export.make(config, images, sharding.make_mesh(1))
    assert exported.functions == model.functions


def check_machines(folder, kind) -> None:
    """Checks the files that other programs read the machine of each seed from."""
    is_rbm, has_labels = kind["prior"] == names.BOLTZMANN, "condition" in kind
    summary = json.loads((folder / "summary.json").read_text())
    assert np.shape(summary["log_z"]["nats"]) == ((2, 10) if has_labels else (2,))
    if is_rbm:
        with np.load(folder / "prior.npz") as machine:
            assert machine["weights"].shape == (2, 6, 6)
    for seed in range(2):
        model = folder / "model" / f"seed_{seed}"
        for machine in (edge_lists.read(model / name) for name in ("machine.csv", "machine.npz")):
            weights = dvae.load(model).params["prior"].weights
            np.testing.assert_array_equal(machine.weights, weights.ravel())
            edges = 36 if is_rbm else 54
            assert machine.graph.num_edges == edges + (120 if has_labels else 0)


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
