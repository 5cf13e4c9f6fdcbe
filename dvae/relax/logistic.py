"""Overlapping logistic smoothing: r(zeta|z) is the logistic density of mean z and scale 1/beta.

The support is the whole line. The inverse CDF of the mixture solves a quadratic, Vahdat et al.,
"DVAE++: Discrete Variational Autoencoders with Overlapping Transformations" (2018), appendix B.
"""

import jax
import jax.numpy as jnp

from dvae._numerics import logit, sigmoid
from dvae.relax._implicit import MIN_DENSITY, Target, inverse_density
from dvae.relax._mixture import Mixture, Pair


def _cdfs(zeta: jax.Array, beta: jax.Array) -> Pair:
    return sigmoid(beta * zeta), sigmoid(beta * (zeta - 1))


def _log_probs(zeta: jax.Array, beta: jax.Array) -> Pair:
    log_norm = jnp.log(beta)
    return log_norm + _log_density(beta * zeta), log_norm + _log_density(beta * (zeta - 1))


def _log_density(y: jax.Array) -> jax.Array:
    """Returns the standard logistic log-density."""
    return -jax.nn.softplus(y) - jax.nn.softplus(-y)


def _ratio(zeta: jax.Array, beta: jax.Array) -> jax.Array:
    return _log_density(beta * (zeta - 1)) - _log_density(beta * zeta)


def _quantile_0(u: jax.Array, beta: jax.Array) -> jax.Array:
    return logit(u) / beta


def _root(target: Target, beta: jax.Array) -> jax.Array:
    rho, rest = target.rho, target.rest
    # With m = exp(beta w) and e = e^{-beta}: e (1 - rho) m^2 + b m - rho = 0. The conjugate root
    # is used for b > 0, so that nothing cancels, and 1 / e is kept in the logarithm, so that
    # nothing underflows.
    b = -target.above_p - jnp.exp(-beta) * target.above_q
    total = jnp.abs(b) + jnp.hypot(b, 2 * jnp.sqrt(rho * rest) * jnp.exp(-0.5 * beta))
    total = jnp.maximum(total, MIN_DENSITY)
    scaled = jnp.where(b < 0, total / (2 * rest), 2 * rho / total)
    log_m = jnp.log(scaled) + jnp.where(b < 0, beta, 0)
    return jnp.minimum(log_m / beta, 0.5)


def _slopes(
    w: jax.Array, logits: jax.Array, beta: jax.Array, min_density: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    q, p = sigmoid(logits), sigmoid(-logits)
    y, v = beta * w, beta * (w - 1)
    on, off = sigmoid(y), sigmoid(-v)
    d0, d1 = on * sigmoid(-y), off * sigmoid(v)
    inverse = inverse_density(beta * (p * d0 + q * d1), min_density)
    # R_0 - R_1 = sigmoid(y) sigmoid(-v) (1 - e^{-beta}), v = y - beta.
    by_logits = -q * p * on * off * jnp.expm1(-beta)
    return inverse, by_logits, q * (1 - w) * d1 - p * w * d0


_MIXTURE = Mixture(_cdfs, _log_probs, _ratio, _quantile_0, _root, _slopes, bounded=False)

icdf = _MIXTURE.icdf
sample = _MIXTURE.sample
ancestral_sample = _MIXTURE.ancestral_sample
cdf = _MIXTURE.cdf
log_prob = _MIXTURE.log_prob
log_prob_0 = _MIXTURE.log_prob_0
log_ratio = _MIXTURE.log_ratio
posterior_logits = _MIXTURE.posterior_logits
