"""What counts as a result of a published cell, and what is kept of it."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import finished_runs
import pytest
from reproduce_runs import CELL, chosen, leave_run

from experiments import table1
from experiments.common import groups, tables
from experiments.reproduce import __main__ as reproduce
from experiments.reproduce import listing, manifest, results, summaries

ROOT = Path(__file__).parents[2]


def test_many_seeds_of_jointvae_are_of_their_own_length(tmp_path) -> None:
    place = results.Place(manifest.TABLES["joint_vae"], tmp_path / "runs", tmp_path / "out")
    longest, many = place.table.cells
    config = many.config("paper")
    assert (config.num_seeds, config.num_steps) == (16, 30_000)
    assert longest.config("cpu").num_steps == 15_620
    finished_runs.make(place.out, "joint_vae", **{**longest.settings("paper"), "seed": 0})
    run = finished_runs.make(tmp_path / "many", "joint_vae", **many.settings("paper"))
    recorded = [results.records.read_summary(at) for at in (place.out, run)]
    (long,) = results.read(place, recorded, longest)
    assert (long.budget, long.steps, long.is_finished) == ("paper", 93_700, True)
    told = {
        (one.budget, one.steps, len(one.run.summary["seeds"]), one.is_finished)
        for one in results.read(place, recorded, many)
    }
    assert told == {("paper", 30_000, 16, True), ("cpu", 30_000, 16, True)}


def test_recorded_runs_of_jointvae_count() -> None:
    place = results.Place(manifest.TABLES["joint_vae"], Path("none"), ROOT / "docs" / "results")
    done = results.read(place, results.recorded(place), place.table.cells[0])
    of_cpu = [one for one in done if one.budget == "cpu"]
    assert [(one.steps, one.is_finished) for one in of_cpu] == [(15_620, True)] * 3


def test_results_are_read_again_when_only_they_are_left(place) -> None:
    cell = leave_run(place, 0, nll=107.0)
    leave_run(place, 1, nll=109.0)
    leave_run(place, 2, steps=1_000, nll=150.0)
    other = finished_runs.make(place.out, "binary_vae", estimator="rebar", num_steps=5)
    place.records.write_text(json.dumps([json.loads((other / "summary.json").read_text())]))
    assert "1,000 of 300,000" in results.write(place)
    for path in sorted(place.runs.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    recorded = results.recorded(place)
    assert len(recorded) == 4, "what is no cell is left in the file"
    done = results.read(place, recorded, cell)
    of_budget = [one for one in done if one.budget == "cpu"]
    assert sorted(one.steps for one in of_budget) == [1_000, 300_000, 300_000]
    assert not any(one.is_finished for one in done if one.budget == "paper")
    assert results.value(place.table, of_budget) == pytest.approx((108.0, 2**0.5))
    assert [job.name for job in reproduce.queue(*chosen(place, seeds=3))] == [f"{CELL}, seed 2"]
    assert results.write(place).count("\n") == 5, "nothing is counted twice"
    line = next(s for s in listing.describe(place, [cell], "cpu").splitlines() if CELL in s)
    shown = [text.strip() for text in line.split("|")[1:-1]]
    assert shown[:6] == [CELL, "108.03 ± 0.07", "108.00 ± 1.41", "300,000 / 300,000", "15%", "2"]
    # The table's own program takes the file in place of directories.
    assert tables.compare(table1.TABLE, [place.records], place.out / "again").count("\n") == 5


def test_recorded_runs_of_any_length_count_however_they_were_watched(place) -> None:
    cell = leave_run(place, 0, eval_interval=30_000, checkpoint_interval=7, num_eval_images=5)
    for name, steps, more in (("1M", 1_000_000, {}), ("other", 9_000_000, {"adam_eps": 1e-3})):
        leave_run(place, 1, steps=steps, num_steps=steps, nll=107.0, **more)
        place.workdir(cell, "cpu", 1).rename(place.runs / "table1" / f"{CELL}-cpu" / f"seed{name}")
    results.write(place)
    only_recorded = place._replace(runs=place.runs / "gone")
    done = results.read(only_recorded, results.recorded(place), cell)
    told = {(one.budget, one.steps, one.is_finished) for one in done}
    assert told == {
        ("paper", 300_000, False),
        ("paper", 1_000_000, False),
        ("cpu", 300_000, True),
        ("cpu", 1_000_000, True),
    }
    assert "| 1,000,000 / 2,000,000 |" in listing.describe(only_recorded, [cell], "paper")
    config, _, cells, more = chosen(place, seeds=3)
    waiting = reproduce.queue(config, only_recorded, cells, more)
    assert [job.name for job in waiting] == [f"{CELL}, seed 2"]


def test_parts_in_steps_may_be_the_same_share_of_a_longer_run() -> None:
    cell = next(c for c in manifest.TABLES["table2"].cells if c.name.endswith("1nonlinear_rbm"))
    config = cell.config("cpu")
    run = lambda **changes: {
        "config": {**dataclasses.asdict(config), **changes},
        "dataset": config.dataset,
    }
    is_of = functools.partial(groups.is_of, cell.program)
    longer = run(num_steps=300_000, kl_warmup_steps=90_000)
    assert is_of(longer, config, any_length=True)
    assert is_of(run(num_steps=300_000), config, any_length=True), "the same steps"
    assert not is_of(run(num_steps=300_000, kl_warmup_steps=0), config, any_length=True)
    assert not is_of(longer, config)
    assert is_of(run(eval_interval=7, checkpoint_interval=7), config)
    assert not is_of(run(test_samples=7), config)


def test_a_run_that_went_on_takes_the_place_of_what_was_recorded_of_it(place) -> None:
    leave_run(place, 0, steps=1_000, eval_samples=7)  # by a flag of its own
    results.write(place)
    path = place.runs / "table1" / f"{CELL}-cpu" / "seed0" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "steps": 2_000}))
    results.write(place)
    assert [summary["steps"] for summary in results.recorded(place)] == [2_000]


def test_a_run_of_other_settings_counts_and_is_named(place, capsys) -> None:
    cell = leave_run(place, 0, steps=500, num_steps=500)
    queue = lambda *more: reproduce.queue(*chosen(place)[:3], list(more))
    at = place.workdir(cell, "cpu", 0)
    summaries.say_once.cache_clear()
    for _ in range(2):
        assert not queue(), "neither trained again nor lost"
        listing.describe(place, [cell], "cpu")
    (line,) = capsys.readouterr().err.splitlines()
    said = f"{CELL}: finished with other settings (num_steps=500 there, 300000 here) in {at}; to"
    assert line.startswith(said)
    assert not queue("--num_steps=500", "--log_interval=3", "--dataset=x.npz", "--mesh=1")
    assert "| 500 / 500 |" in listing.describe(place, [cell], "cpu", ["--num_steps=500"])
    assert capsys.readouterr().err == "", "it is what the command asks for"
    with pytest.raises(ValueError, match=r"--num_steps=many: "):
        queue("--num_steps=many")
    results.write(place)
    shutil.rmtree(place.runs)
    assert not queue("--num_steps=500")
    assert [job.name for job in queue()] == [f"{CELL}, seed 0"]


def test_runs_of_other_settings_are_not_averaged(place, capsys) -> None:
    leave_run(place, 0, nll=107.0)
    cell = leave_run(place, 1, nll=109.0, adam_eps=1e-3)
    summaries.say_once.cache_clear()
    row = lambda *more: next(
        [text.strip() for text in line.split("|")[3:7]]
        for line in listing.describe(place, [cell], "cpu", more).splitlines()
        if CELL in line
    )
    assert row() == ["107.00", "300,000 / 300,000", "15%", "1"]
    assert "adam_eps=0.001 there, 1e-08 here" in capsys.readouterr().err
    assert row("--adam_eps=1e-3") == ["109.00", "300,000 / 300,000", "15%", "1"]
    assert "adam_eps=1e-08 there, 0.001 here" in capsys.readouterr().err
    assert not reproduce.queue(*chosen(place, seeds=2)), "neither is trained again"
    leave_run(place, 2, steps=1_000, nll=150.0, eval_interval=7)
    assert row()[0] == "107.00", "nor is what was cut off"
    leave_run(place, 3, nll=108.0, eval_interval=7)
    assert row() == ["107.50 ± 0.71", "300,000 / 300,000", "15%", "2"]
    leave_run(place, 4, steps=400_000, num_steps=400_000, nll=99.0, adam_eps=1e-3)
    assert row() == ["107.50 ± 0.71", "300,000 / 300,000", "15%", "2"], "however long the others"


def test_one_seed_takes_the_place_of_five_only_where_it_is_longer(place, capsys) -> None:
    kept = place.records.with_suffix(".before.json")
    seeds = lambda path: sorted(len(one["seeds"]) for one in groups.read_summaries(path))
    leave_run(place, 0, num_seeds=5)
    results.write(place)
    shutil.rmtree(place.runs)
    cell = leave_run(place, 0)
    results.write(place)
    assert seeds(place.records) == [5]
    assert (kept.exists(), capsys.readouterr().err) == (False, "")
    path = place.workdir(cell, "cpu", 0) / "summary.json"
    place.records.write_text(f"[{path.read_text()}]")
    shutil.rmtree(place.runs)
    leave_run(place, 0, num_seeds=5)
    results.write(place)
    assert (seeds(place.records), seeds(kept)) == ([5], [1])
    assert f"1 of the 1 runs that {place.records} held are not in it now" in capsys.readouterr().err


def test_files_that_hold_no_summaries_are_refused(tmp_path) -> None:
    path = tmp_path / "other.json"
    with pytest.raises(ValueError, match="cannot be read"):
        groups.read_summaries(path)
    for text, message in (("{", "is not valid JSON"), ("{}", "is no list of summaries")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            groups.read_summaries(path)
