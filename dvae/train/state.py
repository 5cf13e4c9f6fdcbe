"""The train state and the train step, as pure functions.

A model enters through two functions and a data set through a third:

    init_fn(key, data) -> (params, model_state)
    loss_fn(params, model_state, batch, key, step) -> (loss, (model_state, metrics))
    draw_fn(key, data, step) -> batch

`make_step` turns them into `step(state, data, key) -> (state, metrics)`. The key is the same at
every step: all randomness of step t comes from folding t into it, so a run is a function of its
seed and a resumed run repeats an uninterrupted one. `scan_steps` runs the same function several
times in one call; `vmap_seeds` runs it for several seeds at once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

__all__ = [
    "DrawFn",
    "InitFn",
    "LossFn",
    "Metrics",
    "StepFn",
    "TrainState",
    "draw_key",
    "init",
    "make_step",
    "scan_batches",
    "scan_steps",
    "vmap_seeds",
]

PyTree = Any
Metrics = dict[str, jax.Array]
InitFn = Callable[[jax.Array, PyTree], tuple[PyTree, PyTree]]
LossFn = Callable[
    [PyTree, PyTree, PyTree, jax.Array, jax.Array], tuple[jax.Array, tuple[PyTree, Metrics]]
]
DrawFn = Callable[[jax.Array, PyTree, jax.Array], PyTree]


class TrainState(NamedTuple):
    """Everything that a step reads and writes."""

    step: jax.Array  # int32 [], the number of steps done
    params: PyTree  # what the optimizer moves
    model_state: PyTree  # what the loss itself updates: EMA codebooks, chains, running means
    opt_state: PyTree  # of the optimizer


StepFn = Callable[[TrainState, PyTree, jax.Array], tuple[TrainState, Metrics]]


def init(
    init_fn: InitFn, optimizer: optax.GradientTransformation, key: jax.Array, data: PyTree
) -> TrainState:
    """Returns the state before the first step.

    Args:
      init_fn: (key, data) -> (params, model_state).
      optimizer: of `params`.
      key: typed key.
      data: what `draw_fn` draws from.

    Raises:
      ValueError: `init_fn` returns anything else.
    """
    found = init_fn(key, data)
    if not isinstance(found, tuple) or len(found) != 2:
        of = f"tuple of {len(found)}" if isinstance(found, tuple) else type(found).__name__
        raise ValueError(
            f"init_fn must return (params, model_state), got a {of}; without a state: (params, ())"
        )
    params, model_state = found
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, optimizer.init(params))


def make_step(loss_fn: LossFn, draw_fn: DrawFn, optimizer: optax.GradientTransformation) -> StepFn:
    """Returns the train step `(state, data, key) -> (state, metrics)`.

    The metrics are the loss function's, with `loss` and `grad_norm` (the global L2 norm) added; a
    non-finite gradient therefore shows in the metrics of the step that made it.

    Args:
      loss_fn: (params, model_state, batch, key, step) -> (loss, (model_state, metrics)); loss and
        metrics are scalars.
      draw_fn: (key, data, step) -> batch; the key is the same at every step.
      optimizer: of `params`.

    Raises:
      ValueError: at the first step, if the loss function returns anything else.
    """

    def checked(*arguments: Any) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
        match found := loss_fn(*arguments):
            case (loss, (_, {**metrics})):
                _check_scalars(loss, metrics)
                return found
        raise ValueError(
            f"loss_fn must return (loss, (model_state, metrics)), got {jax.tree.structure(found)}; "
            "without a state and metrics: (loss, ((), {}))"
        )

    def step(state: TrainState, data: PyTree, key: jax.Array) -> tuple[TrainState, Metrics]:
        # Folded rather than split: the same key comes with every step, and only the folds are used
        # up.
        key_batch, key_loss = draw_key(key), jax.random.fold_in(key, 1)
        batch = draw_fn(key_batch, data, state.step)
        grad_fn = jax.value_and_grad(checked, has_aux=True)
        (loss, (model_state, metrics)), grads = grad_fn(
            state.params,
            state.model_state,
            batch,
            jax.random.fold_in(key_loss, state.step),
            state.step,
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {**metrics, "loss": loss, "grad_norm": optax.tree.norm(grads)}
        return TrainState(state.step + 1, params, model_state, opt_state), metrics

    return step


def _check_scalars(loss: Any, metrics: Metrics) -> None:
    if shape := jnp.shape(loss):
        raise ValueError(
            f"loss_fn must return a scalar loss, got shape {shape}: take its mean over the batch"
        )
    if wide := [f"{name} {shape}" for name, x in metrics.items() if (shape := jnp.shape(x))]:
        raise ValueError(
            f"metrics of loss_fn must be scalars, got {', '.join(wide)}: take their means, or name "
            "each value"
        )


def draw_key(key: jax.Array) -> jax.Array:
    """Returns the key that `draw_fn` is given at every step of a run with this key."""
    return jax.random.fold_in(key, 0)


def scan_batches(step_fn: StepFn, num_steps: int, *, last_only: tuple[str, ...] = ()) -> StepFn:
    """Returns a function of `num_steps` steps, each of which has its own row of the data.

    Data have a leading axis [num_steps], and so have metrics; those named in `last_only` are as in
    `scan_steps`.
    """

    def steps(state: TrainState, data: PyTree, key: jax.Array) -> tuple[TrainState, Metrics]:
        return _scan(
            lambda state, batch: step_fn(state, batch, key), state, data, num_steps, last_only
        )

    return steps


def scan_steps(step_fn: StepFn, num_steps: int, *, last_only: tuple[str, ...] = ()) -> StepFn:
    """Returns a function of `num_steps` steps; metrics gain a leading axis [num_steps].

    Args:
      step_fn: the step.
      num_steps: at least 1.
      last_only: metrics that only the last step computes, with a leading axis [1]. That step is
        then compiled once more, outside of the loop.
    """

    def steps(state: TrainState, data: PyTree, key: jax.Array) -> tuple[TrainState, Metrics]:
        return _scan(lambda state, _: step_fn(state, data, key), state, None, num_steps, last_only)

    return steps


def _scan(
    advance: Callable[[TrainState, PyTree], tuple[TrainState, Metrics]],
    state: TrainState,
    rows: PyTree,
    num_steps: int,
    last_only: tuple[str, ...],
) -> tuple[TrainState, Metrics]:
    if not last_only:
        return lax.scan(advance, state, rows, length=num_steps)

    def without(state: TrainState, row: PyTree) -> tuple[TrainState, Metrics]:
        state, metrics = advance(state, row)
        return state, {k: v for k, v in metrics.items() if k not in last_only}

    before = jax.tree.map(lambda x: x[:-1], rows)
    state, metrics = lax.scan(without, state, before, length=num_steps - 1)
    state, last = advance(state, jax.tree.map(lambda x: x[-1], rows))
    joined = {k: jnp.concatenate([v, last[k][None]]) for k, v in metrics.items()}
    return state, {k: joined.get(k, v[None]) for k, v in last.items()}


def vmap_seeds(step_fn: StepFn, *, data_axes: Any = None) -> StepFn:
    """Returns the step of several seeds: states, keys and metrics gain a leading axis [S].

    All seeds draw from the same data, but for what has an axis of seeds by `data_axes`, which is
    as in `jax.vmap`.

    All seeds are at the same step, and `step_fn` sees it as one number: what it does at some steps
    only (`lax.cond`) is then done at those only, not computed at every step and thrown away.
    """
    axes = TrainState(None, 0, 0, 0)  # type: ignore[arg-type]
    mapped = jax.vmap(step_fn, in_axes=(axes, data_axes, 0), out_axes=(axes, 0))

    def step(state: TrainState, data: PyTree, key: jax.Array) -> tuple[TrainState, Metrics]:
        after, metrics = mapped(state._replace(step=state.step[0]), data, key)
        return after._replace(step=jnp.broadcast_to(after.step, state.step.shape)), metrics

    return step
