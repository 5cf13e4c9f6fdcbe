"""The importance-weighted bound and its doubly reparameterized gradient.

`iwae` is plain arithmetic, differentiated by JAX. For discrete z that derivative misses how the
samples depend on q: use it inside an estimator such as VIMCO. For a reparameterized z it is
complete, but its signal-to-noise ratio for the parameters of q falls as K grows (Rainforth et al.
2018); `dreg` has the same expected gradient for q and does not suffer from this.
"""

import math

import jax
import jax.numpy as jnp

from dvae._numerics import float_dtype, upcast

__all__ = ["dreg", "iwae"]


def iwae(log_weights: jax.typing.ArrayLike, axis: int = 0) -> jax.Array:
    """Computes the importance-weighted bound.

        log 1/K sum_k w_k,    w_k = p(x, z_k) / q(z_k|x),    z_k ~ q(z|x)

    (Burda, Grosse and Salakhutdinov 2016, "Importance weighted autoencoders", eq. 8.) Its mean
    over the samples is a lower bound of log p(x), the ELBO at K = 1 and never looser as K grows.
    With relaxed samples, or weights that mix relaxed and discrete terms, it bounds nothing.

    Samples of weight zero (-inf) are legal and get no gradient; if all K are, the value is -inf
    and the gradient undefined.

    Args:
        log_weights: [K, ...], log w_k in nats.
        axis: the axis of the K samples.

    Returns:
        [...], nats; same dtype (half precision is reduced in float32).

    Raises:
        ValueError: if there are no samples, or no such axis.
    """
    log_weights = _checked(log_weights, axis)
    bound = jax.nn.logsumexp(upcast(log_weights), axis=axis) - math.log(log_weights.shape[axis])
    return bound.astype(float_dtype(log_weights))


def dreg(log_weights: jax.typing.ArrayLike, axis: int = 0) -> jax.Array:
    """Computes the importance-weighted bound with the doubly reparameterized gradient.

        value     log 1/K sum_k w_k
        gradient  sum_k v_k^2 d log w_k,    v_k = w_k / sum_j w_j held constant

    (Tucker et al. 2018, "Doubly reparameterized gradient estimators for Monte Carlo objectives",
    estimator IWAE-DReG.) The value is that of `iwae`, and bounds what that bounds. The gradient is
    an unbiased estimate for the parameters of q only, if the caller lets them reach log w_k through
    the reparameterized samples alone. It varies less than that of `iwae` where q is near the
    posterior, and not at all where they agree; far from it, a small K can make it vary more.

    *   encoder: draw z_k = z(noise_k, phi), and compute log w_k = log p(x, z_k) - log q(z_k|x) with
        `jax.lax.stop_gradient` around phi in log q (not in z_k) and around all parameters of the
        model p. Maximize `dreg(log_weights)`.
    *   decoder and prior: compute log w_k at the stopped z_k and the stopped phi, with the
        parameters of p left free. Maximize `iwae(log_weights)`; squared weights are biased here.

    Adding the two trains everything at once: no parameter gets a gradient from both.

        phi_, theta_ = jax.lax.stop_gradient((phi, theta))
        z_ = jax.lax.stop_gradient(z)
        objective = dreg(log_p(theta_, x, z) - log_q(phi_, z)) + iwae(
            log_p(theta, x, z_) - log_q(phi_, z_))        # its value is twice the bound

    Args:
        log_weights: [K, ...], log w_k in nats, from reparameterized samples.
        axis: the axis of the K samples.

    Returns:
        [...], nats; same dtype (half precision is reduced in float32).

    Raises:
        ValueError: if there are no samples, or no such axis.
    """
    log_weights = _checked(log_weights, axis)
    wide = upcast(log_weights)
    constant = jax.lax.stop_gradient(wide)
    log_sum = jax.nn.logsumexp(constant, axis=axis, keepdims=True)
    # A weight of zero would give -inf - (-inf) = NaN, here and in the difference below.
    possible = jnp.isfinite(constant)
    normalized = jnp.where(possible, jnp.exp(constant - log_sum), 0.0)
    # Zero in value, d log w_k in gradient.
    difference = jnp.where(possible, wide - constant, 0.0)
    gradient = jnp.sum(normalized**2 * difference, axis=axis)
    bound = jnp.squeeze(log_sum, axis) - math.log(log_weights.shape[axis])
    return (bound + gradient).astype(float_dtype(log_weights))


def _checked(log_weights: jax.typing.ArrayLike, axis: int) -> jax.Array:
    """Returns the weights as an array, or raises ValueError if there are none along the axis."""
    log_weights = jnp.asarray(log_weights)
    if not -log_weights.ndim <= axis < log_weights.ndim or log_weights.shape[axis] < 1:
        raise ValueError(
            f"log_weights must have at least 1 sample along axis {axis}, got shape "
            f"{log_weights.shape}"
        )
    return log_weights
