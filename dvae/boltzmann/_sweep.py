"""Chromatic Gibbs sweeps of bits [n + 1, ...], units in the order of a plan, the last a 0.

Bits are int8 inside of sweeps: gathers of them cost a fourth of those of float32, or less.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import open_uniform
from dvae.boltzmann import _plan, _sums
from dvae.boltzmann._graph import MAX_UNROLLED
from dvae.boltzmann._machine import Machine
from dvae.boltzmann._plan import Plan

BIT = jnp.int8


def to_rows(plan: Plan, z: jax.Array) -> jax.Array:
    """Brings bits [..., n] into the form of the sweeps."""
    ordered = jnp.moveaxis(z[..., plan.order], -1, 0).astype(BIT)
    return jnp.concatenate([ordered, jnp.zeros((1, *ordered.shape[1:]), BIT)])


def from_rows(plan: Plan, rows: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Brings bits back to [..., n]."""
    place = np.argsort(plan.order).astype(np.int32)
    return jnp.moveaxis(rows[place], 0, -1).astype(dtype)


def are_bits(z: jax.Array) -> jax.Array:
    """Tells of which chains [..., n] all entries are 0 or 1."""
    return jnp.all((z == 0) | (z == 1), axis=-1)


def are_finite(params: Machine) -> jax.Array:
    """Tells whether no sum of biases and weights that a sweep can meet is NaN or infinite."""
    total = jnp.sum(jnp.abs(params.bias)) + jnp.sum(jnp.abs(params.weights))
    return jnp.isfinite(total)


def mark(z: jax.Array, valid: jax.Array) -> jax.Array:
    """Returns bits [..., n], NaN where valid [...] is false: int8 had no way to show it."""
    return jnp.where(valid[..., None], z, jnp.asarray(jnp.nan, z.dtype))


def against(beta: jax.Array, x: jax.Array) -> jax.Array:
    """Puts axes of length 1 in front of beta, [] or [T], up to the rank of x [..., T]."""
    return beta.reshape((1,) * (x.ndim - beta.ndim) + beta.shape)


class Sweeper:
    """A machine's tables and weights, arranged once for many sweeps.

    The logits of unit i at the inverse temperature beta are

        c_i + beta (b_i - c_i + sum_j w_ij z_j),

    those of independent units at 0 and of the machine at 1.
    """

    def __init__(self, params: Machine, plan: Plan, base: jax.Array | None = None) -> None:
        """Arranges parameters in the dtype of sums; without a base c, beta is always 1."""
        graph = params.graph
        self.is_dense = graph.is_dense
        self.blocks = plan.blocks
        self.is_loop = len(plan.blocks) > MAX_UNROLLED
        if self.is_loop:
            self.blocks = (_plan.stack(plan.blocks, graph.num_units, graph.num_edges),)
        # Two more units: the constant 0, and a place that only padding has.
        arrange = lambda x: jnp.pad(x[plan.order], (0, 2))
        slope = params.bias if base is None else params.bias - base
        slope, base = arrange(slope), None if base is None else arrange(base)
        self.parts = [
            (
                _sums.neighbor_weights(block, graph, params.weights),
                block.neighbors,
                block.rows,
                slope[block.rows],
                None if base is None else base[block.rows],
            )
            for block in self.blocks
        ]

    def fields(self, z: jax.Array) -> jax.Array:
        """Evaluates sum_j w_ij z_j of the units of the first block, [m, ...]."""
        weights, neighbors, *_ = self._first()
        return _sums.fields(weights, neighbors, z, is_dense=self.is_dense)

    def sweep(self, key: jax.Array, z: jax.Array, beta: jax.Array | None = None) -> jax.Array:
        """Draws each block given all other units, in turn; beta is [] or [T]."""
        if not self.is_loop:
            for k, part in enumerate(self.parts):
                z = self._draw(jax.random.fold_in(key, k), z, part, beta)
            return z
        weights, neighbors, rows, slope, base = self.parts[0]
        tables = weights, jnp.asarray(neighbors), jnp.asarray(rows), slope, base

        def body(k: jax.Array, z: jax.Array) -> jax.Array:
            part = jax.tree.map(lambda x: x[k], tables)
            return self._draw(jax.random.fold_in(key, k), z, part, beta)

        return jax.lax.fori_loop(0, len(rows), body, z)

    def _first(self) -> tuple:
        """Returns what belongs to the first block."""
        return jax.tree.map(lambda x: x[0], tuple(self.parts[0])) if self.is_loop else self.parts[0]

    def _draw(self, key: jax.Array, z: jax.Array, part: tuple, beta: jax.Array | None) -> jax.Array:
        weights, neighbors, rows, slope, base = part
        expand = lambda x: x.reshape(-1, *(1,) * (z.ndim - 1))
        logits = expand(slope) + _sums.fields(weights, neighbors, z, is_dense=self.is_dense)
        if base is not None and beta is not None:
            logits = expand(base) + against(beta, logits) * logits
        noise = open_uniform(key, logits.shape)
        bits = (noise < jax.nn.sigmoid(logits.astype(jnp.float32))).astype(z.dtype)
        if isinstance(rows, np.ndarray):  # in a row: a slice is faster than a scatter
            return z.at[rows[0] : rows[-1] + 1].set(bits)
        return z.at[rows].set(bits, mode="drop")
