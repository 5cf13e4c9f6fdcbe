"""Spike-and-exponential smoothing: zeta = 0 for z = 0, an exponential toward 1 for z = 1.

r(zeta|0) = delta(zeta) and r(zeta|1) = beta e^{beta zeta} / (e^beta - 1) on (0, 1]. Samples on the
spike pass no gradient on. The law has an atom, so there is no density and no posterior to smooth
with; the overlapping families have both.

Reference: Rolfe, "Discrete Variational Autoencoders" (2017), section 2.
"""

import jax
import jax.numpy as jnp

from dvae._checks import check_unit
from dvae._numerics import ArrayLike, mark_nan, meet, sigmoid, within
from dvae.relax._exponential import component_cdfs, log_slope_0
from dvae.relax._implicit import Slopes, attach, gap, inverse_density, tails
from dvae.relax._mixture import prepare, uniform_like

__all__ = ["cdf", "icdf", "sample"]


def icdf(rho: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Maps uniform noise to 0 if rho <= 1-q, else to log(1 + u (e^beta - 1)) / beta.

    u = (rho + q - 1) / q. Differentiable in all three arguments, with gradient 0 on the spike.

    Source: Rolfe (2017), section 2.

    Args:
        rho: [...] real in [0, 1]; what is closer than 1e-17 to 0 counts as that close, and so does
            1. At 0 and 1 zeta is exactly the end of the support.
        logits: [...] real; q = sigmoid(l).
        beta: [...] real > 0, the inverse temperature; all three broadcast.

    Returns:
        [...] zeta in [0, 1], in the common floating dtype of rho and logits. It increases in rho
        and in the logits. NaN where an argument is NaN or rho is outside [0, 1].

    Raises:
        ValueError: if beta is a Python number and not positive and finite, or rho is one outside
            [0, 1].
        TypeError: if an argument is complex.
    """
    check_unit("rho", rho)
    (rho, logits), beta, dtype = prepare((rho, logits), beta)
    return _solve(rho, logits, beta).astype(dtype)


def sample(key: jax.Array, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Draws zeta = F^{-1}(rho) with rho uniform on (0, 1), reparametrized as `icdf` is.

    Source: Rolfe (2017), section 2.

    Args:
        key: typed PRNG key, a single one.
        logits: [...] real; q = sigmoid(l).
        beta: [...] real > 0, the inverse temperature; broadcasts with logits.

    Returns:
        [...] zeta in [0, 1], in the floating dtype of logits; NaN where logits or beta are.

    Raises:
        ValueError: if beta is a Python number and not positive and finite, or key is an array of
            keys.
        TypeError: if logits are complex.
    """
    (logits,), beta, dtype = prepare((logits,), beta)
    return _solve(uniform_like(key, logits, beta), logits, beta).astype(dtype)


def cdf(zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates F(zeta) = 1-q + q (e^{beta zeta} - 1) / (e^beta - 1) on [0, 1], with F(0) = 1-q.

    Source: Rolfe (2017), section 2.

    Args:
        zeta: [...] real; outside [0, 1] F is 0 or 1.
        logits: [...] real; q = sigmoid(l).
        beta: [...] real > 0, the inverse temperature; all three broadcast.

    Returns:
        [...] in [0, 1], in the common floating dtype of zeta and logits.

    Raises:
        ValueError: if beta is a Python number and not positive and finite.
        TypeError: if an argument is complex.
    """
    (zeta, logits), beta, dtype = prepare((zeta, logits), beta)
    _, r1 = component_cdfs(within(zeta, 0, 1), beta)
    value = sigmoid(-logits) + sigmoid(logits) * r1
    below, value = jnp.broadcast_arrays(zeta < 0, value)
    return jnp.where(below, 0, value).astype(dtype)


def _solve(rho: jax.Array, logits: jax.Array, beta: jax.Array) -> jax.Array:
    """Returns the root of (1-q) + q R_1(zeta) = rho, 0 below the jump, with its derivatives."""
    rho, logits = meet(rho, logits, beta), meet(logits, rho, beta)
    low, high = tails(rho)
    q, not_q = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    u = jnp.minimum(gap(low, high, not_q, q) / q, 1)
    u = jnp.where(u <= 0, 0, u)
    # log(1 + u (e^beta - 1)) / beta for what is small, 1 + log(u + (1 - u) e^{-beta}) / beta for
    # the rest, which does not overflow.
    grown = u * jnp.expm1(jnp.minimum(beta, 80))
    near_1 = 1 + jnp.log(jnp.where(grown < 1, 1, u + (1 - u) * jnp.exp(-beta))) / beta
    zeta = jnp.where(grown < 1, jnp.log1p(grown) / beta, near_1)
    zeta = jnp.where(rho == 0, 0, jnp.where(rho == 1, 1, jnp.minimum(zeta, 1)))
    zeta = jax.lax.stop_gradient(zeta)
    for x in (low, logits, meet(beta, logits)):  # the ends above would hide a NaN
        zeta = mark_nan(zeta, x)
    return attach(_slopes, zeta, rho, logits, beta, 0.5 * jnp.finfo(rho.dtype).eps * low)


def _slopes(zeta: jax.Array, logits: jax.Array, beta: jax.Array, min_density: jax.Array) -> Slopes:
    """Evaluates the parts of the derivatives of zeta, with 1 / f = 0 on the spike."""
    q, not_q = sigmoid(logits), sigmoid(-logits)
    mass = -jnp.expm1(-beta)
    near, rest = jnp.exp(-beta * (1 - zeta)), -jnp.expm1(-beta * (1 - zeta))
    inverse = inverse_density(q * beta * near / mass, min_density)
    r1 = near * -jnp.expm1(-beta * zeta) / mass
    return Slopes(
        inverse_density=jnp.where(zeta <= 0, 0, inverse),
        by_logits=q * not_q * rest / mass,
        by_beta=q * r1 * ((1 - zeta) - log_slope_0(zeta, beta)),
    )
