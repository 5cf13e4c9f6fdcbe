"""Schedules of the learning rate."""

import optax

CONSTANT, LINEAR, STAIRCASE = "constant", "linear", "staircase"
# Fractions of the run at which the staircase changes, and the rates from there on.
_STAIRCASE = ((0.0, 0.1), (0.02, 1.0), (0.6, 1 / 3), (0.75, 1 / 10), (0.95, 1 / 33))


def learning_rates(schedule: str, learning_rate: float, num_steps: int) -> optax.Schedule:
    """Returns the learning rate of every step.

    Args:
      schedule: CONSTANT; LINEAR, which falls to zero at the end of the run; or STAIRCASE, 0.1 of
        the rate at first, all of it from 2 % of the run on, 1/3 from 60 %, 1/10 from 75 %, 1/33
        from 95 %.
      learning_rate: the highest.
      num_steps: of the run.
    """
    if schedule == LINEAR:
        return optax.linear_schedule(learning_rate, 0.0, num_steps)
    steps = _STAIRCASE if schedule == STAIRCASE else ((0.0, 1.0),)
    return optax.join_schedules(
        [optax.constant_schedule(learning_rate * rate) for _, rate in steps],
        [int(start * num_steps) for start, _ in steps[1:]],
    )
