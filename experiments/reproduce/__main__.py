"""Trains the published cells of a table that have no result yet, and writes the table.

    python -m experiments.reproduce table1 --list
    python -m experiments.reproduce table1 --minutes=12 --parallel=3
    python -m experiments.reproduce figure1 --budget=cpu --cells=gs_soft_8,gs_soft_64
    python -m experiments.reproduce table1 --dataset=mnist.npz --cells=mnist -- --mesh=1

Tables are figure1, figure2, best, table1, table1_settings, table2, dvaes, table3, joint_vae,
quantizers, codes_in_use, boltzmann and disarm. Cells are trained in their order; several at once if
so asked; with a time limit each stops in time, is evaluated as far as it came, and goes on when the
same command is given again. After each cell of `quantizers` a prior over its codes is learned. The
results are those that the table's own program writes; they are small, are read again when only they
are left, and may be given to that program in place of run directories. Words behind -- are flags of
every run, but not of priors.
"""

import dataclasses
import signal
import time
from pathlib import Path

from dvae.train import paths, signals, status
from experiments.common import begin, flag_help, flags, records
from experiments.common.flags import option
from experiments.reproduce import code_priors, jobs, listing, results, summaries
from experiments.reproduce.manifest import BUDGETS, PAPER, TABLES, Cell, Table

_WRITING_SECONDS = 10.0  # for the table and its pictures
# Flags of the runs that would undo which cell a run is of, and what chooses them.
_CHOSEN_BY = {"preset": "--cells", "seed": "--seeds", "workdir": "--runs"}
_SHORTEST = 60.0, 0.2  # seconds, and share of the time, that are worth the start of a run


@dataclasses.dataclass(frozen=True)
class Config:
    """Which cells are trained, for how long, and where."""

    list: bool = option(False, "List of the cells with what is done: prints it and ends.")
    minutes: float = option(0.0, "Minutes until all is over; 0: any time.", minimum=0)
    parallel: int = option(1, "Runs at once, which share the device.", minimum=1)
    budget: str = option(
        PAPER, "Lengths and sizes: those of the paper, or smaller ones.", choices=BUDGETS
    )
    seeds: int = option(1, "Seeds of each cell, a run each: 0, 1, ...", minimum=1)
    cells: str = option("", "Names of cells, or how several begin, with commas; empty: all.")
    dataset: str = option(
        "",
        "Images of one's own, as --dataset of the programs takes them, which stand for the cells' "
        "data set. Empty: the published sets.",
        group="data",
    )
    data_dir: str = option("", "Folder of prepared data sets.", path=True, group="data")
    runs: str = option("runs/reproduce", "Folder of the runs.", path=True)
    out: str = option("", "Folder of the results. Empty: results/TABLE beside the runs.", path=True)

    def __post_init__(self) -> None:
        """Raises ValueError for a setting outside its range."""
        flags.check_fields(self)


def choose(config: Config, words: list[str]) -> tuple[results.Place, list[Cell], list[str]]:
    """Returns the table that the command line names, its chosen cells, and the flags of all runs.

    Raises:
      ValueError: it names no table or cell, or cells of several data sets for one file.
    """
    if not words or words[0] not in TABLES:
        named = words[0] if words else "none"
        raise ValueError(f"name a table, one of {', '.join(TABLES)}; got {named}")
    table, more = TABLES[words[0]], words[1:]
    if others := [word for word in more if not word.startswith("--")]:
        raise ValueError(f"unexpected arguments: {' '.join(others)}")
    for word in more:
        name = word.removeprefix("--").partition("=")[0]
        if name in _CHOSEN_BY:
            raise ValueError(
                f"{word} behind --: reproduce gives it to every run, by its own {_CHOSEN_BY[name]}"
            )
    cells = _named(table, config.cells)
    sets = sorted({cell.dataset for cell in cells})
    if config.dataset and len(sets) > 1:
        raise ValueError(
            f"--dataset={config.dataset} stands for one data set, and the cells are of "
            f"{', '.join(sets)}; choose some by --cells"
        )
    runs = paths.local(config.runs, "--runs")
    out = Path(config.out) if config.out else runs / "results" / table.name
    if table.folder and (out / table.folder / table.records).exists():
        out /= table.folder
    return results.Place(table, runs, out), cells, more


def _named(table: Table, cells: str) -> list[Cell]:
    """Returns the cells that `--cells` names, in the order of the table.

    Raises:
      ValueError: a word of it names none.
    """
    chosen: set[str] = set()
    for word in (words := list(filter(None, cells.split(",")))):
        names = [cell.name for cell in table.cells]
        # Names begin other names: mnist that of mnist_seeds.
        found = [word] if word in names else [name for name in names if name.startswith(word)]
        if not found:
            raise ValueError(f"--cells: {word} names no cell of {table.name}; see --list")
        chosen.update(found)
    return [cell for cell in table.cells if not words or cell.name in chosen]


def queue(
    config: Config, place: results.Place, cells: list[Cell], more: list[str]
) -> list[jobs.Job]:
    """Returns the runs that are not finished: first seed 0 of all cells, then the others.

    A cell of several seeds at once has a run for each such number of them. What is finished with
    other settings than these is not trained again; a line on stderr says so.

    Raises:
      ValueError: the results are damaged, or a flag of all runs has no such value.
    """
    before = results.recorded(place)
    waiting = []
    for seed in range(config.seeds):
        for cell in cells:
            together = cell.config(config.budget, more).num_seeds
            if seed % together:
                continue  # one of those that an earlier run trains together
            seeds = {*range(seed, seed + together)}
            workdir = place.workdir(cell, config.budget, seed)
            alone = cell.recipes[config.budget].prior is None
            runs = results.read(place, before, cell, (config.budget,), more)
            results.say_others(cell, runs)
            done = [one for one in runs if one.is_finished and seeds & {*one.run.summary["seeds"]}]
            complete = [one for one in done if alone or one.has_prior]
            if seeds <= {s for one in complete for s in one.run.summary["seeds"]}:
                continue
            prior = prior_job(config, place, cell, seed)
            if prior is not None and any(one.run.directory == workdir for one in done):
                waiting.append(prior)
                continue
            own = [f"--dataset={config.dataset}"] if config.dataset else []
            where = _where(config, workdir, seed)
            arguments = [*cell.arguments(config.budget), *own, *where, *more]
            name = f"{cell.name}, seed {seed}"
            waiting.append(jobs.Job(name, arguments, workdir.with_suffix(".log"), prior))
    return waiting


def prior_job(config: Config, place: results.Place, cell: Cell, seed: int) -> jobs.Job | None:
    """Returns what learns a prior over the codes of a cell's run, if the cell has one."""
    run = place.workdir(cell, config.budget, seed)
    arguments = cell.prior_arguments(config.budget, run)
    if not arguments:
        return None
    workdir = code_priors.folder(run)
    words = [*arguments, *_where(config, workdir, seed)]
    return jobs.Job(f"prior of {cell.name}, seed {seed}", words, workdir.with_suffix(".log"))


def over_codes_of(run: Path, prior: jobs.Job) -> jobs.Job:
    """Returns the job of a prior, in the folder that goes with the codes a run has by now."""
    workdir = code_priors.folder(run)
    place = lambda word: f"--workdir={workdir}" if word.startswith("--workdir=") else word
    words = [place(word) for word in prior.arguments]
    return prior._replace(arguments=words, log=workdir.with_suffix(".log"))


def _where(config: Config, workdir: Path, seed: int) -> list[str]:
    """Returns the flags of places and seed."""
    data_dir = [f"--data_dir={config.data_dir}"] if config.data_dir else []
    return [f"--workdir={workdir}", f"--seed={seed}", *data_dir]


def train(config: Config, waiting: list[jobs.Job]) -> list[str]:
    """Trains what is waiting, as far as the time goes; returns the names of what failed."""
    until, shortest = None, 0.0
    if config.minutes:
        until = begin.program_start() + 60 * config.minutes - _WRITING_SECONDS
        shortest = max(_SHORTEST[0], _SHORTEST[1] * 60 * config.minutes)
        shortest = min(shortest, max(0.0, until - time.perf_counter() - 1.0))
    failed = []

    def ended(job: jobs.Job, code: int) -> jobs.Job | None:
        workdir = job.log.with_suffix("")
        said = job.log.read_text(encoding="utf-8", errors="replace").splitlines()
        following = None
        summary = summaries.read(workdir) if code == 0 else None
        if code == 0 and summary is None:
            how = f"ended without a result (see {job.log})"
            failed.append(job.name)
        elif summary is not None:
            if job.following is not None and not records.is_unfinished(summary):
                following = over_codes_of(workdir, job.following)
            how = f"{records.steps(summary)} steps"
        else:
            how = f"status {code}, {said[-1] if said else 'nothing was said'} (see {job.log})"
        if code not in (0, signals.STATUS, -signal.SIGTERM):  # what asking it to stop may give
            failed.append(job.name)
        status.say(f"{job.name}: {how}")
        return following

    left = jobs.run_all(
        waiting, parallel=config.parallel, until=until, shortest=shortest, ended=ended
    )
    if left:
        status.say(f"{left} runs were not begun: the same command goes on")
    return failed


def main(arguments: list[str]) -> None:
    """Lists, or trains and writes the table."""
    with flags.setup():
        config = flags.parse(Config)
        place, cells, more = choose(config, arguments[1:])
        if config.list:
            flag_help.tell(listing.describe(place, cells, config.budget, more))
            return
        waiting = queue(config, place, cells, more)
    try:
        failed = train(config, waiting)
    except BaseException:
        try:
            results.write(place)
        except (ValueError, OSError) as error:  # in place of what ended the training
            status.say(f"no table: {error}")
        raise
    with flags.setup():
        text = results.write(place)
    flag_help.tell(f"{text}\n\nwritten to {place.out}" if text else "no results yet")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    flags.define(Config)
    flags.run(main)
