"""A run in progress: what it trains, how far it is, and where it writes.

    session = start_or_restore(task, config, workdir, mesh)
    with session.closing():
        session.advance(config.steps_per_call)
        session.record()
        session.validate(lasting=True)
        session.save(validated=True)

Every method is one of the things that `loop.fit` does between two calls of the step.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from dvae.train import _compiler, distributed, sharding, status
from dvae.train import best as best_params
from dvae.train._finite import check_trained, check_validated
from dvae.train._schedule import LoopConfig
from dvae.train._task import Task, check_evaluated, check_known
from dvae.train.best import Best
from dvae.train.checkpoint import Checkpoints
from dvae.train.metrics import MetricsWriter, NoMetrics, Progress
from dvae.train.state import Metrics, TrainState

__all__ = ["Session", "start_or_restore"]

PyTree = Any


class _Start(NamedTuple):
    """Where a session begins."""

    state: TrainState
    best: Best | None
    step: int = 0
    validated: bool = True  # the validation that is due after `step` was made
    seconds: float = 0.0  # of training before


@dataclass
class Session:
    """A run in progress, of which `step` steps are done."""

    task: Task
    checkpoints: Checkpoints
    writer: MetricsWriter | NoMetrics
    progress: Progress
    step_fn: Callable[[TrainState], tuple[TrainState, Metrics]]  # compiled; donates the state
    scanned: bool  # the metrics of a call have a leading axis of steps
    began: float  # on `time.perf_counter`, with the time of earlier sessions put before
    state: TrainState
    best: Best | None  # None without `Task.monitor`
    lasting_best: Best | None  # what a longer run would have here, which is saved
    step: int
    saved: int | None  # step of the last checkpoint
    validated: bool  # the validation that was due at the beginning was made before
    recorded: int  # step up to which metrics were read
    pending: list[Metrics] = field(default_factory=list)  # of the calls since then
    num_calls: int = 0  # of this session

    @property
    def seconds(self) -> float:
        """Returns the time of training so far, lost work excluded."""
        return time.perf_counter() - self.began

    def advance(self, num_steps: int) -> None:
        """Calls the compiled step, which does `num_steps` steps; does not wait for it."""
        self.state, metrics = self.step_fn(self.state)
        self.pending.append(metrics)
        self.step += num_steps
        self.num_calls += 1

    def note_first_call(self) -> None:
        """Says how long the first call took and leaves it out of the speed."""
        passed = time.perf_counter() - self.progress.created
        self.progress.note(f"first call after {passed:.1f} s, compilation included")
        self.progress.skip_time(self.step)

    def record(self) -> None:
        """Waits for the metrics since the last record, then checks, writes and shows them.

        Raises:
          NonFiniteError: one of them is NaN or infinite.
          ValueError: one that is to be shown is not among them.
        """
        window = _fetch(self.pending, self.scanned)
        self.pending = []
        first, advice = self.recorded + 1, self.task.advice
        check_trained(window, first=first, last=self.step, saved=self.saved, advice=advice)
        means = {name: value.mean(0) for name, value in window.items()}
        check_known("shown", self.task.shown, means)
        shown = {name: float(means[name].mean()) for name in self.task.shown}
        speed = self.progress.update(self.step, shown)
        self.writer.write(self.step, {f"train/{k}": v for k, v in {**means, **speed}.items()})
        self.recorded = self.step

    def validate(self, *, lasting: bool) -> None:
        """Evaluates the state, and takes it over where it is the best so far.

        Args:
          lasting: a longer run makes this validation as well, so the checkpoints remember it.

        Raises:
          NonFiniteError: what is monitored is NaN or infinite.
          ValueError: it is not among the values, or one of them is no scalar.
        """
        with status.phase(f"validating at step {self.step}", silent=not distributed.is_main()):
            values = self.task.evaluate(self.state)
        check_evaluated(values, self.state)
        if self.best is not None and (name := self.task.monitor) is not None:
            check_known("monitor", (name,), values)
            with np.errstate(over="ignore"):  # an infinity, which is refused
                value = np.float32(values[name])
            step, advice = self.step, self.task.advice
            check_validated(name, value, step=step, saved=self.saved, advice=advice)
            self.best = _update_best(self.best, value, self.state)
            if lasting:
                self.lasting_best = self.best
        if not self.writer.has_validation(self.step):
            self.writer.write(self.step, {f"validation/{k}": v for k, v in values.items()})
        chosen = self.task.shown_of_validation
        names = values if chosen is None else chosen
        line = "  ".join(f"{name} {float(np.mean(values[name])):.4g}" for name in names)
        self.progress.note(f"validation at step {self.step}: {line}")
        self.progress.skip_time(self.step)

    def save(self, *, validated: bool) -> None:
        """Saves the state, and with it the best parameters that a longer run would remember.

        Args:
          validated: the validation that is due at this step, if any, need not be made again.

        Raises:
          CheckpointError: it cannot be written, or the one before could not.
        """
        saved = self.state if self.best is None else (self.state, self.lasting_best)
        self.checkpoints.save(self.step, saved, {"seconds": self.seconds, "validated": validated})
        self.saved = self.step

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Closes the records, and waits for the last checkpoint, when the context is left.

        Raises:
          CheckpointError: the last checkpoint cannot be written.
          PeerError: another process is gone, for which closing the checkpoints would wait.
        """
        lost = False
        try:
            with distributed.naming_lost_peers():
                yield
        except (distributed.PeerError, jax.errors.JaxRuntimeError):
            lost = jax.process_count() > 1
            raise
        finally:
            self.progress.close()
            try:
                self.writer.close()  # a full disk fails here, and the checkpoint may be whole
            finally:
                if not lost:
                    silent = not distributed.is_main()
                    with status.phase("writing the last checkpoint", silent=silent):
                        self.checkpoints.close()


def start_or_restore(task: Task, config: LoopConfig, workdir: Path, mesh: Mesh) -> Session:
    """Starts a run anew, or restores it from the newest checkpoint in its directory.

    Args:
      task: the functions, keys and data.
      config: lengths and intervals.
      workdir: a directory; the records in it that are beyond the checkpoint are dropped.
      mesh: the devices; state and data are replicated over it.

    Returns:
      The session, before its first call.

    Raises:
      ValueError: the checkpoint is of a step where the run of `config` is never seen, or
        a jitted evaluation has no value that `Task.monitor` names, or one that is no scalar.
      CheckpointError: the checkpoint cannot be read.
    """
    began = time.perf_counter()
    main = distributed.is_main()
    checkpoints = Checkpoints(workdir)
    saved = checkpoints.latest_step
    if saved is not None:
        _check_continues(saved, config, workdir)
    doing = "initializing" if saved is None else f"reading the checkpoint of step {saved}"
    with status.phase(doing, silent=not main):
        on_devices = lambda x: x if isinstance(x, jax.Array) else sharding.replicate(mesh, x)
        data = jax.tree.map(on_devices, task.data)
        key_init, key_train = sharding.replicate(mesh, (task.key_init, task.key_train))
        if saved is None:
            start = _initialize(task, key_init, data, mesh)
        else:
            start = _restore(task, key_init, data, mesh, checkpoints, saved)
    if config.eval_interval and isinstance(task.evaluate, jax.stages.Wrapped):
        # Compiled or not, it is traced but once: this costs nothing, and saves a training.
        values = jax.eval_shape(task.evaluate, start.state)
        check_evaluated(values, start.state)
        if task.monitor:
            check_known("monitor", (task.monitor,), values)
    writer = MetricsWriter(workdir, start.step) if main else NoMetrics()
    progress = Progress(start.step, config.num_steps, task.images_per_step, silent=not main)
    if saved is not None:
        progress.note(f"continuing from step {saved}")
    return Session(
        task=task,
        checkpoints=checkpoints,
        writer=writer,
        progress=progress,
        step_fn=_compiled(task, config, mesh, data, key_train, start.step),
        scanned=config.steps_per_call > 1,
        began=began - start.seconds,
        state=start.state,
        best=start.best,
        lasting_best=start.best,
        step=start.step,
        recorded=start.step,
        saved=saved,
        validated=start.validated,
    )


def _check_continues(saved: int, config: LoopConfig, workdir: Path) -> None:
    """Raises ValueError unless a run of these lengths comes by the saved step."""
    if saved > config.num_steps:
        raise ValueError(
            f"{workdir} holds the state of step {saved}, beyond num_steps={config.num_steps}; "
            "train at least as long, or in another directory"
        )
    if saved % config.steps_per_call:
        raise ValueError(
            f"{workdir} holds the state of step {saved}, which calls of steps_per_call="
            f"{config.steps_per_call} steps pass by; continue it with a divisor of {saved}, or "
            "train in another directory"
        )


def _initialize(task: Task, key: jax.Array, data: PyTree, mesh: Mesh) -> _Start:
    everywhere = sharding.replicated(mesh)
    options = _compiler.quick(mesh)  # it runs once, so that code is not polished
    init = jax.jit(task.init, out_shardings=everywhere, compiler_options=options)
    state = init(key, data)
    init_best = jax.jit(best_params.init, out_shardings=everywhere)
    return _Start(state, init_best(state) if task.monitor else None)


def _restore(
    task: Task, key: jax.Array, data: PyTree, mesh: Mesh, checkpoints: Checkpoints, step: int
) -> _Start:
    like = jax.eval_shape(task.init, key, data)
    if task.monitor:
        like = (like, jax.eval_shape(best_params.init, like))
    restored, info = checkpoints.restore(step, like, sharding.replicated(mesh))
    state, best = restored if task.monitor else (restored, None)
    return _Start(state, best, step, info["validated"], info["seconds"])


def _compiled(
    task: Task, config: LoopConfig, mesh: Mesh, data: PyTree, key: jax.Array, step: int
) -> Callable[[TrainState], tuple[TrainState, Metrics]]:
    """Returns the call of `steps_per_call` steps, which is compiled when it is first made."""
    num_steps = config.steps_per_call
    feed = itertools.repeat(data) if task.feed is None else task.feed(step, num_steps)
    options = _compiler.of_step(task, mesh)
    everywhere = sharding.replicated(mesh)
    run = jax.jit(
        task.call(num_steps), donate_argnums=0, out_shardings=everywhere, compiler_options=options
    )
    must_wait = sharding.must_wait(mesh)
    first = True

    def call(state: TrainState) -> tuple[TrainState, Metrics]:
        nonlocal first
        data = next(feed)
        if first:
            first = False
            with status.phase("compiling the step", silent=not distributed.is_main()):
                return jax.block_until_ready(run(state, data, key))
        state, metrics = run(state, data, key)
        return state, jax.block_until_ready(metrics) if must_wait else metrics

    return call


_update_best = jax.jit(best_params.update)


def _fetch(pending: list[Metrics], scanned: bool) -> dict[str, np.ndarray]:
    """Brings metrics to the host, one row a step; a scanned call holds several rows."""
    fetched: list[Mapping[str, np.ndarray]] = jax.device_get(pending)
    join = np.concatenate if scanned else np.stack
    return {name: join([metrics[name] for metrics in fetched]) for name in fetched[0]}
