"""Chromatic Gibbs sampling on graphs, many chains at once, with any units clamped.

    state = gibbs.init(key, params, num_chains=1000)
    state, info = gibbs.step(key, params, state, num_sweeps=40)            # state.z [chains, n]

Units that no edge joins are independent given all others, so the units of one color are drawn at
once. Their sums over neighbors are gathers, whose cost grows with the edges, or on dense graphs
products; both give the same chains, up to the rounding of a sum. Conditional samples hold some
units at values, of all chains or of each:

    state = gibbs.init(key, params, num_chains=1000, clamp=clamp, values=values)
    state, info = gibbs.step(key, params, state, clamp=clamp, num_sweeps=40)

Source: Gonzalez et al., "Parallel Gibbs Sampling: From Colored Fields to Thin Junction Trees"
(2011).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from dvae._checks import check_count, check_key
from dvae._numerics import ArrayLike, partition, spec_of, vary_like
from dvae.boltzmann._machine import (
    Machine,
    check_chains,
    check_clamp,
    check_machine,
    check_values,
    widened,
)
from dvae.boltzmann._plan import plan
from dvae.boltzmann._sweep import Sweeper, are_bits, are_finite, from_rows, mark, to_rows
from dvae.rbm._bits import flip_rate
from dvae.rbm._checks import check_state
from dvae.rbm.gibbs import GibbsInfo, draw

__all__ = ["GibbsState", "init", "step"]


class GibbsState(NamedTuple):
    """Chains, in the dtype of the weights."""

    z: jax.Array  # [chains, n] bits


def init(
    key: jax.Array,
    params: Machine,
    num_chains: int,
    *,
    clamp: np.ndarray | None = None,
    values: ArrayLike | None = None,
) -> GibbsState:
    """Starts chains from the machine without interactions: bits with the logits of the biases.

    Args:
        key: typed PRNG key.
        params: Machine.
        num_chains: at least 1.
        clamp: [n] bool, static, true where a unit is held.
        values: [n] or [chains, n], 0 or 1 where clamped; elsewhere not used.

    Returns:
        GibbsState.

    Raises:
        ValueError: if num_chains < 1, sizes do not fit, a known value is no bit, or only one of
            clamp and values is there.
    """
    params = check_machine(params)
    num_chains = check_count("num_chains", num_chains)
    dtype = params.weights.dtype
    bias = jnp.broadcast_to(params.bias, (num_chains, params.graph.num_units))
    z = draw(key, bias).astype(dtype)
    if clamp is None and values is None:
        return GibbsState(z)
    if clamp is None or values is None:
        raise ValueError("a clamp has values, and values have a clamp: pass both or none")
    return GibbsState(_hold(params, z, check_clamp(params.graph, clamp), values))


def step(
    key: jax.Array,
    params: Machine,
    state: GibbsState,
    *,
    num_sweeps: int = 1,
    clamp: np.ndarray | None = None,
    values: ArrayLike | None = None,
) -> tuple[GibbsState, GibbsInfo]:
    """Runs sweeps, each z_c ~ p(z_c | the other units) for one color c after the other.

    Leaves p(z), or p of the free units given the clamped ones, invariant up to the resolution of
    `rbm.gibbs.draw`. No gradient flows. Where a parameter is NaN or infinite so is every bit, as
    NaN; a chain with an entry that is no bit becomes NaN. Its flips do, too.

    Args:
        key: typed PRNG key.
        params: Machine.
        state: GibbsState of any number of chains.
        num_sweeps: at least 1; static.
        clamp: [n] bool, static, true where a unit is held; clamped units are not drawn.
        values: [n] or [chains, n], new values of the clamped units; by default they stay.

    Returns:
        GibbsState and `rbm.gibbs.GibbsInfo`, whose flips count all units.

    Raises:
        ValueError: if num_sweeps < 1 or traced, sizes do not fit, the state is an array, there is
            no chain, a known value is no bit, or there are values without a clamp.
    """
    check_key(key)
    params = check_machine(params)
    check_state(state)
    z = check_chains(params.graph, state.z)
    num_sweeps = check_count("num_sweeps", num_sweeps)
    if clamp is None:
        if values is not None:
            raise ValueError("values need a clamp, bool [n], that says which units hold them")
        return _step(key, params, GibbsState(z), None, num_sweeps)
    clamp = check_clamp(params.graph, clamp)
    if values is not None:
        z = _hold(params, z, clamp, values)
    return _step(key, params, GibbsState(z), clamp.tobytes(), num_sweeps)


def _hold(params: Machine, z: jax.Array, clamp: np.ndarray, values: ArrayLike) -> jax.Array:
    """Sets clamped units of chains."""
    held = check_values(params.graph, clamp, values).astype(z.dtype)
    if held.ndim > 2 or (held.ndim == 2 and held.shape != z.shape):
        raise ValueError(
            f"values must be [{z.shape[1]}] or, one for each chain, {z.shape}, got {held.shape}"
        )
    return jnp.where(clamp[None], jnp.broadcast_to(held, z.shape), z)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _step(
    key: jax.Array, params: Machine, state: GibbsState, clamp: bytes | None, num_sweeps: int
) -> tuple[GibbsState, GibbsInfo]:
    specs = jax.tree.map(spec_of, state), PartitionSpec()
    return partition(functools.partial(_sweeps, clamp, num_sweeps), specs, key, params, state)


def _sweeps(
    clamp: bytes | None, num_sweeps: int, key: jax.Array, params: Machine, state: GibbsState
) -> tuple[GibbsState, GibbsInfo]:
    params, state = jax.lax.stop_gradient((params, state))
    params = widened(params)
    tables = plan(params.graph, clamp)
    sweeper = Sweeper(params, tables)
    start = vary_like(to_rows(tables, state.z), key, params, state)
    sweep = lambda i, z: sweeper.sweep(jax.random.fold_in(key, i), z)
    after = jax.lax.fori_loop(0, num_sweeps, sweep, start)
    valid = are_bits(state.z) & are_finite(params)
    found = GibbsState(mark(from_rows(tables, after, state.z.dtype), valid))
    return found, GibbsInfo(flip_rate(state, found))
