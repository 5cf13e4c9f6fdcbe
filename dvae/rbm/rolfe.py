"""The KL of a spike-and-exponential posterior from an RBM, with its hand-made gradient.

The bits of the original discrete VAE are a step function of zeta, z = 1[zeta > 0], so that unlike
in `kl.hierarchical` no smooth probability of z given zeta carries the gradient. Rolfe, "Discrete
Variational Autoencoders" (2017).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dvae._numerics import upcast
from dvae.distributions import bernoulli
from dvae.rbm.energy import RBM
from dvae.rbm.kl import _check_groups


def kl_surrogate(
    params: RBM,
    logits: Sequence[jax.Array],
    zetas: Sequence[jax.Array],
    log_z: jax.Array,
    *,
    max_probability: float = 0.999,
) -> jax.Array:
    """Estimates KL(q(z, zeta | x) || p(z, zeta)) from one sample of zeta, gradient included.

        value     log Z - sum_g H(q_g) - a1.q1 - a2.q2 - z1^T W q2,    z1 = 1[zeta1 > 0],
        gradient  sum_i [l_i - a_i - (W q2)_i (1 - z_i) / (1 - q_i)] dq_i   over the left side,
                + sum_j [l_j - a_j - (W^T z1)_j] dq_j                       over the right side,

    q = sigmoid(l), the brackets held constant, dq including what passes through the zeta of earlier
    groups; params receive the positive phase, E's derivative with z1 q2^T for the couplings.

    Where the factor comes from: a left unit, z_i = 1[rho_i > 1 - q_i], enters the mean over its
    noise as the integral of g(zeta_i) over rho_i > 1 - q_i, with g = (W q2)_i given all else. Its
    derivative is that of g through zeta_i, which autodiff finds, plus g at the end of the interval,
    where zeta_i = 0. Since zeta_i is 0 for every rho_i <= 1 - q_i, that is E[g | z_i = 0] =
    E[(1 - z_i) / (1 - q_i) g]. Rolfe (2017), the appendix on the gradient of the KL.

    Unbiased, value and gradient, for any number of groups, also with logits that depend on earlier
    zeta, if
    - they do so continuously at zeta = 0: logits computed from z, a step, pass no gradient here;
    - zeta is `relax.spike_exp` of the same logits, and its own gradient is not stopped;
    - q_i <= max_probability on the left. Beyond, the factor is (1 - z_i) / (1 - max_probability),
      of mean less than 1, and the coupling's gradient is that much too small. In return the
      factor's variance, q / (1 - q), stays bounded, and q that rounds to 1 gives no 0 / 0.
    One group needs no sample: E is linear in each bit, and all is that of `kl.hierarchical`.

    Args:
        params: RBM with n1 = n2.
        logits: one [..., m] a group, l of q(z_g | x, zeta_<g); the groups have the machine's units
            in total, and an even number of groups, or one, so that a side ends where a group does.
        zetas: one [..., m] a group, `relax.spike_exp` samples, of which the signs are used; those
            of the right side, and a single group's, are not.
        log_z: [] log Z in nats, usually of `log_z_with_gradient`.
        max_probability: in (0, 1), the cap of q in the factor.

    Returns:
        [...] nats, at least float32.

    Raises:
        ValueError: if groups and machine do not fit each other, or max_probability is outside
            (0, 1).
    """
    if len(logits) != len(zetas):
        raise ValueError(
            f"logits and zetas need one entry for each group, got {len(logits)} and {len(zetas)}"
        )
    _check_groups(params, logits, zetas)
    if not 0 < max_probability < 1:
        raise ValueError(
            f"max_probability must be strictly between 0 and 1, got {max_probability}: it keeps "
            "1 / (1 - q) finite"
        )
    num_left = params.bias1.shape[0]
    joined = upcast(jnp.concatenate(list(logits), axis=-1))
    entropy = bernoulli.entropy(joined).sum(-1)
    q = jax.nn.sigmoid(joined)
    q1, q2 = q[..., :num_left], q[..., num_left:]
    if len(logits) == 1:
        coupled = q1
    else:
        z1 = jnp.concatenate(list(zetas[: len(zetas) // 2]), axis=-1) > 0
        # sigmoid(-l) keeps the digits of 1 - q; the floor is the cap of q.
        rest = jnp.maximum(jax.nn.sigmoid(-joined[..., :num_left]), 1 - max_probability)
        factor = jax.lax.stop_gradient(jnp.where(z1, 0, 1 / rest))
        # The bits in value; the difference, exactly 0, gives them the gradient of the factor.
        coupled = z1 + factor * (q1 - jax.lax.stop_gradient(q1))
    linear = -q1 @ params.bias1 - q2 @ params.bias2
    interaction = -jnp.sum((coupled @ params.weights) * q2, axis=-1)
    return log_z - entropy + linear + interaction
