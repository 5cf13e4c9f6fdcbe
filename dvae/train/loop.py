"""The loop around a train step: log, evaluate, save, resume, stop.

It knows nothing of models: `Task` brings pure functions and a data set. A run is a function of its
configuration and seed. It continues from the newest checkpoint in its directory and, because every
call of the compiled step covers the same steps as before, ends with the same parameters, bit for
bit, as a run that was never interrupted.

Several processes run the same loop in step (see `distributed`): they decide by what all of them
know alike, and only the main one writes.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from dvae.train import best as best_params
from dvae.train import distributed, lock, sharding, signals, status
from dvae.train.best import Best
from dvae.train.checkpoint import Checkpoints
from dvae.train.metrics import MetricsWriter, NoMetrics, Progress, has_validation
from dvae.train.state import StepFn, TrainState, scan_steps

__all__ = [
    "ADVICE",
    "MAX_STEPS",
    "LoopConfig",
    "NonFiniteError",
    "PyTree",
    "Result",
    "StoppedError",
    "Task",
    "fit",
]

PyTree = Any
MAX_STEPS = 2**31 - 1
ADVICE = "A smaller learning rate or float32 usually helps"


@dataclass(frozen=True)
class LoopConfig:
    """Lengths of the run, in steps.

    A `checkpoint_interval` of 0 saves only at the end, an `eval_interval` of 0 never evaluates.
    """

    num_steps: int
    steps_per_call: int = 1
    log_interval: int = 100
    eval_interval: int = 0
    checkpoint_interval: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for lengths that the calls of the step cannot keep."""
        if self.num_steps < 1 or self.steps_per_call < 1 or self.log_interval < 1:
            raise ValueError(
                "num_steps, steps_per_call and log_interval must be at least 1, got "
                f"{self.num_steps}, {self.steps_per_call} and {self.log_interval}"
            )
        for name in ("num_steps", "log_interval", "eval_interval", "checkpoint_interval"):
            value = getattr(self, name)
            if value > MAX_STEPS:
                raise ValueError(
                    f"{name}={value} must be at most {MAX_STEPS}: steps are counted in int32"
                )
            if value < 0 or value % self.steps_per_call:
                raise ValueError(
                    f"{name}={value} must be a non-negative multiple of "
                    f"steps_per_call={self.steps_per_call}: the state is only seen between calls"
                )


class Task(NamedTuple):
    """What is trained: functions of pure arrays."""

    init: Callable[[jax.Array, PyTree], TrainState]  # (key, data) -> state
    step: StepFn  # (state, data, key) -> (state, metrics)
    evaluate: Callable[[TrainState], Mapping[str, Any]]  # on held-out data, on the host
    data: PyTree  # what `step` draws its batches from: on the devices, or on the host and small
    key_init: jax.Array
    key_train: jax.Array
    images_per_step: int  # for the speed that is shown
    shown: tuple[str, ...] = ("loss",)  # the metrics beside the progress bar
    monitor: str | None = None  # the validation metric, lower is better, whose best step is kept
    advice: str = ADVICE  # against non-finite metrics


class Result(NamedTuple):
    """A finished run."""

    state: TrainState
    seconds: float  # of training, compilation and validation included; lost work is not
    best: Best | None = None  # by `Task.monitor`; None without one


class NonFiniteError(RuntimeError):
    """A metric became NaN or infinite."""


class StoppedError(RuntimeError):
    """A signal stopped the run after its state was saved."""


def _check_finite(
    metrics: Mapping[str, np.ndarray], first: int, last: int, saved: int | None, advice: str
) -> None:
    bad = sorted(name for name, value in metrics.items() if not np.isfinite(value).all())
    if bad:
        good = (
            "no checkpoint was saved before"
            if saved is None
            else f"the checkpoint of step {saved} is kept"
        )
        raise NonFiniteError(
            f"{', '.join(bad)} became non-finite between steps {first + 1} and {last}; {good}. "
            f"{advice}"
        )


def fit(task: Task, config: LoopConfig, workdir: Path, mesh: Mesh) -> Result:
    """Trains until `num_steps`, from the newest checkpoint in `workdir` if there is one.

    A finished run may go on to more steps. If nothing in `task` depends on their number, it ends
    bit for bit like the longer run from the start, which does not validate at the end of the
    shorter one: that validation then counts no more, unless it is one of `eval_interval`.

    Args:
        task: the functions, keys and data.
        config: lengths and intervals.
        workdir: a directory; receives `checkpoints/`, `metrics.jsonl` and `tensorboard/`, and is
            locked against other processes.
        mesh: the devices; state and data are replicated over it, the step shards its batch itself.

    Returns:
        The last state, the time, and with `Task.monitor` the best validation's, the last step's
        among them (its value is infinite where `eval_interval` is 0).

    Raises:
        ValueError: the checkpoint is of a later step than `num_steps`.
        LockedError: another process trains in `workdir`.
        NonFiniteError: a metric is not finite; the last checkpoint before it is kept.
        StoppedError: SIGTERM, SIGINT or SIGHUP came, to any process; the state was saved first.
            Before the step is compiled they act as they do elsewhere: nothing is lost.
        CheckpointError: a checkpoint cannot be read or written.
        PeerError: another process of the run is gone.
    """
    with lock.hold(workdir) if distributed.is_main() else contextlib.nullcontext() as held:
        return _fit(task, config, workdir, mesh, held.check if held else lambda: None)


def _fit(
    task: Task, config: LoopConfig, workdir: Path, mesh: Mesh, check_lock: Callable[[], None]
) -> Result:
    began = time.perf_counter()
    main = distributed.is_main()
    everywhere = sharding.replicated(mesh)
    checkpoints = Checkpoints(workdir)
    saved = checkpoints.latest_step
    if saved is not None and saved > config.num_steps:
        raise ValueError(
            f"{workdir} holds the state of step {saved}, beyond num_steps={config.num_steps}; "
            "train at least as long, or in another directory"
        )
    doing = "initializing" if saved is None else f"reading the checkpoint of step {saved}"
    with status.phase(doing, silent=not main):
        on_devices = lambda x: x if isinstance(x, jax.Array) else sharding.replicate(mesh, x)
        data = jax.tree.map(on_devices, task.data)
        key_init, key_train = sharding.replicate(mesh, (task.key_init, task.key_train))
        if saved is None:
            state = jax.jit(task.init, out_shardings=everywhere)(key_init, data)
            init_best = jax.jit(best_params.init, out_shardings=everywhere)
            best = init_best(state) if task.monitor else None
            start, validated = 0, True
        else:
            like = jax.eval_shape(task.init, key_init, data)
            if task.monitor:
                like = (like, jax.eval_shape(best_params.init, like))
            restored, info = checkpoints.restore(saved, like, everywhere)
            state, best = restored if task.monitor else (restored, None)
            start = saved
            validated = info["validated"]
            began -= info["seconds"]
    scanned = config.steps_per_call > 1
    step_fn = scan_steps(task.step, config.steps_per_call) if scanned else task.step
    run_call = jax.jit(step_fn, donate_argnums=0, out_shardings=everywhere)
    update_best = jax.jit(best_params.update)
    one_by_one = sharding.must_wait(mesh)

    def first_call(*inputs: Any) -> tuple[TrainState, Mapping[str, jax.Array]]:
        with status.phase("compiling the step", silent=not main):
            return jax.block_until_ready(run_call(*inputs))

    writer = MetricsWriter(workdir, start) if main else NoMetrics()
    progress = Progress(start, config.num_steps, task.images_per_step, silent=not main)
    if saved is not None:
        progress.note(f"continuing from step {saved}")
    pending: list[Mapping[str, jax.Array]] = []
    step = logged = start

    def due(step: int) -> bool:
        # The last step is a candidate for the best one, whatever the interval.
        last = task.monitor is not None and step >= config.num_steps
        return config.eval_interval > 0 and (last or _multiple(step, config.eval_interval))

    def evaluate() -> None:
        nonlocal best
        with status.phase(f"validating at step {step}", silent=not main):
            values = task.evaluate(state)
        if best is not None and task.monitor is not None:
            best = update_best(best, np.float32(values[task.monitor]), state)
        if main and not has_validation(workdir, step):
            writer.write(step, {f"validation/{k}": v for k, v in values.items()})
        line = "  ".join(f"{k} {float(np.mean(v)):.4g}" for k, v in values.items())
        progress.note(f"validation at step {step}: {line}")
        progress.skip_time(step)

    # The signals are held until the last checkpoint is written.
    with signals.StopRequest() as stop:
        lost = False  # of peers, for whom closing the checkpoints would wait
        try:
            # A signal at the time of a validation saves first and leaves the validation to us.
            if due(start) and not validated:
                evaluate()
            while step < config.num_steps:
                call = first_call if step == start else run_call
                state, metrics = call(state, data, key_train)
                if one_by_one:
                    jax.block_until_ready(metrics)
                pending.append(metrics)
                step += config.steps_per_call
                if step == start + config.steps_per_call:
                    stop.arm()  # until here there is nothing to save
                    passed = time.perf_counter() - progress.created
                    progress.note(f"first call after {passed:.1f} s, compilation included")
                    progress.skip_time(step)
                # Read once a call: what is reported as saved is saved.
                stopping = distributed.agreed(
                    stop.received, asking=_multiple(step, config.log_interval)
                )
                ending = step >= config.num_steps or stopping is not None
                evaluating = due(step) and stopping is None
                saving = ending or _multiple(step, config.checkpoint_interval)
                if saving or evaluating or _multiple(step, config.log_interval):
                    window = _fetch(pending, scanned)
                    pending = []
                    _check_finite(window, logged, step, saved, task.advice)
                    means = {name: value.mean(0) for name, value in window.items()}
                    shown = {name: float(means[name].mean()) for name in task.shown}
                    speed = progress.update(step, shown)
                    writer.write(step, {f"train/{k}": v for k, v in {**means, **speed}.items()})
                    logged = step
                else:
                    progress.advance(step)
                before = best
                if evaluating:
                    evaluate()
                if saving:
                    check_lock()
                    # A longer run makes no validation between the intervals: that of the last
                    # step is not saved, but made again by a new start.
                    lasting = evaluating and _multiple(step, config.eval_interval)
                    kept = state if best is None else (state, best if lasting else before)
                    seconds = time.perf_counter() - began
                    checkpoints.save(step, kept, {"seconds": seconds, "validated": lasting})
                    saved = step
                if stopping is not None:
                    raise _stopped(stopping, step)
        except jax.errors.JaxRuntimeError as error:
            if jax.process_count() == 1:
                raise
            lost = True
            raise distributed.PeerError.after(error) from error
        finally:
            progress.close()
            writer.close()
            if not lost:
                with status.phase("writing the last checkpoint", silent=not main):
                    checkpoints.close()
    if (stopping := distributed.agreed(stop.received, asking=True)) is not None:
        raise _stopped(stopping, step)  # it came after the last step
    return Result(state, time.perf_counter() - began, best)


def _stopped(by: signal.Signals, step: int) -> StoppedError:
    return StoppedError(
        f"stopped by {by.name} after step {step}, which is saved; "
        "the same command continues from there"
    )


def _multiple(step: int, interval: int) -> bool:
    """Tells whether something done every `interval` steps (0: never) is due at `step`."""
    return interval > 0 and step % interval == 0


def _fetch(pending: list[Mapping[str, jax.Array]], scanned: bool) -> dict[str, np.ndarray]:
    """Brings metrics to the host, one row a step; a scanned call holds several rows."""
    fetched: list[Mapping[str, np.ndarray]] = jax.device_get(pending)
    join = np.concatenate if scanned else np.stack
    return {name: join([metrics[name] for metrics in fetched]) for name in fetched[0]}
