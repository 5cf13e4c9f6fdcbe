"""The two evidence lower bounds of models with smoothed bits: joint and marginal.

Each bit z of a group has a smoothed copy zeta ~ r(zeta | z), through which alone it acts on later
groups and on the pixels. Keeping z in the model gives the joint bound, summing it out the marginal
one. Vahdat et al., "DVAE++" (2018), sec. 4. Both take one entry a group, so that one group, two and
more are the same code.
"""

from collections.abc import Sequence

import jax

from dvae.bounds.elbo import elbo
from dvae.distributions import bernoulli


def joint_elbo(
    log_likelihood: jax.Array,
    logits_q: Sequence[jax.Array],
    logits_p: Sequence[jax.Array],
    *,
    kl_weight: jax.Array | float = 1.0,
) -> jax.Array:
    """Computes the joint ELBO, with the discrete divergences in closed form.

        log p(x|zeta) - sum_g KL(q(z_g|x, zeta_<g) || p(z_g|zeta_<g))

    Vahdat et al. (2018), eq. 4, at a sample zeta ~ q(zeta|x): its mean is the bound.

    Args:
        log_likelihood: [...], log p(x|zeta) in nats.
        logits_q: one [..., n_g] a group, logits of q(z_g|x, zeta_<g).
        logits_p: one a group that broadcasts with it, logits of p(z_g|zeta_<g).
        kl_weight: scalar, for instance from `linear_warmup`.

    Returns:
        [...], nats.

    Raises:
        ValueError: if the numbers of groups differ, or there is none.
    """
    _check_groups("logits_q", logits_q, "logits_p", logits_p)
    terms = [bernoulli.kl(q, p).sum(-1) for q, p in zip(logits_q, logits_p, strict=True)]
    return elbo(log_likelihood, sum(terms[1:], start=terms[0]), kl_weight=kl_weight)


def marginal_elbo(
    log_likelihood: jax.Array,
    log_q: Sequence[jax.Array],
    log_p: Sequence[jax.Array],
    *,
    kl_weight: jax.Array | float = 1.0,
) -> jax.Array:
    """Computes the one-sample estimate of the marginal ELBO, whose divergences are of mixtures.

        log p(x|zeta) - sum_g (log q(zeta_g|x, zeta_<g) - log p(zeta_g|zeta_<g))

    Vahdat et al. (2018), eq. 5, where q(zeta) = sum_z r(zeta|z) q(z) and p(zeta) likewise, at a
    sample zeta ~ q(zeta|x). In the mean it is at least the joint bound (appendix D there): by the
    log-sum inequality a divergence cannot grow when z is summed out.

    Args:
        log_likelihood: [...], log p(x|zeta) in nats.
        log_q: one [..., n_g] a group, `relax.NAME.log_prob(zeta, logits_q, beta)`.
        log_p: one [..., n_g] a group, `relax.NAME.log_prob(zeta, logits_p, beta)`, for the same
            zeta and beta.
        kl_weight: scalar, for instance from `linear_warmup`.

    Returns:
        [...], nats.

    Raises:
        ValueError: if the numbers of groups differ, or there is none.
    """
    _check_groups("log_q", log_q, "log_p", log_p)
    terms = [(q - p).sum(-1) for q, p in zip(log_q, log_p, strict=True)]
    return elbo(log_likelihood, sum(terms[1:], start=terms[0]), kl_weight=kl_weight)


def _check_groups(
    name_q: str, of_q: Sequence[jax.Array], name_p: str, of_p: Sequence[jax.Array]
) -> None:
    """Raises ValueError unless both sides have the same groups."""
    if not of_q or len(of_q) != len(of_p):
        raise ValueError(
            f"{name_q} and {name_p} need one entry for each group of latent variables, got "
            f"{len(of_q)} and {len(of_p)}"
        )
