"""The exponential family, whose parts `spike_exp` and `uniform_exp` use as well."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dvae._numerics import sigmoid
from dvae.relax._implicit import MIN_DENSITY, Pair, Slopes, Target, inverse_density
from dvae.relax._mixture import Family


class DensitySlopes(NamedTuple):
    """The density f of the mixture and derivatives of its CDF F, of one shape."""

    density: jax.Array
    by_logits: jax.Array  # -dF/dl = q (1-q) (R_0 - R_1)
    by_beta: jax.Array  # -dF/dbeta


def component_cdfs(zeta: jax.Array, beta: jax.Array) -> Pair:
    """Evaluates R_0(zeta) and R_1(zeta)."""
    r0 = jnp.expm1(-beta * zeta) / jnp.expm1(-beta)
    return r0, r0 * jnp.exp(-beta * (1 - zeta))


def component_log_probs(zeta: jax.Array, beta: jax.Array) -> Pair:
    """Evaluates log r(zeta|0) and log r(zeta|1)."""
    log_norm = jnp.log(beta) - jnp.log(-jnp.expm1(-beta))
    return log_norm - beta * zeta, log_norm - beta * (1 - zeta)


def _log_ratio(zeta: jax.Array, beta: jax.Array) -> jax.Array:
    """Evaluates log r(zeta|1) - log r(zeta|0)."""
    return beta * (2 * zeta - 1)


def quantile_0(u: jax.Array, beta: jax.Array) -> jax.Array:
    """Evaluates R_0^{-1}(u)."""
    return -jnp.log1p(u * jnp.expm1(-beta)) / beta


def lower_root(target: Target, beta: jax.Array) -> jax.Array:
    """Solves F(w) = rho, a quadratic in e^{-beta w}, for the root w <= 1/2."""
    q, not_q = target.q, target.not_q
    # With p = 1 - q, m = exp(-beta w) is the root of p m^2 + b m - q e = 0, e = e^{-beta}, b as
    # below. Conjugates are used so that nothing cancels; 1 - m solves p x^2 - (p + c + q e) x + c =
    # 0, which has the same discriminant.
    c, e = -target.rho * jnp.expm1(-beta), jnp.exp(-beta)
    b = target.above_not_q - e * target.above_q
    s = jnp.hypot(b, 2 * jnp.sqrt(not_q * q) * jnp.exp(-0.5 * beta))
    x = 2 * c / (not_q + c + q * e + s)
    total = jnp.abs(b) + s
    # For b > 0, m = 2 q e / total, whose factor e is kept in the logarithm: no underflow.
    scaled = jnp.where(b < 0, total / (2 * not_q), 2 * q / jnp.maximum(total, MIN_DENSITY))
    log_m = jnp.log(scaled) - jnp.where(b < 0, 0, beta)
    log_m = jnp.where(x < 0.5, jnp.log1p(-jnp.minimum(x, 0.5)), log_m)
    return jnp.clip(-log_m / beta, 0, 0.5)


def density_and_slopes(w: jax.Array, logits: jax.Array, beta: jax.Array) -> DensitySlopes:
    """Evaluates the density and the slopes of the CDF at w."""
    q, not_q = sigmoid(logits), sigmoid(-logits)
    a, b = jnp.exp(-beta * w), jnp.exp(-beta * (1 - w))
    x, y = -jnp.expm1(-beta * w), -jnp.expm1(-beta * (1 - w))
    mass = -jnp.expm1(-beta)
    density = beta * (not_q * a + q * b) / mass
    # R_0 - R_1 = (1 - a)(1 - b) / (1 - e^{-beta}).
    e = jnp.exp(-beta)
    by_beta = q * ((1 - w) * b * mass - y * e) - not_q * (w * a * mass - x * e)
    return DensitySlopes(
        density=density, by_logits=q * not_q * x * y / mass, by_beta=by_beta / (mass * mass)
    )


def _slopes(w: jax.Array, logits: jax.Array, beta: jax.Array, min_density: jax.Array) -> Slopes:
    """Evaluates the parts of the derivatives of the root w <= 1/2."""
    at = density_and_slopes(w, logits, beta)
    inverse = inverse_density(at.density, min_density)
    return Slopes(inverse_density=inverse, by_logits=at.by_logits, by_beta=at.by_beta)


FAMILY = Family(
    component_cdfs=component_cdfs,
    component_log_probs=component_log_probs,
    log_ratio_fn=_log_ratio,
    quantile_0=quantile_0,
    lower_root=lower_root,
    slopes_fn=_slopes,
    bounded=True,
)
