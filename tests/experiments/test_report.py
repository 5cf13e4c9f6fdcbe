"""The comparison of `cifar_vq` runs."""

import json

import finished_runs
import jax
import numpy as np
import pytest
import test_export

from dvae import trained
from experiments import report
from experiments.cifar_vq import evaluation as vq_evaluation
from experiments.cifar_vq import report as vq_report
from experiments.cifar_vq.config import Config
from experiments.common import groups as run_groups


def make(directory, bits=6.0, **config):
    run = finished_runs.make(directory, "cifar_vq", {"bits_per_dim": bits}, **config)
    return finished_runs.add_curves(run, config.get("codebook_size", 64))


def groups_of(*directories):
    runs = [run_groups.read(d, report.PROGRAM, "experiments.report") for d in directories]
    return run_groups.group(report.PROGRAM, runs)


def cells_of(table):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def test_report_of_three_runs(tmp_path) -> None:
    runs = [
        make(tmp_path / "a", 6.5, estimator="vq_ema", codebook_size=64),
        make(tmp_path / "b", 6.0, estimator="gs_soft", codebook_size=512),
        make(tmp_path / "c", 6.1, estimator="gs_soft", codebook_size=64),
    ]
    out = tmp_path / "out"
    table = report.compare(runs, out)
    cells = cells_of(table)
    assert [(row["estimator"], row["C"]) for row in cells] == [
        ("gs_soft", "64"),
        ("gs_soft", "512"),
        ("vq_ema", "64"),
    ]
    assert cells[1]["bits/dim"] == "6.000"
    assert cells[1]["published"] == "4.61"
    assert {row["data set"] for row in cells} == {"cifar10"}
    assert not {"± seeds", "other settings"} & set(cells[0])
    assert {p.name for p in out.iterdir()} == {
        "report.md", "results.json", "bits_per_dim.png", "rate_distortion.png",
        "explained_variance.png", "codebooks.png",
    }  # fmt: skip
    text = (out / "report.md").read_text()
    assert table in text
    assert "not comparable" in text
    assert len(json.loads((out / "results.json").read_text())) == 3


def test_other_data_is_neither_averaged_nor_joined(tmp_path) -> None:
    runs = [
        make(tmp_path / "a", 7.415, dataset="patches", num_steps=500),
        make(tmp_path / "b", 7.976, dataset="cifar10", num_steps=500),
        make(tmp_path / "c", 7.496, dataset="patches", num_steps=500, estimator="vq"),
    ]
    cells = cells_of(report.compare(runs, tmp_path / "out"))
    assert [(row["data set"], row["estimator"], row["bits/dim"]) for row in cells] == [
        ("cifar10", "gs_soft", "7.976"),
        ("patches", "gs_soft", "7.415"),
        ("patches", "vq", "7.496"),
    ]
    assert report.by_size(groups_of(*runs)) == {
        "gs_soft, patches": [(512, 7.415)],
        "gs_soft, cifar10": [(512, 7.976)],
        "vq, patches": [(512, 7.496)],
    }


def test_a_curve_joins_sizes_and_nothing_else(tmp_path) -> None:
    runs = [
        make(tmp_path / "a", 6.4, codebook_size=64),
        make(tmp_path / "b", 6.0, codebook_size=64, learning_rate=1e-3, features=8),
        make(tmp_path / "c", 5.9, codebook_size=8),
    ]
    assert report.by_size(groups_of(*runs)) == {
        "gs_soft, features=256, learning_rate=0.0005": [(64, 6.4), (8, 5.9)],
        "gs_soft, features=8, learning_rate=0.001": [(64, 6.0)],
    }
    cells = cells_of(report.compare(runs, tmp_path / "out"))
    assert [row["other settings"] for row in cells] == [
        "learning_rate=0.0005",
        "learning_rate=0.0005",
        "learning_rate=0.001",
    ]


@pytest.mark.thorough
def test_seeds_alone_are_averaged(tmp_path) -> None:
    runs = [
        make(tmp_path / "a", 7.0, seed=3, num_seeds=2),
        make(tmp_path / "b", 6.0, seed=0),
    ]
    (row,) = cells_of(report.compare(runs, tmp_path / "out"))
    assert row["seeds"] == "0 3 4"
    assert row["bits/dim"] == "6.667"
    assert row["± seeds"] == "0.577"
    assert row["minutes"] == "3.0"
    assert report.by_size(groups_of(*runs)) == {"gs_soft": [(512, pytest.approx(20 / 3))]}


def test_tighter_bounds_and_likeliest_codes_have_columns_where_a_run_has_them(tmp_path) -> None:
    numbers = {"bits_per_dim": 6.1, "nll_bits_per_dim": 6.0, "mode_bits_per_dim": 5.9}
    run = finished_runs.make(tmp_path / "a", "cifar_vq", numbers, num_seeds=2, test_samples=100)
    runs = [
        finished_runs.add_curves(run, 512),
        make(tmp_path / "b", estimator="vq_ema", codebook_size=128),
    ]
    cells = cells_of(report.compare(runs, tmp_path / "out"))
    names = ("importance bound", "likeliest codes, no bound")
    assert [[row[name] for name in names] for row in cells] == [
        ["6.000 (K = 100)", "5.900"],
        ["", ""],
    ]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Importance bound: by K importance samples" in text
    assert "Likeliest codes, no bound: exact KL plus distortion" in text
    cells = cells_of(report.compare(runs[1:], tmp_path / "alone"))
    assert not {*names} & set(cells[0])
    assert "mportance" not in (tmp_path / "alone" / "report.md").read_text()


def test_a_learned_prior_of_other_test_images_is_left_out(tmp_path, capsys) -> None:
    run = make(tmp_path / "run")
    path = run / "summary.json"
    summary = json.loads(path.read_text())
    functions = test_export.FUNCTIONS
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), functions.abstract_params())
    of_model = {name: x for name, x in params.items() if name != "prior"}
    trained.save(run / "model", functions.model, of_model, trained.Card("noise", seed=0))
    metrics = {"bits_per_dim": 5.5, "num_images": 1_000}
    trained.save_prior(run / "model", functions, params, trained.Card("noise", metrics=metrics))
    for number, shown in ((10_000, None), (1_000, "5.500")):
        summary["test"]["num_images"] = number
        path.write_text(json.dumps(summary))
        (row,) = cells_of(report.compare([run], tmp_path / "out"))
        assert row.get("learned prior") == shown
        said = f"({1_000}) than the run's ({number}); give both one --num_test_images"
        assert capsys.readouterr().err.count(said) == (shown is None)
    (run / "model" / "prior" / "prior.json").write_text("{")
    for _ in range(2):
        (row,) = cells_of(report.compare([run], tmp_path / "out"))
        assert "learned prior" not in row
    said = capsys.readouterr().err
    assert said.count(f"{run}: its learned prior is left out: {run}/model/prior/prior.json") == 1


def test_images_of_ones_own_that_stand_for_the_set_have_the_published_value_beside(
    tmp_path,
) -> None:
    run = make(tmp_path / "a", estimator="gs_soft", codebook_size=512)
    path = run / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dataset": "cifar10.npz"}))
    (row,) = cells_of(report.compare([run], tmp_path / "out"))
    assert (row["data set"], row["published"]) == ("cifar10.npz", "4.61")


def test_bits_of_likeliest_codes_and_of_importance_samples_have_all_their_nats() -> None:
    config, counts = Config(test_samples=5), np.ones((1, 2, 3), int)
    rate, distortion = np.array([[1.0, 2.0], [3.0, 5.0]])[:, None]
    test = vq_evaluation.Evaluation(rate, distortion, counts, 4)
    others = vq_evaluation.Others(2 * distortion, -distortion, np.array([[2.0, 3.0]]))
    bits = 4 * np.log(2)
    assert vq_report._summarize_others(config, test, others) == {
        "mode_bits_per_dim": np.round(9.5 / bits, 4),
        "mode_bits_per_dim_standard_error": np.round(2.5 / bits, 4),
        "nll_nats": 4.0,
        "nll_nats_standard_error": 1.0,
        "nll_bits_per_dim": np.round(4 / bits, 4),
        "nll_bits_per_dim_standard_error": np.round(1 / bits, 4),
        "importance_samples": 5,
        "effective_samples": 2.5,
    }


@pytest.mark.parametrize("estimator", ["vq", "vq_ema"])
def test_both_rules_of_vq_vae_have_its_published_value(tmp_path, estimator) -> None:
    runs = [
        make(tmp_path / str(size), estimator=estimator, codebook_size=size) for size in (64, 128)
    ]
    published = [row["published"] for row in cells_of(report.compare(runs, tmp_path / "out"))]
    assert published == ["", "4.81 (their VQ-VAE's best; 4.67 by van den Oord et al.)"]
    assert report.REFERENCES == {
        "GS-Soft, C = 512, published": 4.61,
        "VQ-VAE, C = 128, published": 4.81,
    }
