"""What is done: runs of a table's cells, in their folders and in the file of its results."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import joint_table, report, table1, table2, table3
from experiments.common import groups, records
from experiments.common import tables as result_tables
from experiments.common.groups import Run
from experiments.reproduce.manifest import BUDGETS, Cell, Table

Write = Callable[[Sequence[groups.Group], Path], str]


def _published(table: result_tables.Table) -> Write:
    return lambda found, out: result_tables.write(table, found, out)


WRITE: dict[str, Write] = {
    "figure1": report.write,
    "table1": _published(table1.TABLE),
    "table2": _published(table2.TABLE),
    "table3": _published(table3.TABLE),
    "joint_vae": joint_table.write,
}


class Place(NamedTuple):
    """Where the runs of a table are, and where its results."""

    table: Table
    runs: Path
    out: Path

    @property
    def records(self) -> Path:
        """The file of the results."""
        return self.out / self.table.records

    def workdir(self, cell: Cell, budget: str, seed: int) -> Path:
        """Returns the folder of a run."""
        return self.runs / self.table.name / f"{cell.name}-{budget}" / f"seed{seed}"


class Done(NamedTuple):
    """A run of a cell, finished or not."""

    budget: str
    run: Run

    @property
    def steps(self) -> int:
        """How many steps it has trained."""
        summary = self.run.summary
        return int(summary["steps"] if "steps" in summary else summary["num_steps"])

    @property
    def is_finished(self) -> bool:
        """Whether it has trained all of them."""
        return not records.is_unfinished(self.run.summary)


def read(place: Place, recorded: Sequence[groups.Summary], cell: Cell) -> list[Done]:
    """Returns the runs of a cell, no seed of a budget twice: the longer one is taken.

    Args:
      place: of the table.
      recorded: the summaries of its results.
      cell: one of its cells.
    """
    found = []
    for budget in BUDGETS:
        config = cell.config(budget)
        pattern = f"{cell.name}-{budget}/seed*/{records.SUMMARY_FILE}"
        folders = sorted(path.parent for path in (place.runs / place.table.name).glob(pattern))
        runs = [Run(folder, _as_cell(folder, cell)) for folder in folders]
        runs += [
            Run(place.records, summary)
            for summary in recorded
            if groups.is_of(cell.program, summary, config)
        ]
        seeds: set[int] = set()
        for done in sorted((Done(budget, run) for run in runs), key=lambda done: -done.steps):
            if not seeds & set(done.run.summary["seeds"]):
                seeds |= set(done.run.summary["seeds"])
                found.append(done)
    return found


def recorded(place: Place) -> list[groups.Summary]:
    """Reads the file of the results, if it is there.

    Raises:
      ValueError: it is damaged.
    """
    return groups.read_summaries(place.records) if place.records.exists() else []


def write(place: Place) -> str:
    """Writes the results of all cells, old ones included; returns their table.

    Raises:
      ValueError: there are none, or the folder cannot be written.
    """
    before = recorded(place)
    runs = [done.run for cell in place.table.cells for done in read(place, before, cell)]
    kept = {id(run.summary) for run in runs}
    replaced = {
        id(summary)
        for cell in place.table.cells
        for budget in BUDGETS
        for summary in before
        if groups.is_of(cell.program, summary, cell.config(budget))
    }
    runs += [Run(place.records, s) for s in before if id(s) not in kept | replaced]
    if not runs:
        return ""
    program = place.table.cells[0].program
    return WRITE[place.table.name](groups.group(program, runs), place.out)


def value(table: Table, runs: Sequence[Done]) -> tuple[float, float | None] | None:
    """Returns the mean of a cell's number over the longest runs' seeds, and its deviation."""
    if not runs:
        return None
    longest = max(done.steps for done in runs)
    numbers = np.concatenate(
        [
            np.ravel(done.run.summary["test"][table.metric])
            for done in runs
            if done.steps == longest and table.metric in done.run.summary["test"]
        ]
        or [np.zeros(0)]
    )
    if not len(numbers):
        return None
    numbers = numbers / _unit(table, runs[0].run.summary)
    return float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else None


def _unit(table: Table, summary: groups.Summary) -> float:
    """Returns the nats in the unit of a table's published numbers."""
    return table3.unit(summary) if table.name == table3.TABLE.name else 1.0


def _as_cell(folder: Path, cell: Cell) -> dict[str, Any]:
    """Reads a summary; images of one's own file stand for the data set of the cell."""
    summary = records.read_summary(folder)
    summary["config"] = {**summary["config"], groups.DATASET: cell.dataset}
    return summary
