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

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from dvae.rbm.energy import RBM, centered_biases, check
from dvae.rbm.gibbs import draw


class LogZ(NamedTuple):
    """An estimate of log Z."""

    value: jax.Array  # [] nats
    std_error: jax.Array  # [] nats, of the log of the mean weight (delta method)
    ess: jax.Array  # [] (sum w)^2 / sum w^2, in [1, chains]; near 1 neither number can be trusted


class _Chain(NamedTuple):
    """What the annealing carries: a bit vector and a compensated sum for each chain."""

    z1: jax.Array  # [chains, n1]
    log_weight: jax.Array  # [chains] float32
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
    base = _check(params, base, num_temperatures)
    if num_chains < 2:
        raise ValueError(f"num_chains must be at least 2 for a standard error, got {num_chains}")
    params = jax.lax.stop_gradient(params)
    key_start, key_chain = jax.random.split(key)
    start = jnp.broadcast_to(base[0], (num_chains, base[0].shape[0]))
    z1 = draw(key_start, start).astype(params.weights.dtype)
    if sharding is not None:
        z1 = jax.lax.with_sharding_constraint(z1, sharding)
    chain = _anneal(key_chain, params, base, z1, num_temperatures, reverse=False)
    return _estimate(chain.log_weight, sign=1.0, log_base=_log_z_of_independent(base))


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
    base = _check(params, base, num_temperatures)
    if z1.ndim != 2 or z1.shape[0] < 2 or z1.shape[1] != params.bias1.shape[0]:
        raise ValueError(
            f"z1 must be [chains, {params.bias1.shape[0]}] with at least 2 chains, got {z1.shape}"
        )
    params = jax.lax.stop_gradient(params)
    chain = _anneal(key, params, base, z1, num_temperatures, reverse=True)
    return _estimate(chain.log_weight, sign=-1.0, log_base=_log_z_of_independent(base))


def _check(
    params: RBM, base: tuple[jax.Array, jax.Array] | None, num_temperatures: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the base's logits, in float32 and without gradient."""
    check(params)
    if num_temperatures < 1:
        raise ValueError(f"num_temperatures must be at least 1, got {num_temperatures}")
    chosen = centered_biases(params) if base is None else base
    if (chosen[0].shape, chosen[1].shape) != (params.bias1.shape, params.bias2.shape):
        raise ValueError(
            f"base must hold the logits of {params.weights.shape[0]} and "
            f"{params.weights.shape[1]} units, got shapes {chosen[0].shape} and {chosen[1].shape}"
        )
    c1, c2 = (jax.lax.stop_gradient(jnp.asarray(c, jnp.float32)) for c in chosen)
    return c1, c2


def _anneal(
    key: jax.Array,
    params: RBM,
    base: tuple[jax.Array, jax.Array],
    z1: jax.Array,
    num_temperatures: int,
    *,
    reverse: bool,
) -> _Chain:
    """Collects the weights along the schedule, from b = 0 to 1 or (reverse) from 1 to 0."""
    c1, c2 = (c[None] for c in base)
    a1, a2 = (jnp.asarray(b, jnp.float32)[None] for b in params[:2])
    # Transposed once: CPUs have no fast bfloat16 product with a transposed operand.
    transposed = jax.lax.optimization_barrier(params.weights.T)
    schedule = jnp.linspace(0.0, 1.0, num_temperatures + 1, dtype=jnp.float32)
    schedule = schedule[::-1] if reverse else schedule

    def move(chain: _Chain, step: tuple) -> tuple[_Chain, None]:
        index, before, after = step
        z1 = chain.z1
        fields = jnp.matmul(z1, params.weights, preferred_element_type=jnp.float32)  # W^T z1
        # The fall of the free energy, softplus(l') - softplus(l) by one logarithm: half its cost.
        old, new = ((1 - b) * c2 + b * (a2 + fields) for b in (before, after))
        ratio = (1 + jnp.exp(-jnp.abs(new))) / (1 + jnp.exp(-jnp.abs(old)))
        right = (jnp.maximum(new, 0) - jnp.maximum(old, 0) + jnp.log(ratio)).sum(-1)
        term = (after - before) * (z1.astype(jnp.float32) * (a1 - c1)).sum(-1) + right
        # Kahan's sum: a thousand terms of order one would lose the third decimal in float32.
        term = term - chain.lost
        total = chain.log_weight + term
        lost = (total - chain.log_weight) - term
        key_2, key_1 = jax.random.split(jax.random.fold_in(key, index))
        z2 = draw(key_2, new).astype(z1.dtype)
        back = jnp.matmul(z2, transposed, preferred_element_type=jnp.float32)
        z1 = draw(key_1, (1 - after) * c1 + after * (a1 + back)).astype(z1.dtype)
        return _Chain(z1, total, lost), None

    zeros = jnp.zeros(z1.shape[0], jnp.float32)
    steps = (jnp.arange(num_temperatures), schedule[:-1], schedule[1:])
    return jax.lax.scan(move, _Chain(z1, zeros, zeros), steps)[0]


def _log_z_of_independent(base: tuple[jax.Array, jax.Array]) -> jax.Array:
    return jax.nn.softplus(base[0]).sum() + jax.nn.softplus(base[1]).sum()


def _estimate(log_weights: jax.Array, *, sign: float, log_base: jax.Array) -> LogZ:
    """Turns weights, whose mean is (Z / Z_base)^sign, into log Z and its error."""
    num_chains = log_weights.shape[0]
    relative = jnp.exp(log_weights - jnp.max(log_weights))
    mean = jnp.mean(relative)
    log_mean = jnp.max(log_weights) + jnp.log(mean)
    std_error = jnp.std(relative, ddof=1) / (mean * np.float32(np.sqrt(num_chains)))
    ess = jnp.sum(relative) ** 2 / jnp.sum(relative**2)
    return LogZ(log_base + sign * log_mean, std_error, ess)
