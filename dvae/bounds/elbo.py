"""The evidence lower bound, its warm-up schedule and its unit on images.

Analytic KL terms live in `dvae.distributions`, one number a unit; `sum_per_example` adds them up
and `elbo` puts the two halves together. Where no analytic KL exists, pass the one-sample estimate
log q(z|x) - log p(z) as `kl`.
"""

import math

import jax
import jax.numpy as jnp

from dvae._checks import check_static
from dvae._numerics import as_float, float_dtype, upcast
from dvae.bounds._scalars import as_steps, check_num_steps, check_scalar

__all__ = ["bits_per_dim", "elbo", "linear_warmup", "sum_per_example"]


def sum_per_example(values: jax.typing.ArrayLike, *, num_batch_axes: int = 1) -> jax.Array:
    """Sums over every axis but the leading batch axes: independent units of one example.

    Sums of half-precision values are accumulated in float32 but returned in the input's dtype, in
    which thousands of nats lose their last digits: cast to float32 first if that matters.

    Args:
        values: [*batch, ...], one log-probability or KL a unit, in nats.
        num_batch_axes: number of leading axes to keep.

    Returns:
        [*batch], nats; same dtype.

    Raises:
        ValueError: if `values` has fewer than `num_batch_axes` axes, or that number is negative.
    """
    values = as_float(jnp.asarray(values))
    if not 0 <= num_batch_axes <= values.ndim:
        raise ValueError(
            f"num_batch_axes must lie in 0..{values.ndim}, the number of axes of values with shape "
            f"{values.shape}, got {num_batch_axes}"
        )
    return jnp.sum(values, axis=tuple(range(num_batch_axes, values.ndim)))


def elbo(
    log_likelihood: jax.typing.ArrayLike,
    kl: jax.typing.ArrayLike,
    *,
    kl_weight: jax.typing.ArrayLike = 1.0,
) -> jax.Array:
    """Computes the evidence lower bound.

        L(x) = E_q(z|x)[log p(x|z)] - kl_weight * KL(q(z|x), p(z))

    (Sønderby, Poole and Mnih 2017, "Continuous relaxation training of discrete latent variable
    image models", eq. 1.)

    With discrete samples z ~ q and `kl_weight` 1 the result is, in the mean over z, a lower bound
    of log p(x). With a relaxed sample in the decoder, or a `kl_weight` below 1, it is a training
    objective that bounds nothing.

    Args:
        log_likelihood: [...], log p(x|z) in nats.
        kl: [...], KL(q(z|x), p(z)) or a one-sample estimate of it, in nats. Must have the rank of
            `log_likelihood`; axes of size one broadcast.
        kl_weight: scalar, for instance from `linear_warmup`.

    Returns:
        [...], nats, in the dtype of `log_likelihood` and `kl` whatever that of `kl_weight`.

    Raises:
        ValueError: if the ranks differ ([batch] against [batch, 1] would give [batch, batch]) or
            the shapes do not broadcast, or `kl_weight` is not a scalar or a negative number.
    """
    log_likelihood, kl = jnp.asarray(log_likelihood), jnp.asarray(kl)
    pairs = zip(log_likelihood.shape, kl.shape, strict=False)
    if log_likelihood.ndim != kl.ndim or any(m != n and 1 not in (m, n) for m, n in pairs):
        raise ValueError(
            f"log_likelihood has shape {log_likelihood.shape} and kl has shape {kl.shape}: reduce "
            "or expand one of them so that their ranks agree and their axes are as long, or 1"
        )
    check_scalar("kl_weight", kl_weight, "weigh parts of the KL before you add them up")
    wide = upcast(kl)
    bound = upcast(log_likelihood) - jnp.asarray(kl_weight, wide.dtype) * wide
    return bound.astype(float_dtype(log_likelihood, kl))


def linear_warmup(step: jax.typing.ArrayLike, num_steps: int) -> jax.Array:
    """Computes the weight of the KL term during a linear warm-up.

        min(1, (step + 1) / num_steps)

    The weight is never zero: at zero weight an infinite KL would turn the loss into NaN, and the
    prior would get no gradient.

    Args:
        step: scalar integer, the number of updates done so far; may be traced.
        num_steps: length of the warm-up, below 2^64; 0 switches it off (weight 1 throughout).

    Returns:
        float32 scalar in (0, 1]; NaN for a negative step in an array.

    Raises:
        ValueError: if `num_steps`, or a `step` that is a number, is negative, NaN or too large.
    """
    check_num_steps(num_steps, 0, "0 means no warm-up")
    return jnp.minimum(1.0, (as_steps(step) + 1.0) / float(max(num_steps, 1)))


def bits_per_dim(nats: jax.typing.ArrayLike, num_dims: int) -> jax.Array:
    """Converts a log-likelihood, or a bound on it, to bits per dimension.

        -nats / (num_dims ln 2)

    A lower bound in nats turns into an upper bound on the bits per dimension: lower is better.

    Args:
        nats: [...], log-likelihood or bound, in nats (negative for discrete data).
        num_dims: number of dimensions of one example; 3072 sub-pixels for a 32x32 color image.

    Returns:
        [...], bits/dim, positive for discrete data; same dtype.

    Raises:
        ValueError: if `num_dims` is below 1.
    """
    check_static("num_dims", num_dims)
    if not num_dims >= 1:
        raise ValueError(f"num_dims must be at least 1, got {num_dims}")
    nats = as_float(jnp.asarray(nats))
    # float16 would overflow to inf at the divisor of any image beyond 94,000 sub-pixels.
    return (-upcast(nats) / (num_dims * math.log(2.0))).astype(nats.dtype)
