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

Gonzalez et al., "Parallel Gibbs Sampling: From Colored Fields to Thin Junction Trees" (2011), for
the chromatic sampler; Brélaz, "New Methods to Color the Vertices of a Graph" (1979).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import upcast
from dvae.rbm.energy import RBM
from dvae.rbm.energy import check as check_rbm
from dvae.rbm.exact import _CHUNK, MAX_UNITS, _bits
from dvae.rbm.gibbs import GibbsInfo, draw


class BoltzmannMachine(NamedTuple):
    """Parameters of a Boltzmann machine."""

    bias: jax.Array  # [n] b
    weights: jax.Array  # [n, n] W, symmetric, zero on the diagonal


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
    check_rbm(params)
    n1, n2 = params.weights.shape
    bias = jnp.concatenate([params.bias1, params.bias2])
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
    adjacency = _check_adjacency(adjacency)
    if params.weights.shape != adjacency.shape:
        raise ValueError(
            f"adjacency is of {len(adjacency)} units, the weights have shape {params.weights.shape}"
        )
    return params._replace(weights=jnp.where(adjacency, (params.weights + params.weights.T) / 2, 0))


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
    _check(params, z)
    z = upcast(z)
    return -z @ params.bias - jnp.sum((z @ params.weights) * z, axis=-1) / 2


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
    adjacency = _check_adjacency(adjacency)
    num_units = len(adjacency)
    degree = adjacency.sum(1)
    colors = np.full(num_units, -1)
    taken = np.zeros((num_units, num_units + 1), bool)  # [unit, color] by a neighbor
    for _ in range(num_units):
        # One number for the order of (saturation, degree); argmax takes the first of equals.
        urgency = taken.sum(1) * (num_units + 1) + degree
        unit = np.argmax(np.where(colors < 0, urgency, -1))
        colors[unit] = np.argmin(taken[unit])
        taken[adjacency[unit], colors[unit]] = True
    return colors


def init(key: jax.Array, params: BoltzmannMachine, num_chains: int) -> GraphState:
    """Starts chains from the machine without interactions: bits with the logits of the biases.

    Args:
        key: typed PRNG key.
        params: BoltzmannMachine.
        num_chains: at least 1.

    Raises:
        ValueError: if num_chains < 1, or the parameters are no machine.
    """
    _check(params)
    if num_chains < 1:
        raise ValueError(f"num_chains must be at least 1, got {num_chains}")
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
    _check(params, state.z)
    if num_sweeps < 1:
        raise ValueError(f"num_sweeps must be at least 1, got {num_sweeps}")
    colors = _check_colors(colors, params)
    params = jax.lax.stop_gradient(params)

    # In the order of the colors a class is a slice, and its weights are blocks cut once.
    order = np.argsort(colors, kind="stable")
    starts = np.searchsorted(colors[order], np.unique(colors)).tolist()
    slices = list(zip(starts, [*starts[1:], len(order)], strict=True))
    blocks = []
    for low, high in slices:
        own, others = order[low:high], np.concatenate([order[:low], order[high:]])
        blocks.append((params.bias[own], params.weights[np.ix_(others, own)]))

    def sweep(i: jax.Array, z: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(key, i), len(slices))
        for k, (low, high) in enumerate(slices):
            bias, weights = blocks[k]
            others = jnp.concatenate([z[:, :low], z[:, high:]], axis=1)
            logits = upcast(others) @ weights + bias[None]
            z = z.at[:, low:high].set(draw(keys[k], logits).astype(z.dtype))
        return z

    after = jax.lax.fori_loop(0, num_sweeps, sweep, state.z[:, order])
    after = after[:, np.argsort(order)]
    return GraphState(after), GibbsInfo(jnp.mean(after != state.z))


def log_z(params: BoltzmannMachine) -> jax.Array:
    """Evaluates log Z = log sum_z e^{-E(z)} by enumeration; differentiable.

    Args:
        params: BoltzmannMachine of at most 20 units.

    Returns:
        [] nats.

    Raises:
        ValueError: if there are more than 20 units, or the parameters are no machine.
    """
    _check(params)
    num_units = params.bias.shape[0]
    if num_units > MAX_UNITS:
        raise ValueError(
            f"enumeration takes at most {MAX_UNITS} units, got {num_units}; sample by graph.step"
        )
    chunk = min(_CHUNK, 1 << num_units)

    # Recomputed in the backward pass, which would otherwise keep the fields of all states.
    @jax.checkpoint
    def of_chunk(params: BoltzmannMachine, start: jax.Array) -> jax.Array:
        z = _bits(start + jnp.arange(chunk), num_units, params.weights.dtype)
        return energy(params, z)

    starts = jnp.arange(0, 1 << num_units, chunk)
    return jax.nn.logsumexp(-jax.lax.map(lambda start: of_chunk(params, start), starts))


def moments(params: BoltzmannMachine) -> GraphMoments:
    """Evaluates E[z] and E[z z^T], the gradient of log Z; limits and errors as of `log_z`."""
    _check(params)
    gradient = jax.grad(log_z)(params)
    return GraphMoments(gradient.bias, 2 * gradient.weights)


def _check(params: BoltzmannMachine, z: jax.Array | None = None) -> None:
    """Raises ValueError unless sizes fit and the weights, where known, are those of a machine."""
    bias, weights = params
    if bias.ndim != 1 or weights.shape != bias.shape * 2:
        raise ValueError(
            "a Boltzmann machine has bias [n] and weights [n, n], got shapes "
            f"{bias.shape} and {weights.shape}"
        )
    if z is not None and z.shape[-1:] != bias.shape:
        raise ValueError(f"z must end in an axis of {bias.shape[0]} units, got shape {z.shape}")
    if isinstance(weights, jax.core.Tracer) or isinstance(bias, jax.core.Tracer):
        return
    known = np.asarray(weights)
    for name, value in (("bias", np.asarray(bias)), ("weights", known)):
        if not np.all(np.isfinite(value.astype(np.float32))):
            raise ValueError(f"{name} must be finite, got NaN or infinity: did training diverge?")
    if np.any(known != known.T) or np.any(np.diagonal(known)):
        raise ValueError("weights must be symmetric with a zero diagonal: use graph.on_edges")


def _check_adjacency(adjacency: np.ndarray) -> np.ndarray:
    """Returns the adjacency as bool [n, n], symmetric and without loops."""
    adjacency = np.asarray(adjacency) != 0
    if adjacency.ndim != 2 or adjacency.shape[0] != adjacency.shape[1]:
        raise ValueError(f"adjacency must be [n, n], got shape {adjacency.shape}")
    wrong = np.argwhere((adjacency != adjacency.T) | np.diag(np.diagonal(adjacency)))
    if len(wrong):
        i, j = wrong[0].tolist()
        raise ValueError(
            "adjacency must be symmetric with a zero diagonal, got "
            f"{adjacency[i, j]} at ({i}, {j}) and {adjacency[j, i]} at ({j}, {i})"
        )
    return adjacency


def _check_colors(colors: np.ndarray | Sequence[int], params: BoltzmannMachine) -> np.ndarray:
    """Returns the colors as an array [n], proper for the weights where these are known."""
    if any(isinstance(c, jax.core.Tracer) for c in jax.tree.leaves(colors)):
        raise ValueError("colors must be static, got traced ones: close over those of graph.color")
    colors = np.asarray(colors)
    if colors.shape != params.bias.shape or colors.dtype.kind not in "iu":
        n = params.bias.shape[0]
        raise ValueError(f"colors must be {n} integers, got {colors.dtype} {colors.shape}")
    if not isinstance(params.weights, jax.core.Tracer):
        same = colors[:, None] == colors[None]
        clash = np.argwhere(same & (np.asarray(params.weights) != 0))
        if len(clash):
            i, j = clash[0]
            raise ValueError(
                f"units {i} and {j} have a weight and share color {colors[i]}: use graph.color"
            )
    return colors
