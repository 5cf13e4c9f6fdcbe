"""What a run trains: the functions and data that a program hands to the loop."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from dvae.train.state import StepFn, TrainState, scan_batches, scan_steps

__all__ = ["ADVICE", "Task", "check_evaluated", "check_known"]

PyTree = Any
ADVICE = "A smaller learning rate or float32 usually helps"


class Task(NamedTuple):
    """What is trained: functions of pure arrays."""

    init: Callable[[jax.Array, PyTree], TrainState]  # (key, data) -> state
    step: StepFn  # (state, data, key) -> (state, metrics)
    # On held-out data, on the host: a scalar by name, or one value a seed.
    evaluate: Callable[[TrainState], Mapping[str, Any]]
    data: PyTree  # what `step` draws its batches from: on the devices, or on the host and small
    key_init: jax.Array
    key_train: jax.Array
    images_per_step: int  # for the speed that is shown
    shown: tuple[str, ...] = ("loss",)  # the metrics beside the progress bar
    # The validation metrics on the line that says them in the terminal; None: all.
    shown_of_validation: tuple[str, ...] | None = None
    # The validation metric whose best step is kept; lower is better, so negate what should grow.
    # A name that there is not is found at the start if `evaluate` is jitted, else at the first
    # validation.
    monitor: str | None = None
    advice: str = ADVICE  # against non-finite metrics
    # (step, steps in a call) -> what each call from there on has as data; `data` is then for
    # `init` alone. See `feeding`.
    feed: Callable[[int, int], Iterator[PyTree]] | None = None
    # Code of the step for CPUs is compiled soon rather than polished. For large programs whose time
    # is that of convolutions and products, which are compiled already.
    quick_to_compile: bool = False
    # Metrics that only the last step of a call computes; the step is then compiled twice. Without
    # its norm, too, a gradient that is not finite shows: in the loss of the step after it.
    last_only: tuple[str, ...] = ()

    def call(self, num_steps: int) -> StepFn:
        """Returns the function that is compiled: the step, or several of them."""
        if num_steps == 1:
            return self.step
        scan = scan_steps if self.feed is None else scan_batches
        return scan(self.step, num_steps, last_only=self.last_only)


def check_known(field: str, names: tuple[str, ...], metrics: Mapping[str, Any]) -> None:
    """Raises ValueError for a name of a task's field that no metric has."""
    if unknown := [name for name in names if name not in metrics]:
        raise ValueError(
            f"Task.{field} names {', '.join(unknown)}, and the metrics are {', '.join(metrics)}"
        )


def check_evaluated(values: Mapping[str, Any], state: TrainState) -> None:
    """Raises ValueError for values of a validation that are neither scalars nor one a seed."""
    seeds = state.step.shape
    if wide := [
        f"{k} {shape}" for k, x in values.items() if (shape := np.shape(x)) not in ((), seeds)
    ]:
        each = f", or have one value for each of {seeds[0]} seeds" if seeds else ""
        raise ValueError(
            f"metrics of evaluate must be scalars{each}, got {', '.join(wide)}: take their means"
        )
