"""The latent variables of `dvaepp` in training: relaxed bits, and the analytic divergence.

How they are drawn in the binary limit is in `dvae.models.dvaepp_latents`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from dvae import boltzmann, rbm, relax
from dvae.distributions import bernoulli, normal
from dvae.models import boltzmann as machines
from dvae.models.dvaepp import LocalDraw
from dvae.models.dvaepp_latents import Globals, Posterior, layer_logits, split_normal, split_pair
from experiments.boltzmann import prior as boltzmann_prior
from experiments.common import schedules
from experiments.dvaepp.config import BERNOULLI, BOLTZMANN, NORMAL, RBM_ROLFE, Config

PyTree = Any
MAX_EXACT = 12  # units of a machine to enumerate at every step


def init_prior(config: Config) -> PyTree:
    """Returns the learned parameters of p(z): a machine, logits, or none for normal variables."""
    if config.global_latents in BOLTZMANN:
        return boltzmann_prior.init(config)
    if config.global_latents == BERNOULLI:
        return jnp.zeros((config.num_groups, config.num_latents))
    return ()


def beta_at(config: Config, step: jax.Array) -> jax.Array | float:
    """Returns the inverse temperature of a step, which is a constant where it does not move."""
    if config.beta_final in (0, config.beta):
        return config.beta
    last, steps = config.beta_final, config.beta_steps or config.num_steps
    return schedules.linear(config.beta, last, step, steps)


def train_globals(
    key: jax.Array,
    config: Config,
    posterior: Posterior,
    prior: PyTree,
    log_z: jax.Array,
    step: jax.Array,
) -> Globals:
    """Draws the global variables with their gradient.

    Args:
      key: typed PRNG key.
      config: names their kind.
      posterior: see `dvae.models.dvaepp_latents`.
      prior: its parameters, see `init_prior`.
      log_z: [] of a machine, which its KL needs.
      step: int32 scalar, steps done, by which the inverse temperature goes.
    """
    keys = jax.random.split(key, config.num_groups)
    seen: list[jax.Array] = []
    if config.global_latents == NORMAL:
        kl = jnp.zeros(())
        for k in keys:
            mean, log_scale = split_normal(posterior(seen))
            kl = kl + normal.kl(mean, log_scale, 0.0, 0.0).sum(-1)
            seen.append(normal.sample(k, mean, log_scale))
        return Globals(seen, kl, {})
    spikes = config.global_latents == RBM_ROLFE
    smoothing = relax.spike_exp if spikes else relax.SMOOTHINGS[config.smoothing]
    beta = beta_at(config, step)
    logits, zetas = [], []
    for k in keys:
        logits.append(posterior(seen))
        zetas.append(smoothing.sample(k, logits[-1], beta))
        seen.append(2 * zetas[-1] - 1)
    if spikes:
        kl = rbm.rolfe.kl_surrogate(prior, logits, zetas, log_z)
    elif config.global_latents in BOLTZMANN:
        ratios = [smoothing.log_ratio(zeta, beta) for zeta in zetas]
        kl = machines.library(prior).kl.hierarchical(prior, logits, ratios, log_z)
    else:
        # The marginal divergence of the smoothed bits.
        terms = [
            smoothing.log_prob(zeta, q, beta)
            - smoothing.log_prob(zeta, layer_logits(prior, i, q), beta)
            for i, (zeta, q) in enumerate(zip(zetas, logits, strict=True))
        ]
        kl = jnp.stack(terms).sum((0, -1))
    entropy = jnp.stack([bernoulli.entropy(q).sum(-1).mean() for q in logits]).sum()
    return Globals(seen, kl, {"global_entropy": entropy})


def train_local(config: Config, step: jax.Array) -> LocalDraw:
    """Returns the draw of a local group with its gradient: analytic KL, or the marginal one.

    Args:
      config: names the kind of the variables.
      step: int32 scalar, steps done, by which the inverse temperature goes.
    """

    def draw_normal(
        key: jax.Array, q: jax.Array | None, p: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        (mean, log_scale), prior = split_pair(q, p)
        kl = normal.kl(mean, log_scale, prior[0], prior[1]).sum((1, 2, 3))
        return normal.sample(key, mean, log_scale), kl

    if config.local_latents == NORMAL:
        return draw_normal
    smoothing, beta = relax.SMOOTHINGS[config.smoothing], beta_at(config, step)

    def draw_bits(key: jax.Array, q: jax.Array | None, p: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = p if q is None else p + q
        zeta = smoothing.sample(key, logits, beta)
        log_prob = lambda of: smoothing.log_prob(zeta, of, beta).sum((1, 2, 3))
        return 2 * zeta - 1, log_prob(logits) - log_prob(p)

    return draw_bits


def current_log_z(params: PyTree, log_z: jax.Array) -> jax.Array:
    """Returns log Z with its value of now and the same gradient, of a machine that is enumerated.

    One with more than `MAX_EXACT` units, an RBM on its smaller side, keeps the value that it has.

    Args:
      params: the machine.
      log_z: [] nats, as `negative_phase` returns it.

    Returns:
      [] nats, with the gradient of `log_z`.
    """
    fixed = jax.lax.stop_gradient(params)
    if isinstance(fixed, rbm.RBM):
        small = min(fixed.weights.shape) <= MAX_EXACT
        value = rbm.exact.log_z(fixed) if small else log_z
    else:
        small = len(fixed.bias) <= MAX_EXACT
        value = boltzmann.exact.log_z(fixed) if small else log_z
    return log_z + jax.lax.stop_gradient(value - log_z)
