"""VIMCO: the K-sample bound with a learning signal of its own for each sample."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae import distributions
from dvae._numerics import partition, spec_of, upcast
from dvae.estimators._estimate import (
    Estimate,
    Family,
    as_logits,
    as_samples,
    check_num_samples,
    draw,
    evaluate,
    score_term,
)

__all__ = ["vimco", "vimco_surrogate"]


def vimco(
    key: jax.Array,
    log_weight: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    num_samples: int,
    family: Family = distributions.bernoulli,
) -> Estimate:
    """Estimates the gradient of the K-sample bound E[L], L = log 1/K sum_k exp l_k.

    With l_k = log_weight(z_k) at z_k ~ q, the estimate is
    sum_k (L - L_{-k}) grad log q(z_k) + sum_k w_k grad l_k, w = softmax(l), where L_{-k} is L with
    l_k replaced by the mean of the other l_j. Unbiased. Mnih and Rezende, "Variational Inference
    for Monte Carlo Objectives" (2016), with the geometric mean.

    Args:
        key: typed PRNG key.
        log_weight: maps z [K, ..., n] (categorical: one-hot [K, ..., n, C]) to [K, ...], usually
            log p(x, z) - log q(z | x), nats; may close over parameters and over logits, which
            receive its gradient.
        logits: [..., n] float (categorical: [..., n, C]).
        num_samples: K >= 2.
        family: `distributions.bernoulli` or `distributions.categorical`.

    Returns:
        Estimate of L, both [...], nats, in the dtype that log_weight returns (integers: the
        default float).

    Raises:
        ValueError: if num_samples < 2, or log_weight does not reduce z to one value a sample.
    """
    check_num_samples("vimco", num_samples)
    z, log_q = draw(key, as_logits("vimco", logits, family), (num_samples,), family)
    log_weights = evaluate("vimco", log_weight, z, log_q.shape, label="log_weight")
    return vimco_surrogate(log_weights, log_q)


def vimco_surrogate(log_weights: jax.Array, log_q: jax.Array) -> Estimate:
    """Builds the estimate of `vimco` from evaluated arrays, in O(K) memory for each example.

    Args:
        log_weights: [K, ...] l_k at z_k ~ q, nats. -inf, a weight of zero, is legal while two of
            the K are finite; else the bound of the others is -inf, and the surrogate NaN.
        log_q: [K, ...] log q(z_k), summed over units, differentiable; z_k without gradient.

    Returns:
        Estimate, both [...], in the dtype of log_weights (integers: the default float).

    Raises:
        ValueError: if K < 2, or the shapes of log_weights and log_q differ.
    """
    log_weights, log_q = as_samples("vimco", log_weights, log_q)
    wide = upcast(log_weights)
    bound = jax.nn.logsumexp(wide, axis=0) - math.log(log_weights.shape[0])
    # A cumulative sum along an axis that is sharded has no rule of its own.
    signals = partition(_learning_signals, spec_of(wide), wide)
    surrogate = bound + jnp.sum(score_term(signals, log_q), axis=0)
    return Estimate(bound.astype(log_weights.dtype), surrogate.astype(log_weights.dtype))


def _learning_signals(log_weights: jax.Array) -> jax.Array:
    """Returns L - L_{-k} [K, ...]; without gradient, and independent of a shift of the weights."""
    num_samples = log_weights.shape[0]
    centered = jax.lax.stop_gradient(log_weights - jnp.max(log_weights, axis=0)[None])
    # The sum over the others is assembled from the samples before and after k. Subtracting l_k
    # from the total instead leaves log(0) or noise when l_k dominates by more than 16 nats.
    before, after = (
        _exclusive(jax.lax.cumlogsumexp, centered, -jnp.inf, end) for end in (False, True)
    )
    # Where the samples are sharded, XLA pads all cumulative reductions of one array with the first
    # one's neutral element, here -inf. Behind the barrier it is another array.
    terms = jax.lax.optimization_barrier(centered)
    sum_before, sum_after = (_exclusive(jax.lax.cumsum, terms, 0.0, end) for end in (False, True))
    mean_of_others = (sum_before + sum_after) / (num_samples - 1)
    leave_one_out = jnp.logaddexp(jnp.logaddexp(before, after), mean_of_others)
    return jax.nn.logsumexp(centered, axis=0)[None] - leave_one_out


def _exclusive(
    cumulate: Callable[..., jax.Array], x: jax.Array, empty: float, reverse: bool
) -> jax.Array:
    """Cumulates x [K, ...] over the samples before k (reverse: after k); `empty` where none is."""
    inclusive = cumulate(x, axis=0, reverse=reverse)
    shift = (-1, 1, 0) if reverse else (1, -1, 0)
    return jax.lax.pad(inclusive, jnp.asarray(empty, x.dtype), [shift] + [(0, 0, 0)] * (x.ndim - 1))
