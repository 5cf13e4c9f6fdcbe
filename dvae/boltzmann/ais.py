"""Annealed importance sampling of log Z on graphs.

From independent units of logits c to the machine along

    E_b(z) = -(1 - b) c.z + b E(z),    b from 0 to 1,

chains collect log w = sum_k F_{b_{k-1}}(z) - F_{b_k}(z), F the free energy with the units of the
first color summed out, and take one sweep at each b. E[w] = Z / Z_base, so the log of the mean
weight is a lower bound of log Z in the mean.

Source: Neal, "Annealed Importance Sampling" (2001); Salakhutdinov and Murray, "On the Quantitative
Analysis of Deep Belief Networks" (2008).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec, Sharding

from dvae._checks import check_count, check_key
from dvae._numerics import ArrayLike, partition, vary_like
from dvae.boltzmann._machine import Machine, check_machine, widened
from dvae.boltzmann._path import minus_free_energy, parts, path
from dvae.boltzmann._sweep import are_finite, to_rows
from dvae.boltzmann.energy import centered_bias
from dvae.rbm._checks import check_finite
from dvae.rbm._estimates import LogZ, estimate, place
from dvae.rbm.gibbs import draw

__all__ = ["log_z"]


class _Chain(NamedTuple):
    """What the annealing carries: bits and a compensated sum for each chain."""

    z: jax.Array  # [n + 1, chains]
    log_weight: jax.Array  # [chains] at least float32
    lost: jax.Array  # [chains] what rounding has taken from log_weight so far


def log_z(
    key: jax.Array,
    params: Machine,
    *,
    num_temperatures: int = 1000,
    num_chains: int = 1024,
    base: ArrayLike | None = None,
    sharding: Sharding | None = None,
) -> LogZ:
    """Estimates log Z by annealing chains from independent units to the machine.

    Given some units, that of the rest is estimated on the machine of `condition`.

    Args:
        key: typed PRNG key.
        params: Machine; no gradient flows.
        num_temperatures: steps from b = 0 to b = 1, at least 1, equally spaced.
        num_chains: at least 2.
        base: logits [n] of the independent units; `centered_bias` by default. A base in one mode of
            several can miss the others, and nothing in the result shows it.
        sharding: how devices share the chains, an array [chains, n]; it changes no sample.

    Returns:
        `rbm.ais.LogZ`: value, std_error and ess; its value is, in the mean over keys, at most
        log Z. NaN where a parameter is NaN.

    Raises:
        ValueError: if a number is too small, or sizes do not fit.
    """
    check_key(key)
    params = check_machine(params)
    num_temperatures = check_count("num_temperatures", num_temperatures)
    num_chains = check_count("num_chains", num_chains, minimum=2, why="for a standard error")
    if base is not None:
        if np.shape(base) != (params.graph.num_units,):
            raise ValueError(
                f"base must hold the logits of {params.graph.num_units} units, got shape "
                f"{np.shape(base)}"
            )
        check_finite("base", base)
        base = jnp.asarray(base)
    return _log_z(key, params, base, num_temperatures, num_chains, sharding)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _log_z(
    key: jax.Array,
    params: Machine,
    base: jax.Array | None,
    num_temperatures: int,
    num_chains: int,
    sharding: Sharding | None,
) -> LogZ:
    params, base = jax.lax.stop_gradient((widened(params), base))
    base = centered_bias(params) if base is None else base.astype(params.bias.dtype)
    key_start, key_chain = jax.random.split(key)
    start = draw(key_start, jnp.broadcast_to(base, (num_chains, params.graph.num_units)))
    anneal = functools.partial(_anneal, num_temperatures)
    return partition(anneal, PartitionSpec(), key_chain, params, base, place(start, sharding))


def _anneal(
    num_temperatures: int, key: jax.Array, params: Machine, base: jax.Array, start: jax.Array
) -> LogZ:
    """Collects the weights along the schedule."""
    way = path(params, base)
    dtype = params.bias.dtype
    schedule = jnp.linspace(0.0, 1.0, num_temperatures + 1, dtype=dtype)

    def move(chain: _Chain, step: tuple) -> tuple[_Chain, None]:
        index, before, after = step
        found = parts(way, chain.z)
        term = minus_free_energy(found, after) - minus_free_energy(found, before)
        # Kahan's sum: a thousand terms of order one would lose the third decimal in float32.
        term = term - chain.lost
        total = chain.log_weight + term
        lost = (total - chain.log_weight) - term
        z = way.sweeper.sweep(jax.random.fold_in(key, index), chain.z, after)
        return _Chain(z, total, lost), None

    zeros = jnp.zeros(start.shape[0], dtype)
    chain = _Chain(to_rows(way.plan, start), zeros, zeros)
    chain = vary_like(chain, key, params, base, start)
    steps = (jnp.arange(num_temperatures), schedule[:-1], schedule[1:])
    log_weight = jax.lax.scan(move, chain, steps)[0].log_weight
    # Bits of NaN logits would be ordinary ones.
    known = are_finite(params) & jnp.all(jnp.isfinite(base))
    return estimate(jnp.where(known, log_weight, jnp.nan), sign=1.0, log_base=way.log_z)
