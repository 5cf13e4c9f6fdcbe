"""Overlapping Gaussian smoothing: r(zeta|z) is the normal density of mean z and variance 1/beta.

The support is the whole line, and the inverse CDF has no closed form. Vahdat, Andriyash and
Macready, "DVAE#: Discrete Variational Autoencoders with Relaxed Boltzmann Priors" (2018);
log r(zeta|1) - log r(zeta|0) = beta (zeta - 1/2).
"""

import math

import jax
import jax.numpy as jnp

from dvae._numerics import ArrayLike, sigmoid
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
            1.
        logits: [...] real; q = sigmoid(l).
        beta: [...] real > 0, the inverse temperature; all three broadcast.

    Returns:
        [...] zeta on the line, in the common floating dtype of rho and logits. It increases in rho
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
        [...] zeta on the line, in the floating dtype of logits; NaN where logits or beta are.

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
        [...] zeta on the line, in the floating dtype of logits; NaN where logits or beta are.

    Raises:
        ValueError: if beta is a Python number and not positive and finite, or key is an array of
            keys.
        TypeError: if logits are complex.
    """
    return _mixture.ancestral_sample(_FAMILY, key=key, logits=logits, beta=beta)


def cdf(zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates F(zeta) = (1-q) R_0(zeta) + q R_1(zeta).

        R_0(zeta) = Phi(sqrt(beta) zeta),  R_1(zeta) = 1 - R_0(1 - zeta)

    Source: Vahdat et al. (2018), DVAE#.

    Args:
        zeta: [...] real.
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
        zeta: [...] real.
        logits: [...] real; q = sigmoid(l).
        beta: [...] real > 0, the inverse temperature; all three broadcast.

    Returns:
        [...] nats, in the common floating dtype of zeta and logits.

    Raises:
        ValueError: if beta is a Python number and not positive and finite.
        TypeError: if an argument is complex.
    """
    return _mixture.log_prob(_FAMILY, zeta=zeta, logits=logits, beta=beta)


def log_prob_0(zeta: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates log r(zeta|z=0); log r(zeta|1) is its value at 1 - zeta.

        log r(zeta|0) = (log beta - log 2 pi - beta zeta^2) / 2

    Source: Vahdat et al. (2018), DVAE#.

    Args:
        zeta: [...] real.
        beta: [...] real > 0, the inverse temperature; broadcasts with zeta.

    Returns:
        [...] nats, in the floating dtype of zeta.

    Raises:
        ValueError: if beta is a Python number and not positive and finite.
        TypeError: if zeta is complex.
    """
    return _mixture.log_prob_0(_FAMILY, zeta=zeta, beta=beta)


def log_ratio(zeta: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates log r(zeta|1) - log r(zeta|0) = beta (zeta - 1/2).

    Source: Vahdat et al. (2018), DVAE#.

    Args:
        zeta: [...] real.
        beta: [...] real > 0, the inverse temperature; broadcasts with zeta.

    Returns:
        [...] nats, unbounded, in the floating dtype of zeta.

    Raises:
        ValueError: if beta is a Python number and not positive and finite.
        TypeError: if zeta is complex.
    """
    return _mixture.log_ratio(_FAMILY, zeta=zeta, beta=beta)


def posterior_logits(zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates the logit of q(z=1|x, zeta): l + log r(zeta|1) - log r(zeta|0).

    Source: Vahdat et al. (2018), DVAE++, section 5, where its sigmoid is called nu.

    Args:
        zeta: [...] real.
        logits: [...] real, l of q(z=1|x).
        beta: [...] real > 0, the inverse temperature; all three broadcast.

    Returns:
        [...] logits, in the common floating dtype of zeta and logits.

    Raises:
        ValueError: if beta is a Python number and not positive and finite.
        TypeError: if an argument is complex.
    """
    return _mixture.posterior_logits(_FAMILY, zeta=zeta, logits=logits, beta=beta)


def _component_cdfs(zeta: jax.Array, beta: jax.Array) -> Pair:
    """Evaluates R_0(zeta) and R_1(zeta)."""
    scale = jnp.sqrt(beta)
    return _normal_cdf(scale * zeta), _normal_cdf(scale * (zeta - 1))


def _normal_cdf(y: jax.Array) -> jax.Array:
    """Returns Phi(y) with all its digits in the lower tail."""
    return 0.5 * jax.lax.erfc(-math.sqrt(0.5) * y)


def _normal_density(y: jax.Array) -> jax.Array:
    """Evaluates the standard normal density."""
    return math.sqrt(0.5 / math.pi) * jnp.exp(-0.5 * y * y)


def _component_log_probs(zeta: jax.Array, beta: jax.Array) -> Pair:
    """Evaluates log r(zeta|0) and log r(zeta|1)."""
    log_norm = 0.5 * (jnp.log(beta) - math.log(2 * math.pi))
    return log_norm - 0.5 * beta * zeta**2, log_norm - 0.5 * beta * (zeta - 1) ** 2


def _log_ratio(zeta: jax.Array, beta: jax.Array) -> jax.Array:
    """Evaluates log r(zeta|1) - log r(zeta|0)."""
    return beta * (zeta - 0.5)


def _quantile_0(u: jax.Array, beta: jax.Array) -> jax.Array:
    """Evaluates R_0^{-1}(u)."""
    return jax.scipy.special.ndtri(u) / jnp.sqrt(beta)


def _lower_root(target: Target, beta: jax.Array) -> jax.Array:
    """Solves F(w) = rho for the root w <= 1/2."""
    rho, not_rho, q, not_q, above_q, above_not_q = target
    scale = jnp.sqrt(beta)
    # The unknown is y = scale w. Each component alone bounds it from above, within a factor of
    # two in F; Halley's steps on the logarithm of the smaller tail triple the digits from there.
    y_0 = jnp.where(above_not_q < 0, _rough_quantile(rho / not_q, -above_not_q / not_q), jnp.inf)
    y_1 = jnp.where(above_q < 0, _rough_quantile(rho / q, -above_q / q), jnp.inf) + scale
    y = jnp.minimum(jnp.minimum(y_0, y_1), 0.5 * scale)
    side = jnp.where(rho > not_rho, -1, 1).astype(y.dtype)
    log_tail = jnp.log(jnp.minimum(rho, not_rho))
    for _ in range(4):
        value = not_q * _normal_cdf(side * y) + q * _normal_cdf(side * (y - scale))
        d0, d1 = not_q * _normal_density(y), q * _normal_density(y - scale)
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


def _slopes(w: jax.Array, logits: jax.Array, beta: jax.Array, min_density: jax.Array) -> Slopes:
    """Evaluates the parts of the derivatives of the root w <= 1/2."""
    q, not_q = sigmoid(logits), sigmoid(-logits)
    scale = jnp.sqrt(beta)
    y, v = scale * w, scale * (w - 1)
    d0, d1 = not_q * _normal_density(y), q * _normal_density(v)
    by_logits = q * not_q * (_normal_cdf(y) - _normal_cdf(v))
    by_beta = -(d0 * w + d1 * (w - 1)) / (2 * scale)
    inverse = inverse_density(scale * (d0 + d1), min_density)
    return Slopes(inverse_density=inverse, by_logits=by_logits, by_beta=by_beta)


_FAMILY = Family(
    component_cdfs=_component_cdfs,
    component_log_probs=_component_log_probs,
    log_ratio_fn=_log_ratio,
    quantile_0=_quantile_0,
    lower_root=_lower_root,
    slopes_fn=_slopes,
    bounded=False,
)
