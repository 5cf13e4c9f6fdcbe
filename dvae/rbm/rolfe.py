"""The KL of a spike-and-exponential posterior from an RBM, with its hand-made gradient.

The bits of the original discrete VAE are a step function of zeta, z = 1[zeta > 0], so that unlike
in `kl.hierarchical` no smooth probability of z given zeta carries the gradient. Rolfe, "Discrete
Variational Autoencoders" (2017).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dvae._numerics import ArrayLike, sigmoid
from dvae.distributions import bernoulli
from dvae.rbm import _groups
from dvae.rbm._estimates import check_log_z
from dvae.rbm._rbm import RBM, check_rbm, product

__all__ = ["kl_surrogate"]


def kl_surrogate(
    params: RBM,
    logits: Sequence[jax.Array],
    zetas: Sequence[jax.Array],
    log_z: ArrayLike,
    *,
    max_probability: float = 0.999,
) -> jax.Array:
    """Estimates KL(q(z, zeta | x) || p(z, zeta)) from one sample of zeta, gradient included.

        value     log Z - sum_g H(q_g) - a1.q1 - a2.q2 - z1^T W q2,    z1 = 1[zeta1 > 0],
        gradient  sum_i [l_i - a_i - (W q2)_i (1 - z_i) / (1 - q_i)] dq_i   over the left side,
                + sum_j [l_j - a_j - (W^T z1)_j] dq_j                       over the right side,

    q = sigmoid(l), the brackets held constant, dq including what passes through the zeta of earlier
    groups; params receive the positive phase, E's derivative with z1 q2^T for the couplings. Where
    one group has units i and j of both sides, these are independent: between them q_i stands for
    z_i, and no factor for its bracket's.

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
        params: RBM.
        logits: one [..., m] a group, l of q(z_g | x, zeta_<g); the groups have the machine's units
            in total, the left side's first, and may end anywhere.
        zetas: one [..., m] a group, `relax.spike_exp` samples, of which the signs are used; those
            of the last group, and of groups on the right side, are not.
        log_z: [] log Z in nats, usually of `log_z_with_gradient`.
        max_probability: in (0, 1), the cap of q in the factor.

    Returns:
        [...] nats, at least float32.

    Raises:
        ValueError: if groups and machine do not fit each other, log_z is no scalar, or
            max_probability is outside (0, 1).
    """
    params, log_z = check_rbm(params), check_log_z(log_z)
    where = _groups.layout(params, logits, zetas, "zetas")
    if not 0 < max_probability < 1:
        raise ValueError(
            f"max_probability must be strictly between 0 and 1, got {max_probability}: it keeps "
            "1 / (1 - q) finite"
        )
    joined = _groups.join(logits)
    entropy = bernoulli.entropy(joined).sum(-1)
    q = sigmoid(joined)
    known = q
    if where.known:
        zeta = jax.lax.stop_gradient(_groups.join([zetas[g] for g in where.known]))
        # A zeta that is NaN is on neither side of 0, and would be an ordinary bit.
        z = jnp.where(zeta > 0, 1, 0 * zeta)
        size = zeta.shape[-1]
        # sigmoid(-l) keeps the digits of 1 - q; the floor is the cap of q.
        rest = jnp.maximum(jax.nn.sigmoid(-joined[..., :size]), 1 - max_probability)
        factor = jax.lax.stop_gradient((1 - z) / rest)
        # The bits in value; the difference, exactly 0, gives them the gradient of the factor.
        known = z + factor * (q[..., :size] - jax.lax.stop_gradient(q[..., :size]))
    linear = product(q, _groups.join(params[:2]))
    return log_z - entropy - linear - _groups.coupling(params, where, q, known)
