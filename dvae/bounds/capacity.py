"""Capacities of JointVAE: each kind of latent variable is held at a KL that grows in training.

The training objective of Dupont (2018), "Learning disentangled joint continuous and discrete
representations", eq. 7, to be maximized, has one penalty for the continuous variables z and one
for the discrete ones c:

    E[log p(x|z, c)] - gamma |KL(q(z|x) || p(z)) - C_z| - gamma |KL(q(c|x) || p(c)) - C_c|

Its published form on MNIST, with ten normal variables and one of ten classes, is

    limit = max_discrete_capacity([10])
    capacity_z = capacity_schedule(step, final=5.0, num_steps=25_000)
    capacity_c = capacity_schedule(step, final=5.0, num_steps=25_000, limit=limit)
    kl_z = sum_per_example(normal.kl(mean, log_scale, 0.0, 0.0))            # [batch]
    kl_c = sum_per_example(categorical.kl(logits, jnp.zeros_like(logits)))  # [batch]
    penalty_z = capacity_penalty(kl_z, capacity_z, gamma=30.0)
    penalty_c = capacity_penalty(kl_c, capacity_c, gamma=30.0)
    loss = -jnp.mean(log_px) + penalty_z + penalty_c

The KL is an average over images, for only that bounds the information that z has about x; see
`capacity_penalty`. The objective bounds nothing: report `elbo` with the KL itself.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dvae._numerics import as_float, upcast
from dvae.bounds._scalars import as_steps, check_num_steps, check_scalar

__all__ = ["capacity_penalty", "capacity_schedule", "max_discrete_capacity"]


def capacity_schedule(
    step: jax.typing.ArrayLike, *, final: float, num_steps: int, limit: float = math.inf
) -> jax.Array:
    """Computes the capacity of one kind of latent variable, which rises linearly and then stays.

        C = min(final min(1, step / num_steps), limit)

    The limit does not change the slope: with `final` 5, as published, a variable of ten classes is
    at its limit log 10 = 2.3 after 46 % of the steps.

    Args:
        step: scalar integer, the number of updates done so far; may be traced.
        final: capacity at the end of the rise, in nats.
        num_steps: length of the rise, below 2^64.
        limit: the largest KL that the variables can have, in nats: `max_discrete_capacity` for
            discrete ones, infinity for continuous ones.

    Returns:
        float32 scalar in [0, min(final, limit)], nats; 0 at step 0, NaN for a negative step in an
        array.

    Raises:
        ValueError: if `num_steps` is below 1 or too large, `final` is negative or not finite,
            `limit` is negative, or a `step` that is a number is negative, NaN or too large.
    """
    check_num_steps(
        num_steps, 1, "for a constant capacity pass the number itself to capacity_penalty"
    )
    if not isinstance(final, jax.core.Tracer) and not 0 <= final < math.inf:
        raise ValueError(
            f"final must be a finite number of nats, at least 0 (a KL is not negative), got {final}"
        )
    if not limit >= 0:
        raise ValueError(
            f"limit must be at least 0, got {limit}; take max_discrete_capacity(sizes) for "
            "discrete variables and leave it out for continuous ones"
        )
    progress = jnp.minimum(as_steps(step) / float(num_steps), 1.0)
    return jnp.minimum(final * progress, limit)


def max_discrete_capacity(sizes: Sequence[int]) -> float:
    """Computes the largest KL that categorical variables can have from a uniform prior.

        sum_i log n_i

    It is the KL of a q(c|x) that is certain of all classes. A capacity above it can't be met, and
    its penalty would push for certainty throughout.

    Args:
        sizes: the number of classes n_i of each variable.

    Returns:
        nats; 0 without variables.

    Raises:
        ValueError: if a variable has no class.
    """
    if any(size < 1 for size in sizes):
        raise ValueError(
            f"sizes must list numbers of classes, each at least 1, got {list(sizes)}; leave out "
            "variables that the model does not have"
        )
    return math.fsum(math.log(size) for size in sizes)


def capacity_penalty(
    kl: jax.typing.ArrayLike, capacity: jax.typing.ArrayLike, *, gamma: jax.typing.ArrayLike
) -> jax.Array:
    """Computes the penalty for a KL that is not at its capacity.

        gamma |mean_x KL(q(z|x) || p(z)) - C|

    One term of Dupont (2018), eq. 7. The mean over images is inside the absolute value: images
    differ in the information they need, and an image by itself is free to leave the capacity. So
    penalties of parts of a batch do not average to that of the batch.

    The gradient by each KL is gamma / batch above the capacity and minus that below, of constant
    size however small the gap. At the kink it is 0, one of the subgradients.

    Args:
        kl: [batch], KL of each image in nats, summed over the variables of one kind
            (`sum_per_example`); or [], their mean.
        capacity: scalar in nats, at least 0, for instance from `capacity_schedule`.
        gamma: scalar weight, at least 0; 30 on MNIST.

    Returns:
        [], nats, at least 0, in the dtype of `kl` whatever those of the others; float16 overflows
        where gamma times the gap exceeds 65,504, so cast `kl` to float32 first if that matters.

    Raises:
        ValueError: if `kl` has more than one axis or no image, if `capacity` or `gamma` is not a
            scalar, or is a negative number.
    """
    kl = as_float(jnp.asarray(kl))
    if kl.ndim > 1 or kl.size == 0:
        raise ValueError(
            f"kl must have one number an image, got shape {kl.shape}; sum over the variables with "
            "sum_per_example first"
        )
    remedy = "use one capacity_penalty for each kind of variable"
    check_scalar("capacity", capacity, remedy)
    check_scalar("gamma", gamma, remedy)
    wide = upcast(kl)
    # The gap, a small difference, is taken before anything is rounded to half precision.
    gap = jnp.mean(wide) - jnp.asarray(capacity, wide.dtype)
    # |gap|, whose slope at 0 is 0: that of jnp.abs is 1, and would push the KL off its capacity.
    return (jnp.asarray(gamma, wide.dtype) * (gap * jnp.sign(gap))).astype(kl.dtype)
