"""Training objectives of `binary_vae` under Boltzmann priors: one function a method.

Each is an objective as in `objectives`, with the machine in place of `auxiliary`. The posterior's
groups fill the machine in order, in an RBM the first half of all units its left side. An RBM has
biases a1 and a2, couplings W and the normalizer Z; machines on graphs are trained by `dvaepp`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dvae import bounds, rbm, relax
from dvae.distributions import bernoulli
from dvae.models import boltzmann, labeled_machine
from dvae.models.binary import Networks
from experiments.binary_vae import names
from experiments.binary_vae.config import Config
from experiments.binary_vae.objectives import Batch, Terms, beta_at

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


class Prior(NamedTuple):
    """A machine in training, and what relaxes its units."""

    machine: Any  # RBM, or of dvaepp a machine on a graph
    log_z: jax.Array  # [] or of each label [C] nats, with the gradient of the negative phase
    components: PyTree  # see `init_posterior`; None where nothing is learned


Method = Callable[[jax.Array, Networks, Prior, Batch, Config], Terms]


class _Sample(NamedTuple):
    """Smoothed bits, one array [B, n] a group."""

    zetas: list[jax.Array]
    logits: list[jax.Array]  # of the bits, at the groups before
    beta: jax.Array  # [] inverse temperature


def _sample(key: jax.Array, model: Networks, batch: Batch, config: Config) -> _Sample:
    """Draws zeta_1 ~ q(.|x), zeta_2 ~ q(.|x, zeta_1), ..."""
    smoothing = relax.SMOOTHINGS[config.smoothing]
    sample = _Sample([], [], beta_at(config, batch.step))
    for key_group in jax.random.split(key, config.num_groups):
        sample.logits.append(model.posterior_logits(sample.zetas))
        sample.zetas.append(smoothing.sample(key_group, sample.logits[-1], sample.beta))
    return sample


def _elbo(sample: _Sample, model: Networks, kl: jax.Array, batch: Batch) -> Terms:
    """Maximizes log p(x|zeta) - w KL, with a divergence [B] of the bits."""
    log_likelihood = model.log_likelihood(sample.zetas)
    bound = bounds.elbo(log_likelihood, kl, kl_weight=batch.kl_weight)
    metrics = {"beta": sample.beta, **_entropies(sample.logits)}
    return Terms(bound, bound, -log_likelihood, kl.mean()[None], metrics=metrics)


def dvae(key: jax.Array, model: Networks, prior: Prior, batch: Batch, config: Config) -> Terms:
    """Maximizes log p(x|zeta) - w KL, zeta spike-and-exponential (Rolfe, 2017).

    KL = log Z - sum_g H(q_g) - a1.q1 - a2.q2 - z1^T W q2, z1 = 1[zeta1 > 0]

    with the published gradient of the last term, in which z1 steps.
    """
    sample = _sample(key, model, batch, config)
    kl = rbm.rolfe.kl_surrogate(prior.machine, sample.logits, sample.zetas, prior.log_z)
    return _elbo(sample, model, kl, batch)


def dvaepp(key: jax.Array, model: Networks, prior: Prior, batch: Batch, config: Config) -> Terms:
    """Maximizes log p(x|zeta) - w KL, zeta overlapping (Vahdat et al., "DVAE++", 2018).

    KL = log Z - sum_g H(q_g) - a1.q1 - a2.q2 - nu1^T W q2, nu1 = q(z1|x, zeta1)

    of two groups under an RBM; `dvae.boltzmann.kl.hierarchical` has it for any groups and graph.
    Given labels it is the KL from p(z | y), see `labeled_machine.kl`.
    """
    sample = _sample(key, model, batch, config)
    log_ratio = relax.SMOOTHINGS[config.smoothing].log_ratio
    log_ratios = [log_ratio(zeta, sample.beta) for zeta in sample.zetas]
    arguments = prior.machine, sample.logits, log_ratios, prior.log_z
    if batch.labels is None:
        kl = boltzmann.library(prior.machine).kl.hierarchical(*arguments)
    else:
        kl = labeled_machine.kl(*arguments, batch.labels)
    return _elbo(sample, model, kl, batch)


def dvaes(key: jax.Array, model: Networks, prior: Prior, batch: Batch, config: Config) -> Terms:
    """Maximizes log 1/K sum_k p(x|zeta_k) (p(zeta_k) / q(zeta_k|x))^w; K = 1 is the ELBO.

    The prior is relaxed like the posterior, so that zeta has a density under both: Vahdat et al.,
    "DVAE#" (2018).
    """
    beta = beta_at(config, batch.step)
    num_samples = config.num_samples if config.bound == names.IW else 1
    zetas: list[jax.Array] = []
    logits: list[jax.Array] = []
    log_q: list[jax.Array] = []
    for group, key_group in enumerate(jax.random.split(key, config.num_groups)):
        # The first group's logits are those of the images, the others' of each sample too.
        of_images = model.posterior_logits(zetas)
        shape = of_images.shape if group else (num_samples, *of_images.shape)
        logits.append(jnp.broadcast_to(of_images, shape))
        posterior = _posterior(config, beta, prior.components, group)
        zetas.append(posterior.sample(key_group, logits[-1]))
        log_q.append(posterior.log_prob(zetas[-1], logits[-1]).sum(-1))
    log_p = _log_prior(config, prior, beta, jnp.concatenate(zetas, -1))
    log_likelihood = model.log_likelihood(zetas)
    divergence = sum(log_q[1:], log_q[0]) - log_p
    bound = bounds.iwae(log_likelihood - batch.kl_weight * divergence)
    metrics = {"beta": beta, **_entropies(logits)}
    if config.smoothing == names.GAUSSIAN_INTEGRAL:
        # A bound from below by power iteration from a fixed start: an SVD would cost more than
        # the step.
        metrics["largest_singular_value"] = _largest_singular_value(prior.machine.weights)
    kl = divergence.mean()[None]
    return Terms(bound, bound, -log_likelihood.mean(0), kl, metrics=metrics)


METHODS: dict[str, Method] = {names.DVAE: dvae, names.DVAEPP: dvaepp, names.DVAES: dvaes}


def method_of(config: Config) -> Method:
    """Returns how a configuration trains; a general machine leaves one choice."""
    return dvaepp if config.prior == names.GENERAL else METHODS[config.method]


class _Posterior(NamedTuple):
    """q(zeta | x) of a group as functions of its logits, elementwise."""

    sample: Callable[[jax.Array, jax.Array], jax.Array]  # (key, logits) -> zeta
    log_prob: Callable[[jax.Array, jax.Array], jax.Array]  # (zeta, logits) -> nats


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


def _log_prior(config: Config, prior: Prior, beta: jax.Array, zeta: jax.Array) -> jax.Array:
    """Evaluates log p(zeta) of all groups' units, [..., N] to [...]."""
    if config.smoothing == names.GAUSSIAN_INTEGRAL:
        # beta is the diagonal of the precision: that of independent units' components.
        return rbm.relaxed.gaussian_integral_log_prob(prior.machine, zeta, beta, prior.log_z)
    smoothing = relax.SMOOTHINGS[config.smoothing]
    log_ratio, log_r0 = smoothing.log_ratio(zeta, beta), smoothing.log_prob_0(zeta, beta)
    return rbm.relaxed.overlapping_log_prob(prior.machine, zeta, log_ratio, log_r0, prior.log_z)


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
