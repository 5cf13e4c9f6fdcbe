"""The two evidence lower bounds of models with smoothed bits: joint and marginal.

Each bit z of a group has a smoothed copy zeta ~ r(zeta | z), through which alone it acts on later
groups and on the pixels. Keeping z in the model gives the joint bound, summing it out the marginal
one. Vahdat et al., "DVAE++" (2018), sec. 4. Both take one entry a group, so that one group, two and
more are the same code.
"""

import operator
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import ArrayLike, float_dtype, upcast
from dvae.bounds.elbo import elbo
from dvae.distributions import bernoulli

__all__ = ["joint_elbo", "marginal_elbo"]


def joint_elbo(
    log_likelihood: ArrayLike,
    logits_q: Sequence[ArrayLike],
    logits_p: Sequence[ArrayLike],
    *,
    kl_weight: ArrayLike = 1.0,
) -> jax.Array:
    """Computes the joint ELBO, with the discrete divergences in closed form.

        log p(x|zeta) - sum_g KL(q(z_g|x, zeta_<g) || p(z_g|zeta_<g))

    Vahdat et al. (2018), eq. 4, at a sample zeta ~ q(zeta|x): its mean is the bound.

    Args:
        log_likelihood: [...], log p(x|zeta) in nats.
        logits_q: one [..., n_g] a group, logits of q(z_g|x, zeta_<g).
        logits_p: one [..., n_g] a group whose batch axes broadcast with it, logits of
            p(z_g|zeta_<g).
        kl_weight: scalar, for instance from `linear_warmup`.

    Returns:
        [...], nats.

    Raises:
        ValueError: if an array is given for a list of groups, the numbers of groups differ or there
            is none, if a group has other batch axes than `log_likelihood` or other units in q than
            in p, or as `elbo`.
    """
    q, p = ("logits_q", logits_q), ("logits_p", logits_p)
    return _bound(log_likelihood, bernoulli.kl, q, p, kl_weight)


def marginal_elbo(
    log_likelihood: ArrayLike,
    log_q: Sequence[ArrayLike],
    log_p: Sequence[ArrayLike],
    *,
    kl_weight: ArrayLike = 1.0,
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
        ValueError: if an array is given for a list of groups, the numbers of groups differ or there
            is none, if a group has other batch axes than `log_likelihood` or other units in q than
            in p, or as `elbo`.
    """
    return _bound(log_likelihood, operator.sub, ("log_q", log_q), ("log_p", log_p), kl_weight)


def _bound(
    log_likelihood: ArrayLike,
    divergence: Callable[[jax.Array, jax.Array], jax.Array],
    groups_q: tuple[str, Sequence[ArrayLike]],
    groups_p: tuple[str, Sequence[ArrayLike]],
    kl_weight: ArrayLike,
) -> jax.Array:
    """Subtracts a divergence of units, summed over groups that come with a name for errors."""
    for name, groups in (groups_q, groups_p):
        # Its first axis, of images or samples, would be taken for the groups.
        if isinstance(groups, jax.Array | np.ndarray):
            raise ValueError(
                f"{name} must list one entry a group, got one array of shape {groups.shape}; of a "
                f"single group pass [{name}]"
            )
    of_q, of_p = ([jnp.asarray(x) for x in groups] for _, groups in (groups_q, groups_p))
    names, log_px = f"{groups_q[0]} and {groups_p[0]}", jnp.asarray(log_likelihood)
    if not of_q or len(of_q) != len(of_p):
        raise ValueError(
            f"{names} need one entry for each group of latent variables, got {len(of_q)} and "
            f"{len(of_p)}"
        )
    for group, (q, p) in enumerate(zip(of_q, of_p, strict=True)):
        if not _fits(q.shape, p.shape, log_px.shape):
            raise ValueError(
                f"{names} need [..., n] of n units in each group, with the batch axes of "
                f"log_likelihood {log_px.shape} (or 1), got {q.shape} and {p.shape} in group "
                f"{group}"
            )
    pairs = zip(of_q, of_p, strict=True)
    first, *others = (divergence(upcast(q), upcast(p)).sum(-1) for q, p in pairs)
    bound = elbo(upcast(log_px), sum(others, start=first), kl_weight=kl_weight)
    return bound.astype(float_dtype(log_px, *of_q, *of_p))


def _fits(q: tuple[int, ...], p: tuple[int, ...], batch: tuple[int, ...]) -> bool:
    """Tells whether two groups have the same units, and batch axes that broadcast with `batch`."""
    if not q or q[-1:] != p[-1:] or max(len(q), len(p)) != len(batch) + 1:
        return False
    try:
        np.broadcast_shapes(q[:-1], p[:-1], batch)
    except ValueError:
        return False
    return True
