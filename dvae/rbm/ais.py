"""Annealed importance sampling of log Z, forward and, from exact samples, in reverse.

From independent units of logits c1, c2 to the machine along

    E_b(z) = (1 - b) E_base(z) + b E(z),    b from 0 to 1,

chains z1 collect log w = sum_k F_{b_{k-1}}(z1) - F_{b_k}(z1), F the free energy with z2 summed out,
and take one Gibbs sweep at each temperature. E[w] = Z / Z_base, so the log of the mean weight is a
lower bound of log Z in the mean; the reverse chain gives an upper one. Neal, "Annealed Importance
Sampling" (2001); Salakhutdinov and Murray, "On the Quantitative Analysis of Deep Belief Networks"
(2008); Burda, Grosse and Salakhutdinov, "Accurate and Conservative Estimates of MRF
Log-Likelihood using Reverse Annealing" (2015).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec, Sharding

from dvae._checks import check_count, check_key
from dvae._numerics import ArrayLike, as_float, partition, softplus_rise, upcast, vary_like
from dvae.rbm._checks import check_finite
from dvae.rbm._estimates import LogZ, estimate, place
from dvae.rbm._rbm import RBM, check_rbm, dtype_of, product
from dvae.rbm.energy import centered_biases
from dvae.rbm.gibbs import draw

__all__ = ["Base", "LogZ", "log_z", "reverse_log_z"]

Base = tuple[ArrayLike, ArrayLike] | None


class _Chain(NamedTuple):
    """What the annealing carries: a bit vector and a compensated sum for each chain."""

    z1: jax.Array  # [chains, n1]
    log_weight: jax.Array  # [chains] at least float32
    lost: jax.Array  # [chains] what rounding has taken from log_weight so far


def log_z(
    key: jax.Array,
    params: RBM,
    *,
    num_temperatures: int = 1000,
    num_chains: int = 1024,
    base: tuple[jax.Array, jax.Array] | None = None,
    sharding: Sharding | None = None,
) -> LogZ:
    """Estimates log Z by annealing chains from independent units to the machine.

    Args:
        key: typed PRNG key.
        params: RBM; no gradient flows.
        num_temperatures: steps from b = 0 to b = 1, at least 1, equally spaced.
        num_chains: at least 2.
        base: logits [n1] and [n2] of the independent units; `centered_biases` by default. A base
            in one mode of several can miss the others, and nothing in the result shows it.
        sharding: how devices share the chains, an array [chains, n1]; it changes no sample.

    Returns:
        LogZ; its value is, in the mean over keys, at most log Z.

    Raises:
        ValueError: if a number is too small, or sizes do not fit.
    """
    check_key(key)
    params = check_rbm(params)
    _check_base(params, base)
    num_temperatures = check_count("num_temperatures", num_temperatures)
    num_chains = check_count("num_chains", num_chains, minimum=2, why="for a standard error")
    return _log_z(key, params, base, num_temperatures, num_chains, sharding)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _log_z(
    key: jax.Array,
    params: RBM,
    base: Base,
    num_temperatures: int,
    num_chains: int,
    sharding: Sharding | None,
) -> LogZ:
    params, (c1, c2) = jax.lax.stop_gradient((params, _logits(params, base)))
    key_start, key_chain = jax.random.split(key)
    z1 = draw(key_start, jnp.broadcast_to(c1, (num_chains, c1.shape[0])))
    z1 = place(z1.astype(params.weights.dtype), sharding)
    forward = functools.partial(_anneal, num_temperatures=num_temperatures, reverse=False)
    return partition(forward, PartitionSpec(), key_chain, params, (c1, c2), z1)


def reverse_log_z(
    key: jax.Array,
    params: RBM,
    z1: jax.Array,
    *,
    num_temperatures: int = 1000,
    base: tuple[jax.Array, jax.Array] | None = None,
) -> LogZ:
    """Estimates log Z by annealing exact samples of the machine back to independent units.

    Args:
        key: typed PRNG key.
        params: RBM; no gradient flows.
        z1: [chains, n1] independent exact samples (`exact.sample`), at least 2; samples of an
            unconverged chain make the result neither a bound nor consistent.
        num_temperatures: as in `log_z`.
        base: as in `log_z`.

    Returns:
        LogZ; its value is, in the mean over keys, at least log Z.

    Raises:
        ValueError: if a number is too small, or sizes do not fit.
    """
    check_key(key)
    params = check_rbm(params)
    _check_base(params, base)
    num_temperatures = check_count("num_temperatures", num_temperatures)
    shape, num_units = np.shape(z1), params.bias1.shape[0]
    if len(shape) != 2 or shape[0] < 2 or shape[1] != num_units:
        raise ValueError(
            f"z1 must be [chains, {num_units}] with at least 2 chains, got shape {shape}"
        )
    return _reverse_log_z(key, params, as_float(z1), base, num_temperatures)


@functools.partial(jax.jit, static_argnums=4)
def _reverse_log_z(
    key: jax.Array, params: RBM, z1: jax.Array, base: Base, num_temperatures: int
) -> LogZ:
    params, z1, logits = jax.lax.stop_gradient((params, z1, _logits(params, base)))
    backward = functools.partial(_anneal, num_temperatures=num_temperatures, reverse=True)
    return partition(backward, PartitionSpec(), key, params, logits, z1)


def _check_base(params: RBM, base: Base) -> None:
    """Raises ValueError unless the base has the machine's units, and known logits are finite."""
    if base is None:
        return
    if len(base) != 2 or (np.shape(base[0]), np.shape(base[1])) != (
        params.bias1.shape,
        params.bias2.shape,
    ):
        raise ValueError(
            f"base must hold the logits of {params.weights.shape[0]} and "
            f"{params.weights.shape[1]} units, got shapes {[np.shape(c) for c in base]}"
        )
    for side, logits in enumerate(base, 1):
        check_finite(f"base of side {side}", logits)


def _logits(params: RBM, base: Base) -> tuple[jax.Array, jax.Array]:
    """Returns the logits of the independent units."""
    c1, c2 = centered_biases(params) if base is None else base
    return jnp.asarray(c1, dtype_of(params)), jnp.asarray(c2, dtype_of(params))


def _anneal(
    key: jax.Array,
    params: RBM,
    base: tuple[jax.Array, jax.Array],
    z1: jax.Array,
    *,
    num_temperatures: int,
    reverse: bool,
) -> LogZ:
    """Collects the weights along the schedule, from b = 0 to 1 or (reverse) from 1 to 0."""
    dtype = base[0].dtype
    c1, c2 = (c[None] for c in base)
    a1, a2 = (upcast(b).astype(dtype)[None] for b in params[:2])
    # Transposed once: CPUs have no fast bfloat16 product with a transposed operand.
    transposed = jax.lax.optimization_barrier(params.weights.T)
    schedule = jnp.linspace(0.0, 1.0, num_temperatures + 1, dtype=dtype)
    schedule = schedule[::-1] if reverse else schedule

    def move(chain: _Chain, step: tuple) -> tuple[_Chain, None]:
        index, before, after = step
        z1 = chain.z1
        fields = product(z1, params.weights)  # W^T z1
        old, new = ((1 - b) * c2 + b * (a2 + fields) for b in (before, after))
        left = (after - before) * (z1.astype(dtype) * (a1 - c1)).sum(-1)
        term = left + softplus_rise(old, new).sum(-1)  # the fall of the free energy
        # Kahan's sum: a thousand terms of order one would lose the third decimal in float32.
        term = term - chain.lost
        total = chain.log_weight + term
        lost = (total - chain.log_weight) - term
        key_2, key_1 = jax.random.split(jax.random.fold_in(key, index))
        z2 = draw(key_2, new).astype(z1.dtype)
        back = product(z2, transposed)
        z1 = draw(key_1, (1 - after) * c1 + after * (a1 + back)).astype(z1.dtype)
        return _Chain(z1, total, lost), None

    zeros = jnp.zeros(z1.shape[0], dtype)
    start = vary_like(_Chain(z1, zeros, zeros), key, params, base, z1)
    steps = (jnp.arange(num_temperatures), schedule[:-1], schedule[1:])
    chain = jax.lax.scan(move, start, steps)[0]
    log_base = jax.nn.softplus(base[0]).sum() + jax.nn.softplus(base[1]).sum()
    return estimate(chain.log_weight, sign=-1.0 if reverse else 1.0, log_base=log_base)
