"""Exponential smoothing with a uniform floor: r(zeta|z) = (1-eps) exponential + eps uniform.

The floor bounds the slope of the inverse CDF between two sharp modes, where that of the plain
exponential grows like e^{beta/2}: with eps = 0.05 it is at most 20. The inverse CDF has no closed
form. Vahdat, Andriyash and Macready, "DVAE#: Discrete Variational Autoencoders with Relaxed
Boltzmann Priors" (2018), where it is called uniform+exp.

Every function is that of `exponential` with one more argument, `eps` in [0, 1], a Python number.
"""

from functools import partial

import jax
import jax.numpy as jnp

from dvae._numerics import meet
from dvae.relax import exponential
from dvae.relax._implicit import MIN_DENSITY, Target, inverse_density
from dvae.relax._mixture import ArrayLike, Mixture, Pair


def icdf(rho: ArrayLike, logits: ArrayLike, beta: ArrayLike, *, eps: float = 0.05) -> jax.Array:
    """Maps uniform noise to zeta = F^{-1}(rho), differentiable in all three arguments.

    Args:
        rho: [...] float in (0, 1).
        logits: [...] float; q = sigmoid(l).
        beta: float > 0, the inverse temperature; all three broadcast.
        eps: the weight of the uniform, in [0, 1].

    Returns:
        [...] zeta in [0, 1].

    Raises:
        ValueError: if beta is a Python number and not positive, rho is one outside (0, 1), or
            eps is outside [0, 1].
    """
    return _mixture(eps).icdf(rho, logits, beta)


def sample(key: jax.Array, logits: ArrayLike, beta: ArrayLike, *, eps: float = 0.05) -> jax.Array:
    """Draws zeta = F^{-1}(rho) with rho uniform, reparametrised.

    Args:
        key: typed PRNG key.
        logits: [...] float.
        beta: float > 0, the inverse temperature; broadcasts with logits.
        eps: the weight of the uniform, in [0, 1].

    Returns:
        [...] zeta in [0, 1], in the dtype of logits.

    Raises:
        ValueError: as `icdf`.
    """
    return _mixture(eps).sample(key, logits, beta)


def ancestral_sample(
    key: jax.Array, logits: ArrayLike, beta: ArrayLike, *, eps: float = 0.05
) -> jax.Array:
    """Draws z ~ Bernoulli(q), then zeta ~ r(zeta|z); same law and gradient rule as `sample`.

    Args:
        key: typed PRNG key.
        logits: [...] float.
        beta: float > 0, the inverse temperature; broadcasts with logits.
        eps: the weight of the uniform, in [0, 1].

    Returns:
        [...] zeta in [0, 1], in the dtype of logits.

    Raises:
        ValueError: as `icdf`.
    """
    return _mixture(eps).ancestral_sample(key, logits, beta)


def cdf(zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike, *, eps: float = 0.05) -> jax.Array:
    """Evaluates F(zeta) = (1-q) R_0(zeta) + q R_1(zeta).

    Args:
        zeta: [...] float.
        logits: [...] float.
        beta: float > 0; broadcasts.
        eps: the weight of the uniform, in [0, 1].

    Returns:
        [...] in [0, 1].

    Raises:
        ValueError: as `icdf`.
    """
    return _mixture(eps).cdf(zeta, logits, beta)


def log_prob(
    zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike, *, eps: float = 0.05
) -> jax.Array:
    """Evaluates the log-density log f(zeta) of the mixture; -inf outside [0, 1].

    Args:
        zeta: [...] float.
        logits: [...] float.
        beta: float > 0; broadcasts.
        eps: the weight of the uniform, in [0, 1].

    Returns:
        [...] nats.

    Raises:
        ValueError: as `icdf`.
    """
    return _mixture(eps).log_prob(zeta, logits, beta)


def log_prob_0(zeta: ArrayLike, beta: ArrayLike, *, eps: float = 0.05) -> jax.Array:
    """Evaluates log r(zeta|z=0); log r(zeta|1) is its value at 1 - zeta.

    Args:
        zeta: [...] float.
        beta: float > 0; broadcasts.
        eps: the weight of the uniform, in [0, 1].

    Returns:
        [...] nats; -inf outside [0, 1].

    Raises:
        ValueError: as `icdf`.
    """
    return _mixture(eps).log_prob_0(zeta, beta)


def log_ratio(zeta: ArrayLike, beta: ArrayLike, *, eps: float = 0.05) -> jax.Array:
    """Evaluates log r(zeta|1) - log r(zeta|0), at most log(beta / eps) or so in absolute value.

    Args:
        zeta: [...] float in [0, 1].
        beta: float > 0; broadcasts.
        eps: the weight of the uniform, in [0, 1].

    Returns:
        [...] nats.

    Raises:
        ValueError: as `icdf`.
    """
    return _mixture(eps).log_ratio(zeta, beta)


def posterior_logits(
    zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike, *, eps: float = 0.05
) -> jax.Array:
    """Evaluates the logit of q(z=1|x, zeta): l + log r(zeta|1) - log r(zeta|0).

    Args:
        zeta: [...] float in [0, 1].
        logits: [...] float.
        beta: float > 0; broadcasts.
        eps: the weight of the uniform, in [0, 1].

    Returns:
        [...] logits.

    Raises:
        ValueError: as `icdf`.
    """
    return _mixture(eps).posterior_logits(zeta, logits, beta)


def _mixture(eps: float) -> Mixture:
    """Returns the family of one eps."""
    if not 0 <= eps <= 1:
        raise ValueError(f"eps must be in [0, 1], the weight of the uniform, got {eps}")
    return Mixture(
        cdfs=partial(_cdfs, eps=eps),
        log_probs=partial(_log_probs, eps=eps),
        ratio=partial(_ratio, eps=eps),
        quantile_0=partial(_quantile_0, eps=eps),
        root=partial(_root, eps=eps),
        slopes=partial(_slopes, eps=eps),
    )


def _cdfs(zeta: jax.Array, beta: jax.Array, *, eps: float) -> Pair:
    r0, r1 = exponential.cdfs(zeta, beta)
    return (1 - eps) * r0 + eps * zeta, (1 - eps) * r1 + eps * zeta


def _log_probs(zeta: jax.Array, beta: jax.Array, *, eps: float) -> Pair:
    log_0, log_1 = exponential.log_probs(zeta, beta)
    log_eps, log_rest = jnp.log(eps), jnp.log1p(-eps)
    return jnp.logaddexp(log_0 + log_rest, log_eps), jnp.logaddexp(log_1 + log_rest, log_eps)


def _ratio(zeta: jax.Array, beta: jax.Array, *, eps: float) -> jax.Array:
    log_0, log_1 = _log_probs(zeta, beta, eps=eps)
    return log_1 - log_0


def _quantile_0(u: jax.Array, beta: jax.Array, *, eps: float) -> jax.Array:
    # The mixture again: the share eps of the uniforms, stretched, is the uniform part.
    u, beta = meet(u, beta), meet(beta, u)
    exp_part = exponential.quantile_0(jnp.minimum((u - eps) / max(1 - eps, MIN_DENSITY), 1), beta)
    return jnp.where(u < eps, u / max(eps, MIN_DENSITY), exp_part)


def _root(target: Target, beta: jax.Array, *, eps: float) -> jax.Array:
    if eps == 0:
        return exponential.root(target, beta)
    if eps == 1:
        return jnp.minimum(target.rho, 0.5)
    rho, _, p, q, above_p, _ = target
    # The exponential part, less what the uniform holds at a larger w, bounds w from below, and at
    # w = 0, inflated by a few roundings, from above: there it holds nothing.
    high = jnp.minimum(
        exponential.root(_without_uniform(target, -2e-6 * rho, eps), beta), rho / eps
    )
    low = exponential.root(_without_uniform(target, high, eps), beta)
    e, scale = jnp.exp(-beta), -(1 - eps) / jnp.expm1(-beta)
    # Halley's steps on F(w) - rho, from above on the cliff as (F(w) - p) - (rho - p), which has
    # the digits of its small terms there.
    cliff = (rho > 0.5 * p) & (beta > 1)
    w = low
    for _ in range(5):
        m, on = jnp.exp(-beta * w), jnp.exp(-beta * (1 - w))
        x = -jnp.expm1(-beta * w)
        value = q * on * x + jnp.where(cliff, p * (e - m), p * x)
        residual = scale * value + jnp.where(cliff, eps * (w - p) - above_p, eps * w - rho)
        density = scale * beta * (p * m + q * on) + eps
        step = residual / density
        bend = scale * beta * beta * (q * on - p * m) / density
        w = jnp.clip(w - step / jnp.maximum(1 - 0.5 * step * bend, 0.5), low, high)
    return w


def _without_uniform(target: Target, w: jax.Array, eps: float) -> Target:
    """Returns the target of the exponential part alone, the uniform holding eps w."""
    rho, rest, p, q, above_p, above_q = target
    return target._replace(
        rho=jnp.maximum(rho - eps * w, 0) / (1 - eps),
        rest=(rest - eps * (1 - w)) / (1 - eps),
        above_p=jnp.maximum((above_p - eps * (w - p)) / (1 - eps), -p),
        above_q=jnp.maximum((above_q - eps * (w - q)) / (1 - eps), -q),
    )


def _slopes(
    w: jax.Array, logits: jax.Array, beta: jax.Array, min_density: jax.Array, *, eps: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    density, by_logits, by_beta = exponential.parts(w, logits, beta)
    inverse = inverse_density((1 - eps) * density + eps, min_density)
    return inverse, (1 - eps) * by_logits, (1 - eps) * by_beta
