"""Names of the numbers in summaries: one for each meaning, and those of older versions."""

import json

import finished_runs
import numpy as np
import programs
import pytest

from experiments import joint_table, report, table1, table2, table3
from experiments.common import records
from experiments.common import report as run_report
from experiments.common import tables as result_tables

# What the same numbers were called before units were suffixes.
FORMER = {
    "nll_nats": "nll",
    "nll_nats_standard_error": "nll_standard_error",
    "nll_nats_mean_over_seeds": "nll_mean_over_seeds",
    "nll_nats_standard_deviation_over_seeds": "nll_standard_deviation_over_seeds",
    "elbo_nats": "elbo",
    "kl_nats": "kl",
    "kl_global_nats": "kl_global",
    "kl_local_nats": "kl_local",
    "rate_nats": "rate_nats_per_image",
    "distortion_nats": "distortion_nats_per_image",
    "rmse": "rmse_of_pixels",
    "perplexity": "code_perplexity",
}
COMPARE = {
    "cifar_vq": [report.compare],
    "binary_vae": [
        lambda runs, out: result_tables.compare(table1.TABLE, runs, out),
        lambda runs, out: result_tables.compare(table2.TABLE, runs, out),
    ],
    "joint_vae": [joint_table.compare],
    "dvaepp": [lambda runs, out: result_tables.compare(table3.TABLE, runs, out)],
}


def rewrite(directory, change):
    """Replaces the numbers of validation and test set in a run's summary."""
    path = directory / records.SUMMARY_FILE
    summary = json.loads(path.read_text())
    for name in records.SETS:
        if name in summary:
            summary[name] = change(summary[name])
    path.write_text(json.dumps(summary))


def aged(program):
    """Returns the function that gives a set's numbers their former names."""
    former = dict(FORMER, elbo_nats="elbo_nats_per_image") if program == "joint_vae" else FORMER
    return lambda part: {former.get(name, name): value for name, value in part.items()}


@pytest.mark.thorough
@pytest.mark.parametrize("program", programs.CONFIGS)
@pytest.mark.parametrize("num_seeds", [1, 2])
def test_runs_with_former_names_are_read_like_new_ones(tmp_path, program, num_seeds) -> None:
    new, old = (
        finished_runs.make(tmp_path / name, program, num_seeds=num_seeds) for name in ("new", "old")
    )
    rewrite(old, aged(program))
    texts = [(run / records.SUMMARY_FILE).read_text() for run in (new, old)]
    assert texts[0] != texts[1]
    assert records.read_summary(old) == records.read_summary(new) == json.loads(texts[0])
    for i, compare in enumerate(COMPARE[program]):
        outs = [tmp_path / f"{run.name}{i}" for run in (new, old)]
        tables = [compare([run], out) for run, out in zip((new, old), outs, strict=True)]
        assert tables[0] == tables[1]
        for path in outs[0].glob("*.json"):
            assert path.read_bytes() == (outs[1] / path.name).read_bytes()


def test_statistics_follow_the_name_of_their_number() -> None:
    old = {former: i for i, former in enumerate(FORMER.values())}
    new = records.with_standard_names({"validation": old, "test": old, "config": {"kl": 1}})
    expected = {name: i for i, name in enumerate(FORMER)}
    assert new == {"validation": expected, "test": expected, "config": {"kl": 1}}
    assert records.with_standard_names(new) == new
    others = {"test": {"kl_discrete_nats": 1, "accuracy_mean_over_seeds": 2, "best_step": 3}}
    assert records.with_standard_names(others) == others


@pytest.mark.parametrize("damaged", [None, [], 1, {"test": 3}, {"test": None, "validation": []}])
def test_what_is_no_summary_is_left_to_its_reader(damaged) -> None:
    assert records.with_standard_names(damaged) == damaged


@pytest.mark.parametrize("damaged", [b"", b'{"test": {', b"\xff", b"[]"])
def test_a_damaged_summary_is_named(tmp_path, damaged) -> None:
    path = tmp_path / records.SUMMARY_FILE
    path.write_bytes(damaged)
    said = "is no JSON object" if damaged == b"[]" else "is not valid JSON"
    with pytest.raises(ValueError, match=f"{path} {said}"):
        records.read_summary(tmp_path)


@pytest.mark.parametrize("program", programs.CONFIGS)
def test_every_name_is_explained(program) -> None:
    for name in finished_runs.TEST[program]:
        stem = name.removesuffix(records.STANDARD_ERROR)
        assert f"\n    {stem}" in records.__doc__ or f", {stem} " in records.__doc__, name


def test_a_mean_over_images_and_its_error() -> None:
    values = np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])
    error = np.round(np.sqrt(7 / 3), 4)
    assert run_report.over_images("x", values) == {
        "x": [3.0, 0.0],
        "x_standard_error": [error, 0.0],
    }
    assert run_report.over_images("x", values[:1]) == {"x": 3.0, "x_standard_error": error}


def test_a_mean_over_seeds_and_their_deviation() -> None:
    assert run_report.over_seeds("x", np.array([1.0, 2.0, 6.0])) == {
        "x_mean_over_seeds": 3.0,
        "x_standard_deviation_over_seeds": 2.6458,  # sqrt(7), of n - 1
    }
    assert run_report.over_seeds("x", np.array([1.0])) == {}


@pytest.mark.parametrize("program", ["cifar_vq", "binary_vae", "dvaepp"])
def test_one_image_has_no_error(tmp_path, program) -> None:
    # Every warning is an error: a deviation of one value would warn, and be NaN.
    with np.errstate(all="raise"):
        assert run_report.over_images("x", np.array([[1.5]])) == {"x": 1.5}
    one = finished_runs.make(tmp_path / "one", program)
    without = lambda part: {
        name: value for name, value in part.items() if not name.endswith(records.STANDARD_ERROR)
    }
    rewrite(one, without)
    table = COMPARE[program][0]([one], tmp_path / "out")
    header, _, row = ([cell.strip() for cell in line.split("|")] for line in table.splitlines())
    cells = dict(zip(header, row, strict=True))
    assert cells["± SE" if program == "cifar_vq" else "SE (images)"] == ""
    assert "nan" not in table
