"""The Boltzmann prior of `binary_vae`: its chains in the train state, and log Z.

    prior = init(config)                                   # parameters, an RBM
    chains = init_chains(key, config, prior)               # kept in the model state
    phase = negative_phase(key, config, prior, chains)     # every step: phase.log_z has a gradient

The value of log Z while training is the sampler's own running estimate, good for a curve; the
evaluation's comes from annealed importance sampling.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dvae import rbm
from experiments import binary_names as names
from experiments.binary_config import Config

PyTree = Any
PICTURE_SWEEPS = 1_000  # from the training's chains to the samples that are drawn


class GibbsPhase(NamedTuple):
    """Chains of persistent contrastive divergence, and log Z carried along."""

    chains: rbm.gibbs.GibbsState
    params: rbm.RBM  # that the chains last moved under
    log_z: jax.Array  # [] nats


class Phase(NamedTuple):
    """A negative phase."""

    chains: PyTree  # for the next step
    log_z: jax.Array  # [] nats, with the gradient -E_p[dE/d theta]
    metrics: dict[str, jax.Array]


def side(config: Config) -> int:
    """Returns the number of units on each side of the machine."""
    return config.num_groups * config.num_latents // 2


def init(config: Config) -> rbm.RBM:
    """Returns the first machine: fair independent bits, whose log Z is known."""
    n = side(config)
    return rbm.RBM(jnp.zeros(n), jnp.zeros(n), jnp.zeros((n, n)))


def init_chains(key: jax.Array, config: Config, params: rbm.RBM) -> PyTree:
    """Returns the sampler's state; exact samples, as the first machine has no couplings."""
    if config.sampler == names.TEMPERING:
        return rbm.tempering.init(
            key, params, config.num_chains, num_temperatures=config.num_temperatures
        )
    if config.sampler == names.ANNEALING:
        return rbm.annealing.init(key, params, config.num_chains, num_temperatures=1, num_sweeps=1)
    log_z = jax.nn.softplus(params.bias1).sum() + jax.nn.softplus(params.bias2).sum()
    return GibbsPhase(rbm.gibbs.init(key, params, config.num_chains), params, log_z)


def negative_phase(key: jax.Array, config: Config, params: rbm.RBM, chains: PyTree) -> Phase:
    """Moves the chains under the machine and returns log Z with their gradient."""
    move: dict[str, Callable[..., _Moved]] = {
        names.PCD: _gibbs,
        names.TEMPERING: _tempering,
        names.ANNEALING: _annealing,
    }
    fixed = jax.lax.stop_gradient(params)
    moved = move[config.sampler](key, config, fixed, chains)
    norm = jnp.linalg.norm(fixed.weights)
    metrics = {**moved.metrics, "log_z": moved.log_z, "coupling_norm": norm}
    log_z = rbm.log_z_with_gradient(params, moved.log_z, moved.z1, moved.z2, moved.log_weights)
    return Phase(moved.chains, log_z, metrics)


class _Moved(NamedTuple):
    """What a sampler returns."""

    chains: PyTree
    z1: jax.Array
    z2: jax.Array
    log_weights: jax.Array | None
    log_z: jax.Array
    metrics: dict[str, jax.Array]


def _gibbs(key: jax.Array, config: Config, params: rbm.RBM, state: GibbsPhase) -> _Moved:
    log_z = state.log_z + _log_ratio(state, params)
    before = rbm.free_energy_2(params, state.chains.z2)
    chains, _ = rbm.gibbs.step(key, params, state.chains, num_sweeps=config.num_sweeps)
    mixing = _correlation(before, rbm.free_energy_2(params, chains.z2))
    after = GibbsPhase(chains, params, log_z)
    return _Moved(after, chains.z1, chains.z2, None, log_z, {"autocorrelation": mixing})


def _tempering(
    key: jax.Array, config: Config, params: rbm.RBM, state: rbm.tempering.TemperingState
) -> _Moved:
    after, info = rbm.tempering.step(key, params, state, num_sweeps=config.num_sweeps)
    rates = info.swap_rates
    metrics = {"swap_rate": rates.mean(), "lowest_swap_rate": rates.min(), "flips": info.flips}
    return _Moved(after, after.z1, after.z2, None, info.log_z, metrics)


def _annealing(
    key: jax.Array, config: Config, params: rbm.RBM, state: rbm.annealing.AnnealingState
) -> _Moved:
    after, info = rbm.annealing.step(key, params, state, num_sweeps=config.num_sweeps)
    metrics = {
        "population_ess": info.ess,
        "resampled": info.resampled,
        "effective_families": info.effective_families,
        "flips": info.flips,
    }
    return _Moved(after, after.z1, after.z2, after.log_weights, info.log_z, metrics)


def _log_ratio(chains: GibbsPhase, params: rbm.RBM) -> jax.Array:
    """Estimates log Z of the machine less that of the chains' own, one small update before."""
    z2 = chains.chains.z2
    log_weights = rbm.free_energy_2(chains.params, z2) - rbm.free_energy_2(params, z2)
    return jax.nn.logsumexp(log_weights) - np.float32(np.log(len(z2)))


def _correlation(x: jax.Array, y: jax.Array) -> jax.Array:
    """Correlation over chains; 1 where nothing varies, so nothing can be seen to mix."""
    x, y = x - x.mean(), y - y.mean()
    scale = jnp.sqrt((x * x).mean() * (y * y).mean())
    return jnp.where(scale > 0, (x * y).mean() / jnp.where(scale > 0, scale, 1.0), 1.0)


def evaluate_log_z(key: jax.Array, config: Config, params: rbm.RBM) -> rbm.ais.LogZ:
    """Estimates log Z by annealed importance sampling."""
    return rbm.ais.log_z(
        key, params, num_temperatures=config.ais_temperatures, num_chains=config.ais_chains
    )


def log_prob(params: rbm.RBM, log_z: jax.Array, groups: Any) -> jax.Array:
    """Evaluates log p(z) of bits, one [..., n] a group, whose first half is the left side."""
    z1, z2 = split(params, groups)
    return -rbm.energy(params, z1, z2) - log_z


def split(params: rbm.RBM, groups: Any) -> tuple[jax.Array, jax.Array]:
    """Joins the groups and cuts them into the machine's sides."""
    z = jnp.concatenate(list(groups), axis=-1)
    n1 = params.bias1.shape[0]
    return z[..., :n1], z[..., n1:]


def sample(
    key: jax.Array, config: Config, params: rbm.RBM, chains: PyTree, num_samples: int
) -> list[jax.Array]:
    """Continues some of the training's chains for long and returns their bits, group by group."""
    chosen = chains.chains if isinstance(chains, GibbsPhase) else chains
    index = np.arange(num_samples) % len(chosen.z1)
    start = rbm.gibbs.GibbsState(chosen.z1[index], chosen.z2[index])
    after, _ = rbm.gibbs.step(key, params, start, num_sweeps=PICTURE_SWEEPS)
    joined = jnp.concatenate([after.z1, after.z2], axis=-1)
    return jnp.split(joined, config.num_groups, axis=-1)
