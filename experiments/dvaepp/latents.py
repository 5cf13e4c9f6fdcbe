"""The latent variables of `dvaepp`: how each kind is drawn, and what it costs.

Training draws relaxed bits and takes the analytic divergence where there is one; evaluation draws
bits and takes log q - log p of the sample. Networks see normal variables as they are, and bits, or
what relaxes them, as 2 zeta - 1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dvae import rbm, relax
from dvae.distributions import bernoulli, normal
from dvae.models.dvaepp import LocalDraw
from experiments.boltzmann import prior as boltzmann_prior
from experiments.dvaepp.config import BERNOULLI, BOLTZMANN, NORMAL, RBM_ROLFE, Config

PyTree = Any
MAX_LOG_SCALE = 5.0  # of normal variables: where tanh bends what networks give
Posterior = Callable[[list[jax.Array]], jax.Array]  # earlier layers -> parameters [B, n P]


class Globals(NamedTuple):
    """A draw of all global variables."""

    seen: list[jax.Array]  # [B, n] a layer, as networks see them
    divergence: jax.Array  # [B] nats
    metrics: dict[str, jax.Array]


def init_prior(config: Config) -> PyTree:
    """Returns the learned parameters of p(z): a machine, logits, or none for normal variables."""
    if config.global_latents in BOLTZMANN:
        return boltzmann_prior.init(config)
    if config.global_latents == BERNOULLI:
        return jnp.zeros((config.num_groups, config.num_latents))
    return ()


def _bounded(log_scale: jax.Array) -> jax.Array:
    return MAX_LOG_SCALE * jnp.tanh(log_scale / MAX_LOG_SCALE)


def split_normal(params: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Takes mean and log_scale, the latter in (-5, 5), out of [..., 2 n]."""
    mean, log_scale = jnp.split(params, 2, axis=-1)
    return mean, _bounded(log_scale)


def _layer_logits(prior: jax.Array, layer: int, like: jax.Array) -> jax.Array:
    return jnp.broadcast_to(prior[layer], like.shape)


def train_globals(
    key: jax.Array, config: Config, posterior: Posterior, prior: PyTree, log_z: jax.Array
) -> Globals:
    """Draws the global variables with their gradient; the KL of a machine needs its log Z."""
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
    logits, zetas = [], []
    for k in keys:
        logits.append(posterior(seen))
        zetas.append(smoothing.sample(k, logits[-1], config.beta))
        seen.append(2 * zetas[-1] - 1)
    if spikes:
        kl = rbm.rolfe.kl_surrogate(prior, logits, zetas, log_z)
    elif config.global_latents in BOLTZMANN:
        ratios = [smoothing.log_ratio(zeta, config.beta) for zeta in zetas]
        kl = rbm.kl.hierarchical(prior, logits, ratios, log_z)
    else:
        # The marginal divergence of the smoothed bits.
        terms = [
            smoothing.log_prob(zeta, q, config.beta)
            - smoothing.log_prob(zeta, _layer_logits(prior, i, q), config.beta)
            for i, (zeta, q) in enumerate(zip(zetas, logits, strict=True))
        ]
        kl = jnp.stack(terms).sum((0, -1))
    entropy = jnp.stack([bernoulli.entropy(q).sum(-1).mean() for q in logits]).sum()
    return Globals(seen, kl, {"global_entropy": entropy})


def draw_globals(
    key: jax.Array, config: Config, posterior: Posterior, prior: PyTree, log_z: jax.Array | None
) -> Globals:
    """Draws bits (or normal variables), with log q - log p of the sample.

    Raises:
      ValueError: a machine's `log_z` is missing.
    """
    if config.global_latents in BOLTZMANN and log_z is None:
        raise ValueError(f"global_latents={config.global_latents} needs log_z of its machine")
    seen: list[jax.Array] = []
    bits: list[jax.Array] = []
    total = jnp.zeros(())
    for layer, k in enumerate(jax.random.split(key, config.num_groups)):
        params = posterior(seen)
        if config.global_latents == NORMAL:
            mean, log_scale = split_normal(params)
            h = normal.sample(k, mean, log_scale)
            log_ratio = normal.log_prob(h, mean, log_scale) - normal.log_prob(h, 0.0, 0.0)
            total = total + log_ratio.sum(-1)
            seen.append(h)
            continue
        bits.append(bernoulli.sample(k, params))
        total = total + bernoulli.log_prob(bits[-1], params).sum(-1)
        if config.global_latents == BERNOULLI:
            logits = _layer_logits(prior, layer, params)
            total = total - bernoulli.log_prob(bits[-1], logits).sum(-1)
        seen.append(2 * bits[-1] - 1)
    if log_z is not None and config.global_latents in BOLTZMANN:
        total = total - boltzmann_prior.log_prob(prior, log_z, bits)
    return Globals(seen, total, {})


def prior_globals(
    key: jax.Array, config: Config, prior: PyTree, model_state: PyTree, count: int
) -> list[jax.Array]:
    """Draws global variables from p(z), [count, n] a layer, as networks see them."""
    if config.global_latents in BOLTZMANN:
        groups = boltzmann_prior.sample(key, config, prior, model_state["chains"], count)
        return [2 * z - 1 for z in groups]
    keys = jax.random.split(key, config.num_groups)
    if config.global_latents == BERNOULLI:
        return [2 * bernoulli.sample(k, p, (count,)) - 1 for k, p in zip(keys, prior, strict=True)]
    return [jax.random.normal(k, (count, config.num_latents)) for k in keys]


def _pair(
    q: jax.Array | None, p: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns mean and log_scale of q and of p; what networks say of q is relative to p."""
    mean_p, raw_p = jnp.split(p, 2, axis=-1)
    if q is None:
        return (mean_p, _bounded(raw_p)), (mean_p, _bounded(raw_p))
    mean_q, raw_q = jnp.split(q, 2, axis=-1)
    return (mean_p + mean_q, _bounded(raw_p + raw_q)), (mean_p, _bounded(raw_p))


def train_local(config: Config) -> LocalDraw:
    """Returns the draw of a local group with its gradient: analytic KL, or the marginal one."""

    def draw_normal(
        key: jax.Array, q: jax.Array | None, p: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        (mean, log_scale), prior = _pair(q, p)
        kl = normal.kl(mean, log_scale, prior[0], prior[1]).sum((1, 2, 3))
        return normal.sample(key, mean, log_scale), kl

    smoothing = relax.SMOOTHINGS[config.smoothing]

    def draw_bits(key: jax.Array, q: jax.Array | None, p: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = p if q is None else p + q
        zeta = smoothing.sample(key, logits, config.beta)
        log_prob = lambda of: smoothing.log_prob(zeta, of, config.beta).sum((1, 2, 3))
        return 2 * zeta - 1, log_prob(logits) - log_prob(p)

    return draw_normal if config.local_latents == NORMAL else draw_bits


def draw_local(config: Config) -> LocalDraw:
    """Returns the draw of a local group in the binary limit, with log q - log p of the sample."""

    def draw_normal(
        key: jax.Array, q: jax.Array | None, p: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        (mean, log_scale), prior = _pair(q, p)
        h = normal.sample(key, mean, log_scale)
        log_ratio = normal.log_prob(h, mean, log_scale) - normal.log_prob(h, prior[0], prior[1])
        return h, log_ratio.sum((1, 2, 3))

    def draw_bits(key: jax.Array, q: jax.Array | None, p: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = p if q is None else p + q
        z = bernoulli.sample(key, logits)
        log_ratio = bernoulli.log_prob(z, logits) - bernoulli.log_prob(z, p)
        return 2 * z - 1, log_ratio.sum((1, 2, 3))

    return draw_normal if config.local_latents == NORMAL else draw_bits
