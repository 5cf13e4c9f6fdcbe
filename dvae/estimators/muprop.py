"""MuProp: the score function with a linear control variate, expanded at the mean of q."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dvae._numerics import bit_score, upcast
from dvae.distributions import bernoulli
from dvae.estimators._estimate import (
    Estimate,
    as_logits,
    centered,
    evaluate,
    logits_term,
    with_term,
)

__all__ = ["muprop", "muprop_residual"]

_Scales = Sequence[jax.typing.ArrayLike]


def muprop(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    baseline: jax.typing.ArrayLike = 0.0,
    scales: _Scales = (1.0, 1.0),
) -> Estimate:
    """Estimates the gradient of E_q[f(z)] with the first-order expansion of f as control variate.

    With mu = sigmoid(l) and the residual r = f(z) - s0 f(mu) - s1 f'(mu)^T (z - mu), the gradient
    in the logits is

        (r - b) grad log q(z) + s1 f'(mu) dmu/dl + grad f(z),

    where the last term is f's own dependence on the logits and on parameters: the expansion is
    taken as a fixed function of z, so that f(mu) adds no gradient of its own. f must treat the
    examples of a batch apart. Unbiased for all b, s0 and s1 that do not depend on z; without
    variance where f is linear in z and both scales are 1. Where f is curved, r has a mean of
    its own (half the trace of the Hessian times the covariance of q, to second order), which a
    baseline takes away. Gu, Levine, Sutskever and Mnih, "MuProp: Unbiased Backpropagation for
    Stochastic Neural Networks" (2015).

    Args:
        key: typed PRNG key.
        f: maps z [..., n] to [...], nats, and is defined at z in (0, 1)^n; called twice, at a
            sample and at mu; where it has no derivative, f(mu) is a baseline. It may close over
            parameters and over logits, which receive its gradient at the sample.
        logits: [..., n] float.
        baseline: b, a scalar or [...], nats; receives no gradient. Learn it from `muprop_residual`.
        scales: (s0, s1), two scalars; receive no gradient. At (0, 0) this is `reinforce`.

    Returns:
        Estimate of f(z), both [...], in the dtype that f returns (integers: the
        default float).

    Raises:
        ValueError: if f does not reduce z to one value for each example, the baseline is neither a
            scalar nor one value for each example, or a scale is no scalar.
    """
    logits = as_logits("muprop", logits)
    scales = _checked("muprop", scales)
    expansion = _expand(key, f, logits)
    residual = _residual(expansion, scales)
    signal = jax.lax.stop_gradient(centered("muprop", residual, baseline))
    wide = jax.lax.stop_gradient(upcast(logits))
    variance = jax.nn.sigmoid(wide) * jax.nn.sigmoid(-wide)
    gradient = signal[..., None] * expansion.score + scales[1] * (expansion.slope * variance)
    return with_term(expansion.values, logits_term(gradient, logits))


def muprop_residual(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    scales: _Scales = (1.0, 1.0),
) -> jax.Array:
    """Evaluates the residual f(z) - s0 f(mu) - s1 f'(mu)^T (z - mu) that a baseline is to predict.

    Its square, less the baseline, is what learned scales descend.

    Args:
        key: the key given to `muprop` (a `jax.random.clone` where key reuse is checked): the same
            draw, so that a compiler can share the evaluations.
        f: as in `muprop`; receives no gradient.
        logits: [..., n] float; receive no gradient.
        scales: (s0, s1), two scalars; receive the gradient.

    Returns:
        [...] nats, at least float32.

    Raises:
        ValueError: if f does not reduce z to one value for each example, or a scale is no scalar.
    """
    expansion = _expand(key, f, as_logits("muprop_residual", logits))
    fixed = jax.lax.stop_gradient(expansion)
    return _residual(fixed, _checked("muprop_residual", scales))


class _Expansion(NamedTuple):
    """f at a sample, and what the expansion at mu has of it; without gradient but for `values`."""

    values: jax.Array  # [...] f(z)
    at_mean: jax.Array  # [...] f(mu)
    linear: jax.Array  # [...] f'(mu)^T (z - mu)
    slope: jax.Array  # [..., n] f'(mu)
    score: jax.Array  # [..., n] z - mu, the score of the logits


def _expand(key: jax.Array, f: Callable[[jax.Array], jax.Array], logits: jax.Array) -> _Expansion:
    z = jax.lax.stop_gradient(bernoulli.sample(key, logits))
    reduced = lambda z: evaluate("muprop", f, z, logits.shape[:-1])
    values = reduced(z)
    wide = jax.lax.stop_gradient(upcast(logits))
    at_mean, pullback = jax.vjp(reduced, jax.nn.sigmoid(wide).astype(logits.dtype))
    slope = upcast(pullback(jnp.ones_like(at_mean))[0])
    score = bit_score(upcast(z), wide)
    linear = jnp.sum(slope * score, axis=-1)
    fixed = jax.lax.stop_gradient((upcast(at_mean), linear, slope, score))
    return _Expansion(values, *fixed)


def _residual(expansion: _Expansion, scales: _Scales) -> jax.Array:
    of_mean, of_slope = scales
    return upcast(expansion.values) - of_mean * expansion.at_mean - of_slope * expansion.linear


def _checked(name: str, scales: _Scales) -> _Scales:
    """Returns the scales; ValueError unless they are two scalars."""
    if len(scales) != 2 or any(jnp.ndim(scale) for scale in scales):
        shapes = [jnp.shape(scale) for scale in scales]
        raise ValueError(
            f"{name} takes two scales, scalars, of f(mu) and of its slope, got shapes {shapes}"
        )
    return scales
