"""The exponential family with a uniform floor, by the parts of `_exponential`."""

from functools import partial

import jax
import jax.numpy as jnp

from dvae._checks import check_static
from dvae._numerics import meet
from dvae.relax import _exponential
from dvae.relax._implicit import MIN_DENSITY, Pair, Slopes, Target, inverse_density
from dvae.relax._mixture import Family


def family_of(eps: float) -> Family:
    """Returns the family of one eps; raises ValueError where it is outside [0, 1]."""
    check_static("eps", eps)
    if not 0 <= eps <= 1:
        raise ValueError(f"eps must be in [0, 1], the weight of the uniform, got {eps}")
    return Family(
        component_cdfs=partial(_component_cdfs, eps=eps),
        component_log_probs=partial(_component_log_probs, eps=eps),
        log_ratio_fn=partial(_log_ratio, eps=eps),
        quantile_0=partial(_quantile_0, eps=eps),
        lower_root=partial(_lower_root, eps=eps),
        slopes_fn=partial(_slopes, eps=eps),
        bounded=True,
    )


def _component_cdfs(zeta: jax.Array, beta: jax.Array, *, eps: float) -> Pair:
    """Evaluates R_0(zeta) and R_1(zeta)."""
    r0, r1 = _exponential.component_cdfs(zeta, beta)
    return (1 - eps) * r0 + eps * zeta, (1 - eps) * r1 + eps * zeta


def _component_log_probs(zeta: jax.Array, beta: jax.Array, *, eps: float) -> Pair:
    """Evaluates log r(zeta|0) and log r(zeta|1)."""
    log_0, log_1 = _exponential.component_log_probs(zeta, beta)
    log_eps, log_rest = jnp.log(eps), jnp.log1p(-eps)
    return jnp.logaddexp(log_0 + log_rest, log_eps), jnp.logaddexp(log_1 + log_rest, log_eps)


def _log_ratio(zeta: jax.Array, beta: jax.Array, *, eps: float) -> jax.Array:
    """Evaluates log r(zeta|1) - log r(zeta|0)."""
    log_0, log_1 = _component_log_probs(zeta, beta, eps=eps)
    return log_1 - log_0


def _quantile_0(u: jax.Array, beta: jax.Array, *, eps: float) -> jax.Array:
    """Evaluates R_0^{-1}(u)."""
    # The mixture again: the share eps of the uniforms, stretched, is the uniform part.
    u, beta = meet(u, beta), meet(beta, u)
    exp_part = _exponential.quantile_0(jnp.minimum((u - eps) / max(1 - eps, MIN_DENSITY), 1), beta)
    return jnp.where(u < eps, u / max(eps, MIN_DENSITY), exp_part)


def _lower_root(target: Target, beta: jax.Array, *, eps: float) -> jax.Array:
    """Solves F(w) = rho for the root w <= 1/2."""
    if eps == 0:
        return _exponential.lower_root(target, beta)
    if eps == 1:
        return jnp.minimum(target.rho, 0.5)
    rho, _, q, not_q, _, above_not_q = target
    # The exponential part, less what the uniform holds at a larger w, bounds w from below, and at
    # w = 0, inflated by a few roundings, from above: there it holds nothing.
    high = jnp.minimum(
        _exponential.lower_root(_without_uniform(target, -2e-6 * rho, eps), beta), rho / eps
    )
    low = _exponential.lower_root(_without_uniform(target, high, eps), beta)
    e, scale = jnp.exp(-beta), -(1 - eps) / jnp.expm1(-beta)
    # Halley's steps on F(w) - rho; on the cliff it is (F(w) - (1-q)) - (rho - (1-q)), whose terms
    # are small there and keep their digits.
    cliff = (rho > 0.5 * not_q) & (beta > 1)
    w = low
    for _ in range(5):
        m, on = jnp.exp(-beta * w), jnp.exp(-beta * (1 - w))
        x = -jnp.expm1(-beta * w)
        value = q * on * x + jnp.where(cliff, not_q * (e - m), not_q * x)
        residual = scale * value + jnp.where(cliff, eps * (w - not_q) - above_not_q, eps * w - rho)
        density = scale * beta * (not_q * m + q * on) + eps
        step = residual / density
        bend = scale * beta * beta * (q * on - not_q * m) / density
        w = jnp.clip(w - step / jnp.maximum(1 - 0.5 * step * bend, 0.5), low, high)
    return w


def _without_uniform(target: Target, w: jax.Array, eps: float) -> Target:
    """Returns the target of the exponential part alone, the uniform holding eps w."""
    rho, not_rho, q, not_q, above_q, above_not_q = target
    return target._replace(
        rho=jnp.maximum(rho - eps * w, 0) / (1 - eps),
        not_rho=(not_rho - eps * (1 - w)) / (1 - eps),
        above_not_q=jnp.maximum((above_not_q - eps * (w - not_q)) / (1 - eps), -not_q),
        above_q=jnp.maximum((above_q - eps * (w - q)) / (1 - eps), -q),
    )


def _slopes(
    w: jax.Array, logits: jax.Array, beta: jax.Array, min_density: jax.Array, *, eps: float
) -> Slopes:
    """Evaluates the parts of the derivatives of the root w <= 1/2."""
    at = _exponential.density_and_slopes(w, logits, beta)
    return Slopes(
        inverse_density=inverse_density((1 - eps) * at.density + eps, min_density),
        by_logits=(1 - eps) * at.by_logits,
        by_beta=(1 - eps) * at.by_beta,
    )
