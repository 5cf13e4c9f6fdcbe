"""Overlapping exponential smoothing: r(zeta|0) = beta e^{-beta zeta} / (1 - e^{-beta}) on [0, 1].

r(zeta|1) mirrors it. The inverse CDF of the mixture solves a quadratic, Vahdat et al., "DVAE++:
Discrete Variational Autoencoders with Overlapping Transformations" (2018), section 3 and Eq. (3);
log r(zeta|1) - log r(zeta|0) = beta (2 zeta - 1).
"""

import jax

from dvae._numerics import ArrayLike
from dvae.relax import _mixture
from dvae.relax._exponential import FAMILY

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

    Source: Vahdat et al. (2018), DVAE++, Eq. (3).

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
    return _mixture.icdf(FAMILY, rho=rho, logits=logits, beta=beta)


def sample(key: jax.Array, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Draws zeta = F^{-1}(rho) with rho uniform on (0, 1), reparametrized as `icdf` is.

    Source: Vahdat et al. (2018), DVAE++, section 3.

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
    return _mixture.sample(FAMILY, key=key, logits=logits, beta=beta)


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
    return _mixture.ancestral_sample(FAMILY, key=key, logits=logits, beta=beta)


def cdf(zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates F(zeta) = (1-q) R_0(zeta) + q R_1(zeta).

        R_0(zeta) = (1 - e^{-beta zeta}) / (1 - e^{-beta}),  R_1(zeta) = 1 - R_0(1 - zeta)

    Source: Vahdat et al. (2018), DVAE++, section 3.

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
    return _mixture.cdf(FAMILY, zeta=zeta, logits=logits, beta=beta)


def log_prob(zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates log f(zeta) = log[(1-q) r(zeta|0) + q r(zeta|1)], the mixture's log-density.

    Source: Vahdat et al. (2018), DVAE++, section 3.

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
    return _mixture.log_prob(FAMILY, zeta=zeta, logits=logits, beta=beta)


def log_prob_0(zeta: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates log r(zeta|z=0); log r(zeta|1) is its value at 1 - zeta.

        log r(zeta|0) = log beta - beta zeta - log(1 - e^{-beta})

    Source: Vahdat et al. (2018), DVAE++, section 3.

    Args:
        zeta: [...] real; outside [0, 1] the density is 0.
        beta: [...] real > 0, the inverse temperature; broadcasts with zeta.

    Returns:
        [...] nats; -inf outside [0, 1], in the floating dtype of zeta.

    Raises:
        ValueError: if beta is a Python number and not positive and finite.
        TypeError: if zeta is complex.
    """
    return _mixture.log_prob_0(FAMILY, zeta=zeta, beta=beta)


def log_ratio(zeta: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates log r(zeta|1) - log r(zeta|0) = beta (2 zeta - 1).

    Source: Vahdat et al. (2018), DVAE++, section 3.

    Args:
        zeta: [...] real in [0, 1].
        beta: [...] real > 0, the inverse temperature; broadcasts with zeta.

    Returns:
        [...] nats, in [-beta, beta] on the support, in the floating dtype of zeta.

    Raises:
        ValueError: if beta is a Python number and not positive and finite.
        TypeError: if zeta is complex.
    """
    return _mixture.log_ratio(FAMILY, zeta=zeta, beta=beta)


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
    return _mixture.posterior_logits(FAMILY, zeta=zeta, logits=logits, beta=beta)
