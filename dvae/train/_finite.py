"""The checks that stop a run whose numbers are NaN or infinite."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["NonFiniteError", "check_trained", "check_validated"]


class NonFiniteError(RuntimeError):
    """A metric became NaN or infinite."""


def check_trained(
    metrics: Mapping[str, np.ndarray], *, first: int, last: int, saved: int | None, advice: str
) -> None:
    """Checks the metrics of steps `first` to `last`.

    Args:
      metrics: any shapes, by name.
      first: the first of the steps.
      last: the last of them.
      saved: step of the last checkpoint; None: there is none.
      advice: what usually helps.

    Raises:
      NonFiniteError: one of them is NaN or infinite.
    """
    if bad := sorted(name for name, value in metrics.items() if not np.isfinite(value).all()):
        raise NonFiniteError(
            f"{', '.join(bad)} became non-finite between steps {first} and {last}; {_kept(saved)}. "
            f"{advice}"
        )


def check_validated(
    name: str, value: ArrayLike, *, step: int, saved: int | None, advice: str
) -> None:
    """Checks the monitored metric of a validation, of which a NaN would never be the best.

    Args:
      name: of the metric.
      value: [] or [S] of several seeds.
      step: that was validated.
      saved: step of the last checkpoint; None: there is none.
      advice: what usually helps.

    Raises:
      NonFiniteError: it is NaN or infinite, of any seed.
    """
    if not np.isfinite(value).all():
        raise NonFiniteError(
            f"{name} of the validation at step {step} is {np.asarray(value).tolist()}, which "
            f"is not finite; {_kept(saved)}. Look at what evaluate computes. {advice}"
        )


def _kept(saved: int | None) -> str:
    if saved is None:
        return "no checkpoint was saved before"
    return f"the checkpoint of step {saved} is kept"
