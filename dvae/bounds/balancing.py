"""KL terms of models with several groups of latents: balancing during warm-up, and free bits.

Both take the KL of every group, averaged over the batch, and return the scalar that takes the place
of their sum in the loss:

    kl_weight = bounds.linear_warmup(step, num_steps)
    kl = bounds.balanced_kl(group_kls, (16, 1568, 1568), kl_weight=kl_weight)
    loss = -jnp.mean(log_px) + kl

Report the plain sum of the KLs: these scalars belong to a training objective, not to a bound. The
exception is a `balanced_kl` whose warm-up is over, which is that sum.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import as_float, upcast
from dvae.bounds._scalars import check_scalar

__all__ = ["balanced_kl", "balancing_coefficients", "free_bits"]


def balancing_coefficients(
    group_kls: jax.typing.ArrayLike, group_sizes: Sequence[int], *, size_power: float = 1.0
) -> jax.Array:
    """Computes a weight for each group's KL, large where the KL is large, with mean 1.

        gamma_j = G a_j / sum_i a_i,    a_j = KL_j size_j^size_power

    over G groups. While a decoder learns to use its latents, the KL term closes those groups whose
    KL is still small; these weights ask more of the large ones and spare the small. Vahdat and
    Kautz, "NVAE" (2020), appendix A, after Vahdat et al., "DVAE++" (2018), appendix H.

    Of two groups with the same KL, size_power 1, the equation as printed, spares the smaller one.
    With -1 it is the larger: so does the NVAE program, whose author calls the printed product a
    misprint. It suits groups of one kind at several resolutions;
    beside them a few bits with a large KL a unit would carry nearly all of the weight. 0 ignores
    sizes.

    A negative KL, which the mean of one-sample estimates may be, counts as zero: it would reward
    its group for a growing KL, and could make the normalizer vanish. Without any KL, where the
    ratio would be 0 / 0, all weights are 1.

    Args:
        group_kls: [G], KL of each group in nats, averaged over the batch.
        group_sizes: G positive numbers, of latent units in each group.
        size_power: exponent of the sizes.

    Returns:
        [G], non-negative with mean 1, without gradient; dtype of `group_kls`.

    Raises:
        ValueError: if `group_kls` is not a vector, `group_sizes` has another length, a size is not
            positive or `size_power` not finite.
    """
    group_kls = as_float(jnp.asarray(group_kls))
    sizes = np.asarray(group_sizes, np.float64)
    if group_kls.ndim != 1 or group_kls.size == 0 or sizes.shape != group_kls.shape:
        raise ValueError(
            "group_kls must be a vector of one batch mean a group and group_sizes as long, got "
            f"shapes {group_kls.shape} and {sizes.shape}"
        )
    if not ((sizes > 0) & np.isfinite(sizes)).all():
        raise ValueError(f"group_sizes must be positive, got {tuple(group_sizes)}")
    if not np.isfinite(size_power):
        raise ValueError(f"size_power must be a finite exponent, got {size_power}")
    # Relative sizes in [0, 1] cannot overflow, whatever the power.
    powers = size_power * np.log(sizes)
    wide = upcast(jax.lax.stop_gradient(group_kls))
    scores = jnp.maximum(wide, 0) * np.exp(powers - powers.max()).astype(wide.dtype)
    mean = jnp.mean(scores)
    gamma = jnp.where(mean == 0, 1, scores / jnp.where(mean == 0, 1, mean))
    return gamma.astype(group_kls.dtype)


def balanced_kl(
    group_kls: jax.typing.ArrayLike,
    group_sizes: Sequence[int],
    *,
    kl_weight: jax.typing.ArrayLike,
    size_power: float = 1.0,
) -> jax.Array:
    """Computes the KL term of a loss, balanced between the groups while `kl_weight` is below 1.

        kl_weight * sum_j gamma_j KL_j    if kl_weight < 1, gamma from `balancing_coefficients`
        kl_weight * sum_j KL_j            otherwise: warm-up is over

    The KLs being batch means, this is also the mean over images of their balanced KLs.

    Args:
        group_kls: [G], KL of each group in nats, averaged over the batch.
        group_sizes: G positive numbers, of latent units in each group.
        kl_weight: scalar from `linear_warmup`; may be traced. Multiply the result by any final
            weight other than 1.
        size_power: exponent of the sizes in the coefficients.

    Returns:
        Scalar, nats, to be added to the loss; dtype of `group_kls`.

    Raises:
        ValueError: sizes and KLs do not fit, or `kl_weight` is not a scalar or a negative number.
    """
    check_scalar("kl_weight", kl_weight, "weigh the groups' KLs before you balance them")
    group_kls = as_float(jnp.asarray(group_kls))
    gamma = balancing_coefficients(group_kls, group_sizes, size_power=size_power)
    wide = upcast(group_kls)
    weight = jnp.asarray(kl_weight, wide.dtype)
    total = weight * jnp.sum(jnp.where(weight < 1, upcast(gamma), 1) * wide)
    return total.astype(group_kls.dtype)


def free_bits(group_kls: jax.typing.ArrayLike, *, min_nats: jax.typing.ArrayLike) -> jax.Array:
    """Computes the KL term of a loss that leaves every group a free allowance.

        sum_j max(min_nats, KL_j)

    Kingma et al., "Improving variational inference with inverse autoregressive flow" (2016),
    eq. 15. A group whose batch mean is below its allowance gets no gradient, so that nothing pushes
    it to zero; the value is never below the sum of the KLs.

    Args:
        group_kls: [G], KL of each group in nats, averaged over the batch.
        min_nats: allowance of every group in nats (not bits), a scalar or [G].

    Returns:
        Scalar, nats, to be added to the loss; dtype of `group_kls`.

    Raises:
        ValueError: if `group_kls` is not a vector, or `min_nats` has another shape, or is a
            negative number.
    """
    group_kls = as_float(jnp.asarray(group_kls))
    if group_kls.ndim != 1:
        raise ValueError(
            f"group_kls must be a vector of one batch mean a group, got shape {group_kls.shape}"
        )
    if jnp.shape(min_nats) != group_kls.shape:
        check_scalar("min_nats", min_nats, f"or one for each group, {group_kls.shape}")
    kls = upcast(group_kls)
    return jnp.sum(jnp.maximum(kls, jnp.asarray(min_nats, kls.dtype))).astype(group_kls.dtype)
