"""Local DisARM: the K-sample bound, each sample against an antithetic partner of its own."""

import math
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae._numerics import open_uniform, upcast
from dvae.estimators._estimate import (
    Estimate,
    as_logits,
    evaluate,
    logits_term,
    threshold,
    with_term,
)

__all__ = ["local_disarm"]


def local_disarm(
    key: jax.Array,
    log_weight: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    num_samples: int,
) -> Estimate:
    """Estimates the gradient of the K-sample bound E[L], L = log 1/K sum_k exp l_k, from K pairs.

    Given the other samples, L is a function of z_k alone, to which DisARM applies: z'_k shares the
    noise of z_k, and L_k is L with l_k = log_weight(z_k) replaced by that of z'_k. With L' and L'_k
    the same of the partners, which are K independent samples too, the gradient in the logits is

        1/4 sum_k (L - L_k - L' + L'_k) (z_k - z'_k) sigmoid(|l|) + 1/2 (grad L + grad L'),

    unit by unit; the last part is that of log_weight at the samples. Unbiased, with nothing to
    tune; it evaluates log_weight 2 K times, and for K = 1 it is `disarm`. Dong, Mnih and Tucker,
    "DisARM: An Antithetic Gradient Estimator for Binary Latent Variables" (2020), averaged over
    which sample of a pair is whose partner.

    Args:
        key: typed PRNG key.
        log_weight: maps z [K, ..., n] to [K, ...], usually log p(x, z) - log q(z | x), nats; traced
            once, and mapped over samples and partners. It may close over parameters and over
            logits, which receive its gradient.
        logits: [..., n] float.
        num_samples: K >= 1, samples of the bound.

    Returns:
        Estimate of (L + L') / 2, both [...], nats, in the dtype that log_weight returns (integers:
        the default float).

    Raises:
        ValueError: if num_samples < 1, or log_weight does not reduce z to one value a sample.
    """
    _check_num_samples(num_samples)
    logits = as_logits("local_disarm", logits)
    wide = jax.lax.stop_gradient(upcast(logits))
    u = open_uniform(key, (num_samples, *logits.shape)).astype(wide.dtype)
    # Compared in logits, like those of `disarm`.
    noise = jnp.log(u) - jnp.log1p(-u)
    pairs = jnp.stack([threshold(wide[None] - noise), threshold(wide[None] + noise)])
    shape = (num_samples, *logits.shape[:-1])
    log_weights = jax.vmap(
        lambda z: evaluate("local_disarm", log_weight, z, shape, label="log_weight")
    )(pairs.astype(logits.dtype))

    values = upcast(log_weights)
    bounds = jax.nn.logsumexp(values, axis=1) - math.log(num_samples)
    signals = _changes(jax.lax.stop_gradient(values))
    changes = (signals[0] - signals[1])[..., None] * (pairs[0] - pairs[1])
    gradient = 0.25 * jnp.sum(changes, axis=0) * jax.nn.sigmoid(jnp.abs(wide))
    bound = jnp.mean(bounds, axis=0).astype(log_weights.dtype)
    return with_term(bound, logits_term(gradient, logits))


def _changes(log_weights: jax.Array) -> jax.Array:
    """Returns L - L_k and L' - L'_k [2, K, ...] of the log-weights of samples and partners."""
    num_samples = log_weights.shape[1]
    # Differences do not depend on a shift, and are rounded less without one.
    centered = log_weights - jnp.max(log_weights, axis=(0, 1), keepdims=True)
    own = jnp.eye(num_samples, dtype=bool).reshape(
        num_samples, num_samples, *[1] * (log_weights.ndim - 2)
    )

    def changes(values: jax.Array, partners: jax.Array) -> jax.Array:
        shape = (num_samples, *values.shape)  # [k, j, ...]
        own_of_all = jnp.broadcast_to(own, shape)
        replaced = jnp.where(own_of_all, jnp.broadcast_to(partners[None], shape), values[None])
        return jax.nn.logsumexp(values, axis=0)[None] - jax.nn.logsumexp(replaced, axis=1)

    return jnp.stack([changes(*centered), changes(*centered[::-1])])


def _check_num_samples(num_samples: int) -> None:
    try:
        enough = operator.index(num_samples) >= 1
    except TypeError:
        enough = False
    if not enough:
        raise ValueError(
            f"num_samples must be an integer of at least 1 for local_disarm, got {num_samples}"
        )
