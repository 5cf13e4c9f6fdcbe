"""The comparison of several runs."""

import json

import numpy as np
import pytest

from experiments import report


def make_run(directory, estimator, size, bits):
    directory.mkdir()
    test = {
        "bits_per_dim": bits, "bits_per_dim_standard_error": 0.01, "rate_nats_per_image": 300.0,
        "distortion_nats_per_image": 12000.0, "code_perplexity": [30.0, 40.0], "dead_codes": [0, 1],
    }  # fmt: skip
    summary = {
        "dataset": "cifar10", "estimator": estimator, "test": test, "seeds": [0], "num_steps": 100,
        "baseline": {"bits_per_dim": 7.9}, "hardware": "1 x cpu", "wall_seconds": 90.0,
        "config": {
            "codebook_size": size, "num_latents": 2, "features": 32, "crop": 16, "batch_size": 32,
        },
    }  # fmt: skip
    (directory / "summary.json").write_text(json.dumps(summary))
    np.save(directory / "codebook.npy", np.random.default_rng(size).normal(size=(2, size, 5)))
    lines = [
        {"step": s, "validation/rate": 100.0 + s, "validation/distortion": 14000.0 - 10 * s}
        for s in (50, 100)
    ]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    return directory


def test_report_of_three_runs(tmp_path) -> None:
    runs = [
        make_run(tmp_path / "a", "vq_ema", 64, 6.5),
        make_run(tmp_path / "b", "gs_soft", 512, 6.0),
        make_run(tmp_path / "c", "gs_soft", 64, 6.1),
    ]
    out = tmp_path / "out"
    table = report.compare(runs, out)
    rows = [line.split("|")[1:-1] for line in table.splitlines()]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert [row[:2] for row in cells[2:]] == [
        ["gs_soft", "64"],
        ["gs_soft", "512"],
        ["vq_ema", "64"],
    ]
    assert cells[3][8] == "6.000"
    assert cells[3][-1] == "4.61"
    assert {p.name for p in out.iterdir()} == {
        "report.md", "results.json", "bits_per_dim.png", "rate_distortion.png",
        "explained_variance.png", "codebooks.png",
    }  # fmt: skip
    text = (out / "report.md").read_text()
    assert table in text
    assert "not comparable" in text
    assert len(json.loads((out / "results.json").read_text())) == 3


def test_run_without_a_summary(tmp_path) -> None:
    with pytest.raises(ValueError, match="is the run finished"):
        report.compare([tmp_path], tmp_path / "out")


def test_runs_of_one_kind_are_told_apart_and_averaged(tmp_path) -> None:
    runs = [make_run(tmp_path / name, "vq", 8, bits) for name, bits in (("a", 6.0), ("b", 7.0))]
    summaries = [report.read_run(run) for run in runs]
    assert report.label_runs(summaries, runs) == ["vq (a)", "vq (b)"]
    assert len(report.compare(runs, tmp_path / "out").splitlines()) == 4


def test_what_is_not_a_run_is_refused(tmp_path) -> None:
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(ValueError, match="not the summary of a cifar_vq run"):
        report.read_run(tmp_path)
    run = make_run(tmp_path / "a", "vq", 8, 6.0)
    with pytest.raises(ValueError, match="cannot write to"):
        report.compare([run], run / "summary.json" / "out")
