"""Population annealing on graphs: weighted chains that are resampled, and log Z as a by-product.

    state, info = annealing.anneal(key, params, num_chains=1000)      # info.log_z, info.std_error
    state, info = annealing.step(key, params, state, num_sweeps=40)   # after params have changed

A population of R chains with weights w_i of mean 1 stands for the machine it was last moved to.
When the machine changes, from E to E', every chain is reweighted, and the mean of the new weights
estimates Z' / Z:

    w_i' = w_i e^{F(z_i) - F'(z_i)},    log Z' = log Z + log mean_i w_i',    w_i <- w_i' / mean w'

with F the free energy with the units of the first color summed out: the sweep that follows redraws
them from the others before it reads them. Then the chains are swept under the new machine, after
resampling if the effective sample size of the weights is below R/2. The mean of e^{log_z} over keys
is Z at any number of chains and sweeps, if the machines do not depend on the chains.

`anneal` moves in this way from independent units to the machine, along

    E_b(z) = -c.z - b sum_e w_e (z_i - 1/2) (z_j - 1/2) + constant,    b from 0 to 1,

c of `centered_bias`, and `step` from the machine of the last update to that of the present one,
which makes the population the negative phase of training. `rbm.annealing` says what the error is
read from, and how to get equal weights: `rbm.annealing.systematic_resample`.

Source: Hukushima and Iba, "Population Annealing and Its Application to a Spin Glass" (2003); Wang,
Machta and Katzgraber, "Population annealing: Theory and application in spin glasses" (2015).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from dvae._checks import check_count, check_key
from dvae._numerics import partition, spec_of, vary_like
from dvae.boltzmann import gibbs
from dvae.boltzmann._machine import Machine, check_chains, check_machine, widened
from dvae.boltzmann._path import log_ratio
from dvae.boltzmann._plan import plan
from dvae.boltzmann._sweep import are_bits, are_finite, to_rows
from dvae.boltzmann.energy import centered_bias
from dvae.rbm._population import AnnealingInfo, Weights, move, report, start

__all__ = ["AnnealingState", "anneal", "init", "step"]


class AnnealingState(NamedTuple):
    """A population and the machine that it stands for: arrays only, but for the graph."""

    z: jax.Array  # [chains, n] bits, in the dtype of the weights
    log_weights: jax.Array  # [chains] at least float32; the weights have mean 1
    log_z: jax.Array  # [] nats
    lost: jax.Array  # [] what rounding has taken from log_z so far
    family: jax.Array  # [chains] int32, which of the chains of `init` this one descends from
    params: Machine  # the machine


def init(
    key: jax.Array,
    params: Machine,
    num_chains: int,
    *,
    num_temperatures: int = 1000,
    num_sweeps: int = 1,
) -> AnnealingState:
    """Starts a population from independent units, annealed to the machine as `anneal` does it.

    Args:
        key: typed PRNG key.
        params: Machine; no gradient flows.
        num_chains: R, at least 2.
        num_temperatures: moves from b = 0 to b = 1, at least 1, equally spaced.
        num_sweeps: Gibbs sweeps at each temperature, at least 1.

    Returns:
        AnnealingState of R chains.

    Raises:
        ValueError: if a number is too small, or the sizes of the parameters do not fit.
    """
    return anneal(
        key, params, num_chains, num_temperatures=num_temperatures, num_sweeps=num_sweeps
    )[0]


def anneal(
    key: jax.Array,
    params: Machine,
    num_chains: int,
    *,
    num_temperatures: int = 1000,
    num_sweeps: int = 1,
) -> tuple[AnnealingState, AnnealingInfo]:
    """Anneals a population from exact draws of the independent units to the machine.

    Args:
        key: typed PRNG key.
        params: Machine; no gradient flows.
        num_chains: R, at least 2.
        num_temperatures: moves from b = 0 to b = 1, at least 1, equally spaced.
        num_sweeps: Gibbs sweeps in each move, at least 1; for the same number in total, more
            temperatures of one sweep each give the better log Z.

    Returns:
        AnnealingState, and `rbm.annealing.AnnealingInfo` of the last move, except that ess is the
        least of all moves, and resampled the fraction of the moves that did.

    Raises:
        ValueError: if a number is too small, or the sizes of the parameters do not fit.
    """
    check_key(key)
    params = check_machine(params)
    num_sweeps = check_count("num_sweeps", num_sweeps)
    num_chains = check_count(
        "num_chains", num_chains, minimum=2, why="weights are relative to each other"
    )
    num_temperatures = check_count("num_temperatures", num_temperatures)
    return _anneal(key, params, num_chains, num_temperatures, num_sweeps)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _anneal(
    key: jax.Array, params: Machine, num_chains: int, num_temperatures: int, num_sweeps: int
) -> tuple[AnnealingState, AnnealingInfo]:
    key_start, key_move = jax.random.split(key)
    params = jax.lax.stop_gradient(params)
    # In half precision b w would be rounded, to other machines than those of the weights.
    machine = widened(params)
    dtype = machine.bias.dtype
    base = centered_bias(machine)
    chains = gibbs.init(key_start, params._replace(bias=base), num_chains)
    weights = start(jax.nn.softplus(base).sum(), num_chains)
    flat = machine._replace(bias=base, weights=jnp.zeros_like(machine.weights))
    state = vary_like(AnnealingState(*chains, *weights, flat), key, params)

    def move_to(state: AnnealingState, index: jax.Array) -> tuple[AnnealingState, AnnealingInfo]:
        b = (index + 1).astype(dtype) / num_temperatures
        target = Machine(base + b * (machine.bias - base), b * machine.weights, machine.graph)
        return _move(num_sweeps, jax.random.fold_in(key_move, index), target, state)

    state, infos = jax.lax.scan(move_to, state, jnp.arange(num_temperatures))
    return state._replace(params=params), report(infos)


def step(
    key: jax.Array, params: Machine, state: AnnealingState, *, num_sweeps: int = 1
) -> tuple[AnnealingState, AnnealingInfo]:
    """Moves the population to a machine near its own, on the same graph.

    log Z is carried along, and its error grows with the number of moves (see `rbm.annealing.step`);
    `init` again brings it back. No gradient flows.

    Args:
        key: typed PRNG key.
        params: Machine, the new one.
        state: AnnealingState of at least 2 chains.
        num_sweeps: at least 1; static.

    Returns:
        AnnealingState and `rbm.annealing.AnnealingInfo`; NaN, as in `gibbs.step`, where a parameter
        or a bit is.

    Raises:
        ValueError: if num_sweeps < 1, the sizes of parameters and state do not fit, there are fewer
            than 2 chains, or the graph is another.
    """
    check_key(key)
    params = check_machine(params)
    num_sweeps = check_count("num_sweeps", num_sweeps)
    z = check_chains(params.graph, state.z, minimum=2)
    if state.params.graph != params.graph:
        raise ValueError(
            f"the population stands for a machine on {state.params.graph!r}, the parameters are of "
            f"one on {params.graph!r}: the graphs must be equal"
        )
    if not z.shape[:1] == np.shape(state.log_weights) == np.shape(state.family):
        raise ValueError(
            "z [chains, n], log_weights [chains] and family [chains] do not fit each other: "
            f"shapes {z.shape}, {np.shape(state.log_weights)}, {np.shape(state.family)}"
        )
    return _step(key, params, jax.tree.map(jnp.asarray, state)._replace(z=z), num_sweeps)


@functools.partial(jax.jit, static_argnums=3)
def _step(
    key: jax.Array, params: Machine, state: AnnealingState, num_sweeps: int
) -> tuple[AnnealingState, AnnealingInfo]:
    params, state = jax.lax.stop_gradient((params, state))
    specs = jax.tree.map(spec_of, state), PartitionSpec()
    return partition(functools.partial(_move, num_sweeps), specs, key, params, state)


def _move(
    num_sweeps: int, key: jax.Array, params: Machine, state: AnnealingState
) -> tuple[AnnealingState, AnnealingInfo]:
    def sweep(key: jax.Array, chains: gibbs.GibbsState) -> tuple[gibbs.GibbsState, jax.Array]:
        after, swept = gibbs.step(key, params, chains, num_sweeps=num_sweeps)
        return after, swept.flips

    old, new = widened(state.params), widened(params)
    ratio = log_ratio(old, new, to_rows(plan(params.graph), state.z))
    # What is no bit, or no number, must not pass for a weight.
    known = are_bits(state.z) & are_finite(new) & are_finite(old)
    ratio = jnp.where(known, ratio, jnp.nan)
    weights = Weights(state.log_weights, state.log_z, state.lost, state.family)
    chains = gibbs.GibbsState(state.z)
    chains, weights, info = move(key, weights, ratio, chains, sweep)
    return AnnealingState(*chains, *weights, params), info
