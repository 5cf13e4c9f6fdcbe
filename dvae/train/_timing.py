"""How long an evaluation takes, and how long one of more images would.

    took = timed(lambda: task.evaluate(state))
    took.of(work=100.0, rounds=2.0)  # seconds of an evaluation of a hundred times the images

The longer one takes the time of `status.fixed_length` no longer than the other.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from dvae.train import status

__all__ = ["Timed", "timed"]


class Timed(NamedTuple):
    """Seconds of an evaluation."""

    seconds: float  # compilation excluded
    fixed: float  # of them those of `status.fixed_length`
    compiling: float  # beside them

    def of(self, work: float, rounds: float) -> float:
        """Returns the seconds of another evaluation.

        Args:
          work: how many times the images and samples it takes.
          rounds: how many times it does what is of fixed length.
        """
        return rounds * self.fixed + work * (self.seconds - self.fixed)


def timed(evaluate: Callable[[], object]) -> Timed:
    """Calls a function and returns how long it took."""
    compiled, fixed = status.compile_seconds(), status.fixed_seconds()
    began = time.perf_counter()
    evaluate()
    passed = time.perf_counter() - began
    compiling = status.compile_seconds() - compiled
    seconds = max(0.0, passed - compiling)
    return Timed(seconds, min(seconds, status.fixed_seconds() - fixed), compiling)
