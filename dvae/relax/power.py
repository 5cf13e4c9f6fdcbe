"""Power-function smoothing: r(zeta|0) = (1/beta) zeta^{1/beta - 1} on (0, 1).

r(zeta|1) mirrors it. Both densities are unbounded at their end for beta > 1: the families' mass
sits within e^{-beta} of 0 and 1, closer to 1 than float32 resolves. Samples therefore round to
exactly 1 often. The inverse CDF has no closed form. Vahdat, Andriyash and Macready, "DVAE#:
Discrete Variational Autoencoders with Relaxed Boltzmann Priors" (2018).
"""

import math

import jax
import jax.numpy as jnp

from dvae._numerics import ArrayLike, sigmoid, within
from dvae.relax import _mixture
from dvae.relax._implicit import MIN_DENSITY, Pair, Slopes, Target, inverse_density
from dvae.relax._mixture import Family

__all__ = [
    "ancestral_sample",
    "cdf",
    "icdf",
    "log_prob",
    "log_prob_0",
    "log_ratio",
    "posterior_logits",
    "sample",
]


def icdf(rho: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Maps uniform noise to zeta = F^{-1}(rho), differentiable in all three arguments.

    F, that of `cdf`, is inverted by Halley's steps. The gradient is that of the implicit function:
    dzeta/drho = 1/f, dzeta/dl = q (1-q) (R_0 - R_1) / f, dzeta/dbeta = -(dF/dbeta) / f.

    Source: Vahdat et al. (2018), DVAE#.

    Args:
        rho: [...] real in [0, 1]; what is closer than 1e-17 to 0 counts as that close, and so does
            1. At 0 and 1 zeta is exactly the end of the support.
        logits: [...] real; q = sigmoid(l).
        beta: [...] real > 0, the inverse temperature; all three broadcast.

    Returns:
        [...] zeta in [0, 1], in the common floating dtype of rho and logits. It increases in rho
        and, for beta > 1, in the logits. NaN where an argument is NaN or rho is outside [0, 1].

    Raises:
        ValueError: if beta is a Python number and not positive and finite, or rho is one outside
            [0, 1].
        TypeError: if an argument is complex.
    """
    return _mixture.icdf(_FAMILY, rho=rho, logits=logits, beta=beta)


def sample(key: jax.Array, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Draws zeta = F^{-1}(rho) with rho uniform on (0, 1), reparametrized as `icdf` is.

    Source: Vahdat et al. (2018), DVAE#.

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
    return _mixture.sample(_FAMILY, key=key, logits=logits, beta=beta)


def ancestral_sample(key: jax.Array, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Draws z ~ Bernoulli(q), then zeta ~ r(zeta|z); no root is computed.

    The law is that of `sample`, and so is the gradient at a zeta, since it depends on zeta alone:
    dzeta/dl = q (1-q) (R_0 - R_1) / f.

    Source: Vahdat et al. (2018), DVAE#.

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
    return _mixture.ancestral_sample(_FAMILY, key=key, logits=logits, beta=beta)


def cdf(zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates F(zeta) = (1-q) R_0(zeta) + q R_1(zeta).

        R_0(zeta) = zeta^{1/beta},  R_1(zeta) = 1 - R_0(1 - zeta)

    Source: Vahdat et al. (2018), DVAE#.

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
    return _mixture.cdf(_FAMILY, zeta=zeta, logits=logits, beta=beta)


def log_prob(zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates log f(zeta) = log[(1-q) r(zeta|0) + q r(zeta|1)], the mixture's log-density.

    Source: Vahdat et al. (2018), DVAE#.

    Args:
        zeta: [...] real; outside [0, 1] the density is 0.
        logits: [...] real; q = sigmoid(l).
        beta: [...] real > 0, the inverse temperature; all three broadcast.

    Returns:
        [...] nats; -inf outside [0, 1], in the common floating dtype of zeta and logits.

    Raises:
        ValueError: if beta is a Python number and not positive and finite.
        TypeError: if an argument is complex.
    """
    return _mixture.log_prob(_FAMILY, zeta=zeta, logits=logits, beta=beta)


def log_prob_0(zeta: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates log r(zeta|z=0); log r(zeta|1) is its value at 1 - zeta.

        log r(zeta|0) = (1/beta - 1) log zeta - log beta

    Source: Vahdat et al. (2018), DVAE#.

    Args:
        zeta: [...] real; outside [0, 1] the density is 0.
        beta: [...] real > 0, the inverse temperature; broadcasts with zeta.

    Returns:
        [...] nats; -inf outside [0, 1], in the floating dtype of zeta.

    Raises:
        ValueError: if beta is a Python number and not positive and finite.
        TypeError: if zeta is complex.
    """
    return _mixture.log_prob_0(_FAMILY, zeta=zeta, beta=beta)


def log_ratio(zeta: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates log r(zeta|1) - log r(zeta|0) = (1/beta - 1) (log(1 - zeta) - log zeta).

    Source: Vahdat et al. (2018), DVAE#.

    Args:
        zeta: [...] real in [0, 1].
        beta: [...] real > 0, the inverse temperature; broadcasts with zeta.

    Returns:
        [...] nats, finite: 0 and 1 count as one rounding away, in the floating dtype of zeta.

    Raises:
        ValueError: if beta is a Python number and not positive and finite.
        TypeError: if zeta is complex.
    """
    return _mixture.log_ratio(_FAMILY, zeta=zeta, beta=beta)


def posterior_logits(zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates the logit of q(z=1|x, zeta): l + log r(zeta|1) - log r(zeta|0).

    Source: Vahdat et al. (2018), DVAE++, section 5, where its sigmoid is called nu.

    Args:
        zeta: [...] real in [0, 1].
        logits: [...] real, l of q(z=1|x).
        beta: [...] real > 0, the inverse temperature; all three broadcast.

    Returns:
        [...] logits, in the common floating dtype of zeta and logits.

    Raises:
        ValueError: if beta is a Python number and not positive and finite.
        TypeError: if an argument is complex.
    """
    return _mixture.posterior_logits(_FAMILY, zeta=zeta, logits=logits, beta=beta)


def _logs(zeta: jax.Array) -> Pair:
    """Returns log zeta and log(1 - zeta), both finite: the ends count as one rounding away."""
    info = jnp.finfo(zeta.dtype)
    zeta = within(zeta, info.tiny, 1 - info.epsneg)
    return jnp.log(zeta), jnp.log1p(-zeta)


def _component_cdfs(zeta: jax.Array, beta: jax.Array) -> Pair:
    """Evaluates R_0(zeta) and R_1(zeta)."""
    # Only the end at which a logarithm is infinite is moved: at the other R_0 and R_1 are exact.
    info = jnp.finfo(zeta.dtype)
    log_zeta = jnp.log(within(zeta, info.tiny, 1))
    log_rest = jnp.log1p(-within(zeta, 0, 1 - info.epsneg))
    zeta, beta = jnp.broadcast_arrays(zeta, beta)
    r0 = jnp.where(zeta <= 0, 0, jnp.exp(log_zeta / beta))
    r1 = jnp.where(zeta >= 1, 1, -jnp.expm1(log_rest / beta))
    return r0, r1


def _component_log_probs(zeta: jax.Array, beta: jax.Array) -> Pair:
    """Evaluates log r(zeta|0) and log r(zeta|1)."""
    log_zeta, log_rest = _logs(zeta)
    power = 1 / beta - 1
    return power * log_zeta - jnp.log(beta), power * log_rest - jnp.log(beta)


def _log_ratio(zeta: jax.Array, beta: jax.Array) -> jax.Array:
    """Evaluates log r(zeta|1) - log r(zeta|0)."""
    log_zeta, log_rest = _logs(zeta)
    return (1 / beta - 1) * (log_rest - log_zeta)


def _quantile_0(u: jax.Array, beta: jax.Array) -> jax.Array:
    """Evaluates R_0^{-1}(u)."""
    return jnp.exp(beta * jnp.log(u))


def _lower_root(target: Target, beta: jax.Array) -> jax.Array:
    """Solves F(w) = rho for the root w <= 1/2."""
    rho, not_rho, q, not_q, above_q, _ = target
    power = 1 / beta
    # The unknown is x = log w. Each component alone bounds it from above, within a factor of two
    # in F; Halley's steps on the logarithm of the smaller tail triple the digits from there.
    # Below -88 q underflows to 0; where it is that small the other component decides.
    floored = jnp.maximum(q, MIN_DENSITY**2)
    share = jnp.minimum(rho / floored, 1)
    rest = jnp.maximum(-above_q, 0) / floored
    log_rest_1 = jnp.where(share < 0.5, jnp.log1p(-share), jnp.log(rest))
    x_0 = beta * jnp.log(rho / not_q)
    x_1 = jnp.log(-jnp.expm1(beta * log_rest_1))
    x = jnp.minimum(jnp.minimum(x_0, x_1), -math.log(2.0))
    upper = rho > not_rho
    sign = jnp.where(upper, -1, 1).astype(x.dtype)
    log_tail = jnp.log(jnp.minimum(rho, not_rho))
    for _ in range(4):
        w = jnp.exp(x)
        log_rest = jnp.log1p(-w)
        r0, rest_1 = jnp.exp(power * x), jnp.exp(power * log_rest)
        value = jnp.where(
            upper,
            q * rest_1 - not_q * jnp.expm1(power * x),
            not_q * r0 - q * jnp.expm1(power * log_rest),
        )
        odds = w / (1 - w)
        d0, d1 = power * not_q * r0, power * q * rest_1 * odds  # dF/dx = d0 + d1
        slope = jnp.maximum(d0 + d1, MIN_DENSITY)
        step = sign * (jnp.log(value) - log_tail) * value / slope
        bend = (power * d0 + d1 * (1 - (power - 1) * odds)) / slope - sign * slope / value
        # The floor prevents a division by zero, and a step of the wrong sign.
        x = jnp.minimum(x - step / jnp.maximum(1 - 0.5 * step * bend, 0.25), -math.log(2.0))
    return jnp.exp(x)


def _slopes(w: jax.Array, logits: jax.Array, beta: jax.Array, min_density: jax.Array) -> Slopes:
    """Evaluates the parts of the derivatives of the root w <= 1/2."""
    q, not_q = sigmoid(logits), sigmoid(-logits)
    log_w, log_rest = jnp.log(jnp.maximum(w, jnp.finfo(w.dtype).tiny)), jnp.log1p(-w)
    r0, rest = jnp.exp(log_w / beta), jnp.exp(log_rest / beta)  # R_0, 1 - R_1
    # w f = ..., so that r_0 = infinity at a w that underflowed to 0 gives the slope 0.
    inverse = (
        beta * w * inverse_density(not_q * r0 + q * rest * (w / (1 - w)), beta * w * min_density)
    )
    by_logits = q * not_q * (r0 + jnp.expm1(log_rest / beta))
    by_beta = (not_q * r0 * log_w - q * rest * log_rest) / (beta * beta)
    return Slopes(inverse_density=inverse, by_logits=by_logits, by_beta=by_beta)


_FAMILY = Family(
    component_cdfs=_component_cdfs,
    component_log_probs=_component_log_probs,
    log_ratio_fn=_log_ratio,
    quantile_0=_quantile_0,
    lower_root=_lower_root,
    slopes_fn=_slopes,
    bounded=True,
)
