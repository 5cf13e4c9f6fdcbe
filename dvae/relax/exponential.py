"""Overlapping exponential smoothing: r(zeta|0) = beta e^{-beta zeta} / (1 - e^{-beta}) on [0, 1].

r(zeta|1) mirrors it. The inverse CDF of the mixture solves a quadratic, Vahdat et al., "DVAE++:
Discrete Variational Autoencoders with Overlapping Transformations" (2018), section 3 and Eq. (3);
log r(zeta|1) - log r(zeta|0) = beta (2 zeta - 1).
"""

import jax
import jax.numpy as jnp

from dvae._numerics import sigmoid
from dvae.relax._implicit import MIN_DENSITY, Target, inverse_density
from dvae.relax._mixture import Mixture, Pair


def cdfs(zeta: jax.Array, beta: jax.Array) -> Pair:
    r0 = jnp.expm1(-beta * zeta) / jnp.expm1(-beta)
    return r0, r0 * jnp.exp(-beta * (1 - zeta))


def log_probs(zeta: jax.Array, beta: jax.Array) -> Pair:
    log_norm = jnp.log(beta) - jnp.log(-jnp.expm1(-beta))
    return log_norm - beta * zeta, log_norm - beta * (1 - zeta)


def _ratio(zeta: jax.Array, beta: jax.Array) -> jax.Array:
    return beta * (2 * zeta - 1)


def quantile_0(u: jax.Array, beta: jax.Array) -> jax.Array:
    return -jnp.log1p(u * jnp.expm1(-beta)) / beta


def root(target: Target, beta: jax.Array) -> jax.Array:
    """Solves the quadratic for the root below 1/2 (see the comments)."""
    p, q = target.p, target.q
    # m = exp(-beta w) is the root of p m^2 + b m - q e = 0, e = e^{-beta}, b as below. Conjugates
    # are used so that nothing cancels; 1 - m solves p x^2 - (p + c + q e) x + c = 0, which has the
    # same discriminant.
    c, e = -target.rho * jnp.expm1(-beta), jnp.exp(-beta)
    b = target.above_p - e * target.above_q
    s = jnp.hypot(b, 2 * jnp.sqrt(p * q) * jnp.exp(-0.5 * beta))
    x = 2 * c / (p + c + q * e + s)
    total = jnp.abs(b) + s
    # For b > 0, m = 2 q e / total, whose factor e is kept in the logarithm: no underflow.
    scaled = jnp.where(b < 0, total / (2 * p), 2 * q / jnp.maximum(total, MIN_DENSITY))
    log_m = jnp.log(scaled) - jnp.where(b < 0, 0, beta)
    log_m = jnp.where(x < 0.5, jnp.log1p(-jnp.minimum(x, 0.5)), log_m)
    return jnp.clip(-log_m / beta, 0, 0.5)


def parts(
    w: jax.Array, logits: jax.Array, beta: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns f, dF/dl and dF/dbeta, the latter two negated."""
    q, p = sigmoid(logits), sigmoid(-logits)
    a, b = jnp.exp(-beta * w), jnp.exp(-beta * (1 - w))
    x, y = -jnp.expm1(-beta * w), -jnp.expm1(-beta * (1 - w))
    mass = -jnp.expm1(-beta)
    density = beta * (p * a + q * b) / mass
    # R_0 - R_1 = (1 - a)(1 - b) / (1 - e^{-beta}).
    e = jnp.exp(-beta)
    by_beta = q * ((1 - w) * b * mass - y * e) - p * (w * a * mass - x * e)
    return density, q * p * x * y / mass, by_beta / (mass * mass)


def _slopes(
    w: jax.Array, logits: jax.Array, beta: jax.Array, min_density: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    density, by_logits, by_beta = parts(w, logits, beta)
    return inverse_density(density, min_density), by_logits, by_beta


_MIXTURE = Mixture(cdfs, log_probs, _ratio, quantile_0, root, _slopes)

icdf = _MIXTURE.icdf
sample = _MIXTURE.sample
ancestral_sample = _MIXTURE.ancestral_sample
cdf = _MIXTURE.cdf
log_prob = _MIXTURE.log_prob
log_prob_0 = _MIXTURE.log_prob_0
log_ratio = _MIXTURE.log_ratio
posterior_logits = _MIXTURE.posterior_logits
