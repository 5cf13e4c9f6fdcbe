"""What is left to do of the published cells, and the program that does it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import finished_runs
import pytest
from reproduce_runs import CELL, chosen, leave_run

from experiments.common import groups
from experiments.reproduce import __main__ as reproduce
from experiments.reproduce import listing, manifest, results, summaries

ROOT = Path(__file__).parents[2]


def test_what_is_finished_is_not_trained_again_and_the_rest_goes_on(place) -> None:
    leave_run(place, 0)
    leave_run(place, 1, steps=1_000)
    waiting = reproduce.queue(*chosen(place, seeds=3, dataset="mine.npz"))
    assert [job.name for job in waiting] == [f"{CELL}, seed 1", f"{CELL}, seed 2"]
    workdir = place.runs / "table1" / f"{CELL}-cpu" / "seed1"
    assert waiting[0].arguments == [
        "experiments.binary_vae",
        "--preset=table1_linear_muprop",
        "--dataset=mine.npz",
        f"--workdir={workdir}",
        "--seed=1",
        "--log_interval=7",
    ]


def test_a_run_that_was_killed_while_it_wrote_is_trained_again(place) -> None:
    leave_run(place, 0)
    leave_run(place, 1, steps=400_000, num_steps=400_000)
    leave_run(place, 2)
    path = place.runs / "table1" / f"{CELL}-cpu" / "seed0" / "summary.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps({name: x for name, x in summary.items() if name != "files"}))
    (place.runs / "table1" / f"{CELL}-cpu" / "seed2" / "samples.png").unlink()
    names = [f"{CELL}, seed 0", f"{CELL}, seed 2"]
    assert [job.name for job in reproduce.queue(*chosen(place, seeds=3))] == names
    results.write(place)
    assert [job.name for job in reproduce.queue(*chosen(place, seeds=3))] == names
    shutil.rmtree(place.runs)
    assert not reproduce.queue(*chosen(place, seeds=3)), "the results alone have no files"


def test_a_run_of_several_seeds_stands_for_them_all(tmp_path) -> None:
    place = results.Place(manifest.TABLES["disarm"], tmp_path / "runs", tmp_path / "out")
    cells = [cell for cell in place.table.cells if cell.name in ("disarm", "arms")]
    finished_runs.make(
        place.workdir(cells[0], "paper", 0),
        "binary_vae",
        **{**cells[0].settings("paper"), "seed": 0},
    )
    config = reproduce.Config(budget="paper", seeds=7)
    waiting = reproduce.queue(config, place, cells, [])
    assert [job.name for job in waiting] == ["arms, seed 0", "disarm, seed 5", "arms, seed 5"]
    config = reproduce.Config(budget="cpu", seeds=2)
    assert len(reproduce.queue(config, place, cells, [])) == 4, "there a run has one seed"
    results.write(place)
    assert results.value(place.table, results.read(place, [], cells[0])) == (108.0, 0.0)


def test_seeds_behind_the_dashes_are_those_of_a_run(place) -> None:
    cell = next(cell for cell in place.table.cells if cell.name == CELL)
    names = lambda config, more: [job.name for job in reproduce.queue(config, place, [cell], more)]
    five = reproduce.Config(budget="paper", seeds=2)  # of five seeds at once
    assert names(five, ["--num_seeds=1"]) == [f"{CELL}, seed 0", f"{CELL}, seed 1"]
    one = reproduce.Config(budget="cpu", seeds=3)
    assert names(one, ["--num_seeds=2"]) == [f"{CELL}, seed 0", f"{CELL}, seed 2"]


def test_one_of_five_seeds_alone_does_not_stand_for_them(place) -> None:
    cell = next(cell for cell in place.table.cells if cell.name == CELL)
    assert (cell.config("paper").num_seeds, cell.config("cpu").num_seeds) == (5, 1)
    settings = {**cell.settings("paper"), "num_seeds": 1}
    config = reproduce.Config(budget="paper", cells=CELL)
    for seed, waiting in ((0, [f"{CELL}, seed 0"]), (1, [f"{CELL}, seed 0"])):
        at = place.workdir(cell, "paper", seed)
        finished_runs.make(at, "binary_vae", **{**settings, "seed": seed})
        assert [job.name for job in reproduce.queue(config, place, [cell], [])] == waiting
    at = place.workdir(cell, "paper", 2)
    finished_runs.make(at, "binary_vae", **{**settings, "seed": 2, "num_seeds": 3})
    assert not reproduce.queue(config, place, [cell], [])


@pytest.mark.parametrize("damaged", ["", '{"config": {', "[]", "{}"])
def test_a_damaged_summary_is_that_of_an_unfinished_run(place, capsys, damaged) -> None:
    leave_run(place, 0)
    cell = leave_run(place, 1)
    path = place.workdir(cell, "cpu", 1) / "summary.json"
    path.write_text(damaged)
    summaries.say_once.cache_clear()
    assert [job.name for job in reproduce.queue(*chosen(place, seeds=2))] == [f"{CELL}, seed 1"]
    results.write(place)
    assert [summary["seeds"] for summary in results.recorded(place)] == [[0]]
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert line.endswith("not finished: its command, given again, writes it")


def test_a_run_that_leaves_no_result_is_named_and_the_next_goes_on(
    place, monkeypatch, capsys
) -> None:
    config = reproduce.Config(budget="cpu")
    cells = place.table.cells[:2]
    waiting = reproduce.queue(config, place, list(cells), [])

    def run_all(jobs, *, ended, **options):
        for job in jobs:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            job.log.write_text("a dry run")
            assert ended(job, 0) is None
        return 0

    monkeypatch.setattr(reproduce.jobs, "run_all", run_all)
    assert reproduce.train(config, waiting) == [job.name for job in waiting]
    assert capsys.readouterr().err.count("ended without a result (see ") == len(waiting) == 2


def test_images_of_ones_own_stand_for_those_of_the_cell(place) -> None:
    cell = leave_run(place, 0, dataset="digits")
    (done,) = results.read(place, [], cell)
    assert done.run.summary["config"]["dataset"] == "mnist_static"
    results.write(place)
    (record,) = json.loads(place.records.read_text())
    assert groups.is_of(cell.program, record, cell.config("cpu"))


@pytest.mark.parametrize(
    ("words", "settings", "message"),
    [
        (
            [],
            {},
            "name a table, one of figure1, figure2, best, table1, table1_settings, .*; got none",
        ),
        (["table9"], {}, "got table9"),
        (["table1", "again"], {}, "unexpected arguments: again"),
        (["table1", "--preset=small"], {}, "--preset=small behind --: .* by its own --cells"),
        (["table1", "--seed=3"], {}, "--seed=3 behind --: .* by its own --seeds"),
        (["table1", "--workdir"], {}, "--workdir behind --: .* by its own --runs"),
        (["table1"], {"cells": "svhn"}, "--cells: svhn names no cell of table1; see --list"),
        (["table1"], {"cells": "omniglot,mnits"}, "--cells: mnits names no cell of table1"),
        (["table1"], {"dataset": "m.npz"}, "are of mnist_static, omniglot; choose some by --cells"),
    ],
)
def test_mistakes_are_named(words, settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        reproduce.choose(reproduce.Config(**settings), words)


@pytest.mark.parametrize(
    ("table", "words", "names"),
    [
        ("joint_vae", "mnist", ["mnist"]),  # and not mnist_seeds
        ("joint_vae", "mnist_", ["mnist_seeds"]),
        ("joint_vae", "mni", ["mnist", "mnist_seeds"]),
        ("joint_vae", "mnist_seeds,mnist", ["mnist", "mnist_seeds"]),
        ("figure2", "vq", ["vq"]),
    ],
)
def test_a_whole_name_chooses_its_cell_alone(table, words, names) -> None:
    _, cells, _ = reproduce.choose(reproduce.Config(cells=words), [table])
    assert [cell.name for cell in cells] == names


def test_results_of_a_table_may_lie_in_a_folder_of_its_own(tmp_path) -> None:
    (tmp_path / "cifar10_vq").mkdir()
    for table, out in (("figure1", tmp_path), ("table1", tmp_path)):
        assert reproduce.choose(reproduce.Config(out=str(tmp_path)), [table])[0].out == out
    (tmp_path / "cifar10_vq" / "results.json").write_text("[]")
    for table, out in (("figure1", tmp_path / "cifar10_vq"), ("table1", tmp_path)):
        assert reproduce.choose(reproduce.Config(out=str(tmp_path)), [table])[0].out == out
    config = reproduce.Config(out=str(ROOT / "docs" / "results"), budget="cpu")
    place, cells, _ = reproduce.choose(config, ["figure1"])
    text = listing.describe(place, [c for c in cells if c.name == "gs_soft_64"], "cpu")
    assert "| 6.089 | 5,000 / 5,000 |" in " ".join(text.split())


@pytest.mark.slow
def test_a_table_is_made_in_two_goes(tmp_path) -> None:
    tiny = "--dataset=digits --num_latents=6 --steps_per_call=2 --log_interval=4 --eval_interval=4"
    tiny += " --eval_samples=2 --num_eval_images=8 --num_test_images=8 --test_samples=2"
    command = [sys.executable, "-m", "experiments.reproduce", "table1", "--budget=cpu"]
    command += ["--parallel=2", "--runs=runs", f"--cells={CELL},mnist_static_linear_concrete"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*limit, steps):
        more = ["--", *tiny.split(), f"--num_steps={steps}"]
        ran = subprocess.run(
            [*command, *limit, *more],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    out = run("--minutes=1.5", steps=40_000_000)
    assert out.count("of 40,000,000") == 2
    records = json.loads((tmp_path / "runs/results/table1/table1.json").read_text())
    first = [record["steps"] for record in records]
    run("--minutes=1.5", steps=40_000_000)
    records = json.loads((tmp_path / "runs/results/table1/table1.json").read_text())
    assert [record["steps"] > before for record, before in zip(records, first, strict=True)] == [
        True,
        True,
    ]
