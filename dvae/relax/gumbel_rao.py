"""Gumbel-Rao: straight-through Gumbel-softmax, its gradient averaged over what z leaves open.

The straight-through Gumbel-softmax pairs a hard z with the Jacobian of softmax(x / tau) at the
perturbed logits x = l + g that gave z. Here z is drawn first, then `num_samples` independent x
given z, and their Jacobians are averaged (Rao-Blackwellization): the mean gradient is the same,
its variance lower. Given z = k, with T ~ Gumbel(logsumexp(l)),

    x_k = T,  x_j = -log(e^{-T} + e^{-(l_j + g_j)}).

Reference: Paulus, Maddison and Krause, "Rao-Blackwellizing the Straight-Through Gumbel-Softmax
Gradient Estimator" (2021).
"""

import jax
import jax.numpy as jnp

from dvae import distributions
from dvae._checks import check_count, check_key, check_positive, check_temperature
from dvae._numerics import ArrayLike, as_float, open_uniform, standard_gumbel, upcast

__all__ = ["bernoulli", "categorical"]


def bernoulli(
    key: jax.Array, logits: ArrayLike, temperature: ArrayLike, *, num_samples: int
) -> jax.Array:
    """Draws bits with the averaged gradient of y = sigmoid(x / tau), x = l + logistic noise.

    Args:
        key: typed PRNG key.
        logits: [...] float.
        temperature: tau > 0, a scalar, or an array that broadcasts with logits; each of its entries
            then has draws of its own.
        num_samples: number of x per bit, at least 1; 1 is the plain straight-through gradient.

    Returns:
        [...] exactly 0 or 1, in the dtype of logits; dz/dl = mean of y (1 - y) / tau.

    Raises:
        ValueError: if num_samples < 1, or temperature is a Python number and not positive.
    """
    check_key(key)
    check_positive("temperature", temperature)
    num_samples = check_count("num_samples", num_samples)
    logits = as_float(logits)
    logits = jnp.broadcast_to(logits, jnp.broadcast_shapes(logits.shape, jnp.shape(temperature)))
    key_z, key_noise = jax.random.split(key)
    z = distributions.bernoulli.sample(key_z, logits)
    wide = upcast(jax.lax.stop_gradient(logits))
    u = open_uniform(key_noise, (num_samples, *logits.shape))
    sign = jnp.where(z > 0, 1, -1).astype(wide.dtype)
    # |x| given its sign: log((1 + (1 - u) e^{sl}) / u), s = +-1. Nothing cancels at large |l|.
    x = jax.nn.softplus((sign * wide)[None] + jnp.log1p(-u)) - jnp.log(u)
    tau = jnp.broadcast_to(jnp.asarray(temperature, wide.dtype), logits.shape)
    y = jax.nn.sigmoid(x / tau[None])
    other = jax.nn.sigmoid(-x / tau[None])  # 1 - y, with its digits
    return _bernoulli(z, logits, jnp.mean(y * other, axis=0) / tau)


@jax.custom_jvp
def _bernoulli(z: jax.Array, logits: jax.Array, slope: jax.Array) -> jax.Array:
    """Returns z with dz/dl = slope."""
    return z


@_bernoulli.defjvp
def _bernoulli_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    z, _, slope = primals
    return z, (slope * tangents[1]).astype(z.dtype)


def categorical(
    key: jax.Array, logits: ArrayLike, temperature: ArrayLike, *, num_samples: int
) -> jax.Array:
    """Draws one-hot vectors with the averaged gradient of y = softmax(x / tau) (see the module).

    Args:
        key: typed PRNG key.
        logits: [..., C] float.
        temperature: tau > 0, a scalar, or [..., 1] that broadcasts with logits; each of its
            entries then has draws of its own.
        num_samples: number of x per vector, at least 1; 1 is the plain straight-through
            gradient. Memory grows with num_samples times the logits.

    Returns:
        [..., C] exactly 0 or 1, in the dtype of logits; dz/dl = mean of (diag(y) - y y^T) / tau.

    Raises:
        ValueError: if num_samples < 1, temperature is a Python number and not positive, or its
            last axis is not 1.
    """
    check_key(key)
    check_temperature(temperature)
    num_samples = check_count("num_samples", num_samples)
    logits = as_float(logits)
    logits = jnp.broadcast_to(logits, jnp.broadcast_shapes(logits.shape, jnp.shape(temperature)))
    key_z, key_top, key_noise = jax.random.split(key, 3)
    z = distributions.categorical.sample(key_z, logits)
    # Normalized logits, so that logsumexp(l) = 0 and T is standard.
    wide = jax.nn.log_softmax(upcast(jax.lax.stop_gradient(logits)))
    shape = (num_samples, *logits.shape)
    top = standard_gumbel(key_top, (*shape[:-1], 1))
    fresh = wide[None] + standard_gumbel(key_noise, shape)
    others = -jnp.logaddexp(-top, -fresh)
    x = jnp.where(jnp.broadcast_to(z[None] > 0, shape), top, others)
    tau = jnp.broadcast_to(jnp.asarray(temperature, wide.dtype), (*logits.shape[:-1], 1))
    return _categorical(z, logits, jax.nn.softmax(x / tau[None]), tau)


@jax.custom_jvp
def _categorical(z: jax.Array, logits: jax.Array, soft: jax.Array, tau: jax.Array) -> jax.Array:
    """Returns z with dz/dl = mean_k (diag(y_k) - y_k y_k^T) / tau, y_k = soft[k]."""
    return z


@_categorical.defjvp
def _categorical_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    z, _, soft, tau = primals
    tangent = upcast(tangents[1])[None]
    centered = tangent - jnp.sum(soft * tangent, axis=-1, keepdims=True)
    return z, (jnp.mean(soft * centered, axis=0) / tau).astype(z.dtype)
