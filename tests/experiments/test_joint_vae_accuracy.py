"""`joint_vae`: how much the codes know of the classes, and sets without classes."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from dvae.train import sharding
from dvae.train.state import TrainState
from experiments.joint_vae import __main__ as joint_vae
from experiments.joint_vae import evaluation as joint_evaluation
from experiments.joint_vae import report as joint_report
from experiments.joint_vae import task as joint_vae_task
from experiments.joint_vae.config import PRESETS, Config

TINY = PRESETS["smoke"]


@pytest.fixture(name="images", scope="module")
def load_images():
    return joint_vae_task.prepare(Config(**TINY))


def test_accuracy_of_codes() -> None:
    config = Config(**{**TINY, "discrete": "3,2"})
    fit = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    held_out = np.array([[0, 1], [1, 1], [1, 1]]), np.array([1, 0, 1])
    together = joint_evaluation.accuracy(config, fit, held_out)
    np.testing.assert_allclose(together, 2 / 3)
    # Either variable alone says nothing: each code's classes are tied, the first one wins.
    np.testing.assert_allclose(joint_evaluation.accuracy(config, fit, held_out, 0), 1 / 3)


@pytest.mark.parametrize(
    "sizes", ["3,2", "10", "10" + 9 * ",10", "10" + 29 * ",10"], ids=["6", "10", "10^10", "10^30"]
)
def test_accuracy_of_any_number_of_combinations(sizes) -> None:
    """10^10 combinations need no table, and 10^30 no integer; a dictionary counts the same."""
    config = Config(**{**TINY, "discrete": sizes})
    rng = np.random.default_rng(2)
    known = rng.integers(0, config.discrete_sizes, (7, len(config.discrete_sizes)))
    draw = lambda n, rows: (known[rng.integers(0, rows, n)], rng.integers(0, 5, n).astype(np.int32))
    fit, held_out = draw(200, 5), draw(50, 7)
    for variable in (None, 0):
        key = lambda row, v=variable: tuple(row if v is None else row[v : v + 1])
        counts = {}
        for row, label in zip(*fit, strict=True):
            counts.setdefault(key(row), np.zeros(5))[label] += 1
        total = sum(counts.values())
        hits = [
            counts.get(key(row), total).argmax() == label
            for row, label in zip(*held_out, strict=True)
        ]
        found = joint_evaluation.accuracy(config, fit, held_out, variable)
        assert found == np.mean(hits)


class Labeling:
    """An evaluator whose codes are the images' labels, which their pixels hold."""

    def __init__(self, config, images, mesh):
        self.train, self.train_labels = images.train, images.train_labels

    def evaluate(self, params, model_state, images):
        codes = images[None, :, 0, 0].astype(np.int32)
        error = np.tile([0.01, 0.09], len(images))[None, : len(images)]
        kl = np.ones(codes.shape)
        return joint_evaluation.Evaluation(codes, error, error, error, kl, kl)


def test_codes_and_labels_are_of_the_same_images(monkeypatch, tmp_path, images) -> None:
    """Of fewer images than there are, too, which are spread over the set."""
    rng = np.random.default_rng(0)
    splits = {}
    for split, count in (("train", 300), ("validation", 50), ("test", 60)):
        labels = rng.integers(0, 4, count).astype(np.int32)
        pixels = np.broadcast_to(labels[:, None, None, None], (count, 8, 8, 1)).astype(np.uint8)
        splits |= {split: pixels, f"{split}_labels": labels}
    images = images._replace(**splits, num_train_of_all=None)
    config = Config(**{**TINY, "discrete": "4", "num_eval_images": 40, "num_test_images": 24})
    state, mesh = TrainState(np.int32(7), {}, (), ()), sharding.make_mesh(1)
    for module in (joint_evaluation, joint_report):
        monkeypatch.setattr(module, "Evaluator", Labeling)
    values = joint_evaluation.validator(config, images, mesh)(state)
    assert values["accuracy"] == 1
    monkeypatch.setattr(joint_report, "models", lambda *_: ())
    result = SimpleNamespace(state=state, seconds=1.0)
    test = joint_report.report(config, result, images, tmp_path, mesh).summary["test"]
    assert test["accuracy"] == 1
    for rmse in (values["rmse"], test["rmse"]):  # the root of a mean, not a mean of roots
        np.testing.assert_allclose(rmse, 0.05**0.5, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["none", "real"])
def test_sets_without_classes_have_no_accuracy(tmp_path, images, capsys, labels) -> None:
    settings = {**TINY, "dataset": "patches", "discrete": "", "workdir": str(tmp_path / "run")}
    if labels == "real":
        levels = {"train": images.train[:60], "test": images.test[:16]}
        vectors = {f"{s}_labels": x.mean((1, 2)) for s, x in levels.items()}
        np.savez(tmp_path / "own.npz", **levels, **vectors)
        settings |= {"dataset": str(tmp_path / "own.npz"), "discrete": "3"}
    summary = joint_vae.run(Config(**settings))
    assert "accuracy" not in summary["test"]
    assert not (tmp_path / "run" / "confusion.png").exists()
    assert (tmp_path / "run" / "traversals.png").exists()
    assert "no accuracy: it needs integer labels" in "".join(capsys.readouterr())


def test_codes_are_not_named_where_validation_images_have_no_labels(images) -> None:
    config = Config(**TINY)
    mesh = sharding.make_mesh(1)
    task = joint_vae.make_task(config, images._replace(validation_labels=None), mesh)
    values = task.evaluate(jax.jit(task.init)(task.key_init, images.train))
    assert "accuracy" not in values
    assert "elbo" in values


def test_real_vectors_name_no_codes(images) -> None:
    real = images._replace(train_labels=images.train.mean((1, 2)))
    mesh = sharding.make_mesh(1)
    assert joint_evaluation.Evaluator(Config(**TINY), real, mesh).train_labels is None
    assert joint_evaluation.Evaluator(Config(**TINY), images, mesh).train_labels is not None
