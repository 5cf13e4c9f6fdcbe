"""Boltzmann machines on any graph: block Gibbs over the classes of a coloring.

    E(z) = -b.z - 1/2 z^T W z,    p(z) = e^{-E(z)} / Z,

bits z [..., n], W symmetric with a zero diagonal. Units that no edge connects are independent given
all others, so the units of one color can be drawn at once:

    colors = graph.color(adjacency)                                   # NumPy, once
    params = graph.BoltzmannMachine(bias, weights)                    # [n], [n, n]
    state = graph.init(key, params, num_chains=1000)
    state, info = graph.step(key, params, state, colors=colors, num_sweeps=40)      # state.z

The adjacency must cover every weight that can become nonzero. Since the gradient of E stops neither
at edges nor at the diagonal, weights are trained through `graph.on_edges(params, adjacency)`.

A graph of two colors is an RBM: `rbm.gibbs` is its fast path, with the same blocks and none of the
rearranging, and `rbm.exact`, `rbm.ais` and `rbm.annealing` are for RBMs only. `from_rbm` embeds.
`dvae.boltzmann` does the same by lists of edges, faster where they are few, with log Z and KLs.

Gonzalez et al., "Parallel Gibbs Sampling: From Colored Fields to Thin Junction Trees" (2011), for
the chromatic sampler; Brélaz, "New Methods to Color the Vertices of a Graph" (1979).
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from dvae._checks import check_count, check_key
from dvae._numerics import as_float, float_dtype, partition, spec_of, upcast, vary_like
from dvae.rbm._bits import flip_rate
from dvae.rbm._boltzmann import BoltzmannMachine, check_adjacency, check_colors, check_machine
from dvae.rbm._enumeration import MAX_UNITS, log_sum, over_states
from dvae.rbm._rbm import RBM, check_rbm, product
from dvae.rbm.gibbs import GibbsInfo, draw

__all__ = [
    "BoltzmannMachine",
    "GraphMoments",
    "GraphState",
    "color",
    "energy",
    "from_rbm",
    "init",
    "log_z",
    "moments",
    "on_edges",
    "step",
]


class GraphState(NamedTuple):
    """Chains, in the dtype of the weights."""

    z: jax.Array  # [chains, n] bits


class GraphMoments(NamedTuple):
    """Expectations under the machine, in the dtypes of the parameters."""

    z: jax.Array  # [n] E[z]
    z_z: jax.Array  # [n, n] E[z z^T]; E[z] on the diagonal


def from_rbm(params: RBM) -> BoltzmannMachine:
    """Embeds an RBM: z = (z1, z2), and W between the sides.

    Args:
        params: RBM.

    Returns:
        BoltzmannMachine of n1 + n2 units and the same energies.

    Raises:
        ValueError: if the sizes of the parameters do not fit.
    """
    params = check_rbm(params)
    n1, n2 = params.weights.shape
    dtype = float_dtype(*params[:2])
    bias = jnp.concatenate([bias.astype(dtype) for bias in params[:2]])
    weights = jnp.zeros((n1 + n2, n1 + n2), params.weights.dtype)
    weights = weights.at[:n1, n1:].set(params.weights).at[n1:, :n1].set(params.weights.T)
    return BoltzmannMachine(bias, weights)


def on_edges(params: BoltzmannMachine, adjacency: np.ndarray) -> BoltzmannMachine:
    """Projects the weights: their symmetric part on the edges, 0 elsewhere; differentiable.

    Args:
        params: BoltzmannMachine of any weights [n, n].
        adjacency: [n, n] bool, NumPy.

    Returns:
        BoltzmannMachine whose weights are (W + W^T) / 2 where there is an edge.

    Raises:
        ValueError: if the adjacency is no graph of n units.
    """
    adjacency = check_adjacency(adjacency)
    if np.shape(params.weights) != adjacency.shape:
        raise ValueError(
            f"adjacency is of {len(adjacency)} units, the weights have shape "
            f"{np.shape(params.weights)}"
        )
    weights = as_float(params.weights)
    weights = jnp.where(adjacency, (weights + weights.T) / 2, 0)
    return BoltzmannMachine(as_float(params.bias), weights)


def energy(params: BoltzmannMachine, z: jax.Array) -> jax.Array:
    """Evaluates E(z) = -b.z - 1/2 z^T W z.

    Args:
        params: BoltzmannMachine.
        z: [..., n] float.

    Returns:
        [...] nats, at least float32.

    Raises:
        ValueError: if the sizes do not fit, or known weights are asymmetric or on the diagonal.
    """
    params = check_machine(params, z)
    z, bias, weights = upcast(z), upcast(params.bias), upcast(params.weights)
    return -product(z, bias) - jnp.sum(product(z, weights) * z, axis=-1) / 2


def color(adjacency: np.ndarray) -> np.ndarray:
    """Colors a graph so that no edge joins two units of one color (DSATUR).

    The next unit is the one whose neighbors have the most colors so far, then the one with the most
    neighbors, then the first; it gets the first color that none of its neighbors has. That is at
    most the largest number of neighbors + 1, and 2 if the graph is bipartite: the colors of an
    RBM's graph are its sides.

    Args:
        adjacency: [n, n] bool, NumPy; symmetric, nothing on the diagonal.

    Returns:
        [n] int, from 0.

    Raises:
        ValueError: if the adjacency is not square, not symmetric, or has a loop.
    """
    adjacency = check_adjacency(adjacency)
    num_units = len(adjacency)
    degree = adjacency.sum(1)
    colors = np.full(num_units, -1)
    taken = np.zeros((num_units, num_units + 1), bool)  # [unit, color] by a neighbor
    saturation = np.zeros(num_units, int)  # sums of taken, kept up: to sum it is O(n^2) a round
    for _ in range(num_units):
        # One number for the order of (saturation, degree); argmax takes the first of equals.
        urgency = saturation * (num_units + 1) + degree
        unit = np.argmax(np.where(colors < 0, urgency, -1))
        colors[unit] = np.argmin(taken[unit])
        newly = adjacency[unit] & ~taken[:, colors[unit]]
        taken[newly, colors[unit]] = True
        saturation += newly
    return colors


def init(key: jax.Array, params: BoltzmannMachine, num_chains: int) -> GraphState:
    """Starts chains from the machine without interactions: bits with the logits of the biases.

    Args:
        key: typed PRNG key.
        params: BoltzmannMachine.
        num_chains: at least 1.

    Returns:
        GraphState.

    Raises:
        ValueError: if num_chains < 1, or the parameters are no machine.
    """
    params = check_machine(params)
    num_chains = check_count("num_chains", num_chains)
    logits = jnp.broadcast_to(params.bias, (num_chains, params.bias.shape[0]))
    return GraphState(draw(key, logits).astype(params.weights.dtype))


def step(
    key: jax.Array,
    params: BoltzmannMachine,
    state: GraphState,
    *,
    colors: np.ndarray | Sequence[int],
    num_sweeps: int = 1,
) -> tuple[GraphState, GibbsInfo]:
    """Runs sweeps, each z_c ~ p(z_c | the other units) for one color c after the other.

    Leaves p(z) invariant, up to the resolution of `gibbs.draw`, if the colors are proper for the
    nonzero weights; that is checked here where the weights are known, so not under jit. No
    gradient flows.

    Args:
        key: typed PRNG key.
        params: BoltzmannMachine.
        state: GraphState of any number of chains.
        colors: [n] int of `color`, static: close over it, or pass a tuple to static_argnames.
        num_sweeps: at least 1.

    Returns:
        GraphState and GibbsInfo.

    Raises:
        ValueError: if num_sweeps < 1, sizes do not fit, colors are traced or known to be improper.
    """
    check_key(key)
    colors = check_colors(colors, params)
    params = check_machine(params, state.z)
    if np.ndim(state.z) != 2 or len(state.z) < 1:
        raise ValueError(f"z must be [chains, n], at least 1 chain, got shape {np.shape(state.z)}")
    num_sweeps = check_count("num_sweeps", num_sweeps)
    return _step(key, params, GraphState(as_float(state.z)), tuple(colors.tolist()), num_sweeps)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _step(
    key: jax.Array,
    params: BoltzmannMachine,
    state: GraphState,
    colors: tuple[int, ...],
    num_sweeps: int,
) -> tuple[GraphState, GibbsInfo]:
    sweeps = functools.partial(_sweeps, np.array(colors), num_sweeps)
    specs = jax.tree.map(spec_of, state), PartitionSpec()
    return partition(sweeps, specs, key, params, state)


def _sweeps(
    colors: np.ndarray,
    num_sweeps: int,
    key: jax.Array,
    params: BoltzmannMachine,
    state: GraphState,
) -> tuple[GraphState, GibbsInfo]:
    params, state = jax.lax.stop_gradient((params, state))
    # In the order of the colors a class is a slice, and its weights are blocks cut once.
    order = np.argsort(colors, kind="stable")
    starts = np.searchsorted(colors[order], np.unique(colors)).tolist()
    slices = list(zip(starts, [*starts[1:], len(order)], strict=True))
    blocks = []
    for low, high in slices:
        own, others = order[low:high], np.concatenate([order[:low], order[high:]])
        blocks.append((upcast(params.bias[own]), upcast(params.weights[np.ix_(others, own)])))

    def sweep(i: jax.Array, z: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(key, i), len(slices))
        for k, (low, high) in enumerate(slices):
            bias, weights = blocks[k]
            others = jnp.concatenate([z[:, :low], z[:, high:]], axis=1)
            logits = product(upcast(others), weights) + bias[None]
            z = z.at[:, low:high].set(draw(keys[k], logits).astype(z.dtype))
        return z

    start = vary_like(state.z[:, order], key, params, state)
    after = GraphState(jax.lax.fori_loop(0, num_sweeps, sweep, start)[:, np.argsort(order)])
    return after, GibbsInfo(flip_rate(state, after))


def log_z(params: BoltzmannMachine) -> jax.Array:
    """Evaluates log Z = log sum_z e^{-E(z)} by enumeration; differentiable.

    Args:
        params: BoltzmannMachine of at most 20 units.

    Returns:
        [] nats.

    Raises:
        ValueError: if there are more than 20 units, or the parameters are no machine.
    """
    return _log_z(_check_small(params))


def moments(params: BoltzmannMachine) -> GraphMoments:
    """Evaluates E[z] and E[z z^T], the gradient of log Z, by enumeration.

    Args:
        params: BoltzmannMachine of at most 20 units.

    Returns:
        GraphMoments of [n] and [n, n].

    Raises:
        ValueError: if there are more than 20 units, or the parameters are no machine.
    """
    gradient = _gradient(_check_small(params))
    return GraphMoments(gradient.bias, 2 * gradient.weights)


@jax.jit
def _log_z(params: BoltzmannMachine) -> jax.Array:
    negative = lambda params, z: -energy(params, z)
    return log_sum(over_states(negative, params, params.bias.shape[0], params.weights.dtype))


_gradient = jax.jit(jax.grad(_log_z))


def _check_small(params: BoltzmannMachine) -> BoltzmannMachine:
    """Returns the parameters checked; raises ValueError if there are too many states."""
    params = check_machine(params)
    num_units = params.bias.shape[0]
    if num_units > MAX_UNITS:
        raise ValueError(
            f"enumeration takes at most {MAX_UNITS} units, got {num_units}; sample by graph.step"
        )
    return params
