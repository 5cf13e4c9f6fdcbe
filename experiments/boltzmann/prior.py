"""A Boltzmann prior in training: its chains in the train state, and log Z.

    prior = init(config)                                   # an RBM, or a machine on a graph
    chains = init_chains(key, config, prior)               # kept in the model state, and
    log_z = init_log_z(prior)
    phase = negative_phase(key, config, prior, chains, log_z, step)        # phase.log_z: gradient

Given `num_labels` it is the prior of the bits given a label: the machine has that many units more,
which hold it, a chain has one label for good, and log Z is [C], one for each.

The value of log Z matters to no gradient. For the training's curve it is estimated every now and
then; an estimate carried from step to step, as that of `rbm.annealing`, would drift: updates raise
the energy of the very chains that they are made from.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from dvae import boltzmann, rbm
from dvae.models import boltzmann as machines
from dvae.models import labeled_machine
from dvae.models.boltzmann import Machine, bits_of, library
from dvae.train.sharding import by_rows, replicated
from experiments.boltzmann import graphs, names
from experiments.boltzmann.config import BoltzmannConfig

PyTree = Any
ADAPT_RATE = 0.1  # of the way to the ladder with equal rejection rates
TRUSTED_NLL = "trusted_nll"  # what the best step is chosen by
TRAIN_TEMPERATURES, TRAIN_CHAINS = 500, 128  # of the estimates of log Z for the training's curve


class Phase(NamedTuple):
    """A negative phase."""

    chains: PyTree  # for the next step
    log_z: jax.Array  # [] or [C] nats, with the gradient -E_p[dE/d theta]
    last_log_z: jax.Array  # its value, for the next step
    metrics: dict[str, jax.Array]


def side(config: BoltzmannConfig) -> int:
    """Returns the number of units on each side of the machine."""
    return config.num_groups * config.num_latents // 2


def init(config: BoltzmannConfig, num_labels: int = 0) -> Machine:
    """Returns the first machine: fair independent bits, whose log Z is known."""
    graph = graphs.of(config, num_labels)
    if graph is not None:
        return boltzmann.Machine(jnp.zeros(graph.num_units), jnp.zeros(graph.num_edges), graph)
    n = side(config)
    return rbm.RBM(jnp.zeros(n), jnp.zeros(n), jnp.zeros((n, n)))


def init_chains(
    key: jax.Array, config: BoltzmannConfig, params: Machine, num_labels: int = 0
) -> PyTree:
    """Returns the sampler's state; exact samples, as the first machine has no couplings."""
    samplers = library(params)
    if num_labels:
        assert isinstance(params, boltzmann.Machine)
        held = labeled_machine.clamp(params, num_labels)
        values = labeled_machine.values(params, config.num_chains, num_labels)
        return boltzmann.gibbs.init(key, params, config.num_chains, clamp=held, values=values)
    if config.sampler == names.TEMPERING:
        return samplers.tempering.init(
            key, params, config.num_chains, num_temperatures=config.num_temperatures
        )
    if config.sampler == names.ANNEALING:
        return samplers.annealing.init(
            key, params, config.num_chains, num_temperatures=1, num_sweeps=1
        )
    return samplers.gibbs.init(key, params, config.num_chains)


def init_log_z(params: Machine, num_labels: int = 0) -> jax.Array:
    """Returns log Z of a machine without couplings."""
    if isinstance(params, rbm.RBM):
        return jax.nn.softplus(params.bias1).sum() + jax.nn.softplus(params.bias2).sum()
    if num_labels:
        return params.bias[-num_labels:] + jax.nn.softplus(params.bias[:-num_labels]).sum()
    return jax.nn.softplus(params.bias).sum()


def check_labels(config: BoltzmannConfig, num_labels: int) -> None:
    """Raises ValueError unless each label has a chain."""
    if config.num_chains < num_labels:
        raise ValueError(
            f"--num_chains={config.num_chains}: each of the {num_labels} labels needs a chain of "
            f"its own; use at least --num_chains={num_labels}"
        )


def learned(params: Machine, num_labels: int) -> Machine:
    """Returns the machine whose biases of labels receive no gradient.

    It is 0, as p(z | y) does not depend on them. Rounded it is a little more, and Adam, which
    divides by its size, would move them.
    """
    if not num_labels:
        return params
    assert isinstance(params, boltzmann.Machine)
    fixed = jax.lax.stop_gradient(params.bias[-num_labels:])
    return params._replace(bias=params.bias.at[-num_labels:].set(fixed))


def negative_phase(
    key: jax.Array,
    config: BoltzmannConfig,
    params: Machine,
    chains: PyTree,
    last_log_z: jax.Array,
    step: jax.Array,
    mesh: Mesh | None = None,
    num_labels: int = 0,
) -> Phase:
    """Moves the chains under the machine and returns log Z with their gradient.

    The devices of a mesh share the chains if they can do so equally; between steps the chains are
    replicated like the rest of the state.
    """
    move: dict[str, Callable[..., _Transition]] = {
        names.PCD: functools.partial(_gibbs, num_labels=num_labels),
        names.TEMPERING: _tempering,
        names.ANNEALING: _annealing,
    }
    key_chains, key_log_z = jax.random.split(key)
    fixed = jax.lax.stop_gradient(params)
    if shared := _by_chains(mesh, config.num_chains):
        chains = _share(chains, config.num_chains, shared)
    after = move[config.sampler](key_chains, config, fixed, chains, step)
    if mesh is not None:
        copies = _share(after.chains, config.num_chains, replicated(mesh))
        after = after._replace(chains=copies)
    estimate = lambda: _estimate(
        key_log_z, fixed, TRAIN_TEMPERATURES, TRAIN_CHAINS, mesh, num_labels
    )
    due = step % config.log_z_interval == 0
    value = jax.lax.cond(due, lambda: estimate().value, lambda: last_log_z)
    mean = value.mean() if num_labels else value
    metrics = {**after.metrics, "log_z": mean, "coupling_norm": jnp.linalg.norm(fixed.weights)}
    if num_labels:
        assert isinstance(params, boltzmann.Machine)
        log_z = labeled_machine.log_z_with_gradient(params, value, after.chains.z)
    else:
        bits = bits_of(after.chains)
        log_z = library(params).log_z_with_gradient(params, value, *bits, after.log_weights)
    return Phase(after.chains, log_z, value, metrics)


class _Transition(NamedTuple):
    """What a sampler returns."""

    chains: PyTree
    log_weights: jax.Array | None
    metrics: dict[str, jax.Array]


def _gibbs(
    key: jax.Array,
    config: BoltzmannConfig,
    params: Machine,
    state: PyTree,
    step: jax.Array,
    *,
    num_labels: int,
) -> _Transition:
    del step
    clamp: dict[str, Any] = {}
    if num_labels:
        assert isinstance(params, boltzmann.Machine)
        clamp = {"clamp": labeled_machine.clamp(params, num_labels)}
    after, _ = library(params).gibbs.step(key, params, state, num_sweeps=config.num_sweeps, **clamp)
    before, now = (_energy(params, chains) for chains in (state, after))
    if num_labels:
        # Labels have energies of their own, however well the chains of each mix.
        of_chains = labeled_machine.labels_of(after.z, num_labels)
        before, now = (_less_means(x, of_chains, num_labels) for x in (before, now))
    return _Transition(after, None, {"autocorrelation": _correlation(before, now)})


def _less_means(x: jax.Array, labels: jax.Array, num_labels: int) -> jax.Array:
    """Subtracts from values of chains the mean over those of their label."""
    one_hot = jax.nn.one_hot(labels, num_labels)
    means = (one_hot.T @ x) / one_hot.sum(0)
    return x - means[labels]


def _energy(params: Machine, chains: PyTree) -> jax.Array:
    """Evaluates the energies of chains; of an RBM with the left side summed out."""
    if isinstance(params, rbm.RBM):
        return rbm.free_energy_2(params, chains.z2)
    return boltzmann.energy(params, chains.z)


def _tempering(
    key: jax.Array,
    config: BoltzmannConfig,
    params: Machine,
    state: PyTree,
    step: jax.Array,
) -> _Transition:
    tempering = library(params).tempering
    after, info = tempering.step(key, params, state, num_sweeps=config.num_sweeps)
    rates = info.swap_rates
    if config.adapt_interval:
        # The machine moves anyway, so that replicas of a moved ladder are no further behind.
        adapted = lambda: tempering.adapt(after, rates, rate=ADAPT_RATE)
        after = jax.lax.cond(step % config.adapt_interval == 0, adapted, lambda: after)
    metrics = {"swap_rate": rates.mean(), "lowest_swap_rate": rates.min()}
    metrics |= {"flips": info.flips, "sampler_log_z": info.log_z}
    return _Transition(after, None, metrics)


def _annealing(
    key: jax.Array,
    config: BoltzmannConfig,
    params: Machine,
    state: PyTree,
    step: jax.Array,
) -> _Transition:
    del step
    annealing = library(params).annealing
    after, info = annealing.step(key, params, state, num_sweeps=config.num_sweeps)
    metrics = {
        "population_ess": info.ess,
        "resampled": info.resampled,
        "effective_families": info.effective_families,
        "flips": info.flips,
        "sampler_log_z": info.log_z,
    }
    return _Transition(after, after.log_weights, metrics)


def _share(chains: PyTree, num_chains: int, layout: NamedSharding) -> PyTree:
    """Lays out what has one row a chain; a layout changes no value."""
    per_chain = lambda x: x.ndim > 0 and x.shape[0] == num_chains
    constrain = jax.lax.with_sharding_constraint
    return jax.tree.map(lambda x: constrain(x, layout) if per_chain(x) else x, chains)


def _correlation(x: jax.Array, y: jax.Array) -> jax.Array:
    """Correlation over chains; 1 where nothing varies, so nothing can be seen to mix."""
    x, y = x - x.mean(), y - y.mean()
    scale = jnp.sqrt((x * x).mean() * (y * y).mean())
    return jnp.where(scale > 0, (x * y).mean() / jnp.where(scale > 0, scale, 1.0), 1.0)


def evaluate_log_z(
    key: jax.Array,
    config: BoltzmannConfig,
    params: Machine,
    mesh: Mesh | None = None,
    num_labels: int = 0,
) -> rbm.ais.LogZ:
    """Estimates log Z by annealed importance sampling, with chains shared by a mesh's devices."""
    return _estimate(key, params, config.ais_temperatures, config.ais_chains, mesh, num_labels)


def _estimate(
    key: jax.Array,
    params: Machine,
    num_temperatures: int,
    num_chains: int,
    mesh: Mesh | None,
    num_labels: int,
) -> rbm.ais.LogZ:
    settings: dict[str, Any] = {
        "num_temperatures": num_temperatures,
        "num_chains": num_chains,
        "sharding": _by_chains(mesh, num_chains),
    }
    if num_labels:
        assert isinstance(params, boltzmann.Machine)
        return labeled_machine.log_z(key, params, num_labels=num_labels, **settings)
    return library(params).ais.log_z(key, params, **settings)


def _by_chains(mesh: Mesh | None, num_chains: int) -> NamedSharding | None:
    """The layout of chains over a mesh whose devices can share them equally."""
    if mesh is None or num_chains % mesh.size:
        return None
    return by_rows(mesh)


def arrays(params: PyTree, model_state: PyTree, log_z: jax.Array | None) -> PyTree:
    """Returns what a trained model has of a prior: machine, and log Z and chains where known.

    Args:
      params: of the training, of one seed.
      model_state: likewise; without chains nothing can be sampled.
      log_z: [] nats, given labels [C], or None.
    """
    model: dict[str, Any] = {"prior": params["prior"]}
    if log_z is not None:
        model["log_z"] = log_z
    if "chains" in model_state:
        model["chains"] = machines.chains_of(model_state["chains"])
    return model
