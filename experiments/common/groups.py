"""Finished runs side by side: which may be averaged, and what tells the others apart.

A result is determined by the data set and by every field of the configuration, but those that may
change when a run is resumed. Runs that differ in their seeds alone form a group, which counts as
one run of all their seeds. Groups are told apart by the fields in which they differ.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.common import flag_rules, flags, merging, records
from experiments.common import whose as whose_run
from experiments.common.config import RunConfig
from experiments.common.program import Program

Summary = dict[str, Any]
DATASET = "dataset"
SEEDS = ("seed", "num_seeds")
MAX_SHOWN = 4  # fields that a label names
_OF_RUN = ("test", "seeds", "num_steps", "hardware", "wall_seconds", DATASET)


# Settings that say which step is kept of a training and what is told of it, not how it goes.
_OF_WATCHING = (
    *("eval_interval", "num_eval_images", "num_validation_images"),
    *("checkpoint_interval", "log_interval", "steps_per_call"),
)
_LENGTH, _PARTS = "num_steps", ("kl_warmup_steps", "beta_steps", "capacity_steps")

# What compares a program's runs.
_READERS = {
    "cifar_vq": "experiments.report",
    "binary_vae": "experiments.table1 or experiments.table2",
    "joint_vae": "experiments.joint_table",
    "dvaepp": "experiments.table3",
}


class Run(NamedTuple):
    """A finished run."""

    directory: Path
    summary: Summary


class Group(NamedTuple):
    """Runs that differ in nothing but their seeds."""

    settings: dict[str, Any]  # all that determines their result but the seeds
    runs: list[Run]  # by seed

    @property
    def summary(self) -> Summary:
        """The summary of one run with the seeds of all."""
        return merging.merge([run.summary for run in self.runs])


def read(directory: Path, program: Program, reader: str, needs: Sequence[str] = ()) -> Run:
    """Reads a finished run of one program.

    Args:
      directory: its workdir.
      program: whose run it must be.
      reader: the module that asks, for errors.
      needs: entries of the summary's `test` that the reader shows.

    Raises:
      ValueError: there is no finished run, or one of another program; one line says which.
    """
    whose, summary = whose_run.look_into(directory)
    if not whose or (summary is None and whose == program.name):
        raise ValueError(whose_run.what_is(directory))
    return Run(directory, _checked(directory, whose, summary, program, reader, needs))


def read_all(
    places: Sequence[Path], program: Program, reader: str, needs: Sequence[str] = ()
) -> list[Run]:
    """Reads finished runs from workdirs, and from files of summaries that a table program wrote.

    Args:
      places: workdirs, and files named *.json.
      program: as for `read`, like the other arguments.
      reader: the module that asks.
      needs: entries of the summaries' `test`.

    Raises:
      ValueError: as for `read`, or a file holds no summaries.
    """
    runs = []
    for place in places:
        if place.suffix != ".json" or place.name == records.SUMMARY_FILE:
            runs.append(read(place, program, reader, needs))
            continue
        for summary in read_summaries(place):
            whose = whose_run.program_of(summary["config"])
            runs.append(Run(place, _checked(place, whose, summary, program, reader, needs)))
    return runs


def read_summaries(path: Path) -> list[Summary]:
    """Reads a file of summaries that a table program wrote.

    Raises:
      ValueError: it cannot be read, or holds anything else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from error
    is_summary = lambda entry: isinstance(entry, dict) and isinstance(entry.get("config"), dict)
    if not isinstance(found, list) or not all(map(is_summary, found)):
        raise ValueError(f"{path} is no list of summaries, as the programs of the tables write it")
    return [records.with_standard_names(entry) for entry in found]


def is_of(
    program: Program, summary: Mapping[str, Any], config: RunConfig, *, any_length: bool = False
) -> bool:
    """Tells whether a run has the settings of a configuration; see `differences`."""
    return not differences(program, summary, config, any_length=any_length)


def differences(
    program: Program, summary: Mapping[str, Any], config: RunConfig, *, any_length: bool = False
) -> dict[str, tuple[Any, Any]]:
    """Returns the settings but seeds in which a run differs from a configuration: there, and here.

    How often it was validated and saved does not count, though it says which step was kept.

    Args:
      program: of both.
      summary: of a run, finished or not.
      config: every setting.
      any_length: whether a longer or shorter run counts, of which parts that are given in steps
        may be as long as in the configuration, or the same share of the run.
    """
    settings = dataclasses.asdict(config)
    if (there := summary["config"][DATASET]) != settings[DATASET]:
        return {DATASET: (there, settings[DATASET])}
    dataset = {DATASET: settings[DATASET]}
    wanted = training_of(program, {"config": settings, **dataset})
    found = training_of(program, {**summary, **dataset})
    differ = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    if any_length:
        share = lambda values, name: values.get(name, 0) / values[_LENGTH]
        same = {name for name in _PARTS if share(wanted, name) == share(found, name)} | {_LENGTH}
        differ = [name for name in differ if name not in same]
    return {name: (found.get(name), wanted.get(name)) for name in differ}


def training_of(program: Program, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a run's training: but its seeds, how far it came and its watching."""
    whole = {name: value for name, value in summary.items() if name != "steps"}
    settings = settings_of(program, whole)
    return {name: value for name, value in settings.items() if name not in _OF_WATCHING}


def _checked(
    place: Path,
    whose: str,
    summary: Summary | None,
    program: Program,
    reader: str,
    needs: Sequence[str],
) -> Summary:
    """Returns a summary, once it is known to be one of the program's."""
    if whose != program.name or summary is None:
        other = f"use {_READERS[whose]}" if whose in _READERS else "name one of those"
        raise ValueError(
            f"{place} is a {whose} run; {reader} compares {program.name} runs: {other}"
        )
    missing = [name for name in ("config", *_OF_RUN) if name not in summary]
    missing += [f"test.{name}" for name in needs if name not in summary.get("test", {})]
    if missing:
        raise ValueError(
            f"{_summary_in(place)} is not the summary of a {program.name} run: it "
            f"lacks {', '.join(missing)}"
        )
    return summary


def _summary_in(place: Path) -> Path:
    """Returns the file that holds the summary."""
    return place if place.suffix == ".json" else place / records.SUMMARY_FILE


def read_groups(
    directories: Sequence[Path], program: Program, reader: str, needs: Sequence[str] = ()
) -> list[Group]:
    """Reads finished runs and sorts them into groups; see `read` and `group`."""
    return group(program, read_all(directories, program, reader, needs))


def summaries_of(groups: Sequence[Group]) -> list[Summary]:
    """Returns the summaries of all runs, group by group."""
    return [run.summary for group in groups for run in group.runs]


def settings_of(program: Program, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all that determines a run's result but its seeds, the data set first.

    Fields that the others make idle determine nothing and are left out.
    """
    fields = dataclasses.fields(program.config_class)
    usual = {field.name: field.default for field in fields} | dict(program.before)
    config = {**usual, **summary["config"], DATASET: summary[DATASET]}
    silent = {*flags.free_fields(RunConfig), *SEEDS}
    silent |= set(flag_rules.idle(flags.rules_of(program.config_class), config))
    if records.is_unfinished(summary):
        config["steps"] = summary["steps"]
    names = [DATASET, *(name for name in config if name != DATASET)]
    return {name: config[name] for name in names if name not in silent}


def group(program: Program, runs: Sequence[Run]) -> list[Group]:
    """Sorts runs into groups, in the order of their first runs.

    Raises:
      ValueError: two runs of a group share a seed.
    """
    groups: dict[str, Group] = {}
    for run in runs:
        settings = settings_of(program, run.summary)
        key = json.dumps(settings, sort_keys=True)
        members = groups.setdefault(key, Group(settings, [])).runs
        for other in members:
            if shared := set(run.summary["seeds"]) & set(other.summary["seeds"]):
                raise ValueError(
                    f"{other.directory} and {run.directory} have the same settings and seed "
                    f"{min(shared)}: name one of them"
                )
        members.append(run)
    for one in groups.values():
        one.runs.sort(key=lambda run: run.summary["seeds"])
    return list(groups.values())


def differing(groups: Sequence[Group], *, but: Collection[str] = ()) -> list[str]:
    """Returns the fields in which groups differ, of those that have them; the data set first."""
    names = dict.fromkeys(name for members in groups for name in members.settings)
    values = lambda name: {
        json.dumps(members.settings[name]) for members in groups if name in members.settings
    }
    return [name for name in names if name not in but and len(values(name)) > 1]


def describe(members: Group, names: Sequence[str]) -> str:
    """Writes the named fields of a group: "num_steps=500, crop=16"; a data set by its name."""
    settings = members.settings
    return ", ".join(
        str(settings[name]) if name == DATASET else f"{name}={settings[name]}"
        for name in names
        if name in settings
    )


def label(groups: Sequence[Group], stems: Sequence[str], *, but: Collection[str] = ()) -> list[str]:
    """Names every group, no two alike: its stem, and the fields in which groups differ.

    Of many fields a label has those that tell the groups apart, and others up to four.

    Args:
      groups: what is drawn together.
      stems: of each group, what comes first.
      but: fields that stems or axes show already.
    """
    names = differing(groups, but=but)
    needed: list[str] = []
    texts = lambda: [
        f"{stem}|{describe(members, needed)}" for stem, members in zip(stems, groups, strict=True)
    ]
    for name in names:
        before = len(set(texts()))
        needed.append(name)
        if len(set(texts())) == before and name != DATASET:
            needed.pop()
    others = [name for name in names if name not in needed]
    chosen = {*needed, *others[: max(0, MAX_SHOWN - len(needed))]}
    shown = [name for name in names if name in chosen]
    return [
        ", ".join(filter(None, (stem, describe(members, shown))))
        for stem, members in zip(stems, groups, strict=True)
    ]
