"""What is done: runs of a table's cells, in their folders and in the file of its results."""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import disarm_table, joint_table, report, table1, table2, table3
from experiments.common import groups, records
from experiments.common import tables as result_tables
from experiments.common.config import RunConfig
from experiments.common.groups import Run
from experiments.common.program import Program
from experiments.reproduce import priors, quantizer_table, summaries
from experiments.reproduce.manifest import BUDGETS, Cell, Table

Write = Callable[[Sequence[groups.Group], Path], str]


def _published(table: result_tables.Table) -> Write:
    return lambda found, out: result_tables.write(table, found, out)


WRITE: dict[str, Write] = {
    "figure1": report.write,
    "figure2": report.write,
    "best": report.write,
    "table1": _published(table1.TABLE),
    "table1_settings": _published(table1.TABLE),
    "table2": _published(table2.TABLE),
    "dvaes": _published(table2.TABLE),
    "table3": _published(table3.TABLE),
    "joint_vae": joint_table.write,
    "quantizers": quantizer_table.write,
    "codes_in_use": report.write,
    "boltzmann": _published(priors.TABLE),
    "disarm": _published(disarm_table.TABLE),
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
    is_finished: bool  # as long as the budget's, with all that it leaves behind
    training: str  # all settings but seeds and watching: only equal ones are averaged
    is_own: bool  # whether the settings are the command's, but for the length
    others: str  # what is other than the command's, of a run that is finished all the same

    @property
    def steps(self) -> int:
        """How many steps it has trained."""
        return _steps(self.run)

    @property
    def has_prior(self) -> bool:
        """Whether the prior over its codes is learned."""
        prior = self.run.summary.get(quantizer_table.PRIOR)
        return prior is not None and not records.is_unfinished(prior)


def read(
    place: Place,
    recorded: Sequence[groups.Summary],
    cell: Cell,
    budgets: Sequence[str] = BUDGETS,
    more: Sequence[str] = (),
) -> list[Done]:
    """Returns the runs of a cell, of each seed the longest one by the settings of the command.

    A recorded run counts for every budget whose settings it has, whatever its length if the cell
    takes any. A run in its folder is no finished one before all its files are written: what makes
    it whole is the same command. It counts whatever its settings, and tells what others it has.

    Args:
      place: of the table.
      recorded: the summaries of its results.
      cell: one of its cells.
      budgets: some.
      more: flags of the command beside those of the cell.

    Raises:
      ValueError: a flag has no such value.
    """
    found = []
    for budget in budgets:
        config, published = cell.config(budget, more), cell.config(budget)
        runs = _in_folders(place, cell, budget)
        folders = {run.directory for run in runs}
        runs += [
            Run(place.records, summary)
            for summary in recorded
            if _is_of(cell, published, summary) or _is_of(cell, config, summary)
        ]
        found += [
            _done(cell, budget, config, run, run.directory in folders)
            for run in _longest(runs, functools.partial(_kind, cell, config))
        ]
    return found


def _is_of(cell: Cell, config: RunConfig, summary: groups.Summary) -> bool:
    return groups.is_of(cell.program, summary, config, any_length=cell.any_length)


def _kind(cell: Cell, config: RunConfig, run: Run) -> str:
    """Tells runs of other settings than the command's apart."""
    return "" if _is_of(cell, config, run.summary) else _training(cell.program, run)


def _done(cell: Cell, budget: str, config: RunConfig, run: Run, in_folder: bool) -> Done:
    """Says of a run how far it came, and by which settings."""
    is_own = _is_of(cell, config, run.summary)
    is_finished = _is_finished(run, config.num_steps, in_folder)
    others = ""
    if is_finished and (not is_own or _steps(run) < config.num_steps):
        differ = groups.differences(cell.program, run.summary, config)
        others = ", ".join(f"{k}={there} there, {here} here" for k, (there, here) in differ.items())
    return Done(budget, run, is_finished, _training(cell.program, run), is_own, others)


def say_others(cell: Cell, runs: Sequence[Done]) -> None:
    """Says once which runs count for a cell though their settings are not the command's.

    Args:
      cell: whose runs these are.
      runs: some of them.
    """
    for text in dict.fromkeys(done.others for done in runs if done.others):
        places = dict.fromkeys(str(done.run.directory) for done in runs if done.others == text)
        summaries.say_once(
            f"{cell.name}: finished with other settings ({text}) in {', '.join(places)}; to train "
            "it with those of this command, move that away, or choose another --runs and --out"
        )


def _is_finished(run: Run, num_steps: int, in_folder: bool) -> bool:
    """Tells whether a run of at least `num_steps`, or in its folder of its own length, is whole."""
    if not in_folder:
        return _steps(run) >= num_steps
    long_enough = not records.is_unfinished(run.summary) or _steps(run) >= num_steps
    return long_enough and records.is_whole(run.directory, run.summary)


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
    program = place.table.cells[0].program
    runs = [
        run
        for cell in place.table.cells
        for budget in BUDGETS
        for run in _in_folders(place, cell, budget)
    ]
    runs += [Run(place.records, summary) for summary in recorded(place)]
    if not runs:
        return ""
    longest = _longest(runs, functools.partial(_settings, program))
    return WRITE[place.table.name](groups.group(program, longest), place.out)


def value(table: Table, runs: Sequence[Done]) -> tuple[float, float | None] | None:
    """Returns the mean of a cell's number over the seeds of runs alike, and its deviation."""
    name, alike = metric(table, runs), of_one_kind(runs)
    numbers = np.concatenate(
        [
            np.ravel(done.run.summary["test"][name])
            for done in alike
            if name in done.run.summary["test"]
        ]
        or [np.zeros(0)]
    )
    if not len(numbers):
        return None
    numbers = numbers / _unit(table, runs[0].run.summary)
    return float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else None


def metric(table: Table, runs: Sequence[Done]) -> str:
    """Returns the name of a cell's number, with learned priors if all runs alike have one."""
    alike = of_one_kind(runs)
    learned = alike and all(report.LEARNED in done.run.summary["test"] for done in alike)
    return report.LEARNED if learned else table.metric


def of_one_kind(runs: Sequence[Done]) -> list[Done]:
    """Returns the longest runs, of equal settings: the command's, where there are such."""
    if not runs:
        return []
    first = max(runs, key=lambda done: (done.is_own, done.steps))
    kind = lambda done: (done.training, done.steps)
    return [done for done in runs if kind(done) == kind(first)]


def _unit(table: Table, summary: groups.Summary) -> float:
    """Returns the nats in the unit of a table's published numbers."""
    return table3.unit(summary) if table.name == table3.TABLE.name else 1.0


def _in_folders(place: Place, cell: Cell, budget: str) -> list[Run]:
    """Reads the runs of a cell; images of one's own stand for the data set of the cell."""
    pattern = f"{cell.name}-{budget}/seed*/{records.SUMMARY_FILE}"
    runs = []
    for path in sorted((place.runs / place.table.name).glob(pattern)):
        summary = summaries.read(path.parent)
        if summary is None:
            continue
        summary["config"] = {**summary["config"], groups.DATASET: cell.dataset}
        if cell.recipes[budget].prior is not None:
            summary = quantizer_table.complete(summary, path.parent)
        runs.append(Run(path.parent, summary))
    return runs


def _longest(runs: Sequence[Run], kind: Callable[[Run], str]) -> list[Run]:
    """Returns of runs that have their kind and a seed in common the longest one, in their order.

    Of equal length it is the one of more seeds, which has the others' numbers, too.
    """
    size = lambda run: (_steps(run), len(run.summary["seeds"]))
    seeds: dict[str, set[int]] = {}
    chosen = set()
    for i in sorted(range(len(runs)), key=lambda i: size(runs[i]), reverse=True):
        before = seeds.setdefault(kind(runs[i]), set())
        if not before & set(runs[i].summary["seeds"]):
            before |= set(runs[i].summary["seeds"])
            chosen.add(i)
    return [run for i, run in enumerate(runs) if i in chosen]


def _settings(program: Program, run: Run) -> str:
    """Writes all that determines a run's result but its seeds and how far it came."""
    summary = {name: value for name, value in run.summary.items() if name != "steps"}
    return json.dumps(groups.settings_of(program, summary), sort_keys=True)


def _training(program: Program, run: Run) -> str:
    """Writes the settings of a run's training."""
    return json.dumps(groups.training_of(program, run.summary), sort_keys=True)


def _steps(run: Run) -> int:
    """Returns how many steps a run has trained."""
    summary = run.summary
    return int(summary["steps"] if "steps" in summary else summary["num_steps"])
