"""What `--list` prints: every cell with its published number, what is done, and its command."""

from collections.abc import Sequence
from pathlib import Path

from dvae.analysis import tables
from experiments import report
from experiments.reproduce import hours, results
from experiments.reproduce.manifest import Cell

HEADER = (
    "cell",
    "published",
    "ours",
    "steps",
    "of published",
    "seeds",
    "hours CPU / GPU",
    "where",
)


def describe(
    place: results.Place, cells: Sequence[Cell], budget: str, more: Sequence[str] = ()
) -> str:
    """Returns the table of cells, and below it their commands.

    A line on stderr says which runs have other settings than the commands.

    Args:
      place: of the table.
      cells: some of its cells.
      budget: of the commands, and of what is done.
      more: flags of all runs beside those of the commands.

    Raises:
      ValueError: the results are damaged, or a flag has no such value.
    """
    before = results.recorded(place)
    rows = []
    for cell in cells:
        runs = results.read(place, before, cell, (budget,), more)
        results.say_others(cell, runs)
        rows.append(_row(place, cell, budget, runs, cell.config(budget, more).num_steps))
    of_cells = [cell.arguments(budget) for cell in cells]
    # One command for all priors: the flags are those of the table.
    of_priors = {tuple(cell.prior_arguments(budget, Path("RUN_DIR"))) for cell in cells}
    words = [*of_cells, *sorted(filter(None, of_priors))]
    commands = [f"python -m {' '.join(command)}" for command in words]
    table = place.table
    unit = f", {table.unit}" if table.unit else ""
    notes = (
        "Steps: trained, of those of the command. Of published: share of the published length, "
        "where that is known. Hours: of one run on one CPU core, as runs of its kind took, and on "
        "one H200, training alone; with ~ by runs of another kind and equal sizes."
    )
    return "\n".join(
        [f"{table.title}{unit}", "", tables.markdown(HEADER, rows), "", notes, "", *commands]
    )


def _row(
    place: results.Place, cell: Cell, budget: str, runs: Sequence[results.Done], num_steps: int
) -> list[object]:
    """Returns the cells of one line."""
    shown = results.of_one_kind(runs)
    steps = shown[0].steps if shown else 0
    seeds = [seed for done in shown for seed in done.run.summary["seeds"]]
    ours = results.value(place.table, runs)
    learned = results.metric(place.table, runs) == report.LEARNED
    alone = cell.recipes[budget].prior is None
    prior = "" if alone else f", {'learned' if learned else 'factorial'} prior"
    share = "" if cell.published_steps is None else f"{steps / cell.published_steps:.0%}"
    times = (hours.on_cpu(place.table, cell, budget), hours.on_gpu(cell, budget))
    return [
        cell.name,
        "" if cell.published is None else _published(cell, place.table.unit),
        "" if ours is None else f"{_ours(ours, place.table.unit)}{prior}",
        f"{steps:,} / {num_steps:,}",
        share,
        len(seeds),
        " / ".join("?" if time is None else str(time) for time in times),
        cell.where,
    ]


def _published(cell: Cell, unit: str) -> str:
    """Writes a published number, and its deviation over runs where there is one."""
    digits = ".2f" if unit == "nats" else "g"
    return f"{cell.published:{digits}}" + (
        "" if cell.deviation is None else f" ± {cell.deviation:{digits}}"
    )


def _ours(value: tuple[float, float | None], unit: str) -> str:
    """Writes a mean and the deviation over runs with as many digits as tell runs apart."""
    mean, deviation = value
    digits = ".2f" if unit == "nats" else ".3f"
    return f"{mean:{digits}}" + ("" if deviation is None else f" ± {deviation:{digits}}")
