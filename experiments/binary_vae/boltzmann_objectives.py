"""Training objectives of `binary_vae` under Boltzmann priors, in nats an image.

The posterior's groups fill the machine in order, the first half of all units its left side.

- dvae: bits and spike-and-exponential zeta, Rolfe's gradient of the KL;
- dvaepp: overlapping smoothings, the analytic KL of bits (Vahdat et al., "DVAE++", 2018);
- dvaes: the prior is relaxed like the posterior, so that log-weights of zeta exist, and with them
  importance-weighted bounds (Vahdat et al., "DVAE#", 2018).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dvae import bounds, rbm, relax
from dvae.distributions import bernoulli
from experiments.binary_vae import names
from experiments.binary_vae.config import Config
from experiments.binary_vae.model import Networks
from experiments.binary_vae.objectives import Terms, beta_at

PyTree = Any
POWER_ITERATIONS = 10


def init_posterior(config: Config) -> PyTree:
    """Returns what the relaxed posterior learns beside its logits: of the Gaussian integral alone.

    A unit's components have means shift and 1 + shift and a standard deviation of their own.
    """
    if config.smoothing != names.GAUSSIAN_INTEGRAL:
        return {}
    shape = (config.num_groups, config.num_latents)
    log_scale = jnp.full(shape, -0.5 * math.log(config.beta))
    return {"components": {"shift": jnp.zeros(shape), "log_scale": log_scale}}


def analytic(
    key: jax.Array,
    model: Networks,
    config: Config,
    prior: rbm.RBM,
    log_z: jax.Array,
    *,
    step: jax.Array,
    kl_weight: jax.Array,
) -> Terms:
    """dvae, dvaepp: one sample of zeta in the networks, the KL of the bits given it."""
    beta = beta_at(config, step)
    smoothing = relax.SMOOTHINGS[config.smoothing]
    zetas: list[jax.Array] = []
    logits: list[jax.Array] = []
    for key_group in jax.random.split(key, config.num_groups):
        logits.append(model.posterior_logits(zetas))
        zetas.append(smoothing.sample(key_group, logits[-1], beta))
    if config.method == names.DVAE:
        kl = rbm.rolfe.kl_surrogate(prior, logits, zetas, log_z)
    else:
        log_ratios = [smoothing.log_ratio(zeta, beta) for zeta in zetas]
        kl = rbm.kl.hierarchical(prior, logits, log_ratios, log_z)
    log_likelihood = model.log_likelihood(zetas)
    bound = bounds.elbo(log_likelihood, kl, kl_weight=kl_weight)
    metrics = {"beta": beta, **_entropies(logits)}
    kls = kl.mean()[None]
    return Terms(bound, bound, -log_likelihood, kls, jnp.zeros(()), (), metrics)


def relaxed(
    key: jax.Array,
    model: Networks,
    config: Config,
    prior: rbm.RBM,
    log_z: jax.Array,
    *,
    components: PyTree,
    step: jax.Array,
    kl_weight: jax.Array,
) -> Terms:
    """dvaes: log-weights log p(x|zeta) + log p(zeta) - log q(zeta|x) of K samples."""
    beta = beta_at(config, step)
    num_samples = config.num_samples if config.bound == names.IW else 1
    zetas: list[jax.Array] = []
    logits: list[jax.Array] = []
    log_q: list[jax.Array] = []
    for group, key_group in enumerate(jax.random.split(key, config.num_groups)):
        found = model.posterior_logits(zetas)
        # The first group's logits are those of the images, the others' of each sample too.
        logits.append(found if group else jnp.broadcast_to(found, (num_samples, *found.shape)))
        posterior = _posterior(config, beta, components, group)
        zetas.append(posterior.sample(key_group, logits[-1]))
        log_q.append(posterior.log_prob(zetas[-1], logits[-1]).sum(-1))
    log_p = _log_prior(config, prior, beta, jnp.concatenate(zetas, -1), log_z)
    log_likelihood = model.log_likelihood(zetas)
    divergence = sum(log_q[1:], log_q[0]) - log_p
    bound = bounds.iwae(log_likelihood - kl_weight * divergence)
    metrics = {"beta": beta, **_entropies(logits)}
    if config.smoothing == names.GAUSSIAN_INTEGRAL:
        # A bound from below by power iteration from a fixed start: an SVD would cost more than
        # the step.
        metrics["largest_singular_value"] = _largest_singular_value(prior.weights)
    distortion = -log_likelihood.mean(0)
    return Terms(bound, bound, distortion, divergence.mean()[None], jnp.zeros(()), (), metrics)


class _Posterior(NamedTuple):
    """q(zeta | x) of a group as functions of its logits."""

    sample: Any  # (key, logits) -> zeta
    log_prob: Any  # (zeta, logits) -> nats, elementwise


def _posterior(config: Config, beta: jax.Array, components: PyTree, group: int) -> _Posterior:
    if config.smoothing != names.GAUSSIAN_INTEGRAL:
        smoothing = relax.SMOOTHINGS[config.smoothing]
        return _Posterior(
            lambda key, logits: smoothing.sample(key, logits, beta),
            lambda zeta, logits: smoothing.log_prob(zeta, logits, beta),
        )
    spread = lambda x, like: jnp.broadcast_to(x[group], like.shape)

    def sample(key: jax.Array, logits: jax.Array) -> jax.Array:
        precision = spread(jnp.exp(-2 * components["log_scale"]), logits)
        zeta = relax.gaussian.sample(key, logits, precision)
        return zeta + spread(components["shift"], logits)

    def log_prob(zeta: jax.Array, logits: jax.Array) -> jax.Array:
        precision = spread(jnp.exp(-2 * components["log_scale"]), logits)
        return relax.gaussian.log_prob(zeta - spread(components["shift"], zeta), logits, precision)

    return _Posterior(sample, log_prob)


def _log_prior(
    config: Config, prior: rbm.RBM, beta: jax.Array, zeta: jax.Array, log_z: jax.Array
) -> jax.Array:
    if config.smoothing == names.GAUSSIAN_INTEGRAL:
        # beta is the diagonal of the precision: that of independent units' components.
        return rbm.relaxed.gaussian_integral_log_prob(prior, zeta, beta, log_z)
    smoothing = relax.SMOOTHINGS[config.smoothing]
    log_ratio, log_r0 = smoothing.log_ratio(zeta, beta), smoothing.log_prob_0(zeta, beta)
    return rbm.relaxed.overlapping_log_prob(prior, zeta, log_ratio, log_r0, log_z)


def _largest_singular_value(weights: jax.Array) -> jax.Array:
    """Estimates |W|_2 from below, by the power method."""
    w = jax.lax.stop_gradient(weights)

    def iterate(_: jax.Array, v: jax.Array) -> jax.Array:
        u = w.T @ (w @ v)
        return u / jnp.maximum(jnp.linalg.norm(u), 1e-30)  # at first the couplings are 0

    start = jnp.full(w.shape[1], w.shape[1] ** -0.5)
    return jnp.linalg.norm(w @ jax.lax.fori_loop(0, POWER_ITERATIONS, iterate, start))


def _entropies(logits: list[jax.Array]) -> dict[str, jax.Array]:
    """Mean entropy of each group's bits, nats: what a KL has of its own for every group."""
    values = [bernoulli.entropy(group).sum(-1).mean() for group in logits]
    return {f"entropy_{g + 1}": value for g, value in enumerate(values)}
