"""MuProp: the score function with a linear control variate, expanded at the mean of q."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae._numerics import upcast
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


def muprop(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    baseline: jax.typing.ArrayLike = 0.0,
) -> Estimate:
    """Estimates the gradient of E_q[f(z)] with the first-order expansion of f as control variate.

    With mu = sigmoid(l) and the residual r = f(z) - f(mu) - f'(mu)^T (z - mu), the gradient in the
    logits is

        (r - b) grad log q(z) + f'(mu) dmu/dl + grad f(z),

    where the last term is f's own dependence on the logits and on parameters: the expansion is
    taken as a fixed function of z, so that f(mu) adds no gradient of its own. f must treat the
    examples of a batch apart. Unbiased for every b that does not depend on z; without variance
    where f is linear in z. Where f is curved, r has a mean of its own (half the trace of the
    Hessian times the covariance of q, to second order), which a baseline takes away. Gu, Levine,
    Sutskever and Mnih, "MuProp: Unbiased Backpropagation for Stochastic Neural Networks" (2015).

    Args:
        key: typed PRNG key.
        f: maps z [..., n] to [...], nats, and is defined at z in (0, 1)^n; called twice, at a
            sample and at mu; where it has no derivative, f(mu) is a baseline. It may close over
            parameters and over logits, which receive its gradient at the sample.
        logits: [..., n] float.
        baseline: b, a scalar or [...], nats; receives no gradient. Learn it from `muprop_residual`.

    Returns:
        Estimate of f(z), both [...], in the dtype that f returns (integers: the
        default float).

    Raises:
        ValueError: if f does not reduce z to one value for each example, or the baseline is neither
            a scalar nor one value for each example.
    """
    logits = as_logits("muprop", logits)
    values, residual, slope, score = _expand(key, f, logits)
    signal = jax.lax.stop_gradient(centered("muprop", residual, baseline))
    wide = jax.lax.stop_gradient(upcast(logits))
    variance = jax.nn.sigmoid(wide) * jax.nn.sigmoid(-wide)
    gradient = signal[..., None] * score + slope * variance
    return with_term(values, logits_term(gradient, logits))


def muprop_residual(
    key: jax.Array, f: Callable[[jax.Array], jax.Array], logits: jax.Array
) -> jax.Array:
    """Evaluates the residual f(z) - f(mu) - f'(mu)^T (z - mu) that a baseline is to predict.

    Args:
        key: the key given to `muprop` (a `jax.random.clone` where key reuse is checked): the same
            draw, so that a compiler can share the evaluations.
        f: as in `muprop`; receives no gradient.
        logits: [..., n] float; receive no gradient.

    Returns:
        [...] nats, at least float32.

    Raises:
        ValueError: if f does not reduce z to one value for each example.
    """
    return jax.lax.stop_gradient(_expand(key, f, as_logits("muprop_residual", logits))[1])


def _expand(
    key: jax.Array, f: Callable[[jax.Array], jax.Array], logits: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns f(z), the residual [...], f'(mu) and z - mu [..., n]; f(z) alone with gradient."""
    z = jax.lax.stop_gradient(bernoulli.sample(key, logits))
    reduced = lambda z: evaluate("muprop", f, z, logits.shape[:-1])
    values = reduced(z)
    mean = jax.nn.sigmoid(jax.lax.stop_gradient(upcast(logits)))
    at_mean, pullback = jax.vjp(reduced, mean.astype(logits.dtype))
    slope = upcast(pullback(jnp.ones_like(at_mean))[0])
    score = upcast(z) - mean  # of the logits; also the displacement from mu
    residual = upcast(values) - upcast(at_mean) - jnp.sum(slope * score, axis=-1)
    return (values, *jax.lax.stop_gradient((residual, slope, score)))
