"""What `--dry_run` prints: settings, sizes, memory and expected time of a run."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from dvae.data import Dataset
from dvae.train import distributed, dry_run, loop
from experiments.common import flag_help, records
from experiments.common.config import RunConfig

_FINISHING_SECONDS = 10.0  # of drawing and writing
_UNKNOWN = ", without the evaluation: its length is unknown, as --eval_interval=0 times none"


def report(
    config: RunConfig, task: loop.Task, images: Dataset, workdir: Path, mesh: Mesh
) -> dict[str, Any]:
    """Measures a run without training it, prints what it would take, and returns that.

    Args:
      config: all settings.
      task: what would be trained.
      images: the data set.
      workdir: where the run would be; nothing is written there.
      mesh: the devices.
    """
    lengths = config.loop()
    measured = dry_run.measure(task, lengths, mesh)
    seconds = _seconds(config, measured, images, monitored=task.monitor is not None)
    if distributed.is_main():
        flag_help.tell(describe(config, measured, seconds, images, workdir))
    return {**measured._asdict(), "seconds": seconds}


def _seconds(
    config: RunConfig, measured: dry_run.Measured, images: Dataset, *, monitored: bool
) -> dict[str, float]:
    """Returns the expected seconds of the parts of a run.

    Args:
      config: all settings; without `eval_interval` the evaluation is unknown, and left out.
      measured: of the run.
      images: the data set.
      monitored: whether the last step is validated in any case.
    """
    validations = 0
    if config.eval_interval:
        round_up = config.num_steps % config.eval_interval > 0 and monitored
        validations = config.num_steps // config.eval_interval + round_up
    fixed = measured.validation_fixed_seconds
    evaluation = config.evaluation_rounds() * fixed
    if config.eval_interval:
        evaluation += config.evaluation_work(images) * (measured.validation_seconds - fixed)
    return {
        "compiling": measured.compile_seconds + 2 * measured.validation_compile_seconds,
        "training": config.num_steps / config.steps_per_call * measured.call_seconds,
        "validations": validations * measured.validation_seconds,
        "evaluation": _FINISHING_SECONDS + evaluation,
    }


def describe(
    config: RunConfig,
    measured: dry_run.Measured,
    seconds: dict[str, float],
    images: Dataset,
    workdir: Path,
) -> str:
    """Returns the lines for the terminal."""
    rows = [(field.name, getattr(config, field.name)) for field in dataclasses.fields(config)]
    lines = [f"  {name:<22} {value if value != '' else '(empty)'}" for name, value in rows]
    step_seconds = measured.call_seconds / config.steps_per_call
    total = sum(seconds.values())
    shape = "x".join(str(size) for size in images.train.shape[1:])
    known = "" if config.eval_interval else _UNKNOWN
    parts = {
        "images": (
            f"{images.name}: {images.num_train:,} for training, {len(images.validation):,} for "
            f"validation, {len(images.test):,} for the test; {shape}, {images.train.dtype}"
        ),
        "parameters": (
            f"{measured.num_parameters // config.num_seeds:,}{_of_seeds(config)} that the "
            "optimizer trains, an estimator's own among them"
        ),
        "memory": _memory(measured.memory),
        "arithmetic": _flops(measured.flops),
        "speed": (
            f"{1000 * step_seconds:.3g} ms a step, {1 / step_seconds:.3g} steps/s, "
            f"{config.batch_size * config.num_seeds / step_seconds:.0f} images/s; mean of "
            f"{measured.calls} calls of {config.steps_per_call}"
        ),
        **{name: duration(value) for name, value in seconds.items()},
        "in all": f"{duration(total)} for {config.num_steps:,} steps: an estimate{known}",
    }
    if config.time_limit:
        spent = total - seconds["training"] - seconds["validations"]
        share = seconds["training"] + seconds["validations"]
        left = max(0.0, 60 * config.time_limit - spent)
        fitting = min(config.num_steps, int(left / share * config.num_steps))
        parts["time limit"] = (
            f"{config.time_limit:g} min are enough for about {fitting:,} of "
            f"{config.num_steps:,} steps at a time{known}"
        )
    parts["hardware"] = records.describe_hardware()
    parts["workdir"] = f"{workdir}, in which nothing was written"
    return "\n".join(
        ["settings", *lines, "", *(f"{name:<14} {text}" for name, text in parts.items())]
    )


def _of_seeds(config: RunConfig) -> str:
    return f" of each of {config.num_seeds} seeds" if config.num_seeds > 1 else ""


def _memory(memory: dry_run.Memory | None) -> str:
    if memory is None:
        return "the compiler does not say"
    of = lambda size: f"{size / 1e6:,.1f} MB"
    devices = "" if jax.device_count() == 1 else " a device"
    return (
        f"{of(memory.total)}{devices} while a step runs: state {of(memory.state)}, training set "
        f"{of(memory.data)}, temporary {of(memory.temporary)}; evaluations come on top"
    )


def _flops(flops: float | None) -> str:
    if flops is None:
        return "unknown"
    return f"{flops / 1e9:,.3g} GFLOP a step, what loops repeat counted once"


def duration(seconds: float) -> str:
    """Writes a time in its two largest units: "12 s", "3 min 20 s", "5 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
