"""ARMS: leave-one-out over samples that are mutually antithetic, with their correlation undone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae._checks import check_key
from dvae._numerics import open_uniform, upcast
from dvae.estimators._estimate import (
    Estimate,
    as_logits,
    check_num_samples,
    evaluate,
    threshold,
    with_gradient,
)

__all__ = ["arms"]


def arms(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    num_samples: int,
) -> Estimate:
    """Estimates the gradient of E_q[f(z)] from K samples that avoid one another.

    Unit by unit, (d_1, ..., d_K) is uniform on the simplex, and the rarer value of the bit is taken
    by those samples whose d_k exceeds a = 1 - s^(1/(K-1)), s = sigmoid(-|l|). Each bit has its
    probability under q, and two of them share the rarer value with probability
    t = max(0, 1 - 2a)^(K-1) < s^2. So do leave-one-out differences need a factor:

        sigmoid(|l|) / (1 - t/s) 1/(K-1) sum_k (f(z_k) - mean_j f(z_j)) z_k + 1/K sum_k grad f(z_k).

    Unbiased; for K = 2 it is `disarm`. The factor is the inverse of 1 - rho, rho the correlation of
    two bits. Dimitriev and Zhou, "ARMS: Antithetic-REINFORCE-Multi-Sample Gradient for Binary
    Variables" (2021), with the Dirichlet copula.

    Args:
        key: typed PRNG key.
        f: maps z [K, ..., n] to [K, ...], nats; it may count or compare, and close over parameters
            and over logits, which receive its mean gradient.
        logits: [..., n] float.
        num_samples: K >= 2.

    Returns:
        Estimate of the mean of f over the samples, both [...], in the dtype that f returns
        (integers: the default float).

    Raises:
        ValueError: if num_samples < 2, or f does not reduce z to one value for each sample.
    """
    check_num_samples("arms", num_samples)
    check_key(key)
    logits = as_logits("arms", logits)
    wide = jax.lax.stop_gradient(upcast(logits))
    z = _antithetic(key, wide, num_samples)
    values = evaluate("arms", f, z.astype(logits.dtype), z.shape[:-1])

    signal = jax.lax.stop_gradient(upcast(values))
    mean = jnp.mean(signal, axis=0)
    covariance = jnp.sum((signal - mean[None])[..., None] * z, axis=0) / (num_samples - 1)
    gradient = covariance * _factor(wide, num_samples)
    return with_gradient(values, gradient, logits)


def _antithetic(key: jax.Array, logits: jax.Array, num_samples: int) -> jax.Array:
    """Draws z [K, ..., n] in the dtype of the logits, NaN where these are."""
    # Exponentials divided by their sum are uniform on the simplex.
    uniform = open_uniform(key, (num_samples, *logits.shape)).astype(logits.dtype)
    # Minus: the fine end of the uniforms, near 0, serves short lengths. A rare value is taken by a
    # sample beside which all others are short.
    lengths = -jnp.log1p(-uniform)
    # Others are summed, not subtracted from the total: 1 - d is tiny where d is nearly all.
    none = jnp.zeros_like(lengths[:1])
    before = jnp.cumsum(jnp.concatenate([none, lengths[:-1]]), axis=0)
    after = jnp.cumsum(jnp.concatenate([none, lengths[:0:-1]]), axis=0)[::-1]
    others = before + after
    log_rest = jnp.log(others) - jnp.log(others + lengths)  # log(1 - d)
    log_rarer = jax.nn.log_sigmoid(-jnp.abs(logits))
    rarer = threshold(log_rarer[None] - (num_samples - 1) * log_rest)
    return jnp.where(logits[None] > 0, 1 - rarer, rarer)


def _factor(logits: jax.Array, num_samples: int) -> jax.Array:
    """Returns p (1 - p) / (p (1 - p) - cov) of two bits of a unit, in [1/2, 1]."""
    log_rarer = jax.nn.log_sigmoid(-jnp.abs(logits))
    rest = 2 * jnp.exp(log_rarer / (num_samples - 1)) - 1  # 1 - 2a
    log_both = (num_samples - 1) * jnp.log(jnp.where(rest > 0, rest, 1))
    share = jnp.where(rest > 0, jnp.exp(log_both - log_rarer), 0)  # t / s
    return jax.nn.sigmoid(jnp.abs(logits)) / (1 - share)
