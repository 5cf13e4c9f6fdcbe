"""The table of all quantizers: the priors learned after their runs, and what is written."""

import json
import shutil

import code_prior_runs
import finished_runs
import pytest

from dvae import trained
from experiments.common import groups
from experiments.report import PROGRAM
from experiments.reproduce import __main__ as reproduce
from experiments.reproduce import (
    code_priors,
    listing,
    manifest,
    quantizer_table,
    results,
    summaries,
)


@pytest.fixture(name="quantizers")
def make_quantizers(tmp_path):
    return results.Place(manifest.TABLES["quantizers"], tmp_path / "runs", tmp_path / "out")


def leave_code_run(place, cell, *, seed=0, steps=None, bits=6.2, prior=None, dead=7.0):
    """A run of a quantizer on the CPU, and a prior after so many steps of its 600."""
    workdir = place.workdir(cell, "cpu", seed)
    test = {"bits_per_dim": bits, "rate_nats": 1000.0 + 100 * seed, "distortion_nats": 12_000.0}
    test |= {"perplexity": 100.0, "dead_codes": dead, "num_images": 1_000}
    finished_runs.make(workdir, "cifar_vq", test, **{**cell.settings("cpu"), "seed": seed})
    speeds = [{"step": i, "train/images_per_second": 100.0 * i} for i in (1, 2)]
    (workdir / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in speeds))
    path = workdir / "summary.json"
    whole = json.loads(path.read_text()) | {"num_dims": 3072}
    path.write_text(json.dumps(whole | ({} if steps is None else {"steps": steps})))
    if prior is not None:
        leave_prior(place, cell, seed=seed, steps=prior, bits=bits - 0.1)


def leave_prior(place, cell, *, seed=0, steps, bits=6.0, **of_run):
    """A run of `code_prior`, as far as the table reads it."""
    folder = place.workdir(cell, "cpu", seed).with_name(f"prior{seed}")
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "model.json").touch()
    summary = {
        "config": {"network": "gated", "features": 32, "num_layers": 4, "num_steps": 600},
        "num_steps": 600,
        "steps": steps,
        "wall_seconds": 60.0,
        "files": ["model/model.json"],
        "test": {
            "bits_per_dim": bits,
            "rate_nats": 800.0,
            "factorial_rate_nats": 1000.0 + 100 * seed,
            "distortion_nats": 12_000.0,
            "num_images": 1_000,
            **of_run,
        },
    }
    (folder / "summary.json").write_text(json.dumps(summary))


def test_after_a_quantizer_its_prior_is_learned(quantizers) -> None:
    config = reproduce.Config(budget="cpu", cells="fsq_8x6x5,vq_256,vq_1024", data_dir="data")
    place, cells, _ = reproduce.choose(config, ["quantizers"])
    place = quantizers
    trained, unfinished, untouched = cells
    leave_code_run(place, trained)
    leave_code_run(place, unfinished, steps=100)
    first, second, third = reproduce.queue(config, place, cells, ["--mesh=1"])
    of = lambda cell, name: str(place.runs / "quantizers" / f"{cell.name}-cpu" / name)
    assert first.following is None
    assert first.name == f"prior of {trained.name}, seed 0"
    assert first.arguments == [
        "experiments.code_prior",
        of(trained, "seed0"),
        *(f"--{name}={value}" for name, value in trained.recipes["cpu"].prior.items()),
        f"--workdir={of(trained, 'prior0')}",
        "--seed=0",
        "--data_dir=data",
    ]
    listed = listing.describe(place, cells, "cpu").splitlines()
    assert listed[-1].startswith("python -m experiments.code_prior RUN_DIR --features=32")
    assert len([line for line in listed if line.startswith("python -m")]) == 4
    for job, cell in ((second, unfinished), (third, untouched)):
        assert job.arguments[0] == "experiments.cifar_vq"
        assert job.arguments[-1] == "--mesh=1"
        assert job.following.arguments[1] == of(cell, "seed0")
    leave_prior(place, trained, steps=200)
    assert len(reproduce.queue(config, place, cells, [])) == 3, "the prior is not finished"
    leave_prior(place, trained, steps=600)
    assert len(reproduce.queue(config, place, cells, [])) == 2
    results.write(place)
    shutil.rmtree(place.runs)
    assert len(reproduce.queue(config, place, cells, [])) == 2, "the results are left"


def test_a_damaged_summary_of_a_prior_is_none(quantizers, capsys) -> None:
    config = reproduce.Config(budget="cpu", cells="vq_256")
    cell = next(cell for cell in quantizers.table.cells if cell.name == "vq_256")
    leave_code_run(quantizers, cell, prior=600)
    path = quantizers.workdir(cell, "cpu", 0).with_name("prior0") / "summary.json"
    path.write_text("")
    summaries.say_once.cache_clear()
    names = [job.name for job in reproduce.queue(config, quantizers, [cell], [])]
    assert names == ["prior of vq_256, seed 0"]
    assert f"{path} is not valid JSON" in capsys.readouterr().err


def cut_off(workdir, how):
    """Leaves a run as a kill does that comes after its summary and before the last of its files."""
    path = workdir / "summary.json"
    summary = json.loads(path.read_text())
    if how == "lost":
        (workdir / summary["files"][0]).unlink()
    else:
        path.write_text(json.dumps({k: v for k, v in summary.items() if k != "files"}))


@pytest.mark.parametrize("how", ["killed", "lost"])
def test_what_was_killed_while_it_wrote_is_not_finished(quantizers, how) -> None:
    """Without its model no prior can be learned; without its own files it was not handed over."""
    config = reproduce.Config(budget="cpu", cells="vq_256")
    cell = next(cell for cell in quantizers.table.cells if cell.name == "vq_256")
    left = lambda: [job.name for job in reproduce.queue(config, quantizers, [cell], [])]
    leave_code_run(quantizers, cell, prior=600)
    workdir = quantizers.workdir(cell, "cpu", 0)
    assert left() == []
    cut_off(workdir.with_name("prior0"), how)
    (done,) = results.read(quantizers, [], cell)
    assert (done.is_finished, done.has_prior) == (True, False)
    assert left() == ["prior of vq_256, seed 0"]
    results.write(quantizers)
    assert left() == ["prior of vq_256, seed 0"], "what is recorded is of the same run"
    cut_off(workdir, how)
    (job,) = reproduce.queue(config, quantizers, [cell], [])
    assert (job.name, job.following.name) == ("vq_256, seed 0", "prior of vq_256, seed 0")
    results.write(quantizers)
    assert left() == ["vq_256, seed 0"]


def test_the_table_of_quantizers_has_both_prices_of_the_codes(quantizers) -> None:
    cells = {cell.name: cell for cell in quantizers.table.cells}
    leave_code_run(quantizers, cells["fsq_8x6x5"], bits=6.4)
    leave_code_run(quantizers, cells["residual_16"], bits=6.2, prior=600)
    leave_code_run(quantizers, cells["residual_16"], bits=6.25, prior=600, seed=1)
    text = results.write(quantizers)
    header, _, first, second = (
        [word.strip() for word in line.split("|")[1:-1]] for line in text.splitlines()
    )
    shown = dict(zip(header, first, strict=True))
    assert (shown["quantizer"], shown["codes"]) == ("residual", "256 = 16^2")
    assert shown["bits/dim"] == "6.200 / 6.250"
    assert shown["with a learned prior"] == "6.100 / 6.150"
    assert (shown["rate"], shown["learned rate"]) == ("1,050", "800")
    assert shown["images/s"] == "200"
    shown = dict(zip(header, second, strict=True))
    assert (shown["codes"], shown["with a learned prior"]) == ("240 = 8 x 6 x 5", "")
    page = (quantizers.out / "quantizers.md").read_text()
    assert "Two seeds of a row differ by 0.050 bits/dim at most" in page
    assert "gated, 4 layers of 32 features, 600 steps." in page
    points = quantizer_table.points(groups.read_groups([quantizers.records], PROGRAM, "a test"))
    assert points == {"residual": [(800.0, 12_000.0, 1050.0)]}
    alone = groups.group(PROGRAM, results._in_folders(quantizers, cells["fsq_8x6x5"], "cpu"))
    assert quantizer_table.points(alone) == {"fsq": [(1000.0, 12_000.0)]}
    assert (quantizers.out / "quantizers.png").exists()


def shown_rows(text):
    """The cells of a table's rows by their titles."""
    header, _, *rows = ([w.strip() for w in line.split("|")[1:-1]] for line in text.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_a_prior_of_other_codes_is_left_out_and_learned_again(quantizers, capsys) -> None:
    cell = next(cell for cell in quantizers.table.cells if cell.name == "vq_256")
    config = reproduce.Config(budget="cpu", cells="vq_256")
    leave_code_run(quantizers, cell)
    prior = quantizers.workdir(cell, "cpu", 0).with_name("prior0")
    for other, told in (
        ({"distortion_nats": 12_001.0}, "the same command learns a prior"),
        ({"factorial_rate_nats": 1000.1}, "the same command learns a prior"),
        ({"num_images": 500}, "not 1000 test images were priced"),
    ):
        leave_prior(quantizers, cell, steps=600, **other)
        summaries.say_once.cache_clear()
        (done,) = results.read(quantizers, [], cell)
        assert not done.has_prior
        assert "learned_bits_per_dim" not in done.run.summary["test"]
        results.read(quantizers, [], cell)
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert f"{prior}: left out" in said[0]
        assert told in said[0]
        assert [job.name for job in reproduce.queue(config, quantizers, [cell], [])] == [
            "prior of vq_256, seed 0"
        ]
    prior.rename(prior.with_name("prior0-0123abcd"))
    leave_prior(quantizers, cell, steps=600, distortion_nats=12_000.01)
    (done,) = results.read(quantizers, [], cell)
    assert done.has_prior
    assert capsys.readouterr().err == ""


def test_a_prior_of_a_run_that_was_trained_again_has_a_folder_of_its_own(tmp_path) -> None:
    run, usual = code_prior_runs.make_run(tmp_path / "seed0", "vq"), tmp_path / "prior0"
    assert code_priors.folder(run) == usual
    usual.mkdir()
    identity = trained.identity(trained.load(run).params)
    for sha256, name in ((identity, "prior0"), ("1" * 64, f"prior0-{identity[:8]}")):
        (usual / "config.json").write_text(json.dumps({"model_sha256": sha256}))
        assert code_priors.folder(run) == tmp_path / name
    job = reproduce.jobs.Job("prior", ["m", str(run), "--workdir=before"], tmp_path / "before.log")
    now = reproduce.over_codes_of(run, job)
    assert now.arguments == ["m", str(run), f"--workdir={tmp_path / name}"]
    assert now.log == tmp_path / f"{name}.log"


def test_bits_of_learned_and_factorial_priors_are_not_mixed(quantizers) -> None:
    cells = {cell.name: cell for cell in quantizers.table.cells}
    leave_code_run(quantizers, cells["vq_256"], bits=6.3)
    leave_code_run(quantizers, cells["vq_256"], bits=6.35, seed=1, prior=600)
    leave_code_run(quantizers, cells["lfq_256"], bits=7.0, prior=600)
    assert [row["quantizer"] for row in shown_rows(results.write(quantizers))] == ["lfq", "vq"]
    read = lambda: groups.read_groups([quantizers.records], PROGRAM, "a test")
    assert quantizer_table.spread(read()) is None, "no two seeds have learned priors"
    text = listing.describe(quantizers, [cells["lfq_256"], cells["vq_256"]], "cpu")
    listed = shown_rows("\n".join(line for line in text.splitlines() if line.startswith("|")))
    assert [row["ours"] for row in listed] == [
        "6.900, learned prior",
        "6.325 ± 0.035, factorial prior",
    ]
    (vq,) = (group for group in read() if group.settings["estimator"] == "vq")
    assert quantizer_table.spread([vq]) == pytest.approx(0.05)
    leave_code_run(quantizers, cells["lfq_256"], bits=7.2, prior=600, seed=1)
    results.write(quantizers)
    assert quantizer_table.spread(read()) == pytest.approx(0.2)
    assert (
        "0.200 bits/dim at most, with learned priors"
        in quantizers.records.with_suffix(".md").read_text()
    )


def test_counts_are_of_a_stage_and_speeds_of_a_machine(quantizers) -> None:
    cells = {cell.name: cell for cell in quantizers.table.cells}
    leave_code_run(quantizers, cells["residual_16"], dead=[0, 0, 2, 0, 0, 0, 0, 0])
    leave_code_run(quantizers, cells["vq_256"], dead=[1, 1, 0, 0], bits=6.5)
    path = quantizers.workdir(cells["vq_256"], "cpu", 0) / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hardware": "another"}))
    residual, vq = shown_rows(results.write(quantizers))
    assert (residual["perplexity"], residual["unused"]) == (
        "100 of 16, a stage",
        "0.2 of 16, a stage",
    )
    assert (vq["perplexity"], vq["unused"]) == ("100", "0.5")
    assert (residual["images/s"], vq["images/s"]) == ("200 (a)", "200 (b)")
    page = quantizers.records.with_suffix(".md").read_text()
    assert "whose speeds do not compare: (a) 1 x cpu, (b) another." in page
