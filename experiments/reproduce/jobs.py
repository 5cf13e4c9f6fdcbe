"""Several commands at once on one machine, until the time is over.

    jobs.run_all([Job("a", ["experiments.binary_vae", ...], Path("a.log"))], parallel=3, until=...)

Each command is a process of its own. They share a GPU's memory in equal parts and have processor
cores of their own. A signal that stops this program is passed on, and waits until they have saved.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from dvae.train import signals, status
from dvae.train.loop import StoppedError

LIMIT_FLAG = "--time_limit"
_MEMORY_SHARE = 0.9  # of a GPU, of all commands together
_MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"
_POLL_SECONDS = 0.2
_SAVING_SECONDS = 60.0  # for commands that were asked to stop


class Job(NamedTuple):
    """A command of one of our programs."""

    name: str
    arguments: Sequence[str]  # after `python -m`
    log: Path  # of its output
    following: "Job | None" = None  # what goes on from its result


class _Running(NamedTuple):
    """A job's process."""

    job: Job
    process: subprocess.Popen[bytes]
    place: int  # among those that run at once


def run_all(
    queue: Sequence[Job],
    *,
    parallel: int,
    until: float | None,
    shortest: float,
    ended: Callable[[Job, int], Job | None],
) -> int:
    """Runs jobs in their order.

    Args:
      queue: all of them.
      parallel: how many run at once.
      until: when all must be over, on `time.perf_counter`, of which each is told by a flag; None:
        they may take any time.
      shortest: seconds; with less time left none is begun.
      ended: takes every job that is over, and its status; gives what comes next on its result, if
        anything does, which is run before all that wait.

    Returns:
      How many were not begun.

    Raises:
      StoppedError: a signal came; the jobs were stopped by it.
      Exception: a job could not be started, or `ended` raised it; the others were stopped.
    """
    waiting, running = list(queue), list[_Running]()
    left = lambda: float("inf") if until is None else until - time.perf_counter()
    with signals.before_leaving(lambda: _stop(running)), signals.StopRequest() as stop:
        stop.arm()
        try:
            while running or (waiting and left() >= shortest):
                while waiting and len(running) < parallel and left() >= shortest:
                    place = min(set(range(parallel)) - {one.place for one in running})
                    running.append(_start(waiting.pop(0), place, parallel, left()))
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    if (following := ended(one.job, one.process.returncode)) is not None:
                        waiting.insert(0, following)
                if stop.received is not None or left() <= 0:
                    break
                time.sleep(_POLL_SECONDS)
        except BaseException:
            _end(running)  # or they would train on, with nobody to read their results
            raise
        _end(running)
        for one in running:
            if (following := ended(one.job, one.process.returncode)) is not None:
                waiting.insert(0, following)
    if stop.received is not None:
        raise StoppedError(f"stopped by {stop.received.name}; the same command continues all runs")
    return len(waiting)


def _start(job: Job, place: int, parallel: int, left: float) -> _Running:
    """Starts a job, on cores of its own where there are several."""
    limit = [] if left == float("inf") else [f"{LIMIT_FLAG}={left / 60:.3f}"]
    environment = dict(os.environ)
    if parallel > 1:
        environment.setdefault(_MEMORY, f"{_MEMORY_SHARE / parallel:.3f}")
    job.log.parent.mkdir(parents=True, exist_ok=True)
    status.say(f"{job.name}: python -m {' '.join([*job.arguments, *limit])}")
    with job.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *job.arguments, *limit],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is for us, who pass it on once
        )
    cores = _cores(place, parallel)
    if cores:
        # It is over, or the system forbids it: the job runs all the same.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(process.pid, cores)
    return _Running(job, process, place)


def _cores(place: int, parallel: int) -> set[int]:
    """Returns the processor cores of one of several jobs; none where they cannot be divided."""
    if parallel == 1 or not hasattr(os, "sched_getaffinity"):
        return set()
    all_cores = sorted(os.sched_getaffinity(0))
    return set(all_cores[place::parallel]) if len(all_cores) >= parallel else set()


def _stop(running: Sequence[_Running]) -> None:
    """Asks processes to save and end."""
    for one in running:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGTERM)


def _end(running: Sequence[_Running]) -> None:
    """Asks processes to save, and waits until all are over; kills what takes too long."""
    _stop(running)
    deadline = time.perf_counter() + _SAVING_SECONDS
    for one in running:
        try:
            one.process.wait(max(0.0, deadline - time.perf_counter()))
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
