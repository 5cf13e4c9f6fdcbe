"""What a training run leaves behind: summary.json, arrays, pictures and a few lines of text."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from dvae import analysis, bounds, trained
from dvae.train import checkpoint, loop, status
from experiments.common import flag_help, records
from experiments.common import models as run_models
from experiments.common.config import RunConfig

PyTree = Any
Row = tuple[str, Any, str]  # label, one number or one a seed, what it is


class Report(NamedTuple):
    """What an experiment says of a finished run; `draw` runs in the main process alone."""

    summary: dict[str, Any]  # becomes summary.json
    subject: str  # what was trained on what, for the terminal
    rows: Sequence[Row]
    draw: Callable[[], Mapping[str, Figure]]  # pictures by name
    notes: Sequence[str] = ()
    models: Sequence[run_models.Trained] = ()  # one a seed
    arrays: Mapping[str, Any] = {}  # file name -> one array (.npy) or a dictionary of them (.npz)


def of_run(config: RunConfig, result: loop.Result, model: PyTree) -> dict[str, Any]:
    """Returns the part of a summary that is the same for all experiments.

    Args:
      config: everything.
      result: the finished run.
      model: the parameters to count, of all seeds: those of the model that is exported.
    """
    return {
        "program": config.program,
        "num_steps": config.num_steps,
        "steps": int(np.max(jax.device_get(result.state.step))),
        "seeds": list(range(config.seed, config.seed + config.num_seeds)),
        "num_parameters": sum(x.size for x in jax.tree.leaves(model)) // config.num_seeds,
        "hardware": records.describe_hardware(),
        "wall_seconds": round(result.seconds, 1),
        "versions": records.versions(),
        "config": dataclasses.asdict(config),
    }


def over_images(name: str, values: np.ndarray) -> dict[str, Any]:
    """Returns the mean of values [S, N] over images and its standard error, by seed.

    A single image has no standard error.
    """
    record = {name: records.per_seed(values.mean(1))}
    if values.shape[1] > 1:
        error = values.std(1, ddof=1) / np.sqrt(values.shape[1])
        record[name + records.STANDARD_ERROR] = records.per_seed(error)
    return record


def rates(kind: str, nats: np.ndarray, num_dims: int) -> dict[str, Any]:
    """Returns the mean of rates [S, N], nats an image, in nats and in bits/dim, by seed.

    Args:
      kind: begins the names.
      nats: the rates.
      num_dims: sub-pixels of an image.
    """
    mean = nats.mean(1)
    bits = np.asarray(bounds.bits_per_dim(-mean, num_dims))
    in_units = {"rate_nats": mean, "rate_bits_per_dim": bits}
    return {f"{kind}{name}": records.per_seed(values) for name, values in in_units.items()}


def over_seeds(name: str, values: np.ndarray) -> dict[str, float]:
    """Returns mean and standard deviation of values [S] over seeds; nothing for a single one."""
    if len(values) < 2:
        return {}
    statistics = values.mean(), values.std(ddof=1)
    return {
        name + ending: round(float(value), 4)
        for ending, value in zip(records.OVER_SEEDS, statistics, strict=True)
    }


def first_seed(config: RunConfig, tree: PyTree) -> PyTree:
    """Brings what pictures are drawn of to the host: they are made on one device."""
    tree = jax.device_get(tree)
    return tree if config.num_seeds == 1 else jax.tree.map(lambda x: x[0], tree)


def check_finite(summary: Mapping[str, Any], workdir: Path) -> None:
    """Raises NonFiniteError, which names them, where numbers of a summary are not finite.

    JSON has none of them.
    """
    if bad := sorted(_non_finite(summary)):
        raise loop.NonFiniteError(
            f"{', '.join(bad)} of the finished run in {workdir} {'is' if len(bad) == 1 else 'are'} "
            f"not finite, so that it gets no {records.SUMMARY_FILE}; its checkpoint is kept. "
            f"{loop.ADVICE}, in another workdir"
        )


def _non_finite(value: Any, name: str = "") -> Iterator[str]:
    """Yields the names of numbers that are not finite, as test.nll_nats."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _non_finite(part, f"{name}.{key}" if name else key)
    elif isinstance(value, (list, tuple)):
        if any(True for part in value for _ in _non_finite(part)):
            yield name
    elif isinstance(value, float) and not math.isfinite(value):
        yield name


def save(report: Report, workdir: Path, *, began: float) -> dict[str, Any]:
    """Writes summary.json first, then arrays, models and pictures, and prints the result.

    In the end summary.json, which is returned, lists the files beside it: nothing is left to do,
    until training goes on.

    Args:
      report: of the run.
      workdir: of the run.
      began: when training was over, on `time.perf_counter`. How long evaluation and all that is
        written took tells the next session of a run under a time limit when to stop.
    """
    path, files = workdir / records.SUMMARY_FILE, [*report.arrays]
    checkpoint.write_json(path, report.summary)
    for name, array in report.arrays.items():
        if isinstance(array, Mapping):
            np.savez(workdir / name, **array)
        else:
            np.save(workdir / name, array)
    place = workdir / trained.MODEL_FOLDER
    if trouble := run_models.hidden(len(report.models), place):
        status.say(trouble)  # of another run; what was trained is saved all the same
    for name in run_models.save(report.models, place):
        folder = Path(trained.MODEL_FOLDER, name)
        written = [name for name in trained.MACHINE_FILES if (workdir / folder / name).exists()]
        files += [str(folder / name) for name in (trained.RECORD_FILE, *written)]
    with status.phase("drawing"):
        for title, figure in report.draw().items():
            files.append(f"{title}.png")
            analysis.figures.save(figure, workdir / files[-1])
    seconds = round(time.perf_counter() - began, 1)
    summary = {**report.summary, records.FILES: files, records.FINISHING: seconds}
    checkpoint.write_json(path, summary)
    flag_help.tell(describe(report, workdir, files))
    return summary


def describe(report: Report, workdir: Path, files: Sequence[str]) -> str:
    """Returns the result in a few lines for the terminal."""
    summary = report.summary
    step = f", evaluated at step {summary['evaluated_step']}" if "evaluated_step" in summary else ""
    header = (
        f"{report.subject}: {records.steps(summary)} steps, seeds {summary['seeds']}{step}, "
        f"{summary['wall_seconds']:.0f} s on {summary['hardware']}"
    )
    lines = [
        f"{label:<16}{' '.join(f'{v:.5g}' for v in np.atleast_1d(value)):>12}  {text}"
        for label, value, text in report.rows
    ]
    pictures = ", ".join(sorted(name for name in files if name.endswith(".png")))
    notes = list(report.notes)
    if records.is_unfinished(summary):
        notes.append("unfinished: the same command trains on")
    if notes:
        notes.insert(0, "")
    return "\n".join(["", header, *lines, *notes, "", f"pictures in {workdir}: {pictures}"])
