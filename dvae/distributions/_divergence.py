"""Terms of Kullback-Leibler divergences that are never negative and keep their digits near 0."""

import jax
import jax.numpy as jnp

from dvae._numerics import mass_times


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


def half_square(y: jax.Array) -> jax.Array:
    """Returns y^2/2, halved first: y^2 overflows at values whose half does not."""
    return (0.5 * y) * y


def _near_zero(t: jax.Array) -> jax.Array:
    """Returns e^t - 1 - t for |t| < 1/2, to 2e-9: t^2/2 (1 + t/3 (1 + t/4 (...)))."""
    series = jnp.ones_like(t)
    for k in range(9, 2, -1):
        series = 1 + (t / k) * series
    return half_square(t) * series
