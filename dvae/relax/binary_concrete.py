"""The binary Concrete distribution: zeta = sigmoid((l + logit(rho)) / tau), rho uniform.

Its argmax, 1[zeta > 1/2], is an exact Bernoulli(sigmoid(l)) sample at every temperature tau.
y = logit(zeta) has the logistic law of mean l / tau and scale 1 / tau. In float32 zeta rounds to 0
or 1 at low temperatures, y never does: keep y for densities and Monte Carlo divergences
(`sample_logit`, `log_prob_of_logit`; the Jacobian cancels in a ratio of two densities).

Reference: Maddison, Mnih and Teh, "The Concrete Distribution" (2016), appendix B.
"""

import jax
import jax.numpy as jnp

from dvae._checks import check_positive, check_unit
from dvae._numerics import ArrayLike, logit, meet, same_rank, sigmoid, widen, within
from dvae.relax._implicit import tails
from dvae.relax._mixture import uniform_like

__all__ = ["cdf", "icdf", "icdf_logit", "log_prob", "log_prob_of_logit", "sample", "sample_logit"]


def icdf(rho: ArrayLike, logits: ArrayLike, temperature: ArrayLike) -> jax.Array:
    """Maps uniform noise to zeta = sigmoid((l + logit(rho)) / tau).

    Args:
        rho: [...] float in [0, 1]; what is closer than 1e-36 to 0 counts as that close, without a
            gradient. At 0 and 1 zeta is exactly 0 and 1, and no argument has a gradient.
        logits: [...] float.
        temperature: tau > 0; all three broadcast.

    Returns:
        [...] in [0, 1].

    Raises:
        ValueError: if temperature is a Python number and not positive, or rho one outside [0, 1].
    """
    check_unit("rho", rho)
    (rho, logits), tau, dtype = _prepare((rho, logits), temperature)
    zeta = _relaxed(_perturbed(rho, logits), tau)
    # At the ends the slope is infinite for tau > 1 and 0 for tau < 1, never that of rho itself.
    end, zeta = jnp.broadcast_arrays(jax.lax.stop_gradient(meet(rho, zeta)), zeta)
    return jnp.where((end == 0) | (end == 1), end, zeta).astype(dtype)


def icdf_logit(rho: ArrayLike, logits: ArrayLike, temperature: ArrayLike) -> jax.Array:
    """Maps uniform noise to y = logit(zeta) = (l + logit(rho)) / tau.

    Args:
        rho: [...] float in [0, 1]; what is closer than 1e-36 to 0 or 1 counts as that close, so
            that y is finite, and passes no gradient to rho.
        logits: [...] float.
        temperature: tau > 0; all three broadcast.

    Returns:
        [...] logits of relaxed bits.

    Raises:
        ValueError: if temperature is a Python number and not positive, or rho one outside [0, 1].
    """
    check_unit("rho", rho)
    (rho, logits), tau, dtype = _prepare((rho, logits), temperature)
    return (_perturbed(rho, logits) / tau).astype(dtype)


def sample(key: jax.Array, logits: ArrayLike, temperature: ArrayLike) -> jax.Array:
    """Draws zeta, reparametrized (see `icdf`).

    Args:
        key: typed PRNG key.
        logits: [...] float.
        temperature: tau > 0; broadcasts with logits.

    Returns:
        [...] in [0, 1], in the dtype of logits.

    Raises:
        ValueError: if temperature is a Python number and not positive.
    """
    (logits,), tau, dtype = _prepare((logits,), temperature)
    return _relaxed(_perturbed(uniform_like(key, logits, tau), logits), tau).astype(dtype)


def sample_logit(key: jax.Array, logits: ArrayLike, temperature: ArrayLike) -> jax.Array:
    """Draws y = logit(zeta), reparametrized (see `icdf_logit`).

    Args:
        key: typed PRNG key.
        logits: [...] float.
        temperature: tau > 0; broadcasts with logits.

    Returns:
        [...] logits of relaxed bits, in the dtype of logits.

    Raises:
        ValueError: if temperature is a Python number and not positive.
    """
    (logits,), tau, dtype = _prepare((logits,), temperature)
    return (_perturbed(uniform_like(key, logits, tau), logits) / tau).astype(dtype)


def cdf(zeta: ArrayLike, logits: ArrayLike, temperature: ArrayLike) -> jax.Array:
    """Evaluates F(zeta) = sigmoid(tau logit(zeta) - l); 0 below the unit interval, 1 above.

    Args:
        zeta: [...] float.
        logits: [...] float.
        temperature: tau > 0; all three broadcast.

    Returns:
        [...] in [0, 1].

    Raises:
        ValueError: if temperature is a Python number and not positive.
    """
    (zeta, logits), tau, dtype = _prepare((zeta, logits), temperature)
    outside = (zeta <= 0) | (zeta >= 1)
    # The inner select keeps the infinite logit out of the gradient.
    value = sigmoid(tau * logit(jnp.where(outside, 0.5, zeta)) - logits)
    outside, zeta, value = jnp.broadcast_arrays(outside, zeta, value)
    return jnp.where(outside, jnp.where(zeta > 0, 1, 0), value).astype(dtype)


def log_prob(zeta: ArrayLike, logits: ArrayLike, temperature: ArrayLike) -> jax.Array:
    """Evaluates the log-density of zeta, Maddison et al. (2016), Eq. (21).

    That of y = logit(zeta), less log zeta + log(1 - zeta). A zeta that rounded to 0 or 1 is taken
    as the nearest number inside, which keeps the density finite; where that matters, use
    `log_prob_of_logit`.

    Args:
        zeta: [...] float in [0, 1].
        logits: [...] float.
        temperature: tau > 0; all three broadcast.

    Returns:
        [...] nats.

    Raises:
        ValueError: if temperature is a Python number and not positive.
    """
    (zeta, logits), tau, dtype = _prepare((zeta, logits), temperature)
    info = jnp.finfo(zeta.dtype)
    zeta = within(zeta, info.tiny, 1 - info.epsneg)
    log_zeta, log_rest = jnp.log(zeta), jnp.log1p(-zeta)
    density = _log_prob_of_logit(log_zeta - log_rest, logits, tau)
    return (density - log_zeta - log_rest).astype(dtype)


def log_prob_of_logit(y: ArrayLike, logits: ArrayLike, temperature: ArrayLike) -> jax.Array:
    """Evaluates the log-density of y = logit(zeta), a logistic of mean l / tau and scale 1 / tau.

    log tau - softplus(u) - softplus(-u), u = tau y - l: finite wherever y is.

    Args:
        y: [...] float, any.
        logits: [...] float.
        temperature: tau > 0; all three broadcast.

    Returns:
        [...] nats.

    Raises:
        ValueError: if temperature is a Python number and not positive.
    """
    (y, logits), tau, dtype = _prepare((y, logits), temperature)
    return _log_prob_of_logit(y, logits, tau).astype(dtype)


def _log_prob_of_logit(y: jax.Array, logits: jax.Array, tau: jax.Array) -> jax.Array:
    u = tau * y - logits
    return jnp.log(tau) - jax.nn.softplus(u) - jax.nn.softplus(-u)


def _perturbed(rho: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns l + logit(rho), the noise finite at both ends."""
    low, high = tails(rho, 1e-36)
    return logits + (jnp.log(low) - jnp.log(high))


def _relaxed(x: jax.Array, tau: jax.Array) -> jax.Array:
    """Returns sigmoid(x / tau), which no gradient passes where x is infinite.

    Prevents the NaN of infinity times 0 in the gradient of the temperature.
    """
    x = meet(x, tau)
    finite = jnp.isfinite(x)
    return sigmoid(jnp.where(finite, jnp.where(finite, x, 0) / tau, x))


def _prepare(
    arrays: tuple[ArrayLike, ...], temperature: ArrayLike
) -> tuple[list[jax.Array], jax.Array, jnp.dtype]:
    """Checks the temperature; returns everything wide and of one rank, and the result's dtype."""
    check_positive("temperature", temperature)
    wide, dtype = widen(*arrays)
    *wide, tau = same_rank(*wide, jnp.asarray(temperature, wide[0].dtype))
    return wide, tau, dtype
