"""What is common to estimates of log Z: the first block of units is summed out of all weights.

A sweep draws the units of the first color from the others before it reads them, so chains and
replicas are weighed by the law of the others alone: e^{-F}, F = -log of the sum of e^{-E} over the
first block. On an RBM's graph the block is a whole side.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dvae._numerics import softplus_rise
from dvae.boltzmann import _sums
from dvae.boltzmann._machine import Machine
from dvae.boltzmann._plan import Plan, plan
from dvae.boltzmann._sweep import Sweeper, against
from dvae.boltzmann.energy import centered_bias


class Path(NamedTuple):
    """From independent units of logits c to the machine, E_b(z) = -(1 - b) c.z + b E(z)."""

    params: Machine
    base: jax.Array  # [n] c
    plan: Plan
    sweeper: Sweeper

    @property
    def log_z(self) -> jax.Array:
        """That of the independent units, [] nats."""
        return jax.nn.softplus(self.base).sum()


def path(params: Machine, base: jax.Array | None = None) -> Path:
    """Arranges the path of a machine with parameters in the dtype of sums."""
    base = centered_bias(params) if base is None else base.astype(params.bias.dtype)
    tables = plan(params.graph)
    return Path(params, base, tables, Sweeper(params, tables, base))


class Parts(NamedTuple):
    """What the free energy of states z depends on, at any b."""

    others: jax.Array  # [...] (b - c).z + sum_e w_e z_i z_j of the units after the first block
    logits: jax.Array  # [m, ...] of the first block, b - c + sum_j w_ij z_j
    base: jax.Array  # [m] c of the first block


def parts(path: Path, z: jax.Array) -> Parts:
    """Evaluates the parts of bits z [n + 1, ...] in the order of the plan."""
    params, block = path.params, path.plan.blocks[0]
    slope = (params.bias - path.base)[path.plan.order]
    others = jnp.ones(len(slope)).at[block.rows].set(0).astype(slope.dtype)
    bits = z[:-1].astype(slope.dtype)
    linear = jnp.tensordot(slope * others, bits, 1, precision=_sums.HIGHEST)
    weights, edges = params.weights[path.plan.rest], path.plan.rest_places
    quadratic = _sums.pairs(edges, weights, z[:-1], z[:-1], is_dense=params.graph.is_dense)
    first = slope[block.rows].reshape(-1, *(1,) * (z.ndim - 1))
    logits = first + path.sweeper.fields(z)[: len(block.rows)]
    return Parts(linear + quadratic, logits, path.base[path.plan.order][block.rows])


def minus_free_energy(found: Parts, b: jax.Array) -> jax.Array:
    """Evaluates -F_b less c.z of the units after the first block, which no b changes: [...].

    b is [] or, if the last axis of [...] has T replicas, [T].
    """
    base = found.base.reshape(-1, *(1,) * (found.logits.ndim - 1))
    first = jax.nn.softplus(base + against(b, found.logits) * found.logits)
    return against(b, found.others) * found.others + first.sum(0)


def log_ratio(old: Machine, new: Machine, z: jax.Array) -> jax.Array:
    """Evaluates F_old(z) - F_new(z), unit by unit: the free energies are far larger.

    Args:
        old: Machine of wide parameters.
        new: likewise, on the same graph.
        z: [n + 1, ...] bits in the order of the plan.

    Returns:
        [...] nats.
    """
    graph, tables = new.graph, plan(new.graph)
    change = Machine(new.bias - old.bias, new.weights - old.weights, graph)
    zeros = jnp.zeros_like(new.bias)
    step, before = (Path(m, zeros, tables, Sweeper(m, tables)) for m in (change, old))
    changed = parts(step, z)
    start = before.params.bias[tables.order][tables.blocks[0].rows]
    fields = before.sweeper.fields(z)[: len(start)]
    logits = start.reshape(-1, *(1,) * (z.ndim - 1)) + fields
    return changed.others + softplus_rise(logits, logits + changed.logits).sum(0)
