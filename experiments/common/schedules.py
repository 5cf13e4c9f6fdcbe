"""Schedules of the learning rate, and of what else changes along a run."""

import jax
import jax.numpy as jnp
import optax

CONSTANT, LINEAR, STAIRCASE, COSINE = "constant", "linear", "staircase", "cosine"
# Fractions of the run at which the staircase changes, and the rates from there on.
_STAIRCASE = ((0.0, 0.1), (0.02, 1.0), (0.6, 1 / 3), (0.75, 1 / 10), (0.95, 1 / 33))


def learning_rates(
    schedule: str, learning_rate: float, num_steps: int, *, share: float = 1.0
) -> optax.Schedule:
    """Returns the learning rate of every step.

    Args:
      schedule: CONSTANT; LINEAR or COSINE, which fall to zero at the end of the run; or STAIRCASE,
        0.1 of the rate at first, all of it from 2 % of the run on, 1/3 from 60 %, 1/10 from 75 %,
        1/33 from 95 %.
      learning_rate: the highest.
      num_steps: of the run.
      share: of the run, at its end, over which LINEAR and COSINE fall.
    """
    if schedule in (LINEAR, COSINE):
        falling = max(1, round(share * num_steps))
        if schedule == COSINE:
            fall = optax.cosine_decay_schedule(learning_rate, falling)
        else:
            fall = optax.linear_schedule(learning_rate, 0.0, falling)
        constant = optax.constant_schedule(learning_rate)
        begin = num_steps - falling
        return optax.join_schedules([constant, fall], [begin]) if begin else fall
    steps = _STAIRCASE if schedule == STAIRCASE else ((0.0, 1.0),)
    return optax.join_schedules(
        [optax.constant_schedule(learning_rate * rate) for _, rate in steps],
        [int(start * num_steps) for start, _ in steps[1:]],
    )


def linear(first: float, last: float, step: jax.Array, num_steps: int) -> jax.Array:
    """Returns first + (last - first) min(1, step / num_steps): float32 scalar, first at step 0.

    Args:
      first: any number.
      last: likewise.
      step: int32 scalar, steps done.
      num_steps: until the last value, at least 1.
    """
    progress = jnp.minimum(step / num_steps, 1.0)
    change = last - first
    return (first + change * progress).astype(jnp.float32)


def geometric(first: float, last: float, step: jax.Array, num_steps: int) -> jax.Array:
    """Returns first * (last / first)^(step / num_steps): float32 scalar, first at step 0.

    Args:
      first: above 0.
      last: above 0.
      step: int32 scalar, steps done.
      num_steps: of the run.
    """
    done = jnp.minimum(1.0, step / num_steps)
    return first * jnp.power(last / first, done)


def in_last_share(share: float, step: jax.Array, num_steps: int) -> jax.Array:
    """Returns whether the step is one of the last `share` of the run: boolean scalar."""
    return step >= num_steps - round(share * num_steps)
