"""Weighted populations: how they are reweighted and resampled, and the families that are left."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from dvae._numerics import vary_like

_Chains = TypeVar("_Chains", bound=tuple[Any, ...])


class Weights(NamedTuple):
    """What a population has besides its chains."""

    log_weights: jax.Array  # [chains] at least float32; the weights have mean 1
    log_z: jax.Array  # [] nats
    lost: jax.Array  # [] what rounding has taken from log_z so far
    family: jax.Array  # [chains] int32, which of the first chains this one descends from


class AnnealingInfo(NamedTuple):
    """What a move did, and how far its estimate can be trusted."""

    log_z: jax.Array  # [] nats
    std_error: jax.Array  # [] nats, of log_z, if families are independent; near 1 says nothing
    ess: jax.Array  # [] (sum w)^2 / sum w^2 before resampling, in [1, chains]
    resampled: jax.Array  # [] 1.0 if it was, else 0.0
    flips: jax.Array  # [] fraction of all bits that the sweeps changed
    families: jax.Array  # [] int32, families that still have a chain
    effective_families: jax.Array  # [] 1 / sum_f s_f^2, s_f the share of the weight in family f


def start(log_z: jax.Array, num_chains: int) -> Weights:
    """Returns the weights of independent chains of one law."""
    zeros = jnp.zeros(num_chains, log_z.dtype)
    return Weights(zeros, log_z, jnp.zeros_like(log_z), jnp.arange(num_chains, dtype=jnp.int32))


def move(
    key: jax.Array,
    weights: Weights,
    ratio: jax.Array,
    chains: _Chains,
    sweep: Callable[[jax.Array, _Chains], tuple[_Chains, jax.Array]],
) -> tuple[_Chains, Weights, AnnealingInfo]:
    """Reweights, resamples if ess < chains / 2, and sweeps.

    Args:
        key: typed PRNG key.
        weights: Weights.
        ratio: [chains] nats, log of new over old law.
        chains: arrays [chains, ...], all of them resampled.
        sweep: of a key and chains, to the chains after and the fraction of bits that differ.

    Returns:
        Chains, Weights and AnnealingInfo.
    """
    num_chains = weights.log_weights.shape[0]
    key_resample, key_sweep = jax.random.split(key)
    log_weights = weights.log_weights + ratio.astype(weights.log_weights.dtype)
    log_mean = jax.nn.logsumexp(log_weights) - math.log(num_chains)
    log_weights = log_weights - log_mean
    ess = num_chains / jnp.mean(jnp.exp(2 * log_weights))
    # Kahan's sum: a small change of a large log Z would be lost in float32, update after update.
    term = log_mean - weights.lost
    log_z = weights.log_z + term
    lost = (log_z - weights.log_z) - term

    offset = jax.random.uniform(key_resample, (), jnp.float32)

    def resample(population: tuple) -> tuple:
        chains, family, log_weights = population
        index = comb(offset, log_weights)
        equal = vary_like(jnp.zeros_like(log_weights), log_weights)
        return jax.tree.map(lambda x: x[index], chains), family[index], equal

    resampled = ess < num_chains / 2
    population = chains, weights.family, log_weights
    chains, family, log_weights = jax.lax.cond(
        resampled, resample, lambda population: population, population
    )
    chains, flips = sweep(key_sweep, chains)
    concentration, families = families_of(family, log_weights)
    # 1/R is what equal weights leave; max keeps rounding below it from the square root.
    excess = jnp.maximum(concentration - 1 / num_chains, 0) * (num_chains / (num_chains - 1))
    info = AnnealingInfo(
        log_z=log_z,
        std_error=jnp.sqrt(excess),
        ess=ess,
        resampled=resampled.astype(jnp.float32),
        flips=flips,
        families=families,
        effective_families=1 / concentration,
    )
    return chains, Weights(log_weights, log_z, lost, family), info


def report(infos: AnnealingInfo) -> AnnealingInfo:
    """Returns that of the last of many moves, with their least ess and their mean resampling."""
    last = jax.tree.map(lambda x: x[-1], infos)
    return last._replace(ess=jnp.min(infos.ess), resampled=jnp.mean(infos.resampled))


def comb(u: jax.Array, log_weights: jax.Array) -> jax.Array:
    """Finds the weight under each of the teeth (i + u) / R, u in [0, 1)."""
    num_chains = log_weights.shape[0]
    cumulative = jnp.cumsum(jax.nn.softmax(log_weights.astype(jnp.float32)))
    teeth = (jnp.arange(num_chains, dtype=jnp.float32) + u) * (cumulative[-1] / num_chains)
    # R - 1 + u may round to R: that tooth would miss every weight, and land on the last, even a 0.
    teeth = jnp.minimum(teeth, jnp.nextafter(cumulative[-1], jnp.float32(0)))
    return jnp.searchsorted(cumulative, teeth, side="right").astype(jnp.int32)


def families_of(family: jax.Array, log_weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Evaluates sum_f s_f^2 and the number of families that have a chain."""
    num_chains = family.shape[0]
    shares = jax.ops.segment_sum(jnp.exp(log_weights) / num_chains, family, num_chains)
    sizes = jax.ops.segment_sum(jnp.ones_like(family), family, num_chains)
    return jnp.sum(shares**2), jnp.sum(sizes > 0, dtype=jnp.int32)
