"""Exponential smoothing with a uniform floor: r(zeta|z) = (1-eps) exponential + eps uniform.

The floor bounds the slope of the inverse CDF between two sharp modes, where that of the plain
exponential grows like e^{beta/2}: with eps = 0.05 it is at most 20. The inverse CDF has no closed
form. Vahdat, Andriyash and Macready, "DVAE#: Discrete Variational Autoencoders with Relaxed
Boltzmann Priors" (2018), where it is called uniform+exp.

Every function is that of `exponential` with one more argument, `eps` in [0, 1], a Python number.
"""

import jax

from dvae._numerics import ArrayLike
from dvae.relax import _mixture
from dvae.relax._uniform_exp import family_of

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


def icdf(rho: ArrayLike, logits: ArrayLike, beta: ArrayLike, *, eps: float = 0.05) -> jax.Array:
    """Maps uniform noise to zeta = F^{-1}(rho), differentiable in all three arguments.

    F, that of `cdf`, is inverted by Halley's steps. The gradient is that of the implicit function:
    dzeta/drho = 1/f, dzeta/dl = q (1-q) (R_0 - R_1) / f, dzeta/dbeta = -(dF/dbeta) / f.

    Source: Vahdat et al. (2018), DVAE#.

    Args:
        rho: [...] real in [0, 1]; what is closer than 1e-17 to 0 counts as that close, and so does
            1. At 0 and 1 zeta is exactly the end of the support.
        logits: [...] real; q = sigmoid(l).
        beta: [...] real > 0, the inverse temperature; all three broadcast.
        eps: the weight of the uniform, a Python number in [0, 1].

    Returns:
        [...] zeta in [0, 1], in the common floating dtype of rho and logits. It increases in rho
        and, for beta > 1, in the logits. NaN where an argument is NaN or rho is outside [0, 1].

    Raises:
        ValueError: if beta is a Python number and not positive and finite, rho is one outside [0,
            1], or eps is outside [0, 1].
        TypeError: if an argument is complex.
    """
    return _mixture.icdf(family_of(eps), rho=rho, logits=logits, beta=beta)


def sample(key: jax.Array, logits: ArrayLike, beta: ArrayLike, *, eps: float = 0.05) -> jax.Array:
    """Draws zeta = F^{-1}(rho) with rho uniform on (0, 1), reparametrized as `icdf` is.

    Source: Vahdat et al. (2018), DVAE#.

    Args:
        key: typed PRNG key, a single one.
        logits: [...] real; q = sigmoid(l).
        beta: [...] real > 0, the inverse temperature; broadcasts with logits.
        eps: the weight of the uniform, a Python number in [0, 1].

    Returns:
        [...] zeta in [0, 1], in the floating dtype of logits; NaN where logits or beta are.

    Raises:
        ValueError: if beta is a Python number and not positive and finite, key is an array of keys,
            or eps is outside [0, 1].
        TypeError: if logits are complex.
    """
    return _mixture.sample(family_of(eps), key=key, logits=logits, beta=beta)


def ancestral_sample(
    key: jax.Array, logits: ArrayLike, beta: ArrayLike, *, eps: float = 0.05
) -> jax.Array:
    """Draws z ~ Bernoulli(q), then zeta ~ r(zeta|z); no root is computed.

    The law is that of `sample`, and so is the gradient at a zeta, since it depends on zeta alone:
    dzeta/dl = q (1-q) (R_0 - R_1) / f.

    Source: Vahdat et al. (2018), DVAE#.

    Args:
        key: typed PRNG key, a single one.
        logits: [...] real; q = sigmoid(l).
        beta: [...] real > 0, the inverse temperature; broadcasts with logits.
        eps: the weight of the uniform, a Python number in [0, 1].

    Returns:
        [...] zeta in [0, 1], in the floating dtype of logits; NaN where logits or beta are.

    Raises:
        ValueError: if beta is a Python number and not positive and finite, key is an array of keys,
            or eps is outside [0, 1].
        TypeError: if logits are complex.
    """
    return _mixture.ancestral_sample(family_of(eps), key=key, logits=logits, beta=beta)


def cdf(zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike, *, eps: float = 0.05) -> jax.Array:
    """Evaluates F(zeta) = (1-q) R_0(zeta) + q R_1(zeta).

        R_0(zeta) = (1-eps) (1 - e^{-beta zeta}) / (1 - e^{-beta}) + eps zeta
        R_1(zeta) = 1 - R_0(1 - zeta)

    Source: Vahdat et al. (2018), DVAE#.

    Args:
        zeta: [...] real; outside [0, 1] F is 0 or 1.
        logits: [...] real; q = sigmoid(l).
        beta: [...] real > 0, the inverse temperature; all three broadcast.
        eps: the weight of the uniform, a Python number in [0, 1].

    Returns:
        [...] in [0, 1], in the common floating dtype of zeta and logits.

    Raises:
        ValueError: if beta is a Python number and not positive and finite, or eps is
            outside [0, 1].
        TypeError: if an argument is complex.
    """
    return _mixture.cdf(family_of(eps), zeta=zeta, logits=logits, beta=beta)


def log_prob(
    zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike, *, eps: float = 0.05
) -> jax.Array:
    """Evaluates log f(zeta) = log[(1-q) r(zeta|0) + q r(zeta|1)], the mixture's log-density.

    Source: Vahdat et al. (2018), DVAE#.

    Args:
        zeta: [...] real; outside [0, 1] the density is 0.
        logits: [...] real; q = sigmoid(l).
        beta: [...] real > 0, the inverse temperature; all three broadcast.
        eps: the weight of the uniform, a Python number in [0, 1].

    Returns:
        [...] nats; -inf outside [0, 1], in the common floating dtype of zeta and logits.

    Raises:
        ValueError: if beta is a Python number and not positive and finite, or eps is
            outside [0, 1].
        TypeError: if an argument is complex.
    """
    return _mixture.log_prob(family_of(eps), zeta=zeta, logits=logits, beta=beta)


def log_prob_0(zeta: ArrayLike, beta: ArrayLike, *, eps: float = 0.05) -> jax.Array:
    """Evaluates log r(zeta|z=0); log r(zeta|1) is its value at 1 - zeta.

        log r(zeta|0) = log[(1-eps) beta e^{-beta zeta} / (1 - e^{-beta}) + eps]

    Source: Vahdat et al. (2018), DVAE#.

    Args:
        zeta: [...] real; outside [0, 1] the density is 0.
        beta: [...] real > 0, the inverse temperature; broadcasts with zeta.
        eps: the weight of the uniform, a Python number in [0, 1].

    Returns:
        [...] nats; -inf outside [0, 1], in the floating dtype of zeta.

    Raises:
        ValueError: if beta is a Python number and not positive and finite, or eps is
            outside [0, 1].
        TypeError: if zeta is complex.
    """
    return _mixture.log_prob_0(family_of(eps), zeta=zeta, beta=beta)


def log_ratio(zeta: ArrayLike, beta: ArrayLike, *, eps: float = 0.05) -> jax.Array:
    """Evaluates log r(zeta|1) - log r(zeta|0).

    Source: Vahdat et al. (2018), DVAE#.

    Args:
        zeta: [...] real in [0, 1].
        beta: [...] real > 0, the inverse temperature; broadcasts with zeta.
        eps: the weight of the uniform, a Python number in [0, 1].

    Returns:
        [...] nats, at most log(beta / eps) or so in absolute value, in the floating dtype of zeta.

    Raises:
        ValueError: if beta is a Python number and not positive and finite, or eps is
            outside [0, 1].
        TypeError: if zeta is complex.
    """
    return _mixture.log_ratio(family_of(eps), zeta=zeta, beta=beta)


def posterior_logits(
    zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike, *, eps: float = 0.05
) -> jax.Array:
    """Evaluates the logit of q(z=1|x, zeta): l + log r(zeta|1) - log r(zeta|0).

    Source: Vahdat et al. (2018), DVAE++, section 5, where its sigmoid is called nu.

    Args:
        zeta: [...] real in [0, 1].
        logits: [...] real, l of q(z=1|x).
        beta: [...] real > 0, the inverse temperature; all three broadcast.
        eps: the weight of the uniform, a Python number in [0, 1].

    Returns:
        [...] logits, in the common floating dtype of zeta and logits.

    Raises:
        ValueError: if beta is a Python number and not positive and finite, or eps is
            outside [0, 1].
        TypeError: if an argument is complex.
    """
    return _mixture.posterior_logits(family_of(eps), zeta=zeta, logits=logits, beta=beta)
