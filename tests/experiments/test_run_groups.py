"""Which runs may be averaged, how others are told apart, and what is said of wrong ones."""

import dataclasses
import json

import finished_runs
import numpy as np
import programs
import pytest

from experiments import compare_samplers, joint_table, report, table1, table2, table3
from experiments.common import flag_rules, flags, merging, whose
from experiments.common import groups as run_groups
from experiments.common import tables as result_tables
from experiments.common.config import RunConfig
from experiments.programs import PROGRAMS

READERS = {
    "report": (report.PROGRAM, report.compare),
    "table1": (table1.TABLE.program, lambda d, out: result_tables.compare(table1.TABLE, d, out)),
    "table2": (table2.TABLE.program, lambda d, out: result_tables.compare(table2.TABLE, d, out)),
    "table3": (table3.TABLE.program, lambda d, out: result_tables.compare(table3.TABLE, d, out)),
    "joint_table": (joint_table.PROGRAM, joint_table.compare),
}


def other_value(field):
    """A value of a field other than its default."""
    if field.metadata["choices"]:
        return next(c for c in field.metadata["choices"] if c not in (field.default, ""))
    return not field.default if type(field.default) is bool else type(field.default)(7)


@pytest.mark.parametrize("program", programs.CONFIGS)
def test_every_field_but_seeds_and_places_tells_runs_apart(program) -> None:
    compared = PROGRAMS[program]
    config_class = compared.config_class
    fields = dataclasses.fields(config_class)
    base = {field.name: field.default for field in fields}
    settings = lambda **changed: run_groups.settings_of(
        compared, {"dataset": base["dataset"], "config": {**base, **changed}}
    )
    free = {*flags.free_fields(RunConfig), "seed", "num_seeds"}
    assert flags.free_fields(config_class) == flags.free_fields(RunConfig)
    idle = flag_rules.idle(config_class.READ_WITH, base)
    for field in fields:
        value = other_value(field)
        assert value != field.default
        if field.name == "dataset":
            continue  # of the summary, which names the variant
        same = settings(**{field.name: value}) == settings()
        assert same == (field.name in free or field.name in idle), field.name
    other = run_groups.settings_of(compared, {"dataset": "another", "config": base})
    assert other != settings()


@pytest.mark.parametrize("program", programs.CONFIGS)
@pytest.mark.parametrize("reader", READERS)
def test_programs_name_the_runs_of_others(tmp_path, reader, program) -> None:
    expected, compare = READERS[reader]
    run = finished_runs.make(tmp_path / "x", program)
    if expected.name == program:
        compare([run], tmp_path / "out")
        return
    told = f"x is a {program} run; experiments.{reader} compares {expected.name} runs: use experim"
    with pytest.raises(ValueError, match=told):
        compare([run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_finished_run_is_refused_in_a_line(tmp_path, reader) -> None:
    program, compare = READERS[reader]
    refused = lambda message: pytest.raises(ValueError, match=message)
    out = tmp_path / "out"
    with refused("nowhere does not exist"):
        compare([tmp_path / "nowhere"], out)
    with refused("holds no run of a training program"):
        compare([tmp_path], out)
    run = finished_runs.make(tmp_path / "x", program.name)
    with refused("summary.json is no directory"):
        compare([run / "summary.json"], out)
    with refused("have the same settings and seed 0: name one of them"):
        compare([run, run], out)
    with refused("cannot write to"):
        compare([run], run / "summary.json" / "out")
    whole = (run / "summary.json").read_text()
    for damaged, message in (
        ("{", "summary.json is not valid JSON"),
        ("[]", "summary.json is no JSON object"),
        ("{}", f"is not the summary of a {program.name} run: it lacks config, test"),
        (json.dumps({**json.loads(whole), "test": {}}), "it lacks test."),
    ):
        (run / "summary.json").write_text(damaged)
        with refused(message):
            compare([run], out)
    (run / "summary.json").unlink()
    with refused(f"x is an unfinished {program.name} run: its command, given again, finishes it"):
        compare([run], out)
    (run / "config.json").write_bytes(b"\xff")
    with refused("config.json is not valid JSON"):
        compare([run], out)
    assert not out.exists()


def test_a_program_is_known_by_a_field_of_its_own() -> None:
    for name, config_class in programs.CONFIGS.items():
        fields = [field.name for field in dataclasses.fields(config_class)]
        assert whose.program_of(dict.fromkeys(fields)) == name
    assert whose.program_of({"program": "code_prior", "network": "gated"}) == "code_prior"
    assert whose.program_of({}) == ""


def test_runs_that_no_table_compares_are_named(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"program": "code_prior"}')
    told = "is a code_prior run; experiments.report compares cifar_vq runs: name one of those"
    with pytest.raises(ValueError, match=told):
        report.compare([tmp_path], tmp_path / "out")


def test_labels_hold_what_tells_groups_apart_and_no_more_than_four_fields() -> None:
    names = "abcdef"
    one = run_groups.Group({"dataset": "d", **dict.fromkeys(names, 1)}, [])
    other = run_groups.Group({"dataset": "d", **dict.fromkeys(names, 2)}, [])
    third = run_groups.Group({**other.settings, "f": 3}, [])
    assert run_groups.label([one, other], ["x", "x"]) == [
        "x, a=1, b=1, c=1, d=1",
        "x, a=2, b=2, c=2, d=2",
    ]
    assert run_groups.label([one, other, third], ["x", "x", "x"]) == [
        "x, a=1, b=1, c=1, f=1",
        "x, a=2, b=2, c=2, f=2",
        "x, a=2, b=2, c=2, f=3",
    ]
    assert run_groups.label([one], ["x"]) == ["x"]
    assert run_groups.label([], []) == []


def test_merging_keeps_every_seed_and_every_warning() -> None:
    seeds = lambda *values: list(values) if len(values) > 1 else values[0]

    def summary(rmse, kl, numbers, **log_z):
        return {
            "test": {"num_images": 10, "rmse": rmse, "kl_nats": kl, "rmse_mean_over_seeds": 1.0},
            "log_z": {"nats": rmse, "is": "text", **log_z},
            "training": {"step": 9, "elbo_nats": rmse},
            "gradient_variance": {"steps": [4, 8], "encoder": [np.mean(rmse), 1.0], "is": "text"},
            "seeds": numbers,
            "evaluated_step": seeds(*[5] * len(numbers)),
            "wall_seconds": 1.5,
        }

    merged = merging.merge(
        [summary(1.0, [0.5, 0.6], [0]), summary([2.0, 3.0], [[7, 8], [9, 10]], [4, 5], warning="w")]
    )
    assert merged["test"] == {
        "num_images": 10,
        "rmse": [1.0, 2.0, 3.0],
        "kl_nats": [[0.5, 0.6], [7, 8], [9, 10]],
    }
    assert merged["log_z"] == {"nats": [1.0, 2.0, 3.0], "is": "text", "warning": "w"}
    assert merged["training"] == {"step": 9, "elbo_nats": [1.0, 2.0, 3.0]}
    curve = {"steps": [4, 8], "encoder": [2.0, 1.0], "is": "text"}  # each seed counts alike
    assert merged["gradient_variance"] == curve
    assert merged["seeds"] == [0, 4, 5]
    assert merged["evaluated_step"] == [5, 5, 5]
    assert merged["wall_seconds"] == 3.0
    without = summary(1.0, [1.0], [6])
    del without["training"], without["gradient_variance"]
    partly = merging.merge([summary(1.0, [1.0], [7]), without])
    assert not {"training", "gradient_variance"} & set(partly)


def test_runs_older_than_a_field_count_as_what_they_did(tmp_path) -> None:
    new = finished_runs.make(tmp_path / "new", "binary_vae", latent_inputs="bits")
    old = json.loads((new / "summary.json").read_text())
    for name in ("latent_inputs", "weight_decay", "sampler"):
        del old["config"][name]
    program = table1.TABLE.program
    new_settings, old_settings = (
        run_groups.settings_of(program, s)
        for s in (json.loads((new / "summary.json").read_text()), old)
    )
    assert new_settings == old_settings
    assert new_settings["latent_inputs"] == "bits"


def test_samplers_tell_directories_of_one_name_apart(tmp_path) -> None:
    paths = [tmp_path / part / "run" for part in ("a", "b")]
    assert compare_samplers.sampler_machines.name_directories([*paths, tmp_path / "c"]) == [
        "a/run",
        "b/run",
        "c",
    ]
    with pytest.raises(ValueError, match="are one directory: name it once"):
        compare_samplers.sampler_machines.name_directories([tmp_path / "a", tmp_path / "." / "a"])


def test_settings_that_nothing_reads_tell_no_runs_apart(tmp_path) -> None:
    runs = [
        run_groups.read(
            finished_runs.make(tmp_path / str(i), "cifar_vq", estimator="vq", seed=i, **config),
            report.PROGRAM,
            "experiments.report",
        )
        for i, config in enumerate(({}, {"temperature": 0.1}, {"commitment": 1.0}))
    ]
    first, second = run_groups.group(report.PROGRAM, runs)
    assert [len(first.runs), len(second.runs)] == [2, 1]
    soft = run_groups.Group({"dataset": "d", "estimator": "gs_soft", "temperature": 0.5}, [])
    other = run_groups.Group({"dataset": "d", "estimator": "vq"}, [])
    assert run_groups.label([soft, other], ["a", "b"]) == [
        "a, estimator=gs_soft",
        "b, estimator=vq",
    ]


def test_numbers_of_samples_are_not_of_a_seed() -> None:
    test = {"bits_per_dim": [6.0, 6.1], "importance_samples": 10, "num_images": 5}
    both = {"test": test, "wall_seconds": 1.0}
    one = {**both, "seeds": [4], "test": {**test, "bits_per_dim": 6.3}}
    runs = [{**both, "seeds": [0, 1]}, {**both, "seeds": [2, 3]}, one]
    merged = merging.merge(runs)["test"]
    assert merged == {**test, "bits_per_dim": [6.0, 6.1, 6.0, 6.1, 6.3]}
