"""Boltzmann machines on graphs: parameters, energy, conditionals, and machines given some units.

    E(z) = -b.z - sum_e w_e z_i z_j over the edges e = (i, j),    p(z) = e^{-E(z)} / Z,

bits z [..., n]. Everything is linear in one unit given the others, so each function also takes
relaxed bits or mean values.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from dvae._numerics import ArrayLike, as_float, float_dtype, partition, spec_of, upcast
from dvae.boltzmann import _sums
from dvae.boltzmann._graph import Graph
from dvae.boltzmann._machine import (
    Machine,
    check_clamp,
    check_machine,
    check_units,
    check_values,
    dtype_of,
    widened,
)
from dvae.boltzmann.graphs import bipartite
from dvae.rbm import RBM
from dvae.rbm._rbm import check_rbm

__all__ = ["Machine", "centered_bias", "condition", "energy", "from_rbm", "logits"]


def energy(params: Machine, z: ArrayLike) -> jax.Array:
    """Evaluates E(z) = -b.z - sum_e w_e z_i z_j.

    Args:
        params: Machine.
        z: [..., n] float.

    Returns:
        [...] nats, at least float32.

    Raises:
        ValueError: if the sizes do not fit.
    """
    params = check_machine(params)
    z = check_units(params.graph, z)
    return partition(_energy, PartitionSpec(*spec_of(z)[:-1]), params, z)


def _energy(params: Machine, z: jax.Array) -> jax.Array:
    dtype = jnp.promote_types(dtype_of(params), upcast(z).dtype)
    bias, weights = params.bias.astype(dtype), params.weights.astype(dtype)
    return _sums.energy(params.graph, bias, weights, jnp.moveaxis(z.astype(dtype), -1, 0))


def logits(params: Machine, z: ArrayLike) -> jax.Array:
    """Evaluates the logits of each unit given all others, b_i + sum_j w_ij z_j.

    Args:
        params: Machine.
        z: [..., n] float.

    Returns:
        [..., n] nats, at least float32.

    Raises:
        ValueError: if the sizes do not fit.
    """
    params = check_machine(params)
    z = check_units(params.graph, z)
    return partition(_logits, spec_of(z), params, z)


def _logits(params: Machine, z: jax.Array) -> jax.Array:
    dtype = jnp.promote_types(dtype_of(params), upcast(z).dtype)
    z, graph, weights = z.astype(dtype), params.graph, params.weights.astype(dtype)
    bias = jnp.broadcast_to(params.bias.astype(dtype), z.shape)
    if graph.is_dense:
        upper = _sums.dense(graph.num_units, graph.edges, weights)
        return bias + jnp.tensordot(z, upper + upper.T, 1, precision=_sums.HIGHEST)
    i, j = graph.edges.T
    weights = jnp.broadcast_to(weights, (*z.shape[:-1], graph.num_edges))
    return bias.at[..., i].add(weights * z[..., j]).at[..., j].add(weights * z[..., i])


def centered_bias(params: Machine) -> jax.Array:
    """Evaluates c_i = b_i + 1/2 sum_j w_ij, where annealing and tempering start.

    Up to a constant E = -c.z - sum_e w_e (z_i - 1/2) (z_j - 1/2), so that taking the last term away
    favors neither value of a unit (see `rbm.centered_biases`).

    Returns:
        [n] nats, at least float32.

    Raises:
        ValueError: if the sizes of the parameters do not fit.
    """
    params = widened(check_machine(params))
    i, j = params.graph.edges.T
    half = params.weights / 2
    return params.bias.at[i].add(half).at[j].add(half)


def condition(params: Machine, clamp: np.ndarray, values: ArrayLike) -> tuple[Machine, jax.Array]:
    """Makes the machine of the free units given the clamped ones, and what its energies lack.

        E(z) = E'(z_free) + constant,    b'_i = b_i + sum_{j clamped} w_ij z_j

    Its log Z less the constant is log sum_{z_free} e^{-E(z)}. Differentiable; samplers, tempering
    and estimates of log Z work on it as on any machine.

    Args:
        params: Machine.
        clamp: [n] bool, static, true where a unit is held.
        values: [n] float, 0 or 1 where clamped; elsewhere not used.

    Returns:
        Machine of the free units, in their order, and [] nats.

    Raises:
        ValueError: if sizes do not fit, a known value is no bit, or no unit is free.
    """
    params = widened(check_machine(params))
    graph = params.graph
    clamp = check_clamp(graph, clamp)
    values = check_values(graph, clamp, values)
    if values.ndim != 1:
        raise ValueError(f"values must be [{graph.num_units}], got {values.shape}: use jax.vmap")
    part, inside = _free(graph, clamp.tobytes())
    held = jnp.where(clamp, values, 0).astype(params.bias.dtype)
    free = np.flatnonzero(~clamp).astype(np.int32)
    i, j = graph.edges.T
    bias = params.bias.at[i].add(params.weights * held[j]).at[j].add(params.weights * held[i])
    constant = _energy(params, held)
    return Machine(bias[free], params.weights[inside], part), constant


@functools.lru_cache(maxsize=64)
def _free(graph: Graph, clamp: bytes) -> tuple[Graph, np.ndarray]:
    """Returns the graph of the free units, and which edges it has."""
    clamped = np.frombuffer(clamp, bool)
    if clamped.all():
        raise ValueError(f"clamp holds all {graph.num_units} units: leave one free")
    number = np.cumsum(~clamped) - 1
    inside = np.flatnonzero(~clamped[graph.edges].any(1)).astype(np.int32)
    edges = number[graph.edges[inside]].astype(np.int32)
    part = Graph(int((~clamped).sum()), edges, colors=graph.colors[~clamped])
    return part, inside


def from_rbm(params: RBM) -> Machine:
    """Embeds an RBM: z = (z1, z2) on the complete bipartite graph of its sides.

    Args:
        params: RBM.

    Returns:
        Machine of n1 + n2 units and the same energies.

    Raises:
        ValueError: if the sizes of the parameters do not fit.
    """
    params = check_rbm(params)
    dtype = float_dtype(*params[:2])
    bias = jnp.concatenate([as_float(bias).astype(dtype) for bias in params[:2]])
    return Machine(bias, params.weights.ravel(), bipartite(*params.weights.shape))
