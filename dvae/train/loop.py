"""The loop around a train step: log, evaluate, save, resume, stop.

It knows nothing of models: `Task` brings pure functions and a data set. A run is a function of its
configuration and seed. It continues from the newest checkpoint in its directory and, because every
call of the compiled step covers the same steps as before, ends with the same parameters, bit for
bit, as a run that was never interrupted.

`Schedule` says what is due after which step, `Session` does it, and `Clock` says when the time is
over. Several processes run the same loop in step (see `distributed`): they decide by what all of
them know alike, and only the main one writes.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from dvae.train import distributed, lock, signals
from dvae.train._finite import NonFiniteError
from dvae.train._limit import Clock, TimeLimit, Unlimited
from dvae.train._schedule import LoopConfig, Schedule
from dvae.train._session import start_or_restore
from dvae.train._task import ADVICE, Task
from dvae.train.best import Best
from dvae.train.state import TrainState

__all__ = [
    "ADVICE",
    "LoopConfig",
    "NonFiniteError",
    "Result",
    "StoppedError",
    "Task",
    "TimeLimit",
    "fit",
]


class Result(NamedTuple):
    """A run that is finished, or whose time is over: `state.step` says how far it came."""

    state: TrainState
    seconds: float  # of training, compilation and validation included; lost work is not
    best: Best | None = None  # by `Task.monitor`; None without one, or without validations


class StoppedError(RuntimeError):
    """A signal stopped the run after its state was saved."""


def fit(
    task: Task,
    config: LoopConfig,
    workdir: str | os.PathLike[str],
    mesh: Mesh,
    limit: TimeLimit | None = None,
) -> Result:
    """Trains until `num_steps`, from the newest checkpoint in `workdir` if there is one.

    A finished run may go on to more steps. If nothing in `task` depends on their number, it ends
    bit for bit like the longer run from the start, which does not validate at the end of the
    shorter one: that validation then counts no more, unless it is one of `eval_interval`.

    A run whose time is over ends before `num_steps`, like a shorter run does, and the next call
    goes on. Whatever depends on `num_steps`, such as a learning rate, is still that of the whole
    run. At least one call of the step is made. The main process decides for all of them.

    Args:
      task: the functions, keys and data.
      config: lengths and intervals.
      workdir: a directory; receives `checkpoints/`, `metrics.jsonl` and `tensorboard/`, and is
        locked against other processes.
      mesh: the devices; state and data are replicated over it, the step shards its batch itself.
      limit: of the program's time; None: there is none.

    Returns:
      The last state, the time, and with `Task.monitor` the best validation's, the last step's among
      them (None where `eval_interval` is 0).

    Raises:
      ValueError: the checkpoint is of a later step than `num_steps`, or of one inside of a call;
        the task names a metric that there is not; a metric of its `evaluate` is no scalar; or
        `workdir` cannot be written.
      LockedError: another process trains in `workdir`.
      NonFiniteError: a metric of the training, or the monitored one of a validation, is not
        finite; the last checkpoint before it is kept.
      StoppedError: SIGTERM, SIGINT or SIGHUP came, to any process; the state was saved first.
        Before the step is compiled they act as they do elsewhere: nothing is lost.
      CheckpointError: a checkpoint cannot be read or written.
      PeerError: another process of the run is gone.
    """
    workdir = Path(workdir)
    with _hold(workdir) as held:
        session = start_or_restore(task, config, workdir, mesh)
        schedule = Schedule(config, monitored=task.monitor is not None)
        monitored = schedule.monitored and config.eval_interval > 0
        clock = Unlimited()
        if limit is not None and distributed.is_main():
            clock = Clock(limit, monitored=monitored)
        # Several processes look at the clock where they ask each other.
        ahead = 1 if jax.process_count() == 1 else config.log_interval // config.steps_per_call
        # The signals are held until the last checkpoint is written.
        with signals.StopRequest() as stop, session.closing():
            due = schedule.at(session.step)
            # A signal at the time of a validation saves first and leaves the validation to us.
            if due.validate and not session.validated:
                clock.validate(session, lasting=due.lasting)
            while due.call:
                session.advance(due.call)
                if session.num_calls == 1:
                    stop.arm()  # until here there is nothing to save
                    session.note_first_call()
                due = schedule.at(session.step)
                # Read once a call: what is reported as saved is saved.
                late = (due.log or ahead == 1) and clock.late(session, due, ahead=ahead)
                stopping, late = distributed.agreed_end(stop.received, late, asking=due.log)
                if stopping is not None:
                    due = due.cut_short()
                elif late and due.call:
                    due = due.cut_off(monitored=monitored)
                    session.progress.note(
                        f"the time limit is near: ending after step {session.step}"
                    )
                if due.record:
                    session.record()
                    clock.recorded(session, config)
                else:
                    session.progress.advance(session.step)
                if due.validate:
                    clock.validate(session, lasting=due.lasting)
                if due.save:
                    if held is not None:
                        held.check()
                    clock.save(session, validated=due.lasting)
                if stopping is not None:
                    raise _stopped(stopping, session.step)
        if (stopping := distributed.agreed(stop.received, asking=True)) is not None:
            raise _stopped(stopping, session.step)  # it came after the last step
        # Without a validation it is what training began with.
        best = session.best if config.eval_interval else None
        return Result(session.state, session.seconds, best)


@contextlib.contextmanager
def _hold(workdir: Path) -> Iterator[lock.Held | None]:
    """Holds the lock of the folder in this context, in the main process."""
    held = None
    with contextlib.ExitStack() as stack:
        if distributed.is_main():
            try:
                held = stack.enter_context(lock.hold(workdir))
            except OSError as error:
                raise ValueError(
                    f"cannot write to workdir {workdir}: {error.strerror}; choose another workdir"
                ) from error
        yield held


def _stopped(by: signal.Signals, step: int) -> StoppedError:
    return StoppedError(
        f"stopped by {by.name} after step {step}, which is saved; "
        "the same command continues from there"
    )
