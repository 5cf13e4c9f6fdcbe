"""NVIL: the score function with a learned baseline, a running mean and a running scale."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dvae import distributions
from dvae._numerics import as_float
from dvae.estimators._estimate import (
    Estimate,
    Family,
    as_logits,
    as_pair,
    centered,
    draw,
    evaluate,
    score_term,
    with_term,
)

__all__ = ["NvilState", "nvil", "nvil_baseline_loss", "nvil_init", "nvil_surrogate", "nvil_update"]


class NvilState(NamedTuple):
    """Running statistics of the learning signal f(z) - baseline."""

    mean: jax.Array  # [] float32, nats
    variance: jax.Array  # [] float32, nats^2
    step: jax.Array  # [] int32, updates so far


def nvil_init() -> NvilState:
    """Starts without statistics: the first batch is neither centered nor scaled by them."""
    return NvilState(jnp.float32(0), jnp.float32(0), jnp.int32(0))


def nvil(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    state: NvilState,
    *,
    baseline: jax.typing.ArrayLike = 0.0,
    decay: float = 0.8,
    family: Family = distributions.bernoulli,
) -> tuple[Estimate, NvilState]:
    """Estimates the gradient of E_q[f(z)] from one sample with a centered and scaled signal.

    (f(z) - C(x) - c) / max(1, s) grad log q(z) + grad f(z), with a baseline C(x) from the caller,
    and c and s the running mean and standard deviation of f(z) - C(x) over earlier batches only:
    the published update counts the present one too, which ties c to z. Where s > 1 the expected
    score part keeps its direction and loses the factor s; while s <= 1 the estimate is unbiased.
    Mnih and Gregor, "Neural Variational Inference and Learning in Belief Networks" (2014),
    section 2.3.

    A batch without examples, or whose signal is not finite, leaves the statistics as they are. The
    estimate itself shows the infinite or NaN value.

    The baseline learns from its own squared error, and the model receives nothing of it:

        baseline = baseline_network(params["baseline"], x)
        estimate, new_state = nvil(key, f, logits, state, baseline=baseline)
        loss = -jnp.mean(estimate.surrogate)
        loss += jnp.mean(nvil_baseline_loss(estimate.value, baseline, state))

    Args:
        key: typed PRNG key.
        f: maps z [..., n] (categorical: one-hot [..., n, C]) to [...], nats; may close over
            parameters and over logits, which receive its gradient.
        logits: [..., n] float (categorical: [..., n, C]).
        state: NvilState, from `nvil_init` or from the step before.
        baseline: C(x), a scalar or [...], nats; receives no gradient here.
        decay: in [0, 1], the weight of the past in the running statistics.
        family: `distributions.bernoulli` or `distributions.categorical`.

    Returns:
        Estimate of f(z), both [...], in the dtype that f returns (integers: the default
        float); and the NvilState after it.

    Raises:
        ValueError: if f does not reduce z to one value for each example, baseline has another
            shape, or decay is out of range.
    """
    z, log_q = draw(key, as_logits("nvil", logits, family), (), family)
    values = evaluate("nvil", f, z, log_q.shape)
    return nvil_surrogate(values, log_q, state, baseline=baseline, decay=decay)


def nvil_surrogate(
    values: jax.Array,
    log_q: jax.Array,
    state: NvilState,
    *,
    baseline: jax.typing.ArrayLike = 0.0,
    decay: float = 0.8,
) -> tuple[Estimate, NvilState]:
    """Builds the estimate of `nvil` from evaluated arrays.

    Args:
        values: [...] f(z) at z ~ q, nats.
        log_q: [...] log q(z), summed over units, differentiable; z itself without gradient.
        state: NvilState.
        baseline: C(x), a scalar or [...], nats; receives no gradient.
        decay: in [0, 1], the weight of the past in the running statistics.

    Returns:
        Estimate, both [...], in the dtype of values (integers: the default float); and the
        NvilState after it.

    Raises:
        ValueError: if the shapes of values, log_q and baseline differ, or decay is out of range.
    """
    values, log_q = as_pair("nvil", values, log_q)
    signal = _residual(values, baseline, state)
    scale = jnp.maximum(1, jnp.sqrt(state.variance)).astype(signal.dtype)
    return with_term(values, score_term(signal / scale, log_q)), _update(state, signal, decay)


def nvil_baseline_loss(
    values: jax.Array, baseline: jax.typing.ArrayLike, state: NvilState
) -> jax.Array:
    """Evaluates the squared error (f(z) - C(x) - c)^2 that trains the baseline.

    Mnih and Gregor (2014), section 2.3.

    Args:
        values: [...] f(z), nats; receives no gradient.
        baseline: C(x), a scalar or [...], nats; receives the gradient.
        state: the NvilState that was given to `nvil`.

    Returns:
        [...] nats^2, at least float32 (a square overflows float16).

    Raises:
        ValueError: if baseline is neither a scalar nor of the shape of values.
    """
    return _residual(jax.lax.stop_gradient(as_float(values)), baseline, state) ** 2


def nvil_update(
    values: jax.Array,
    state: NvilState,
    *,
    baseline: jax.typing.ArrayLike = 0.0,
    decay: float = 0.8,
) -> NvilState:
    """Mixes a batch into the running statistics, as `nvil` does; for other estimators' signals.

    Args:
        values: [...] learning signals, nats.
        state: NvilState.
        baseline: C(x), a scalar or [...], nats.
        decay: in [0, 1], the weight of the past.

    Returns:
        NvilState, without gradient.

    Raises:
        ValueError: if baseline is neither a scalar nor of the shape of values, or decay is out of
            range.
    """
    return _update(state, _residual(as_float(values), baseline, state), decay)


def _residual(values: jax.Array, baseline: jax.typing.ArrayLike, state: NvilState) -> jax.Array:
    """Returns f(z) - C(x) - c [...] in at least float32."""
    signal = centered("nvil", values, baseline)
    return signal - jax.lax.stop_gradient(state.mean).astype(signal.dtype)


def _update(state: NvilState, residual: jax.Array, decay: float) -> NvilState:
    """Mixes the batch into the statistics, without gradient; residuals are off the old mean."""
    if not isinstance(decay, jax.core.Tracer) and not 0 <= decay <= 1:
        raise ValueError(f"decay must be in [0, 1] (0.8 is usual), got {decay}")
    if residual.size == 0:
        return jax.lax.stop_gradient(state)
    residual = jax.lax.stop_gradient(residual).astype(state.mean.dtype)
    # A plain average until the past has earned its weight, so the zeros of the start never count.
    steps = state.step.astype(residual.dtype)
    past = jnp.minimum(decay, steps / (steps + 1))
    shift = jnp.mean(residual)
    # The mixture's variance counts the shift too, without which batches of one would have none.
    variance = past * (state.variance + (1 - past) * shift**2) + (1 - past) * jnp.var(residual)
    mean = state.mean + (1 - past) * shift
    # One infinite value would stay in the statistics for good.
    finite = jnp.isfinite(mean) & jnp.isfinite(variance)
    updated = NvilState(mean, variance, state.step + 1)
    return jax.lax.stop_gradient(
        jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
    )
