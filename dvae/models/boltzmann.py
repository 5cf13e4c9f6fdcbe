"""A Boltzmann machine as the prior of groups of bits: its density, and samples by Gibbs chains.

The groups fill the machine's units in order, in an RBM those of the left side z1 first:

    log p(z) = -E(z) - log Z

The machine is an `rbm.RBM`, or on a graph a `boltzmann.Machine`; both libraries have functions of
the same names.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dvae import boltzmann, rbm

__all__ = [
    "SAMPLE_SWEEPS",
    "Chains",
    "GraphChains",
    "Machine",
    "bits_of",
    "chains_of",
    "library",
    "log_prob",
    "sample",
    "split",
]

PyTree = Any
Machine = rbm.RBM | boltzmann.Machine
SAMPLE_SWEEPS = 1_000  # from the training's chains to samples


class Chains(NamedTuple):
    """What remains of a sampler's state once training is over."""

    z1: jax.Array  # [chains, n1] bits
    z2: jax.Array  # [chains, n2] bits
    log_weights: jax.Array | None  # [chains], of population annealing alone


class GraphChains(NamedTuple):
    """What remains of it where the machine is on a graph."""

    z: jax.Array  # [chains, n] bits
    log_weights: jax.Array | None  # [chains], of population annealing alone


def library(params: Machine) -> Any:
    """Returns the package whose machine this is: `rbm` or `boltzmann`."""
    return rbm if isinstance(params, rbm.RBM) else boltzmann


def bits_of(state: PyTree) -> tuple[jax.Array, ...]:
    """Returns the bits of a sampler's state: z1 and z2 of an RBM, z of a machine on a graph."""
    return (state.z,) if hasattr(state, "z") else (state.z1, state.z2)


def chains_of(state: PyTree) -> Chains | GraphChains:
    """Returns the chains of a state of `gibbs`, `tempering` or `annealing`, of either library."""
    log_weights = getattr(state, "log_weights", None)
    if hasattr(state, "z"):
        return GraphChains(state.z, log_weights)
    return Chains(state.z1, state.z2, log_weights)


def log_prob(params: Machine, log_z: jax.Array, groups: Sequence[jax.Array]) -> jax.Array:
    """Evaluates log p(z) of bits, nats [...].

    Args:
        params: the machine.
        log_z: [] its log Z, nats.
        groups: one float [..., n] a group, as many bits as the machine has units.
    """
    return -library(params).energy(params, *split(params, groups)) - log_z


def split(params: Machine, groups: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """Joins the groups, and for an RBM cuts them into its sides.

    Raises:
        ValueError: the groups have not as many bits as the machine has units.
    """
    z = jnp.concatenate(list(groups), axis=-1)
    sides = params.weights.shape if isinstance(params, rbm.RBM) else params.bias.shape
    if z.shape[-1] != sum(sides):
        raise ValueError(
            f"groups must have as many bits as the machine has units, "
            f"{' + '.join(map(str, sides))}, got {[group.shape[-1] for group in groups]}"
        )
    return tuple(jnp.split(z, [sides[0]], axis=-1)) if len(sides) > 1 else (z,)


def sample(
    key: jax.Array,
    params: Machine,
    chains: Chains | GraphChains,
    num_samples: int,
    *,
    num_groups: int,
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
    bits = bits_of(chains)
    index = jnp.arange(num_samples) % len(bits[0])
    if chains.log_weights is not None:
        # A population keeps its order, in which families and modes lie in blocks.
        key_resample, key_order = jax.random.split(key_resample)
        drawn = rbm.annealing.systematic_resample(key_resample, chains.log_weights)
        index = jax.random.permutation(key_order, drawn)[index]
    gibbs = library(params).gibbs
    start = gibbs.GibbsState(*(z[index] for z in bits))
    after, _ = gibbs.step(key_sweep, params, start, num_sweeps=SAMPLE_SWEEPS)
    joined = jnp.concatenate(bits_of(after), axis=-1)
    return jnp.split(joined, num_groups, axis=-1)
