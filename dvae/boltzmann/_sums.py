"""Sums over the edges and neighbors of a graph, by gathers or by products with a dense matrix.

Arrays of bits have the units as their first axis here: a gather then moves whole rows of chains.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import vary_like
from dvae.boltzmann._graph import Graph
from dvae.boltzmann._plan import Block

_SLOTS = 32  # neighbors whose sum is written out; more of them are a loop
_IN_BOUNDS = "promise_in_bounds"  # XLA folds checks of constant indices, for minutes if many
HIGHEST = jax.lax.Precision.HIGHEST  # GPUs would round the weights to 10 bits


def dense(num_units: int, edges: np.ndarray, weights: jax.Array) -> jax.Array:
    """Writes weights [E] as a matrix [n, n]: that of edge (i, j) at (i, j), 0 elsewhere."""
    zeros = jnp.zeros((num_units, num_units), weights.dtype)
    places = zeros.at[edges[:, 0], edges[:, 1]]
    return places.set(weights, mode=_IN_BOUNDS, unique_indices=True)


def pairs(
    edges: np.ndarray, weights: jax.Array, first: jax.Array, second: jax.Array, *, is_dense: bool
) -> jax.Array:
    """Evaluates sum_e w_e first_i second_j over edges (i, j).

    Args:
        edges: [E, 2] places in the first axes of `first` and `second`.
        weights: [E].
        first: [n, ...] of any dtype.
        second: [n, ...].
        is_dense: whether by a product.

    Returns:
        [...], in the dtype of the weights.
    """
    if is_dense:
        first, second = first.astype(weights.dtype), second.astype(weights.dtype)
        fields = jnp.tensordot(dense(len(second), edges, weights), second, 1, precision=HIGHEST)
        return jnp.sum(first * fields, axis=0)
    i, j = edges.T
    left, right = (rows(x, k).astype(weights.dtype) for x, k in ((first, i), (second, j)))
    return jnp.sum(weights.reshape(-1, *(1,) * (first.ndim - 1)) * left * right, axis=0)


def energy(graph: Graph, bias: jax.Array, weights: jax.Array, z: jax.Array) -> jax.Array:
    """Evaluates -b.z - sum_e w_e z_i z_j of z [n, ...] of any dtype: [...]."""
    linear = jnp.tensordot(bias, z.astype(bias.dtype), 1, precision=HIGHEST)
    return -linear - pairs(graph.edges, weights, z, z, is_dense=graph.is_dense)


def rows(z: jax.Array, index: np.ndarray | jax.Array) -> jax.Array:
    """Gathers rows that are known to be there."""
    return z.at[index].get(mode=_IN_BOUNDS)


def neighbor_weights(block: Block, graph: Graph, weights: jax.Array) -> jax.Array:
    """Arranges weights [E] beside the neighbors of a block, [m, d], or as dense rows [m, n + 1].

    Blocks that are stacked have one more axis in front of both.
    """
    padded = jnp.concatenate([weights, jnp.zeros(1, weights.dtype)])
    listed = rows(padded, block.edges)
    if not graph.is_dense:
        return listed
    leading = np.indices(block.edges.shape, sparse=True)[:-1]
    zeros = jnp.zeros((*block.edges.shape[:-1], graph.num_units + 1), weights.dtype)
    # What pads a list has weight 0, so adding it at the last column changes nothing.
    return zeros.at[(*leading, block.neighbors)].add(listed, mode=_IN_BOUNDS)


def fields(
    arranged: jax.Array, neighbors: np.ndarray | jax.Array, z: jax.Array, *, is_dense: bool
) -> jax.Array:
    """Evaluates sum_j w_ij z_j for the units of a block, [m, ...].

    Args:
        arranged: of `neighbor_weights`.
        neighbors: [m, d] places.
        z: [n + 1, ...] bits of any dtype, the last 0.
        is_dense: whether by a product.
    """
    if is_dense:
        return jnp.tensordot(arranged, z.astype(arranged.dtype), 1, precision=HIGHEST)
    trailing = (1,) * (z.ndim - 1)

    def add(total: jax.Array, slots: Sequence[tuple[jax.Array, jax.Array]]) -> jax.Array:
        for weight, index in slots:
            total = total + weight.reshape(-1, *trailing) * rows(z, index).astype(total.dtype)
        return total

    width = arranged.shape[1]
    zeros = jnp.zeros((arranged.shape[0], *z.shape[1:]), arranged.dtype)
    whole = width // _SLOTS * _SLOTS if width > _SLOTS else 0
    slots = lambda w, near: [(w[:, d], near[:, d]) for d in range(w.shape[1])]
    total = zeros
    if whole:
        cut = lambda x: jnp.moveaxis(jnp.reshape(x[:, :whole], (len(x), -1, _SLOTS)), 1, 0)
        step = lambda total, part: (add(total, slots(*part)), None)
        total = vary_like(zeros, arranged, z)
        total, _ = jax.lax.scan(step, total, (cut(arranged), cut(jnp.asarray(neighbors))))
    return add(total, slots(arranged[:, whole:], neighbors[:, whole:]))
