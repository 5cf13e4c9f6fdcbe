"""The latent variables of `dvaepp` in the binary limit: draws, and log q - log p of what is drawn.

Networks see normal variables as they are, and bits z as 2 z - 1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dvae.distributions import bernoulli, normal
from dvae.models import boltzmann
from dvae.models.dvaepp import LocalDraw

__all__ = [
    "BERNOULLI",
    "BOLTZMANN",
    "GENERAL",
    "MAX_LOG_SCALE",
    "NORMAL",
    "RBM",
    "RBM_ROLFE",
    "Globals",
    "Kinds",
    "Posterior",
    "draw_globals",
    "draw_local",
    "layer_logits",
    "mode_local",
    "prior_globals",
    "split_normal",
    "split_pair",
]

PyTree = Any
NORMAL, BERNOULLI, RBM, RBM_ROLFE = "normal", "bernoulli", "rbm", "rbm_rolfe"
GENERAL = "boltzmann"  # a machine on any graph
BOLTZMANN = (RBM, RBM_ROLFE, GENERAL)  # the first two differ in how they are trained
MAX_LOG_SCALE = 5.0  # of normal variables: where tanh bends what networks give
Posterior = Callable[[list[jax.Array]], jax.Array]  # earlier layers -> parameters [B, n P]


class Kinds(Protocol):
    """What kind the variables are of."""

    @property
    def global_latents(self) -> str:
        """NORMAL, BERNOULLI, RBM, RBM_ROLFE or GENERAL."""

    @property
    def local_latents(self) -> str:
        """NORMAL or BERNOULLI."""

    @property
    def num_groups(self) -> int:
        """Layers of global variables."""

    @property
    def num_latents(self) -> int:
        """Variables of each."""


class Globals(NamedTuple):
    """A draw of all global variables."""

    seen: list[jax.Array]  # [B, n] a layer, as networks see them
    divergence: jax.Array  # [B] nats
    metrics: dict[str, jax.Array]


def _bounded(log_scale: jax.Array) -> jax.Array:
    return MAX_LOG_SCALE * jnp.tanh(log_scale / MAX_LOG_SCALE)


def split_normal(params: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Takes mean and log_scale, the latter in (-5, 5), out of [..., 2 n]."""
    mean, log_scale = jnp.split(params, 2, axis=-1)
    return mean, _bounded(log_scale)


def layer_logits(prior: jax.Array, layer: int, like: jax.Array) -> jax.Array:
    """Returns the logits of p(z) of a layer, [..., n] as `like`."""
    return jnp.broadcast_to(prior[layer], like.shape)


def _bits(key: jax.Array | None, logits: jax.Array) -> jax.Array:
    return (logits > 0).astype(logits.dtype) if key is None else bernoulli.sample(key, logits)


def _normal(key: jax.Array | None, mean: jax.Array, log_scale: jax.Array) -> jax.Array:
    return mean if key is None else normal.sample(key, mean, log_scale)


def draw_globals(
    key: jax.Array | None,
    kinds: Kinds,
    posterior: Posterior,
    prior: PyTree,
    log_z: jax.Array | None,
) -> Globals:
    """Draws bits (or normal variables), with log q - log p of the sample.

    Without a key every layer is at the mode of its posterior, given the layers before.

    Raises:
        ValueError: a machine's `log_z` is missing.
    """
    if kinds.global_latents in BOLTZMANN and log_z is None:
        raise ValueError(f"global_latents={kinds.global_latents} needs log_z of its machine")
    seen: list[jax.Array] = []
    bits: list[jax.Array] = []
    total = jnp.zeros(())
    keys = [None] * kinds.num_groups if key is None else jax.random.split(key, kinds.num_groups)
    for layer, k in enumerate(keys):
        params = posterior(seen)
        if kinds.global_latents == NORMAL:
            mean, log_scale = split_normal(params)
            h = _normal(k, mean, log_scale)
            log_ratio = normal.log_prob(h, mean, log_scale) - normal.log_prob(h, 0.0, 0.0)
            total = total + log_ratio.sum(-1)
            seen.append(h)
            continue
        bits.append(_bits(k, params))
        total = total + bernoulli.log_prob(bits[-1], params).sum(-1)
        if kinds.global_latents == BERNOULLI:
            logits = layer_logits(prior, layer, params)
            total = total - bernoulli.log_prob(bits[-1], logits).sum(-1)
        seen.append(2 * bits[-1] - 1)
    if log_z is not None and kinds.global_latents in BOLTZMANN:
        total = total - boltzmann.log_prob(prior, log_z, bits)
    return Globals(seen, total, {})


def prior_globals(
    key: jax.Array, kinds: Kinds, prior: PyTree, chains: PyTree, count: int
) -> list[jax.Array]:
    """Draws global variables from p(z), [count, n] a layer, as networks see them."""
    if kinds.global_latents in BOLTZMANN:
        assert chains is not None
        groups = boltzmann.sample(key, prior, chains, count, num_groups=kinds.num_groups)
        return [2 * z - 1 for z in groups]
    keys = jax.random.split(key, kinds.num_groups)
    if kinds.global_latents == BERNOULLI:
        return [2 * bernoulli.sample(k, p, (count,)) - 1 for k, p in zip(keys, prior, strict=True)]
    return [jax.random.normal(k, (count, kinds.num_latents)) for k in keys]


def split_pair(
    q: jax.Array | None, p: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns mean and log_scale of q and of p; what networks say of q is relative to p."""
    mean_p, raw_p = jnp.split(p, 2, axis=-1)
    if q is None:
        return (mean_p, _bounded(raw_p)), (mean_p, _bounded(raw_p))
    mean_q, raw_q = jnp.split(q, 2, axis=-1)
    return (mean_p + mean_q, _bounded(raw_p + raw_q)), (mean_p, _bounded(raw_p))


def draw_local(kinds: Kinds) -> LocalDraw:
    """Returns the draw of a local group in the binary limit, with log q - log p of the sample."""
    return _local(kinds, lambda key: key)


def mode_local(kinds: Kinds) -> LocalDraw:
    """Returns the mode of a local group, given the groups before, likewise; it reads no key."""
    return _local(kinds, lambda key: None)


def _local(kinds: Kinds, key_of: Callable[[jax.Array], jax.Array | None]) -> LocalDraw:
    def draw_normal(
        key: jax.Array, q: jax.Array | None, p: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        (mean, log_scale), prior = split_pair(q, p)
        h = _normal(key_of(key), mean, log_scale)
        log_ratio = normal.log_prob(h, mean, log_scale) - normal.log_prob(h, prior[0], prior[1])
        return h, log_ratio.sum((1, 2, 3))

    def draw_bits(key: jax.Array, q: jax.Array | None, p: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = p if q is None else p + q
        z = _bits(key_of(key), logits)
        log_ratio = bernoulli.log_prob(z, logits) - bernoulli.log_prob(z, p)
        return 2 * z - 1, log_ratio.sum((1, 2, 3))

    return draw_normal if kinds.local_latents == NORMAL else draw_bits
