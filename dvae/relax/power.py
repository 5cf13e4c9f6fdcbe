"""Power-function smoothing: r(zeta|0) = (1/beta) zeta^{1/beta - 1} on (0, 1).

r(zeta|1) mirrors it. Both densities are unbounded at their end for beta > 1: the families' mass
sits within e^{-beta} of 0 and 1, closer to 1 than float32 resolves. Samples therefore round to
exactly 1 often. The inverse CDF has no closed form. Vahdat, Andriyash and Macready, "DVAE#:
Discrete Variational Autoencoders with Relaxed Boltzmann Priors" (2018).
"""

import math

import jax
import jax.numpy as jnp

from dvae._numerics import sigmoid
from dvae.relax._implicit import MIN_DENSITY, Target, inverse_density
from dvae.relax._mixture import Mixture, Pair


def _logs(zeta: jax.Array) -> Pair:
    """Returns log zeta and log(1 - zeta), both finite: the ends count as one rounding away."""
    info = jnp.finfo(zeta.dtype)
    zeta = jnp.clip(zeta, info.tiny, 1 - info.epsneg)
    return jnp.log(zeta), jnp.log1p(-zeta)


def _cdfs(zeta: jax.Array, beta: jax.Array) -> Pair:
    # Unlike in the densities the ends need no care: log 0 = -inf gives exactly 0 and 1.
    log_zeta, log_rest = _logs(zeta)
    zeta, beta = jnp.broadcast_arrays(zeta, beta)
    r0 = jnp.where(zeta <= 0, 0, jnp.exp(log_zeta / beta))
    r1 = jnp.where(zeta >= 1, 1, -jnp.expm1(log_rest / beta))
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


def _root(target: Target, beta: jax.Array) -> jax.Array:
    rho, rest, p, q, _, above_q = target
    power = 1 / beta
    # The unknown is x = log w. Each component alone bounds it from above, within a factor of two
    # in F; Halley's steps on the logarithm of the smaller tail triple the digits from there.
    share = jnp.minimum(rho / q, 1)
    log_rest_1 = jnp.where(share < 0.5, jnp.log1p(-share), jnp.log(jnp.maximum(-above_q, 0) / q))
    x_0 = beta * jnp.log(rho / p)
    x_1 = jnp.log(-jnp.expm1(beta * log_rest_1))
    x = jnp.minimum(jnp.minimum(x_0, x_1), -math.log(2.0))
    upper = rho > rest
    sign = jnp.where(upper, -1, 1).astype(x.dtype)
    log_tail = jnp.log(jnp.minimum(rho, rest))
    for _ in range(4):
        w = jnp.exp(x)
        log_rest = jnp.log1p(-w)
        r0, rest_1 = jnp.exp(power * x), jnp.exp(power * log_rest)
        value = jnp.where(
            upper,
            q * rest_1 - p * jnp.expm1(power * x),
            p * r0 - q * jnp.expm1(power * log_rest),
        )
        odds = w / (1 - w)
        d0, d1 = power * p * r0, power * q * rest_1 * odds  # dF/dx = d0 + d1
        slope = jnp.maximum(d0 + d1, MIN_DENSITY)
        step = sign * (jnp.log(value) - log_tail) * value / slope
        bend = (power * d0 + d1 * (1 - (power - 1) * odds)) / slope - sign * slope / value
        # The floor prevents a division by zero, and a step of the wrong sign.
        x = jnp.minimum(x - step / jnp.maximum(1 - 0.5 * step * bend, 0.25), -math.log(2.0))
    return jnp.exp(x)


def _slopes(
    w: jax.Array, logits: jax.Array, beta: jax.Array, min_density: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    q, p = sigmoid(logits), sigmoid(-logits)
    log_w, log_rest = jnp.log(jnp.maximum(w, jnp.finfo(w.dtype).tiny)), jnp.log1p(-w)
    r0, rest = jnp.exp(log_w / beta), jnp.exp(log_rest / beta)  # R_0, 1 - R_1
    # w f = ..., so that r_0 = infinity at a w that underflowed to 0 gives the slope 0.
    inverse = beta * w * inverse_density(p * r0 + q * rest * (w / (1 - w)), beta * w * min_density)
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
