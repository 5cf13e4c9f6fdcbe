"""Puts finished runs beside a published table: what the tables share."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dvae._replacing import replace_text
from dvae.analysis import figures, tables
from dvae.train import checkpoint, paths, status
from experiments.common import flag_help, flags, records
from experiments.common import groups as run_groups
from experiments.common.config import RunConfig
from experiments.common.flags import option
from experiments.common.program import Program

Summary = Mapping[str, Any]
# (data set, structure) -> column -> mean and deviation over runs (None: not published)
Published = dict[tuple[str, str], dict[str, tuple[float, float | None]]]
# Fields that the table shows, or that its cells are named by.
_FIELDS = ("dataset", "num_steps", "steps", "test_samples", "batch_size", "learning_rate")
_PLACES = {"workdir", "data_dir", "coordinator"}  # fields that say where a run lay
_NEEDS = ("nll_nats", "elbo_nats", "effective_samples")


class Table(NamedTuple):
    """A published table, and what of a run is written beside it."""

    name: str  # of the files
    source: str  # said below the table
    program: Program  # whose runs these are
    published: Published
    comparable: Callable[[Summary], bool]  # whether a published value is shown beside the run's
    accepts: Callable[[Summary], str]  # why a run has no place in the table; empty if it has
    structure: Callable[[Summary], str]
    column: Callable[[Summary], str]
    more: tuple[tuple[str, Callable[[Summary], object]], ...]  # further columns
    fields: tuple[str, ...] = ()  # of the configuration, which those columns hold
    title: str = "trained by"  # of what `column` names
    # Whether model and evaluation are those of the published value, so that a difference is shown.
    same_model: Callable[[Summary], bool] = lambda summary: True
    unit: Callable[[Summary], float] = lambda summary: 1.0  # nats in the unit of the NLL
    heading: str = ""  # what the runs are in, where not "Table N"


def read_runs(table: Table, places: Sequence[Path]) -> list[run_groups.Run]:
    """Reads finished runs, from workdirs or from files that a table program wrote.

    Raises:
      ValueError: one holds no run, or one that has no place in the table.
    """
    runs = run_groups.read_all(places, table.program, f"experiments.{table.name}", _NEEDS)
    for run in runs:
        if why_not := table.accepts(run.summary):
            raise ValueError(f"{run.directory} has no place in {table.name}: {why_not}")
    return runs


def published(table: Table, summary: Summary) -> tuple[float, float | None] | None:
    """Returns the published mean and deviation of the run's cell, if it has any."""
    if not table.comparable(summary):
        return None
    cells = table.published.get((summary["config"]["dataset"], table.structure(summary)), {})
    return cells.get(table.column(summary))


def row(table: Table, summary: Summary) -> dict[str, object]:
    """Returns one row of the table; several seeds give their mean and standard deviation."""
    config, test, unit = summary["config"], summary["test"], table.unit(summary)
    nll = float(np.mean(test["nll_nats"])) / unit
    deviation = float(np.std(test["nll_nats"], ddof=1)) if len(summary["seeds"]) > 1 else None
    reference = published(table, summary)
    # Other test images than the published ones have a published value, but no difference.
    same = summary["dataset"] == config["dataset"] and table.same_model(summary)
    spread = lambda x: "" if x is None else f" ± {x:.2f}"
    return {
        "data set": summary["dataset"],
        "structure": table.structure(summary),
        table.title: table.column(summary),
        "test NLL": f"{nll:.2f}" + spread(None if deviation is None else deviation / unit),
        "SE (images)": standard_error(test, "nll_nats", "{:.2g}", unit),
        "published": f"{reference[0]:.2f}{spread(reference[1])}" if reference else "",
        "difference": f"{nll - reference[0]:+.2f}" if reference and same else "",
        "steps": records.steps(summary),
        "seeds": " ".join(str(seed) for seed in summary["seeds"]),
        "samples": config["test_samples"],
        "batch": config["batch_size"],
        "learning rate": f"{config['learning_rate']:g}",
        "best step": f"{int(np.mean(summary['evaluated_step'])):,}",
        "-ELBO": f"{-np.mean(test['elbo_nats']) / unit:.2f}",
        "minutes": f"{summary['wall_seconds'] / 60:.0f}",
        **{title: cell(summary) for title, cell in table.more},
    }


def standard_error(test: Summary, name: str, form: str, unit: float = 1.0) -> str:
    """Writes the error over images of a number, averaged over seeds; empty for a single image."""
    error = test.get(name + records.STANDARD_ERROR)
    return "" if error is None else form.format(np.mean(error) / unit)


def log_z(summary: Summary) -> str:
    """Writes log Z of a Boltzmann prior with its standard error."""
    if "log_z" not in summary:
        return ""
    record = summary["log_z"]
    note = " (not to be trusted)" if "warning" in record else ""
    return f"{np.mean(record['nats']):.2f} ± {np.mean(record['standard_error']):.2f}{note}"


def effort(summary: Summary) -> str:
    """Tells how many chains and sweeps made a Boltzmann prior's negative phase."""
    if "log_z" not in summary:
        return ""
    config = summary["config"]
    return f"{config['sampler']}, {config['num_chains']} x {config['num_sweeps']}"


def compare(table: Table, directories: list[Path], out: Path) -> str:
    """Writes the table as Markdown and its records as JSON into `out`; returns the Markdown.

    Raises:
      ValueError: a directory holds no fitting run, or `out` cannot be written.
    """
    return write(table, run_groups.group(table.program, read_runs(table, directories)), out)


def write(table: Table, groups: Sequence[run_groups.Group], out: Path) -> str:
    """Writes the table of groups of runs, a row each; see `compare`."""
    order = [name for columns in table.published.values() for name in columns]

    def place(group: run_groups.Group) -> tuple[object, ...]:
        name = table.column(group.summary)
        rank = order.index(name) if name in order else len(order)
        return group.summary["dataset"], table.structure(group.summary), rank, name

    groups = sorted(groups, key=place)
    rows = [row(table, group.summary) for group in groups]
    places = [place(group) for group in groups]
    for cells, text in zip(rows, _other_settings(table, groups, places), strict=True):
        cells["other settings"] = text
    empty = [] if any(cells["other settings"] for cells in rows) else ["other settings"]
    if not table.published:
        empty += ["published", "difference"]
    for cells in rows:
        for name in empty:
            del cells[name]
    text = tables.markdown(tuple(rows[0]), [list(cells.values()) for cells in rows])
    summaries = run_groups.summaries_of(groups)
    notes = (
        "Test NLL in nats an image, by importance samples in the binary limit, at the step with "
        "the lowest validation NLL (± the standard deviation over seeds, where there are several); "
        "SE over the test images, -ELBO with one sample. "
    )
    if table.published:
        notes += (
            f"Published: {table.source}. Difference: ours less theirs, for the same test images. "
        )
    notes += hardware(summaries)
    title = f"# All runs in {table.heading or table.name.replace('table', 'Table ')}"
    save(f"{title}\n\n{text}\n\n{notes}\n", summaries, table.name, out)
    return text


def _other_settings(
    table: Table, groups: Sequence[run_groups.Group], places: Sequence[object]
) -> list[str]:
    """Says of every group what else than the table shows sets it apart from others of its cell."""
    texts = []
    for group, place in zip(groups, places, strict=True):
        cell = [other for other, at in zip(groups, places, strict=True) if at == place]
        names = run_groups.differing(cell, but=(*_FIELDS, *table.fields))
        texts.append(run_groups.describe(group, names))
    return texts


def hardware(summaries: Sequence[Summary]) -> str:
    """Says in a sentence what the runs ran on."""
    return f"Hardware: {', '.join(sorted({summary['hardware'] for summary in summaries}))}."


def save(
    text: str,
    summaries: list[dict[str, Any]],
    name: str,
    out: Path,
    *,
    json_name: str = "",
    pictures: Mapping[str, Figure] | None = None,
) -> None:
    """Writes a table, its records and its pictures.

    Runs that the file of records held and that are not among these are kept beside it; a line on
    stderr says so.

    Args:
      text: of NAME.md.
      summaries: of NAME.json.
      name: of the files.
      out: directory, which is made.
      json_name: of the records, where another one than `name`.
      pictures: by name.

    Raises:
      ValueError: `out` cannot be written, or the records there are damaged.
    """
    # Where a run lay on this machine is of no use elsewhere.
    for summary in summaries:
        summary["config"] = _without_places(summary["config"])
    try:
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{json_name or name}.json"
        left_out = _keep_left_out(path, summaries)  # first: what follows may fail
        for title, figure in (pictures or {}).items():
            figures.save(figure, out / f"{title}.png")
        replace_text(out / f"{name}.md", text)
        checkpoint.write_json(path, summaries)
    except OSError as error:
        raise ValueError(f"cannot write to {out} ({error.strerror}); try --out") from error
    if left_out:
        status.say(left_out)


def _keep_left_out(path: Path, summaries: Sequence[Summary]) -> str:
    """Saves the runs of a file of results that is to be written, if it would lose any.

    Args:
      path: of the file.
      summaries: what it is to hold.

    Returns:
      A line that says so, or nothing.
    """
    before = run_groups.read_summaries(path) if path.exists() else []
    named = set(map(_identity, summaries))
    lost = sum(_identity(summary) not in named for summary in before)
    if not lost:
        return ""
    kept = path.with_suffix(".before.json")
    earlier = run_groups.read_summaries(kept) if kept.exists() else []
    known = set(map(_identity, before))
    more = [summary for summary in earlier if _identity(summary) not in known]
    checkpoint.write_json(kept, [*before, *more])
    return (
        f"{lost} of the {len(before)} runs that {path} held are not in it now. They are "
        f"kept in {kept}; to add runs to a table, name its file among the runs"
    )


def _identity(summary: Summary) -> tuple[object, ...]:
    """Returns what a run has in common with itself, gone on with: its settings, data and seeds."""
    free = flags.free_fields(RunConfig)
    settings = {name: value for name, value in summary["config"].items() if name not in free}
    seeds = tuple(summary.get("seeds", ()))
    return json.dumps(settings, sort_keys=True), summary.get("dataset"), seeds


def _without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, **dict.fromkeys(_PLACES & config.keys(), "")}


def start_program(program: str, write: Callable[[list[Path], Path], str]) -> None:
    """Reports on the directories of the command line.

    Args:
      program: the module's name.
      write: (run directories, output directory) -> what to print.
    """
    out = option(f"runs/{program}", "Directory that the results are written to.")
    config_class = dataclasses.make_dataclass("Config", [("out", str, out)], frozen=True)

    def main(arguments: list[str]) -> None:
        with flags.setup():
            directories = [paths.local(argument, "RUN_DIR") for argument in arguments[1:]]
            if not directories:
                raise ValueError(
                    f"name at least one run directory: python -m experiments.{program} RUN_DIR"
                )
            out = paths.local(flags.parse(config_class).out, "--out")
            flag_help.tell(write(directories, out))
            flag_help.tell(f"\nwritten to {out}")

    flags.define(config_class)
    flags.run(main)


def start(table: Table) -> None:
    """Reports on runs of a published table: what `__main__` calls."""
    start_program(table.name, functools.partial(compare, table))
