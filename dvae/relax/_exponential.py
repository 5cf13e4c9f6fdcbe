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


def log_slope_0(zeta: jax.Array, beta: jax.Array) -> jax.Array:
    """Evaluates dlog R_0/dbeta = (g(beta zeta) - g(beta)) / beta, g(t) = t / (e^t - 1).

    By g - 1 at small t, where g is 1 up to rounding. dlog R_1/dbeta is this less 1 - zeta.
    """
    t = beta * zeta
    near, far = _below_1(t) - _below_1(beta), _ratio(t) - _ratio(beta)
    return jnp.where(t < 0.5, near, far) / beta


def _ratio(t: jax.Array) -> jax.Array:
    """Evaluates g(t) for t of at least 1/2."""
    t = jnp.where(t < 0.5, 0.5, t)  # 0 / 0
    return t * jnp.exp(-t) / -jnp.expm1(-t)  # e^t would overflow


def _below_1(t: jax.Array) -> jax.Array:
    """Evaluates g(t) - 1 for t >= 0, by its series for small ones."""
    x = jnp.where(t < 0.5, t, 0)
    even = jnp.zeros_like(x)
    for coefficient in (1 / 47_900_160, -1 / 1_209_600, 1 / 30_240, -1 / 720, 1 / 12):
        even = x * x * (coefficient + even)
    return jnp.where(t < 0.5, even - 0.5 * x, _ratio(t) - 1)


@jax.custom_jvp
def component_cdfs(zeta: jax.Array, beta: jax.Array) -> Pair:
    """Evaluates R_0(zeta) and R_1(zeta)."""
    r0 = jnp.expm1(-beta * zeta) / jnp.expm1(-beta)
    return r0, r0 * jnp.exp(-beta * (1 - zeta))


# In beta, a quotient's rule would subtract equal numbers and divide them by beta^2.
@component_cdfs.defjvp
def _component_cdfs_jvp(primals: Pair, tangents: Pair) -> tuple[Pair, Pair]:
    zeta, beta = primals
    r0, r1 = component_cdfs(zeta, beta)
    slope, norm = log_slope_0(zeta, beta), -beta / jnp.expm1(-beta)
    d0 = norm * jnp.exp(-beta * zeta) * tangents[0] + r0 * slope * tangents[1]
    slope_1 = slope - (1 - zeta)
    d1 = norm * jnp.exp(-beta * (1 - zeta)) * tangents[0] + r1 * slope_1 * tangents[1]
    return (r0, r1), (d0, d1)


def component_log_probs(zeta: jax.Array, beta: jax.Array) -> Pair:
    """Evaluates log r(zeta|0) and log r(zeta|1)."""
    log_norm = _log_norm(beta)
    return log_norm - beta * zeta, log_norm - beta * (1 - zeta)


@jax.custom_jvp
def _log_norm(beta: jax.Array) -> jax.Array:
    """Evaluates log(beta / (1 - e^{-beta})), with the derivative (1 - g(beta)) / beta."""
    return jnp.log(beta) - jnp.log(-jnp.expm1(-beta))


@_log_norm.defjvp
def _log_norm_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> Pair:
    (beta,), (tangent,) = primals, tangents
    return _log_norm(beta), -_below_1(beta) / beta * tangent


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
    slope = log_slope_0(w, beta)
    by_beta = (q * b * ((1 - w) - slope) - not_q * slope) * x / mass
    return DensitySlopes(density=density, by_logits=q * not_q * x * y / mass, by_beta=by_beta)


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
