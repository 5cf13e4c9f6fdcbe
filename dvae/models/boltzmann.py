"""A Boltzmann machine as the prior of groups of bits: its density, and samples by Gibbs chains.

The groups fill the machine's units in order, those of the left side z1 first:

    log p(z) = -E(z1, z2) - log Z
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dvae import rbm

__all__ = ["SAMPLE_SWEEPS", "Chains", "chains_of", "log_prob", "sample", "split"]

PyTree = Any
SAMPLE_SWEEPS = 1_000  # from the training's chains to samples


class Chains(NamedTuple):
    """What remains of a sampler's state once training is over."""

    z1: jax.Array  # [chains, n1] bits
    z2: jax.Array  # [chains, n2] bits
    log_weights: jax.Array | None  # [chains], of population annealing alone


def chains_of(state: PyTree) -> Chains:
    """Returns the chains of a state of `rbm.gibbs`, `rbm.tempering` or `rbm.annealing`."""
    return Chains(state.z1, state.z2, getattr(state, "log_weights", None))


def log_prob(params: rbm.RBM, log_z: jax.Array, groups: Sequence[jax.Array]) -> jax.Array:
    """Evaluates log p(z) of bits, nats [...].

    Args:
        params: the machine.
        log_z: [] its log Z, nats.
        groups: one float [..., n] a group, as many bits as the machine has units.
    """
    z1, z2 = split(params, groups)
    return -rbm.energy(params, z1, z2) - log_z


def split(params: rbm.RBM, groups: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Joins the groups and cuts them into the machine's sides.

    Raises:
        ValueError: the groups have not as many bits as the machine has units.
    """
    z = jnp.concatenate(list(groups), axis=-1)
    n1, n2 = params.weights.shape
    if z.shape[-1] != n1 + n2:
        raise ValueError(
            f"groups must have as many bits as the machine has units, {n1} + {n2}, got "
            f"{[group.shape[-1] for group in groups]}"
        )
    return z[..., :n1], z[..., n1:]


def sample(
    key: jax.Array, params: rbm.RBM, chains: Chains, num_samples: int, *, num_groups: int
) -> list[jax.Array]:
    """Continues chains of the training by `SAMPLE_SWEEPS` Gibbs sweeps.

    Weighted chains are resampled first. Where more samples are asked for than there are chains,
    several start from the same one.

    Args:
        key: typed PRNG key.
        params: the machine.
        chains: where to start.
        num_samples: at least 1.
        num_groups: equal groups that the bits are cut into.

    Returns:
        Bits [num_samples, n] of each group.
    """
    key_resample, key_sweep = jax.random.split(key)
    index = jnp.arange(num_samples) % len(chains.z1)
    if chains.log_weights is not None:
        index = rbm.annealing.systematic_resample(key_resample, chains.log_weights)[index]
    start = rbm.gibbs.GibbsState(chains.z1[index], chains.z2[index])
    after, _ = rbm.gibbs.step(key_sweep, params, start, num_sweeps=SAMPLE_SWEEPS)
    joined = jnp.concatenate([after.z1, after.z2], axis=-1)
    return jnp.split(joined, num_groups, axis=-1)
