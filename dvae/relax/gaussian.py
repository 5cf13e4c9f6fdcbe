"""Overlapping Gaussian smoothing: r(zeta|z) is the normal density of mean z and variance 1/beta.

The support is the whole line, and the inverse CDF has no closed form. Vahdat, Andriyash and
Macready, "DVAE#: Discrete Variational Autoencoders with Relaxed Boltzmann Priors" (2018);
log r(zeta|1) - log r(zeta|0) = beta (zeta - 1/2).
"""

import math

import jax
import jax.numpy as jnp

from dvae._numerics import sigmoid
from dvae.relax._implicit import MIN_DENSITY, Target, inverse_density
from dvae.relax._mixture import Mixture, Pair


def _cdfs(zeta: jax.Array, beta: jax.Array) -> Pair:
    scale = jnp.sqrt(beta)
    return _normal_cdf(scale * zeta), _normal_cdf(scale * (zeta - 1))


def _normal_cdf(y: jax.Array) -> jax.Array:
    """Returns Phi(y) with all its digits in the lower tail."""
    return 0.5 * jax.lax.erfc(-math.sqrt(0.5) * y)


def _normal_density(y: jax.Array) -> jax.Array:
    return math.sqrt(0.5 / math.pi) * jnp.exp(-0.5 * y * y)


def _log_probs(zeta: jax.Array, beta: jax.Array) -> Pair:
    log_norm = 0.5 * (jnp.log(beta) - math.log(2 * math.pi))
    return log_norm - 0.5 * beta * zeta**2, log_norm - 0.5 * beta * (zeta - 1) ** 2


def _ratio(zeta: jax.Array, beta: jax.Array) -> jax.Array:
    return beta * (zeta - 0.5)


def _quantile_0(u: jax.Array, beta: jax.Array) -> jax.Array:
    return jax.scipy.special.ndtri(u) / jnp.sqrt(beta)


def _root(target: Target, beta: jax.Array) -> jax.Array:
    rho, rest, p, q, above_p, above_q = target
    scale = jnp.sqrt(beta)
    # The unknown is y = scale w. Each component alone bounds it from above, within a factor of
    # two in F; Halley's steps on the logarithm of the smaller tail triple the digits from there.
    y_0 = jnp.where(above_p < 0, _rough_quantile(rho / p, -above_p / p), jnp.inf)
    y_1 = jnp.where(above_q < 0, _rough_quantile(rho / q, -above_q / q), jnp.inf) + scale
    y = jnp.minimum(jnp.minimum(y_0, y_1), 0.5 * scale)
    side = jnp.where(rho > rest, -1, 1).astype(y.dtype)
    log_tail = jnp.log(jnp.minimum(rho, rest))
    for _ in range(4):
        value = p * _normal_cdf(side * y) + q * _normal_cdf(side * (y - scale))
        d0, d1 = p * _normal_density(y), q * _normal_density(y - scale)
        density = side * jnp.maximum(d0 + d1, MIN_DENSITY)  # prevents 0 / 0 between sharp modes
        step = (jnp.log(value) - log_tail) * value / density
        bend = -side * (y * d0 + (y - scale) * d1) / density - density / value
        # The floor prevents a division by zero, and a step of the wrong sign.
        y = jnp.minimum(y - step / jnp.maximum(1 - 0.5 * step * bend, 0.5), 0.5 * scale)
    return y / scale


def _rough_quantile(u: jax.Array, rest: jax.Array) -> jax.Array:
    """Returns Phi^{-1}(u) for u = 1 - rest in [1e-7, 1 - 1e-7], with few digits at the ends."""
    y = math.sqrt(2) * jax.lax.erf_inv(1 - 2 * jnp.clip(jnp.minimum(u, rest), 1e-7, 0.5))
    return jnp.where(u < rest, -y, y)


def _slopes(
    w: jax.Array, logits: jax.Array, beta: jax.Array, min_density: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    q, p = sigmoid(logits), sigmoid(-logits)
    scale = jnp.sqrt(beta)
    y, v = scale * w, scale * (w - 1)
    d0, d1 = p * _normal_density(y), q * _normal_density(v)
    by_logits = q * p * (_normal_cdf(y) - _normal_cdf(v))
    by_beta = -(d0 * w + d1 * (w - 1)) / (2 * scale)
    return inverse_density(scale * (d0 + d1), min_density), by_logits, by_beta


_MIXTURE = Mixture(_cdfs, _log_probs, _ratio, _quantile_0, _root, _slopes, bounded=False)

icdf = _MIXTURE.icdf
sample = _MIXTURE.sample
ancestral_sample = _MIXTURE.ancestral_sample
cdf = _MIXTURE.cdf
log_prob = _MIXTURE.log_prob
log_prob_0 = _MIXTURE.log_prob_0
log_ratio = _MIXTURE.log_ratio
posterior_logits = _MIXTURE.posterior_logits
