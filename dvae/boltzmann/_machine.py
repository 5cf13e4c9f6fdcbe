"""Boltzmann machines on graphs: parameters, and the checks of machines, bits and clamps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import ArrayLike, as_float, wide_dtype
from dvae.boltzmann._graph import Graph
from dvae.rbm._checks import check_finite, is_known


class Machine(NamedTuple):
    """A Boltzmann machine on a graph: two arrays of parameters, and the graph, which is static."""

    bias: jax.Array  # [n] b
    weights: jax.Array  # [E] w, in the order of the graph's edges
    graph: Graph


def check_machine(params: Machine) -> Machine:
    """Returns the parameters as arrays of floating dtypes; integers become the default one.

    Raises:
        ValueError: if their sizes are not the graph's, or known values are not finite.
    """
    graph = params.graph
    if not isinstance(graph, Graph):
        raise ValueError(f"graph must be a boltzmann.Graph, got {type(graph).__name__}")
    shapes = np.shape(params.bias), np.shape(params.weights)
    if shapes != ((graph.num_units,), (graph.num_edges,)):
        raise ValueError(
            f"a machine on {graph!r} has bias [{graph.num_units}] and weights "
            f"[{graph.num_edges}], got shapes {shapes[0]} and {shapes[1]}"
        )
    for name in ("bias", "weights"):
        check_finite(f"{name} of the machine", getattr(params, name))
    return Machine(as_float(params.bias), as_float(params.weights), graph)


def dtype_of(params: Machine) -> jnp.dtype:
    """Returns the dtype of sums over the machine's units: at least float32."""
    return jnp.promote_types(wide_dtype(params.bias), wide_dtype(params.weights))


def widened(params: Machine) -> Machine:
    """Returns the parameters in the dtype of sums."""
    dtype = dtype_of(params)
    return params._replace(bias=params.bias.astype(dtype), weights=params.weights.astype(dtype))


def check_units(graph: Graph, z: ArrayLike, name: str = "z") -> jax.Array:
    """Returns bits as floats; raises ValueError if their last axis is not the graph's units."""
    if np.shape(z)[-1:] != (graph.num_units,):
        raise ValueError(
            f"{name} must end in an axis of {graph.num_units} units, got shape {np.shape(z)}"
        )
    return as_float(z)


def check_chains(graph: Graph, z: ArrayLike, *, minimum: int = 1) -> jax.Array:
    """Returns the bits of chains as floats; raises ValueError unless they are some [chains, n]."""
    shape = np.shape(z)
    if len(shape) != 2 or shape[0] < minimum or shape[1] != graph.num_units:
        chains = "chain" if minimum == 1 else "chains"
        raise ValueError(
            f"z must be [chains, {graph.num_units}], at least {minimum} {chains}, got shape "
            f"{shape}: start chains with init for this machine"
        )
    return as_float(z)


def check_clamp(graph: Graph, clamp: Any) -> np.ndarray:
    """Returns a mask of units as NumPy's bool [n]; raises ValueError if it is none, or traced."""
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(clamp)):
        raise ValueError("clamp must be static, got a traced one: make it in NumPy outside of jit")
    array = np.asarray(clamp)
    if array.shape != (graph.num_units,) or array.dtype != bool:
        raise ValueError(
            f"clamp must be bool [{graph.num_units}], true where a unit is held, got "
            f"{array.dtype} {array.shape}"
        )
    return array


def check_values(graph: Graph, clamp: np.ndarray, values: ArrayLike) -> jax.Array:
    """Returns the values of units as floats; known ones of clamped units must be bits.

    Raises:
        ValueError: if one is neither 0 nor 1, or their last axis is not the graph's units.
    """
    array = check_units(graph, values, "values")
    if is_known(values):
        known = np.where(clamp, np.asarray(values), 0)
        wrong = np.argwhere(~((known == 0) | (known == 1)))
        if len(wrong):
            place = tuple(wrong[0].tolist())
            raise ValueError(
                f"values of clamped units must be 0 or 1, got {known[place]} for unit {place[-1]}"
            )
    return array
