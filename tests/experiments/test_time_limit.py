"""Programs under --time_limit, and --dry_run."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tiny

from dvae.train.dry_run import Measured
from experiments.cifar_vq.config import Config as VqConfig
from experiments.code_prior.config import Config as PriorConfig
from experiments.common import dry_run, groups, records
from experiments.common import run as runner
from experiments.common.config import LikelihoodConfig, RunConfig
from experiments.programs import PROGRAMS

pytestmark = pytest.mark.usefixtures("one_device")
LATE = 1e-9  # minutes: over before the first step


def train(workdir, **settings):
    return tiny.run(tiny.Config(workdir=str(workdir), **settings))


@pytest.mark.thorough
def test_a_run_ends_in_time_is_evaluated_and_goes_on(tmp_path, capsys) -> None:
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    first = train(cut, time_limit=LATE)
    assert (first["steps"], first["num_steps"], records.is_unfinished(first)) == (1, 12, True)
    said = capsys.readouterr()
    assert "the time limit is near: ending after step 1" in said.err
    assert ": 1 of 12 steps, seeds [0]" in said.out
    assert "unfinished: the same command trains on" in said.out
    second = train(cut, time_limit=LATE)
    assert second["steps"] == 2
    assert "continuing from step 1" in capsys.readouterr().err
    last = train(cut)
    expected = train(whole, time_limit=60.0)
    assert last["test"] == expected["test"]
    assert last["steps"] == expected["steps"] == 12
    assert last["finishing_seconds"] >= 0
    capsys.readouterr()
    assert train(cut, time_limit=LATE) == last
    assert "this run is finished" in capsys.readouterr().out


def test_how_long_the_end_took_is_known_to_the_next_session(tmp_path) -> None:
    config = tiny.Config(workdir=str(tmp_path), time_limit=2.0)
    images = tiny.prepare(config, lambda size: slice(0, size))
    limit = runner._limit(config, images, tmp_path)
    assert (limit.evaluations, limit.finishing) == (1.0, None)
    (tmp_path / "summary.json").write_text(json.dumps({"finishing_seconds": 7.5}))
    assert runner._limit(config, images, tmp_path).finishing == 7.5
    assert runner._limit(tiny.Config(), images, tmp_path) is None


def test_the_final_evaluation_in_validations(tmp_path) -> None:
    images = tiny.prepare(tiny.Config(), lambda size: slice(0, size))  # 8 of each held-out set
    assert RunConfig(num_eval_images=4).evaluation_work(images) == 8 / 4
    assert RunConfig(num_test_images=2).evaluation_work(images) == 2 / 8
    settings = dict(num_eval_images=4, eval_samples=10, test_samples=50)
    assert LikelihoodConfig(**settings).evaluation_work(images) == (8 + 8) / 4 * 5
    held_out = dict(num_validation_images=2, num_test_images=3)
    assert LikelihoodConfig(**settings, **held_out).evaluation_work(images) == (2 + 3) / 4 * 5
    assert VqConfig(num_eval_images=4).evaluation_work(images) == 8 / 4 * 2
    assert VqConfig(num_eval_images=4, test_samples=3).evaluation_work(images) == 8 / 4 * 5
    # Validation images are evaluated with those of the test, and pixels with the codes.
    assert PriorConfig(num_eval_images=4).evaluation_work(images) == (8 + 8) / 4 * 6
    transformer = dict(network="transformer", num_test_images=2)
    assert PriorConfig(num_eval_images=4, **transformer).evaluation_work(images) == (2 + 2) / 4 * 2


def test_unfinished_runs_are_not_averaged_with_finished_ones() -> None:
    program = PROGRAMS["cifar_vq"]
    summary = {"dataset": "patches", "num_steps": 10, "config": {}}
    plain = groups.settings_of(program, summary)
    assert groups.settings_of(program, {**summary, "steps": 10}) == plain
    assert groups.settings_of(program, {**summary, "steps": 9}) == {**plain, "steps": 9}


def test_a_dry_run_measures_and_writes_nothing(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    workdir = tmp_path / "run"
    found = train(workdir, num_steps=8, time_limit=60.0, dry_run=True)
    assert not list(tmp_path.iterdir())
    assert found["num_parameters"] == 3
    # Adam has two moments and a count, and the state the number of the step.
    assert found["memory"].state == 4 * (3 * 3 + 2)
    assert found["memory"].data == 64
    assert found["memory"].total > found["memory"].temporary + found["memory"].state
    assert found["flops"] > 0
    assert found["seconds"]["training"] == 8 * found["call_seconds"]
    assert found["seconds"]["validations"] == 2 * found["validation_seconds"]
    said = capsys.readouterr().out
    assert "  batch_size             8\n" in said
    assert "parameters     3 that the optimizer trains, an estimator's own among them\n" in said
    assert " for 8 steps: an estimate" in said
    assert "enough for about 8 of 8 steps" in said
    assert f"{workdir}, in which nothing was written" in said


def test_a_dry_run_multiplies_log_z_by_no_images() -> None:
    images = tiny.prepare(tiny.Config(), lambda size: slice(0, size))
    config = LikelihoodConfig(
        num_steps=10, eval_interval=5, num_eval_images=4, eval_samples=1, test_samples=100
    )
    measured = Measured(
        num_parameters=3,
        memory=None,
        flops=None,
        compile_seconds=1.0,
        calls=1,
        call_seconds=0.1,
        validation_seconds=9.0,
        validation_fixed_seconds=8.0,
        validation_compile_seconds=1.0,
    )
    found = dry_run._seconds(config, measured, images, monitored=True)
    assert found["evaluation"] == dry_run._FINISHING_SECONDS + 2 * 8.0 + (8 + 8) / 4 * 100 * 1.0
    limit = runner._limit(dataclasses.replace(config, time_limit=2.0), images, Path("nowhere"))
    assert (limit.evaluations, limit.rounds) == (400.0, 2)


@pytest.mark.parametrize(("steps", "validations"), [(3, 1), (8, 2), (9, 3)])
def test_a_dry_run_counts_the_last_validation_and_the_evaluation(
    tmp_path, steps, validations
) -> None:
    found = train(tmp_path, num_steps=steps, dry_run=True)
    seconds, validation = found["seconds"], found["validation_seconds"]
    assert seconds["validations"] == validations * validation
    assert seconds["evaluation"] == dry_run._FINISHING_SECONDS + validation  # of 8 images, too


def test_a_dry_run_without_validations_says_that_it_leaves_the_evaluation_out(
    tmp_path, capsys
) -> None:
    found = train(tmp_path, num_steps=8, eval_interval=0, time_limit=60.0, dry_run=True)
    assert found["seconds"]["evaluation"] == dry_run._FINISHING_SECONDS
    said = capsys.readouterr().out
    assert "for 8 steps: an estimate, without the evaluation: its length is unknown" in said
    assert "8 of 8 steps at a time, without the evaluation" in said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (100 * 3600, "100 h 0 min")],
)
def test_durations(seconds, text) -> None:
    assert dry_run.duration(np.float64(seconds)) == text
