"""Normal distributions with mean m and s = log_scale, the logarithm of the standard deviation.

    x = normal.sample(key, mean, log_scale)            # m + exp(s) eps, differentiable in both
    kl = normal.kl(mean, log_scale, 0.0, 0.0)          # from the standard normal prior

Elementwise, so that a vector of them is a normal with diagonal covariance once its terms are
summed. Everything is finite and accurate for log_scale in [-30, 30] wherever the true value fits
the dtype; from 88 on exp(s) or exp(-s) overflows float32. The logarithm of the variance is twice
log_scale: halve the output of a network that was trained to give that.

Any parameter may be a Python number, which takes the dtype of the arrays beside it.
"""

import math

import jax
import jax.numpy as jnp

from dvae._checks import check_key
from dvae._numerics import ArrayLike, as_shape, same_rank, widen
from dvae.distributions._divergence import exp_beyond_tangent, half_square

__all__ = ["entropy", "kl", "log_prob", "sample"]

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def sample(
    key: jax.Array, mean: ArrayLike, log_scale: ArrayLike, shape: int | tuple[int, ...] = ()
) -> jax.Array:
    """Draws x = m + exp(s) eps for eps standard normal: gradients flow to mean and log_scale.

    Args:
        key: typed PRNG key.
        mean: [...] float.
        log_scale: [...] float; broadcasts with mean.
        shape: sample shape, put in front of the parameters' common shape.

    Returns:
        [*shape, ...] in the dtype of the parameters.
    """
    check_key(key)
    (mean, log_scale), dtype = widen(mean, log_scale)
    batch = jnp.broadcast_shapes(mean.shape, log_scale.shape)
    noise = jax.random.normal(key, (*as_shape(shape), *batch), mean.dtype)
    mean, log_scale, noise = same_rank(mean, log_scale, noise)
    return (mean + jnp.exp(log_scale) * noise).astype(dtype)


def log_prob(x: ArrayLike, mean: ArrayLike, log_scale: ArrayLike) -> jax.Array:
    """Evaluates log N(x) = -y^2/2 - s - log(2 pi)/2 with y = (x - m) exp(-s), elementwise.

    Args:
        x: [...] float.
        mean: [...] float; broadcasts with x.
        log_scale: [...] float; broadcasts with x.

    Returns:
        [...] nats, of a density: above 0 where it exceeds 1.
    """
    xs, dtype = widen(x, mean, log_scale)
    x, mean, log_scale = same_rank(*xs)
    y = (x - mean) * jnp.exp(-log_scale)
    return (-half_square(y) - log_scale - _HALF_LOG_TWO_PI).astype(dtype)


def entropy(log_scale: ArrayLike) -> jax.Array:
    """Evaluates the differential entropy H = s + log(2 pi e)/2, elementwise; any mean has it.

    Args:
        log_scale: [...] float.

    Returns:
        [...] nats, negative below a standard deviation of 0.242.
    """
    (log_scale,), dtype = widen(log_scale)
    return (log_scale + (_HALF_LOG_TWO_PI + 0.5)).astype(dtype)


def kl(
    mean_q: ArrayLike, log_scale_q: ArrayLike, mean_p: ArrayLike, log_scale_p: ArrayLike
) -> jax.Array:
    """Evaluates KL(q || p) = (e^t - 1 - t)/2 + y^2/2, elementwise.

    With t = 2 (s_q - s_p) and y = (m_q - m_p) exp(-s_p). Neither half is ever negative, and both
    keep their digits as q approaches p, where the usual sum of four terms leaves only rounding.

    Args:
        mean_q: [...] float.
        log_scale_q: [...] float; broadcasts with mean_q.
        mean_p: [...] float; broadcasts with mean_q. 0.0 in the standard normal.
        log_scale_p: [...] float; broadcasts with mean_q. 0.0 in the standard normal.

    Returns:
        [...] nats, at least 0, and exactly 0 where q equals p.
    """
    xs, dtype = widen(mean_q, log_scale_q, mean_p, log_scale_p)
    mean_q, log_scale_q, mean_p, log_scale_p = same_rank(*xs)
    scales = 0.5 * exp_beyond_tangent(2 * (log_scale_q - log_scale_p))
    means = half_square((mean_q - mean_p) * jnp.exp(-log_scale_p))
    return (scales + means).astype(dtype)
