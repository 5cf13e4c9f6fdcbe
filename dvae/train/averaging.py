"""Exponential moving averages of what is trained, kept beside the optimizer's state.

    step = averaging.average(step, of=lambda params, model_state: params, decay=0.999)
    state = averaging.start(state, of=...)
    averaging.averaged(state)                # the average, to evaluate

The average travels in checkpoints as part of `TrainState.opt_state`. The step that is wrapped sees
the optimizer's own state, and trains bit for bit as without an average.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dvae.train.state import Metrics, StepFn, TrainState

__all__ = ["Averaged", "Select", "average", "averaged", "start"]

PyTree = Any
Select = Callable[[PyTree, PyTree], PyTree]  # (params, model_state) -> the arrays that are averaged


class Averaged(NamedTuple):
    """An optimizer's state, and the average beside it."""

    opt_state: PyTree
    average: PyTree


def start(state: TrainState, *, of: Select) -> TrainState:
    """Returns the first state, whose average is what training starts from.

    Args:
      state: before the first step.
      of: (params, model_state) -> the floating-point arrays to average.
    """
    first = jax.tree.map(jnp.copy, of(state.params, state.model_state))
    return state._replace(opt_state=Averaged(state.opt_state, first))


def average(step_fn: StepFn, *, of: Select, decay: float) -> StepFn:
    """Returns a step that also moves the average: a <- d a + (1 - d) x after each update.

    After t updates d is min(decay, (t + 1) / (t + 10)), so that the average forgets the first
    parameters at once.

    Args:
      step_fn: (state, data, key) -> (state, metrics); it sees the optimizer's state alone.
      of: (params, model_state) -> the arrays to average.
      decay: below 1, a step.

    Raises:
      ValueError: decay is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be at least 0 and below 1, got {decay}")

    def step(state: TrainState, data: PyTree, key: jax.Array) -> tuple[TrainState, Metrics]:
        opt_state, before = state.opt_state
        after, metrics = step_fn(state._replace(opt_state=opt_state), data, key)
        new = of(after.params, after.model_state)
        d = jnp.minimum(decay, (after.step + 1.0) / (after.step + 10.0))
        moved = jax.tree.map(lambda a, x: a + (1 - d).astype(a.dtype) * (x - a), before, new)
        return after._replace(opt_state=Averaged(after.opt_state, moved)), metrics

    return step


def averaged(state: TrainState) -> PyTree:
    """Returns the average that a state has; of several seeds with their leading axis."""
    return state.opt_state.average
