"""The parameters that did best on held-out data so far, seed by seed.

They travel inside the run's checkpoints, so that a resumed run remembers them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dvae.train.state import TrainState

__all__ = ["Best", "init", "update"]

PyTree = Any


class Best(NamedTuple):
    """The parameters that validation preferred, of one seed or of S along a leading axis."""

    value: jax.Array  # float32 [] or [S], the lowest value of the monitored metric
    step: jax.Array  # int32 [] or [S], when it was reached
    params: PyTree  # the parameters of that step
    model_state: PyTree  # and the state that the loss kept beside them


def init(state: TrainState) -> Best:
    """Returns the best so far before anything was evaluated: any finite value improves on it.

    Args:
      state: of one seed, or of S along a leading axis.

    Returns:
      An infinite value with the step and copies of the parameters of `state`.
    """
    value = jnp.full(state.step.shape, jnp.inf, jnp.float32)
    # Copies: the step's own buffers are donated to the next call.
    params, model_state = jax.tree.map(jnp.copy, (state.params, state.model_state))
    return Best(value, jnp.copy(state.step), params, model_state)


def update(best: Best, value: jax.Array, state: TrainState) -> Best:
    """Replaces the best parameters of every seed whose value is lower than before, or the same.

    Args:
      best: the best until now.
      value: float32 [] or [S], the monitored metric at `state`.
      state: what was evaluated, of as many seeds as `best`.

    Returns:
      The best of both, seed by seed, of equal ones the later; a NaN improves on nothing.
    """
    improved = (value < best.value) | ((value == best.value) & jnp.isfinite(value))
    now = Best(jnp.asarray(value, jnp.float32), state.step, state.params, state.model_state)

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        wide = improved.reshape(improved.shape + (1,) * (new.ndim - improved.ndim))
        return jnp.where(wide, new, old)

    return jax.tree.map(choose, now, best)
