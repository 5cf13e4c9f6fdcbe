"""Overlapping logistic smoothing: r(zeta|z) is the logistic density of mean z and scale 1/beta.

The support is the whole line. The inverse CDF of the mixture solves a quadratic, Vahdat et al.,
"DVAE++: Discrete Variational Autoencoders with Overlapping Transformations" (2018), appendix B.
"""

import jax
import jax.numpy as jnp

from dvae._numerics import ArrayLike, logit, sigmoid
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

    F, that of `cdf`, is inverted in closed form. The gradient is that of the implicit function:
    dzeta/drho = 1/f, dzeta/dl = q (1-q) (R_0 - R_1) / f, dzeta/dbeta = -(dF/dbeta) / f.

    Source: Vahdat et al. (2018), DVAE++, appendix B.

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

    Source: Vahdat et al. (2018), DVAE++, appendix B.

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

        R_0(zeta) = sigmoid(beta zeta),  R_1(zeta) = 1 - R_0(1 - zeta)

    Source: Vahdat et al. (2018), DVAE++, appendix B.

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

    Source: Vahdat et al. (2018), DVAE++, appendix B.

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

        log r(zeta|0) = log beta - softplus(beta zeta) - softplus(-beta zeta)

    Source: Vahdat et al. (2018), DVAE++, appendix B.

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
    """Evaluates log r(zeta|1) - log r(zeta|0).

    Source: Vahdat et al. (2018), DVAE++, appendix B.

    Args:
        zeta: [...] real.
        beta: [...] real > 0, the inverse temperature; broadcasts with zeta.

    Returns:
        [...] nats, in (-beta, beta), in the floating dtype of zeta.

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
    return sigmoid(beta * zeta), sigmoid(beta * (zeta - 1))


def _component_log_probs(zeta: jax.Array, beta: jax.Array) -> Pair:
    """Evaluates log r(zeta|0) and log r(zeta|1)."""
    log_norm = jnp.log(beta)
    return log_norm + _log_density(beta * zeta), log_norm + _log_density(beta * (zeta - 1))


def _log_density(y: jax.Array) -> jax.Array:
    """Returns the standard logistic log-density."""
    return -jax.nn.softplus(y) - jax.nn.softplus(-y)


def _log_ratio(zeta: jax.Array, beta: jax.Array) -> jax.Array:
    """Evaluates log r(zeta|1) - log r(zeta|0)."""
    return _log_density(beta * (zeta - 1)) - _log_density(beta * zeta)


def _quantile_0(u: jax.Array, beta: jax.Array) -> jax.Array:
    """Evaluates R_0^{-1}(u)."""
    return logit(u) / beta


def _lower_root(target: Target, beta: jax.Array) -> jax.Array:
    """Solves F(w) = rho for the root w <= 1/2."""
    rho, not_rho = target.rho, target.not_rho
    # With m = exp(beta w) and e = e^{-beta}: e (1 - rho) m^2 + b m - rho = 0. The conjugate root
    # is used for b > 0, so that nothing cancels, and 1 / e is kept in the logarithm, so that
    # nothing underflows.
    b = -target.above_not_q - jnp.exp(-beta) * target.above_q
    total = jnp.abs(b) + jnp.hypot(b, 2 * jnp.sqrt(rho * not_rho) * jnp.exp(-0.5 * beta))
    total = jnp.maximum(total, MIN_DENSITY)
    scaled = jnp.where(b < 0, total / (2 * not_rho), 2 * rho / total)
    log_m = jnp.log(scaled) + jnp.where(b < 0, beta, 0)
    return jnp.minimum(log_m / beta, 0.5)


def _slopes(w: jax.Array, logits: jax.Array, beta: jax.Array, min_density: jax.Array) -> Slopes:
    """Evaluates the parts of the derivatives of the root w <= 1/2."""
    q, not_q = sigmoid(logits), sigmoid(-logits)
    y, v = beta * w, beta * (w - 1)
    on, off = sigmoid(y), sigmoid(-v)
    d0, d1 = on * sigmoid(-y), off * sigmoid(v)
    inverse = inverse_density(beta * (not_q * d0 + q * d1), min_density)
    # R_0 - R_1 = sigmoid(y) sigmoid(-v) (1 - e^{-beta}), v = y - beta.
    by_logits = -q * not_q * on * off * jnp.expm1(-beta)
    by_beta = q * (1 - w) * d1 - not_q * w * d0
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
