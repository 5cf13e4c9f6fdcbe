"""Puts finished runs beside a published table: what the tables share."""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags as absl_flags

from dvae.analysis import tables
from dvae.train import checkpoint, paths
from experiments import flags, run_record

Summary = Mapping[str, Any]
PAPER_SIZES = dict(num_latents=200, hidden_units=200, hidden_layers=2, num_test_images=0)
# (data set, structure) -> column -> mean and deviation over runs (None: not published)
Published = dict[tuple[str, str], dict[str, tuple[float, float | None]]]
ACTIVE_UNITS = ("active units", lambda summary: f"{np.mean(summary['test']['active_units']):.0f}")


class Table(NamedTuple):
    """A published table, and what of a run is written beside it."""

    name: str  # of the files
    source: str  # said below the table
    published: Published
    comparable: Callable[[Summary], bool]  # whether a published value is shown beside the run's
    accepts: Callable[[Summary], str]  # why a run has no place in the table; empty if it has
    structure: Callable[[Summary], str]
    column: Callable[[Summary], str]
    more: tuple[tuple[str, Callable[[Summary], object]], ...]  # further columns
    title: str = "trained by"  # of what `column` names
    program: str = "binary_vae"  # whose runs these are
    # Whether model and evaluation are those of the published value, so that a difference is shown.
    same_model: Callable[[Summary], bool] = lambda summary: True
    unit: Callable[[Summary], float] = lambda summary: 1.0  # nats in the unit of the NLL


def read_summary(directory: Path) -> dict[str, Any]:
    """Reads the summary of a finished run; ValueError if the directory does not hold one."""
    path = directory / run_record.SUMMARY_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}): is the run finished?"
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from error


def read_run(table: Table, directory: Path) -> dict[str, Any]:
    """Reads the summary of a finished run.

    Raises:
      ValueError: the directory does not hold one, or one that has no place in the table.
    """
    summary, path = read_summary(directory), directory / run_record.SUMMARY_FILE
    if "effective_samples" not in summary.get("test", {}):
        raise ValueError(f"{path} is not the summary of a {table.program} run")
    why_not = table.accepts(summary)
    if why_not:
        raise ValueError(f"{path} has no place in {table.name}: {why_not}")
    return summary


def published(table: Table, summary: Summary) -> tuple[float, float | None] | None:
    """Returns the published mean and deviation of the run's cell, if it has any."""
    if not table.comparable(summary):
        return None
    cells = table.published.get((summary["config"]["dataset"], table.structure(summary)), {})
    return cells.get(table.column(summary))


def row(table: Table, summary: Summary) -> dict[str, object]:
    """One row of the table; several seeds give their mean and standard deviation."""
    config, test, unit = summary["config"], summary["test"], table.unit(summary)
    nll = float(np.mean(test["nll"])) / unit
    deviation = test.get("nll_standard_deviation_over_seeds")
    known = published(table, summary)
    # Other test images than the published ones have a published value, but no difference.
    same = summary["dataset"] == config["dataset"] and table.same_model(summary)
    spread = lambda x: "" if x is None else f" ± {x:.2f}"
    return {
        "data set": summary["dataset"],
        "structure": table.structure(summary),
        table.title: table.column(summary),
        "test NLL": f"{nll:.2f}" + spread(None if deviation is None else deviation / unit),
        "SE (images)": f"{np.mean(test['nll_standard_error']) / unit:.2g}",
        "published": f"{known[0]:.2f}{spread(known[1])}" if known else "",
        "difference": f"{nll - known[0]:+.2f}" if known and same else "",
        "steps": f"{summary['num_steps']:,}",
        "seeds": " ".join(str(seed) for seed in summary["seeds"]),
        "samples": config["test_samples"],
        "batch": config["batch_size"],
        "learning rate": f"{config['learning_rate']:g}",
        "best step": f"{int(np.mean(summary['evaluated_step'])):,}",
        "-ELBO": f"{-np.mean(test['elbo']) / unit:.2f}",
        "minutes": f"{summary['wall_seconds'] / 60:.0f}",
        **{title: cell(summary) for title, cell in table.more},
    }


def log_z(summary: Summary) -> str:
    """Log Z of a Boltzmann prior with its standard error."""
    if "log_z" not in summary:
        return ""
    record = summary["log_z"]
    note = " (not to be trusted)" if "warning" in record else ""
    return f"{np.mean(record['nats']):.2f} ± {np.mean(record['standard_error']):.2f}{note}"


def effort(summary: Summary) -> str:
    """How many chains and sweeps made a Boltzmann prior's negative phase."""
    if "log_z" not in summary:
        return ""
    config = summary["config"]
    return f"{config['sampler']}, {config['num_chains']} x {config['num_sweeps']}"


def compare(table: Table, directories: list[Path], out: Path) -> str:
    """Writes the table as Markdown and its records as JSON into `out`; returns the Markdown.

    Raises:
      ValueError: a directory holds no fitting run, or `out` cannot be written.
    """
    summaries = [read_run(table, directory) for directory in directories]
    order = [name for columns in table.published.values() for name in columns]

    def place(summary: Summary) -> tuple[object, ...]:
        name = table.column(summary)
        rank = order.index(name) if name in order else len(order)
        return summary["dataset"], table.structure(summary), rank, name

    summaries.sort(key=place)
    rows = [row(table, summary) for summary in summaries]
    text = tables.markdown(tuple(rows[0]), [list(cells.values()) for cells in rows])
    hardware = sorted({summary["hardware"] for summary in summaries})
    notes = (
        "Test NLL in nats an image, by importance samples in the binary limit, at the step with "
        "the lowest validation NLL (± the standard deviation over seeds, where there are several); "
        f"SE over the test images, -ELBO with one sample. Published: {table.source}. Difference: "
        f"ours less theirs, for the same test images. Hardware: {', '.join(hardware)}."
    )
    save(f"{text}\n\n{notes}\n", summaries, table.name, out)
    return text


def save(text: str, summaries: list[dict[str, Any]], name: str, out: Path) -> None:
    """Writes NAME.md and NAME.json into `out`; ValueError if it cannot be written."""
    # Where a run lay on this machine is of no use elsewhere.
    for summary in summaries:
        summary["config"] |= {"workdir": "", "data_dir": "", "coordinator": ""}
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.md").write_text(text, encoding="utf-8")
        checkpoint.write_json(out / f"{name}.json", summaries)
    except OSError as error:
        raise ValueError(f"cannot write to {out} ({error.strerror}); try --out") from error


def start_program(program: str, write: Callable[[list[Path], Path], str]) -> None:
    """Reports on the directories of the command line.

    Args:
      program: the module's name.
      write: (run directories, output directory) -> what to print.
    """

    def main(arguments: list[str]) -> None:
        with flags.setup():
            directories = [paths.local(argument, "RUN_DIR") for argument in arguments[1:]]
            if not directories:
                raise ValueError(
                    f"name at least one run directory: python -m experiments.{program} RUN_DIR"
                )
            out = paths.local(absl_flags.FLAGS.out, "--out")
            print(write(directories, out))
            print(f"\nwritten to {out}")

    absl_flags.DEFINE_string("out", f"runs/{program}", "Directory of the results.")
    flags.run(main)


def start(table: Table) -> None:
    """Reports on runs of a published table: what `__main__` calls."""
    start_program(table.name, functools.partial(compare, table))
