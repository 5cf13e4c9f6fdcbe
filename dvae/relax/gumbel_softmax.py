"""The Gumbel-softmax, or Concrete, distribution over the last axis of the logits.

With Gumbel noise g and temperature tau, y = softmax((l + g) / tau). The argmax of y is an exact
sample of softmax(l) at every temperature, and y tends to its one-hot as tau -> 0. Logits are used
up to a constant: nothing here changes under l -> l + c.

References: Maddison, Mnih and Teh, "The Concrete Distribution" (2016); Jang, Gu and Poole,
"Categorical Reparameterization with Gumbel-Softmax" (2016).
"""

import math

import jax
import jax.numpy as jnp

from dvae._checks import check_classes, check_temperature
from dvae._numerics import ArrayLike, as_float, float_dtype, same_rank, standard_gumbel, widen

__all__ = ["log_prob", "log_prob_of_log", "sample", "transform", "transform_hard"]


def sample(
    key: jax.Array,
    logits: ArrayLike,
    temperature: ArrayLike,
    *,
    hard: bool | jax.Array = False,
) -> jax.Array:
    """Draws y = softmax((l + g) / tau), reparametrized (see `transform`).

    Args:
        key: typed PRNG key.
        logits: [..., C] float, normalized or not.
        temperature: tau > 0, a scalar, or [..., 1] of the logits' rank.
        hard: return the one-hot argmax, with the gradient of y (see `transform_hard`); a boolean
            scalar array for a training that goes from one to the other.

    Returns:
        [..., C] on the simplex, in the dtype of logits.

    Raises:
        ValueError: if temperature is a Python number and not positive, or its last axis is not 1.
    """
    logits = as_float(logits)
    gumbels = standard_gumbel(key, logits.shape)
    if not isinstance(hard, jax.Array):
        return (transform_hard if hard else transform)(gumbels, logits, temperature)
    one_hot, soft = (f(gumbels, logits, temperature) for f in (transform_hard, transform))
    return jnp.where(hard, one_hot, soft)


def transform(gumbels: ArrayLike, logits: ArrayLike, temperature: ArrayLike) -> jax.Array:
    """Maps noise to a relaxed sample, y = softmax((l + g) / tau).

    Maddison et al. (2016), section 3; differentiable in all three arguments.

    Args:
        gumbels: [..., C] float, standard Gumbel noise; broadcasts with logits.
        logits: [..., C] float, normalized or not. A class at -inf is never drawn; the gradient of
            the temperature is then NaN.
        temperature: tau > 0, a scalar, or [..., 1] of the logits' rank.

    Returns:
        [..., C] on the simplex, in the dtype of logits.

    Raises:
        ValueError: if temperature is a Python number and not positive, or its last axis is not 1.
    """
    return jax.nn.softmax(_scaled(gumbels, logits, temperature)).astype(float_dtype(logits))


def transform_hard(gumbels: ArrayLike, logits: ArrayLike, temperature: ArrayLike) -> jax.Array:
    """Maps noise to a one-hot sample that carries the gradient of the relaxed one.

    onehot(argmax_k (l_k + g_k)) forward, d softmax((l + g) / tau) backward: the straight-through
    Gumbel-softmax, Jang et al. (2016), section 2.2. The gradient is biased.

    Args:
        gumbels: [..., C] float, standard Gumbel noise; broadcasts with logits.
        logits: [..., C] float, normalized or not.
        temperature: tau > 0, a scalar, or [..., 1] of the logits' rank.

    Returns:
        [..., C] exactly 0 or 1, in the dtype of logits.

    Raises:
        ValueError: if temperature is a Python number and not positive, or its last axis is not 1.
    """
    scaled, dtype = _scaled(gumbels, logits, temperature), float_dtype(logits)
    soft = jax.nn.softmax(scaled).astype(dtype)
    # The argmax is taken before the softmax is rounded: in bfloat16 the two largest may tie.
    one_hot = jax.nn.one_hot(jnp.argmax(scaled, axis=-1), scaled.shape[-1], dtype=dtype)
    # The difference is exactly 0, so it must be formed before it is added.
    return one_hot + (soft - jax.lax.stop_gradient(soft))


def _scaled(gumbels: ArrayLike, logits: ArrayLike, temperature: ArrayLike) -> jax.Array:
    """Returns (l + g) / tau in at least float32."""
    check_temperature(temperature)
    (logits,), _ = widen(logits)
    gumbels = jnp.asarray(gumbels, logits.dtype)
    check_classes(gumbels, logits)
    gumbels, logits, tau = same_rank(gumbels, logits, jnp.asarray(temperature, logits.dtype))
    return (logits + gumbels) / tau


def log_prob(y: ArrayLike, logits: ArrayLike, temperature: ArrayLike) -> jax.Array:
    """Evaluates the Concrete density at a point of the simplex.

    log p(y) = log (C-1)! + (C-1) log tau
               + sum_k (l_k - (tau + 1) log y_k) - C logsumexp_k(l_k - tau log y_k),

    Maddison et al. (2016), Definition 1. At low temperatures most y_k underflow to 0, where the
    density needs log y_k: keep log y and use `log_prob_of_log` there. A zero is taken as the
    smallest positive number of y's dtype (no less than 1e-38), which prevents inf - inf.

    Args:
        y: [..., C] float on the simplex.
        logits: [..., C] float, normalized or not; batch axes broadcast with those of y.
        temperature: tau > 0, a scalar, or [..., 1] of the logits' rank.

    Returns:
        [...] nats.

    Raises:
        ValueError: if temperature is a Python number and not positive, or its last axis is not 1.
    """
    smallest = float(jnp.finfo(float_dtype(y)).smallest_subnormal)
    tiny = max(smallest, float(jnp.finfo(jnp.float32).tiny))
    (y, logits), dtype = widen(y, logits)
    # The inner select keeps log's derivative at 0, which is infinite, out of the gradient.
    zero = y < tiny
    log_y = jnp.where(zero, math.log(tiny), jnp.log(jnp.where(zero, 1, y)))
    density = log_prob_of_log(log_y, logits, temperature)
    jacobian = jnp.broadcast_to(jnp.sum(log_y, axis=-1), density.shape)
    return (density - jacobian).astype(dtype)


def log_prob_of_log(log_y: ArrayLike, logits: ArrayLike, temperature: ArrayLike) -> jax.Array:
    """Evaluates the density of x = log y, the ExpConcrete density.

    log p(x) = log (C-1)! + (C-1) log tau + sum_k (l_k - tau x_k) - C logsumexp_k(l_k - tau x_k),

    Maddison et al. (2016), appendix C. It differs from `log_prob` by the Jacobian sum_k x_k, which
    cancels in a ratio of two densities of the same sample, and it never underflows.

    Args:
        log_y: [..., C] float, logsumexp(log_y) = 0.
        logits: [..., C] float, normalized or not; batch axes broadcast with those of log_y.
        temperature: tau > 0, a scalar, or [..., 1] of the logits' rank.

    Returns:
        [...] nats.

    Raises:
        ValueError: if temperature is a Python number and not positive, or its last axis is not 1.
    """
    check_temperature(temperature)
    (log_y, logits), dtype = widen(log_y, logits)
    check_classes(log_y, logits)
    log_y, logits = jnp.broadcast_arrays(log_y, logits)
    num_classes = logits.shape[-1]
    tau = jnp.broadcast_to(jnp.asarray(temperature, logits.dtype), logits.shape)
    # sum_k (s_k - logsumexp(s)), each term small, rather than sum_k s_k - C logsumexp(s).
    scores = jax.nn.log_softmax(logits - tau * log_y)
    volume = math.lgamma(num_classes) + (num_classes - 1) * jnp.log(tau[..., 0])
    return (volume + jnp.sum(scores, axis=-1)).astype(dtype)
