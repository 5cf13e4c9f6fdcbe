"""Objectives of `binary_vae` that differentiate a sample: of relaxed bits, or straight through."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dvae import bounds, relax
from dvae.distributions import bernoulli
from dvae.models.binary import Networks
from experiments.binary_vae import names
from experiments.binary_vae.config import Config
from experiments.binary_vae.objectives import Auxiliary, Batch, Objective, Terms, beta_at


class Relaxation(NamedTuple):
    """The variables y of a group's units as functions of the units' logits, elementwise."""

    sample: Callable[[jax.Array, jax.Array], jax.Array]  # (key, logits) -> y
    zeta: Callable[[jax.Array], jax.Array] = lambda y: y  # what networks see of y
    # (y, logits) -> nats, of which the KL is the difference; None: that of the bits, analytic.
    log_prob: Callable[[jax.Array, jax.Array], jax.Array] | None = None


def _relaxed(
    key: jax.Array, model: Networks, relaxation: Relaxation, batch: Batch, config: Config
) -> Terms:
    """Differentiates log p(x|zeta) - w KL through a sample y_g ~ q(.|x, zeta_<g) of every group.

    analytic:  KL = sum_g KL(q(z_g|x, zeta_<g), p(z_g|zeta_<g))
    sampled:   KL = sum_g log q(y_g|x, zeta_<g) - log p(y_g|zeta_<g)
    """
    log_prob = relaxation.log_prob
    zetas: list[jax.Array] = []
    q: list[jax.Array] = []  # logits of bits, or log-densities of y
    p: list[jax.Array] = []
    for key_group in jax.random.split(key, config.num_groups):
        logits_q = model.posterior_logits(zetas)
        logits_p = jnp.broadcast_to(model.prior_logits(zetas), logits_q.shape)
        y = relaxation.sample(key_group, logits_q)
        zetas.append(relaxation.zeta(y))
        q.append(log_prob(y, logits_q) if log_prob else logits_q)
        p.append(log_prob(y, logits_p) if log_prob else logits_p)
    log_likelihood = model.log_likelihood(zetas)
    bound_of = bounds.marginal_elbo if log_prob else bounds.joint_elbo
    bound = bound_of(log_likelihood, q, p, kl_weight=batch.kl_weight)
    kl_of = jnp.subtract if log_prob else bernoulli.kl
    kl = jnp.stack([kl_of(*pair).sum(-1).mean() for pair in zip(q, p, strict=True)])
    return Terms(bound, bound, -log_likelihood, kl)


def smoothed(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Relaxes z to zeta = F^-1(rho), rho uniform, F the CDF of sum_z q(z|x) r(zeta|z).

    Rolfe (2017), spikes; Vahdat et al., "DVAE++" (2018), overlapping r.
    """
    smoothing, beta = relax.SMOOTHINGS[config.estimator], beta_at(config, batch.step)
    log_prob = lambda zeta, logits: smoothing.log_prob(zeta, logits, beta)
    relaxation = Relaxation(
        lambda key, logits: smoothing.sample(key, logits, beta),
        log_prob=log_prob if config.bound == names.MARGINAL else None,
    )
    return _relaxed(key, model, relaxation, batch, config)._replace(metrics={"beta": beta})


def concrete(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Relaxes z to zeta = sigmoid(y), y = (l + logistic noise) / t (Maddison et al., 2016).

    With logits l of q and a of p, the KL of a unit is

        joint, analytic:  sigmoid(l) (l - a) - softplus(l) + softplus(a)
        joint, sample:    zeta (l - a) - softplus(l) + softplus(a)
        marginal:         log q(zeta) - log p(zeta), of densities

    The second one takes Bernoulli log-probabilities at the relaxed sample, as the program published
    with Tucker et al. (2017) does. As E[zeta] is not sigmoid(l), its mean is not the first one
    unless t goes to 0, and log p(x|zeta) less it bounds nothing.

    With concrete_scale the sample has y = ((1 + t^2 / (t + 1)) l + logistic noise) / t, which tends
    to l as t grows, as the control variate of MuProp has it (Tucker et al., 2017).
    """
    t, factor = config.temperature, 1.0
    densities = lambda y, logits: relax.binary_concrete.log_prob_of_logit(y, logits, t)
    at_sample = lambda y, logits: bernoulli.log_prob(jax.nn.sigmoid(y), logits)
    # Densities are those of y, whose ratio is that of sigmoid(y) and never underflows.
    log_prob = densities if config.bound == names.MARGINAL else None
    if config.bound == names.JOINT and config.concrete_kl == names.SAMPLE:
        log_prob = at_sample
    if config.bound == names.JOINT and config.concrete_scale == names.MUPROP:
        factor = 1.0 + t**2 / (t + 1.0)
    scaled = lambda logits: logits if factor == 1.0 else factor * logits
    relaxation = Relaxation(
        lambda key, logits: relax.binary_concrete.sample_logit(key, scaled(logits), t),
        jax.nn.sigmoid,
        log_prob,
    )
    return _relaxed(key, model, relaxation, batch, config)


def straight_through(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Draws z and takes dz/dl = sigmoid'(l) (Bengio et al., 2013)."""
    return _relaxed(key, model, Relaxation(relax.straight_through.bernoulli), batch, config)


def reinmax(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Draws z and takes dz/dl = q(1 - z|x) / 2, a second-order rule (Liu et al., 2023)."""
    return _relaxed(key, model, Relaxation(relax.reinmax.bernoulli), batch, config)


def gumbel_rao(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Draws z and takes dz/dl = 1/K sum_k dzeta_k/dl, zeta_k Concrete given z.

    Paulus et al. (2021).
    """
    sample = functools.partial(
        relax.gumbel_rao.bernoulli, temperature=config.temperature, num_samples=config.num_samples
    )
    return _relaxed(key, model, Relaxation(sample), batch, config)


ESTIMATORS: dict[str, Objective] = {
    **dict.fromkeys(names.SMOOTHINGS, smoothed),
    names.CONCRETE: concrete,
    names.STRAIGHT_THROUGH: straight_through,
    names.REINMAX: reinmax,
    names.GUMBEL_RAO: gumbel_rao,
}
