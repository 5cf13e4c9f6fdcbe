"""Terms of Kullback-Leibler divergences that are never negative and keep their digits near 0."""

import jax
import jax.numpy as jnp

from dvae._numerics import mass_times
from dvae.distributions._softmax import balanced


def exp_beyond_tangent(t: jax.Array) -> jax.Array:
    """Returns e^t - 1 - t >= 0 with all its digits, and so for its derivative e^t - 1."""
    near = jnp.abs(t) < 0.5
    series = _near_zero(jnp.where(near, t, 0))  # a large t would overflow in its derivative
    return jnp.where(near, series, jnp.expm1(t) - t)


def excess(q: jax.Array, p: jax.Array, log_ratio: jax.Array) -> jax.Array:
    """Returns p - q - q log(p / q) >= 0, of which KL(q || p) is the sum over the outcomes.

    It is q (e^h - 1 - h) with h = log(p / q). The masses sum to one on both sides, so that an error
    common to all h changes the divergence by its square only. A mass q = 0 leaves p.
    """
    near = jnp.abs(log_ratio) < 0.5
    series = q * _near_zero(jnp.where(near, log_ratio, 0))
    return jnp.where(near, series, p - q - mass_times(q, log_ratio))


def kl_terms(log_q: jax.Array, log_p: jax.Array) -> jax.Array:
    """Returns the terms, [..., C], whose sum is KL(q || p), of normalized log q and log p."""
    log_ratio = log_p - log_q
    # What the roundings of two logsumexps leave of equal logits.
    log_ratio = jnp.where(jnp.abs(log_ratio) <= 8 * jnp.finfo(log_p.dtype).eps, 0, log_ratio)
    return excess(jnp.exp(log_q), jnp.exp(log_p), log_ratio)


def kl_slopes(
    top: jax.Array, log_q: jax.Array, log_p: jax.Array, value: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the derivatives of KL(q || p) by the logits of q and by log p, each [..., C].

    They are written in terms of log q, log p, the divergence [...] itself and the index [...] of
    the largest class of q.
    """
    q, log_ratio = jnp.exp(log_q), log_p - log_q
    # The largest class has what the others lack: its own log-ratio and the value almost cancel.
    slope = balanced(-mass_times(q, log_ratio + value[..., None]), top)
    # -q_k up to a multiple of p_k, along which a normalized log p can't move.
    near = jnp.abs(log_ratio) < 0.5
    gap = jnp.where(near, q * jnp.expm1(jnp.where(near, log_ratio, 0)), jnp.exp(log_p) - q)
    return slope, gap


def half_square(y: jax.Array) -> jax.Array:
    """Returns y^2/2, halved first: y^2 overflows at values whose half does not."""
    return (0.5 * y) * y


def _near_zero(t: jax.Array) -> jax.Array:
    """Returns e^t - 1 - t for |t| < 1/2, to 2e-9: t^2/2 (1 + t/3 (1 + t/4 (...)))."""
    series = jnp.ones_like(t)
    for k in range(9, 2, -1):
        series = 1 + (t / k) * series
    return half_square(t) * series
