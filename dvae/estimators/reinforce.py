"""The score-function estimator, with a caller's baseline or with leave-one-out baselines."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae import distributions
from dvae._numerics import upcast
from dvae.estimators._estimate import (
    Estimate,
    Family,
    as_logits,
    as_pair,
    as_samples,
    centered,
    check_num_samples,
    draw,
    evaluate,
    score_term,
    with_term,
)

__all__ = ["reinforce", "reinforce_loo", "reinforce_loo_surrogate", "reinforce_surrogate"]


def reinforce(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    baseline: jax.typing.ArrayLike = 0.0,
    family: Family = distributions.bernoulli,
) -> Estimate:
    """Estimates the gradient of E_q[f(z)] from one sample, (f(z) - b) grad log q(z) + grad f(z).

    Unbiased for every baseline that does not depend on z. Williams, "Simple Statistical
    Gradient-Following Algorithms for Connectionist Reinforcement Learning" (1992).

    Args:
        key: typed PRNG key.
        f: maps z [..., n] (categorical: one-hot [..., n, C]) to [...], nats; may close over
            parameters and over logits, which receive its gradient.
        logits: [..., n] float (categorical: [..., n, C]).
        baseline: b, a scalar or [...], nats; receives no gradient.
        family: `distributions.bernoulli` or `distributions.categorical`.

    Returns:
        Estimate of f(z), both [...], in the dtype that f returns (integers: the
        default float).

    Raises:
        ValueError: if f does not reduce z to one value for each example, or the baseline is neither
            a scalar nor one value for each example.
    """
    z, log_q = draw(key, as_logits("reinforce", logits, family), (), family)
    return reinforce_surrogate(evaluate("reinforce", f, z, log_q.shape), log_q, baseline)


def reinforce_surrogate(
    values: jax.Array, log_q: jax.Array, baseline: jax.typing.ArrayLike = 0.0
) -> Estimate:
    """Builds the estimate of `reinforce` from evaluated arrays.

    Args:
        values: [...] f(z) at z ~ q, nats.
        log_q: [...] log q(z), summed over units, differentiable; z itself without gradient.
        baseline: scalar or [...], nats; receives no gradient.

    Returns:
        Estimate, both [...], in the dtype of values (integers: the default float).

    Raises:
        ValueError: if the shapes of values and log_q differ, or that of a baseline that is no
            scalar.
    """
    values, log_q = as_pair("reinforce", values, log_q)
    return with_term(values, score_term(centered("reinforce", values, baseline), log_q))


def reinforce_loo(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    num_samples: int,
    family: Family = distributions.bernoulli,
) -> Estimate:
    """Estimates the gradient of E_q[f(z)] from K samples, each centered by the mean of the others.

    1/K sum_k (f(z_k) - 1/(K-1) sum_{j != k} f(z_j)) grad log q(z_k) + grad f(z_k). Unbiased.
    Kool, van Hoof and Welling, "Buy 4 REINFORCE Samples, Get a Baseline for Free!" (2019).

    Args:
        key: typed PRNG key.
        f: maps z [K, ..., n] (categorical: one-hot [K, ..., n, C]) to [K, ...], nats; may close
            over parameters and over logits, which receive its gradient.
        logits: [..., n] float (categorical: [..., n, C]).
        num_samples: K >= 2.
        family: `distributions.bernoulli` or `distributions.categorical`.

    Returns:
        Estimate of the mean of f over the samples, both [...], in the dtype that f returns
        (integers: the default float).

    Raises:
        ValueError: if num_samples < 2, or f does not reduce z to one value for each sample.
    """
    check_num_samples("reinforce_loo", num_samples)
    z, log_q = draw(key, as_logits("reinforce_loo", logits, family), (num_samples,), family)
    return reinforce_loo_surrogate(evaluate("reinforce_loo", f, z, log_q.shape), log_q)


def reinforce_loo_surrogate(values: jax.Array, log_q: jax.Array) -> Estimate:
    """Builds the estimate of `reinforce_loo` from evaluated arrays.

    Args:
        values: [K, ...] f(z_k) at z_k ~ q, nats.
        log_q: [K, ...] log q(z_k), summed over units, differentiable.

    Returns:
        Estimate, both [...], in the dtype of values (integers: the default float).

    Raises:
        ValueError: if K < 2, or the shapes of values and log_q differ.
    """
    values, log_q = as_samples("reinforce_loo", values, log_q)
    num_samples = values.shape[0]
    wide = upcast(values)
    mean = jnp.mean(wide, axis=0)
    # f_k minus the mean of the others is K / (K - 1) times f_k minus the mean of all.
    signal = (wide - mean[None]) * (num_samples / (num_samples - 1))
    surrogate = mean + jnp.mean(score_term(signal, log_q), axis=0)
    return Estimate(mean.astype(values.dtype), surrogate.astype(values.dtype))
