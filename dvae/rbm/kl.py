"""The analytic KL of a hierarchical posterior from an RBM, and log Z with its gradient.

The posterior has G groups of bits, q(z_g | x, zeta_<g), that fill the machine's units in order: the
first half of all units is its left side z1, the rest its right side z2. One group is split in the
middle.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dvae.distributions import bernoulli
from dvae.rbm.energy import RBM, check, energy


def hierarchical(
    params: RBM,
    logits: Sequence[jax.Array],
    log_ratios: Sequence[jax.Array],
    log_z: jax.Array,
) -> jax.Array:
    """Evaluates KL(q(z, zeta | x) || p(z, zeta)) at one sample of zeta; its mean is the KL.

        log Z - sum_g H(q(z_g | x, zeta_<g)) - a1.mu1 - a2.mu2 - nu1^T W mu2,

    mu = sigmoid(l) the probabilities of a group before its zeta is known, and nu1 =
    sigmoid(l + log r(zeta|1) - log r(zeta|0)) those of the left side once it is, which correlates
    it with the right side's mu. Vahdat et al., "DVAE++" (2018), sec. 5, the simplified eq. 6. One
    group has no zeta to condition on: nu1 = mu1, and no sample is needed.

    Args:
        params: RBM with n1 = n2.
        logits: one [..., m] a group, l of q(z_g | x, zeta_<g); the groups have the machine's units
            in total, and an even number of groups, or one, so that a side ends where a group does.
        log_ratios: one [..., m] a group, `relax.NAME.log_ratio(zeta_g, beta)`, differentiable in
            zeta; those of the right side, and a single group's, are not used.
        log_z: [] log Z in nats, usually of `log_z_with_gradient`.

    Returns:
        [...] nats.

    Raises:
        ValueError: if groups and machine do not fit each other.
    """
    _check_groups(params, logits, log_ratios)
    num_left = params.bias1.shape[0]
    joined = jnp.concatenate(list(logits), axis=-1)
    entropy = bernoulli.entropy(joined).sum(-1)
    mu = jax.nn.sigmoid(joined)
    mu1, mu2 = mu[..., :num_left], mu[..., num_left:]
    if len(logits) == 1:
        nu1 = mu1
    else:
        left = range(len(logits) // 2)
        nu1 = jax.nn.sigmoid(jnp.concatenate([logits[g] + log_ratios[g] for g in left], axis=-1))
    # energy(mu1, mu2) with nu1 instead of mu1 in the product alone.
    linear = -mu1 @ params.bias1 - mu2 @ params.bias2
    interaction = -jnp.sum((nu1 @ params.weights) * mu2, axis=-1)
    return log_z - entropy + linear + interaction


def log_z_with_gradient(
    params: RBM,
    log_z: jax.Array,
    z1: jax.Array,
    z2: jax.Array,
    log_weights: jax.Array | None = None,
) -> jax.Array:
    """Returns an estimate of log Z whose gradient is that of the negative phase.

        d log Z / d theta = -E_p[dE/d theta], the mean over samples of the machine.

    With it in a loss, plain automatic differentiation trains the machine by (persistent)
    contrastive divergence. Vahdat et al. (2018), appendix E.

    Args:
        params: RBM; receives the gradient.
        log_z: [] nats, the current estimate (of `exact`, say); receives none.
        z1: [chains, n1] samples of the machine; receive none.
        z2: [chains, n2] likewise.
        log_weights: [chains] of a population (`annealing`), of which the mean is taken with weights
            proportional to their exponential; equal ones by default.

    Returns:
        [] nats, equal to log_z.

    Raises:
        ValueError: if the sizes do not fit.
    """
    z1, z2 = jax.lax.stop_gradient((z1, z2))
    energies = energy(params, z1, z2)
    if log_weights is None:
        negative_phase = -jnp.mean(energies)
    else:
        if log_weights.shape != energies.shape:
            raise ValueError(
                f"log_weights must have one entry for each of the {energies.shape} chains, got "
                f"shape {log_weights.shape}"
            )
        negative_phase = -jnp.sum(jax.nn.softmax(jax.lax.stop_gradient(log_weights)) * energies)
    # The difference is exactly 0, so it must be formed before it is added.
    return jax.lax.stop_gradient(log_z) + (negative_phase - jax.lax.stop_gradient(negative_phase))


def _check_groups(
    params: RBM, logits: Sequence[jax.Array], log_ratios: Sequence[jax.Array]
) -> None:
    """Raises ValueError unless the groups fill both sides of the machine exactly."""
    check(params)
    n1, n2 = params.weights.shape
    sizes = [group.shape[-1] for group in logits]
    if n1 != n2 or sum(sizes) != n1 + n2:
        raise ValueError(
            "the groups' units must fill two equal sides, half of them each: got groups of "
            f"{sizes} and an RBM of {n1} x {n2}"
        )
    if len(logits) != len(log_ratios):
        raise ValueError(
            f"logits and log_ratios need one entry for each group, got {len(logits)} and "
            f"{len(log_ratios)}"
        )
    if len(logits) > 1 and (len(logits) % 2 or sum(sizes[: len(sizes) // 2]) != n1):
        raise ValueError(
            f"a side must end where a group does: use 1 group, or an even number of which the "
            f"first half has {n1} units, got groups of {sizes}"
        )
