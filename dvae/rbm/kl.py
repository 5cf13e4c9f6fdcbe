"""The analytic KL of a hierarchical posterior from an RBM, and log Z with its gradient.

The posterior has groups of bits, q(z_g | x, zeta_<g), that fill the machine's units in order, those
of the left side z1 first. A group may end anywhere, and have units of both sides.
"""

from collections.abc import Sequence

import jax

from dvae._numerics import ArrayLike, as_float, sigmoid, upcast
from dvae.distributions import bernoulli
from dvae.rbm import _groups
from dvae.rbm._estimates import check_log_z, with_negative_phase
from dvae.rbm._rbm import RBM, check_rbm, product
from dvae.rbm.energy import energy

__all__ = ["hierarchical", "log_z_with_gradient"]


def hierarchical(
    params: RBM,
    logits: Sequence[jax.Array],
    log_ratios: Sequence[jax.Array],
    log_z: ArrayLike,
) -> jax.Array:
    """Evaluates KL(q(z, zeta | x) || p(z, zeta)) at one sample of zeta; its mean is the KL.

        log Z - sum_g H(q(z_g | x, zeta_<g)) - a1.mu1 - a2.mu2 - sum_ij c_ij W_ij mu_j,

        c_ij = nu_i if the right unit j is in a later group than the left unit i, else mu_i,

    mu = sigmoid(l) the probabilities of a group before its zeta is known, and nu =
    sigmoid(l + log r(zeta|1) - log r(zeta|0)) those once it is, which correlates it with the mu of
    later groups; bits of one group are independent given the earlier ones' zeta. Where no group has
    units of both sides, the last term is nu1^T W mu2: Vahdat et al., "DVAE++" (2018), sec. 5, the
    simplified eq. 6. For a single group it is mu1^T W mu2, and no sample is needed.

    Args:
        params: RBM.
        logits: one [..., m] a group, l of q(z_g | x, zeta_<g); the groups have the machine's units
            in total.
        log_ratios: one [..., m] a group, `relax.NAME.log_ratio(zeta_g, beta)`, differentiable in
            zeta; those of the last group, and of groups on the right side, are not used.
        log_z: [] log Z in nats, usually of `log_z_with_gradient`.

    Returns:
        [...] nats, at least float32.

    Raises:
        ValueError: if groups and machine do not fit each other, or log_z is no scalar.
    """
    params, log_z = check_rbm(params), check_log_z(log_z)
    where = _groups.layout(params, logits, log_ratios, "log_ratios")
    joined = _groups.join(logits)
    entropy = bernoulli.entropy(joined).sum(-1)
    mu = sigmoid(joined)
    known = [upcast(logits[g]) + upcast(log_ratios[g]) for g in where.known]
    nu = sigmoid(_groups.join(known)) if known else mu
    linear = product(mu, _groups.join(params[:2]))
    return log_z - entropy - linear - _groups.coupling(params, where, mu, nu)


def log_z_with_gradient(
    params: RBM,
    log_z: ArrayLike,
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
        ValueError: if the sizes do not fit, there is no sample, z1 and z2 are of other numbers of
            chains, or log_z is no scalar.
    """
    log_z = check_log_z(log_z)
    z1, z2 = jax.lax.stop_gradient((as_float(z1), as_float(z2)))
    if (first := z1.shape[:-1]) != (second := z2.shape[:-1]):  # one chain would broadcast
        count = lambda batch: batch[0] if len(batch) == 1 else batch
        raise ValueError(
            f"z1 and z2 must hold as many chains, got {count(first)} and {count(second)}: pass "
            "both sides of one state of chains"
        )
    energies = energy(params, z1, z2)
    if energies.size == 0:
        raise ValueError(
            f"z1 and z2 must hold at least one sample of the machine, got shapes {z1.shape} and "
            f"{z2.shape}"
        )
    return with_negative_phase(log_z, energies, log_weights)
