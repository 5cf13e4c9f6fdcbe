"""Power-function smoothing: r(zeta|0) = (1/beta) zeta^{1/beta - 1} on (0, 1).

r(zeta|1) mirrors it. Both densities are unbounded at their end for beta > 1: the families' mass
sits within e^{-beta} of 0 and 1, closer to 1 than float32 resolves. Samples therefore round to
exactly 1 often. The inverse CDF has no closed form. Vahdat, Andriyash and Macready, "DVAE#:
Discrete Variational Autoencoders with Relaxed Boltzmann Priors" (2018).
"""

import math

import jax
import jax.numpy as jnp

from dvae.relax._mixture import Mixture, Pair


def _logs(zeta: jax.Array) -> Pair:
    """Returns log zeta and log(1 - zeta), both finite: the ends count as one rounding away."""
    info = jnp.finfo(zeta.dtype)
    zeta = jnp.clip(zeta, info.tiny, 1 - info.epsneg)
    return jnp.log(zeta), jnp.log1p(-zeta)


def _cdfs(zeta: jax.Array, beta: jax.Array) -> Pair:
    # Unlike in the densities the ends need no care: log 0 = -inf gives exactly 0 and 1.
    log_zeta, log_rest = _logs(zeta)
    r0 = jnp.where(zeta > 0, jnp.exp(log_zeta / beta), 0)
    r1 = jnp.where(zeta < 1, -jnp.expm1(log_rest / beta), 1)
    return r0, r1


def _log_probs(zeta: jax.Array, beta: jax.Array) -> Pair:
    log_zeta, log_rest = _logs(zeta)
    power = 1 / beta - 1
    return power * log_zeta - jnp.log(beta), power * log_rest - jnp.log(beta)


def _ratio(zeta: jax.Array, beta: jax.Array) -> jax.Array:
    log_zeta, log_rest = _logs(zeta)
    return (1 / beta - 1) * (log_rest - log_zeta)


def _quantile_0(u: jax.Array, beta: jax.Array) -> jax.Array:
    return jnp.exp(beta * jnp.log(u))


def _root(rho: jax.Array, logits: jax.Array, beta: jax.Array) -> jax.Array:
    q, p = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    log_rho = jnp.log(rho)
    # The unknown is x = log R_0(w) = log(w) / beta. Each component alone bounds x from above,
    # within a factor of two in F, and log F(x) is nearly a logsumexp of two lines: Newton's steps
    # from there go down monotonically and double the digits.
    ratio = jnp.minimum(rho * (1 + jnp.exp(-logits)), 1 - 1e-6)
    by_1 = jnp.log(-jnp.expm1(beta * jnp.log1p(-ratio))) / beta
    x_max = jnp.minimum(-math.log(2.0) / beta, log_rho + jax.nn.softplus(logits))
    x = jnp.minimum(x_max, jnp.where(ratio < 0.9, by_1, 0))
    tiny = jnp.finfo(x.dtype).tiny

    for _ in range(5):
        r0, w = jnp.exp(x), jnp.exp(beta * x)
        log_rest = jnp.log1p(-w)
        r1 = -jnp.expm1(log_rest / beta)
        value = p * r0 + q * r1
        slope = p * r0 + q * w * (1 - r1) / (1 - w)  # dF/dx
        step = (jnp.log(value) - log_rho) * value / jnp.maximum(slope, tiny)
        x = jnp.minimum(x - step, x_max)
    return jnp.exp(beta * x)


def _slopes(
    w: jax.Array, logits: jax.Array, beta: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    q, p = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    log_w, log_rest = jnp.log(jnp.maximum(w, jnp.finfo(w.dtype).tiny)), jnp.log1p(-w)
    r0, rest = jnp.exp(log_w / beta), jnp.exp(log_rest / beta)  # R_0, 1 - R_1
    # w f = ..., so that r_0 = infinity at a w that underflowed to 0 gives the slope 0.
    inverse = beta * w / (p * r0 + q * rest * (w / (1 - w)))
    by_logits = q * p * (r0 + jnp.expm1(log_rest / beta))
    return inverse, by_logits, (p * r0 * log_w - q * rest * log_rest) / (beta * beta)


_MIXTURE = Mixture(_cdfs, _log_probs, _ratio, _quantile_0, _root, _slopes)

icdf = _MIXTURE.icdf
sample = _MIXTURE.sample
ancestral_sample = _MIXTURE.ancestral_sample
cdf = _MIXTURE.cdf
log_prob = _MIXTURE.log_prob
log_prob_0 = _MIXTURE.log_prob_0
log_ratio = _MIXTURE.log_ratio
posterior_logits = _MIXTURE.posterior_logits
