"""What a run does after which step: pure functions of its lengths.

    schedule = Schedule(LoopConfig(num_steps=12, eval_interval=4))
    schedule.at(4)  # Due(call=1, log=False, validate=True, lasting=True, save=False)

Nothing here depends on where a run was started or continued, so a resumed run does the same at the
same steps.
"""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

__all__ = ["MAX_STEPS", "Due", "LoopConfig", "Schedule"]

MAX_STEPS = 2**31 - 1


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
        for name, value in vars(self).items():
            if not isinstance(value, Integral):
                raise ValueError(f"{name}={value!r} must be a whole number of steps, of type int")
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
                    f"steps_per_call={self.steps_per_call}: the state is only seen between calls; "
                    f"take {self._remedy(name)}"
                )

    def _remedy(self, name: str) -> str:
        """Names a value of one length that fits the calls, and calls that fit all lengths."""
        value, call = getattr(self, name), self.steps_per_call
        if value < 0:
            return f"{name}=0"
        lengths = (value, self.num_steps, self.log_interval)
        intervals = (self.eval_interval, self.checkpoint_interval)
        fitting = math.gcd(call, *lengths, *(max(0, interval) for interval in intervals))
        # Rounded up, so that a length does not become 0; down where there is no such step.
        rounded = -(-value // call) * call
        rounded -= call if rounded > MAX_STEPS else 0
        longer = f"{name}={rounded} or " if rounded else ""
        return f"{longer}steps_per_call={fitting}"


class Due(NamedTuple):
    """What is due after some number of steps."""

    call: int  # steps of the next compiled call, when all else is done; 0: the run ends here
    log: bool  # `log_interval` is over
    validate: bool
    lasting: bool  # a longer run makes this validation as well
    save: bool

    @property
    def record(self) -> bool:
        """Returns whether metrics are read: before a validation or checkpoint they are checked."""
        return self.log or self.validate or self.save

    def cut_short(self) -> "Due":
        """Returns what is due instead if a signal stops the run here.

        The state is saved first. The validation is left to the next start.
        """
        return self._replace(call=0, validate=False, lasting=False, save=True)

    def cut_off(self, *, monitored: bool) -> "Due":
        """Returns what is due instead if the run's time is over here.

        Args:
          monitored: whether this step is a candidate for the best one, as the last one is. A longer
            run does not remember that validation.
        """
        return self._replace(call=0, validate=self.validate or monitored, save=True)


class Schedule(NamedTuple):
    """When a run logs, validates, saves and ends."""

    config: LoopConfig
    monitored: bool = False  # the last step is then a candidate for the best one

    def at(self, step: int) -> Due:
        """Returns what is due after `step` steps.

        Before the first step there is nothing to log, validate or save.

        Args:
          step: steps done, 0 to `num_steps`, a multiple of `steps_per_call`.

        Returns:
          What to do before the next call, and the steps of that call.

        Raises:
          ValueError: the run is never seen after `step` steps.
        """
        config = self.config
        if not 0 <= step <= config.num_steps or step % config.steps_per_call:
            inside = min(max(step, 0), config.num_steps)
            raise ValueError(
                f"step={step} must be a multiple of steps_per_call={config.steps_per_call} between "
                f"0 and num_steps={config.num_steps}: the state is only seen between calls; take "
                f"step={inside - inside % config.steps_per_call}"
            )
        last = step == config.num_steps
        lasting = _is_multiple(step, config.eval_interval)
        return Due(
            call=0 if last else config.steps_per_call,
            log=_is_multiple(step, config.log_interval),
            validate=lasting or (last and self.monitored and config.eval_interval > 0),
            lasting=lasting,
            save=last or _is_multiple(step, config.checkpoint_interval),
        )


def _is_multiple(step: int, interval: int) -> bool:
    """Returns whether what is done every `interval` steps (0: never) is done after `step`."""
    return interval > 0 and step > 0 and step % interval == 0
