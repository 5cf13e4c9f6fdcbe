"""Parallel tempering on graphs: replicas from independent units up to the machine exchange states.

    state = tempering.init(key, params, num_chains=1000, num_temperatures=10)
    state, info = tempering.step(key, params, state, num_sweeps=40)   # state.z
    state = tempering.adapt(state, info.swap_rates)                   # in burn-in or training

Replica t of every chain has an inverse temperature b_t, 0 = b_1 < ... < b_T = 1, and the law

    p_t(z) = e^{-E_t(z)} / Z_t,   E_t(z) = -(1 - b_t) c.z + b_t E(z),   c of `centered_bias`.

The last is the machine. The first is independent units of logits c, drawn afresh in every sweep;
by swaps between neighbors its draws travel to the machine. `rbm.tempering` says why c, and where it
fails: a unit with |c| above 10 has one value in the first replica, and modes with the other may
stay unknown. Chains given some units run on the machine of `condition`.

Source: Swendsen and Wang, "Replica Monte Carlo Simulation of Spin-Glasses" (1986).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from dvae._checks import check_count, check_key
from dvae._numerics import ArrayLike, as_float, partition, spec_of, vary_like
from dvae.boltzmann._machine import Machine, check_machine, check_units, widened
from dvae.boltzmann._path import Path, minus_free_energy, parts, path
from dvae.boltzmann._sweep import are_bits, are_finite, from_rows, mark, to_rows
from dvae.boltzmann.energy import centered_bias
from dvae.rbm import tempering
from dvae.rbm._bits import flip_rate
from dvae.rbm._replicas import check_ladder, swaps
from dvae.rbm.gibbs import draw
from dvae.rbm.tempering import TemperingInfo

__all__ = ["TemperingState", "adapt", "init", "step"]


class TemperingState(NamedTuple):
    """Chains with their replicas, bits in the dtype of the weights; z as in `gibbs.GibbsState`."""

    replicas: jax.Array  # [chains, T, n] bits, the machine's at T - 1
    betas: jax.Array  # [T] float32, from 0 to 1
    parity: jax.Array  # [] int32, 0 or 1: the lower replica of the first pair to swap next

    @property
    def z(self) -> jax.Array:
        """Bits [chains, n] of the machine itself."""
        return self.replicas[..., -1, :]


class _Totals(NamedTuple):
    """Sums over sweeps, of each chain and pair: [chains, T - 1], at least float32."""

    accepted: jax.Array  # of acceptance probabilities
    log_up: jax.Array  # log of the sum of e^{up / 2}
    log_down: jax.Array  # log of the sum of e^{down / 2}


def init(
    key: jax.Array,
    params: Machine,
    num_chains: int,
    *,
    num_temperatures: int = 10,
    betas: ArrayLike | None = None,
) -> TemperingState:
    """Starts all replicas from the independent units of logits c.

    Args:
        key: typed PRNG key.
        params: Machine.
        num_chains: at least 1.
        num_temperatures: T, at least 2; equally spaced.
        betas: [T] inverse temperatures in place of equally spaced ones, increasing from 0 to 1.

    Returns:
        TemperingState.

    Raises:
        ValueError: if a number is too small, betas are no ladder, or sizes do not fit.
    """
    params = check_machine(params)
    num_chains = check_count("num_chains", num_chains)
    num_temperatures = check_count(
        "num_temperatures", num_temperatures, minimum=2, why="boltzmann.gibbs needs one"
    )
    if betas is None:
        betas = np.linspace(0.0, 1.0, num_temperatures)
    check_ladder(betas)
    ladder = jnp.asarray(betas, jnp.float32)
    base = centered_bias(jax.lax.stop_gradient(params))
    bits = draw(key, jnp.broadcast_to(base, (num_chains, *ladder.shape, *base.shape)))
    return TemperingState(bits.astype(params.weights.dtype), ladder, jnp.zeros((), jnp.int32))


def step(
    key: jax.Array, params: Machine, state: TemperingState, *, num_sweeps: int = 1
) -> tuple[TemperingState, TemperingInfo]:
    """Runs sweeps: swaps of neighbors, then a Gibbs sweep over all colors in each replica.

    A swap of replicas t and t + 1 is accepted with probability min(1, e^{up_t + down_t}), where

        up_t = F_t(x) - F_{t+1}(x),     down_t = F_{t+1}(y) - F_t(y),

    x and y are the states of replica t and of replica t + 1, and F_t is the free energy with the
    units of the first color, which are drawn next in any case, summed out. Even and odd pairs take
    turns from sweep to sweep. The laws p_t stay invariant, up to the resolution of
    `rbm.gibbs.draw`. No gradient flows. info.log_z is that of `rbm.tempering.step`: a metric for
    training, of which the mean is no bound.

    Args:
        key: typed PRNG key.
        params: Machine.
        state: TemperingState of any number of chains.
        num_sweeps: at least 1; static.

    Returns:
        TemperingState and `rbm.tempering.TemperingInfo`; NaN, as in `gibbs.step`, where a parameter
        or a bit is.

    Raises:
        ValueError: if num_sweeps < 1, the sizes of parameters and state do not fit, or there is no
            chain.
    """
    check_key(key)
    params = check_machine(params)
    num_sweeps = check_count("num_sweeps", num_sweeps)
    shapes = np.shape(state.replicas), np.shape(state.betas)
    if len(shapes[0]) != 3 or shapes[0][0] < 1 or shapes[1] != shapes[0][1:2]:
        raise ValueError(
            "the state must have replicas [chains, T, n], at least 1 chain, and betas [T], got "
            f"shapes {shapes[0]} and {shapes[1]}: start chains with init"
        )
    check_units(params.graph, state.replicas, "replicas")
    state = jax.tree.map(jnp.asarray, state)
    return _step(key, params, state._replace(replicas=as_float(state.replicas)), num_sweeps)


@functools.partial(jax.jit, static_argnums=3)
def _step(
    key: jax.Array, params: Machine, state: TemperingState, num_sweeps: int
) -> tuple[TemperingState, TemperingInfo]:
    specs = jax.tree.map(spec_of, state), PartitionSpec()
    return partition(functools.partial(_sweeps, num_sweeps), specs, key, params, state)


def _sweeps(
    num_sweeps: int, key: jax.Array, params: Machine, state: TemperingState
) -> tuple[TemperingState, TemperingInfo]:
    params, state = jax.lax.stop_gradient((widened(params), state))
    way = path(params)
    dtype = params.bias.dtype
    betas = state.betas.astype(dtype)
    num_chains, num_temperatures, _ = state.replicas.shape

    def sweep(i: jax.Array, carry: tuple) -> tuple[jax.Array, jax.Array, _Totals]:
        z, parity, totals = carry
        key_swap, key_sweep = jax.random.split(jax.random.fold_in(key, i))
        up, down = _log_weights(way, betas, z)
        acceptance = jnp.exp(jnp.minimum(up + down, 0.0))  # the minimum keeps e^x from overflow
        totals = _Totals(
            totals.accepted + acceptance,
            jnp.logaddexp(totals.log_up, up / 2),
            jnp.logaddexp(totals.log_down, down / 2),
        )
        z = _exchange(swaps(key_swap, acceptance, parity), z)
        return way.sweeper.sweep(key_sweep, z, betas), 1 - parity, totals

    zeros = jnp.zeros((num_chains, num_temperatures - 1), dtype)
    totals = _Totals(zeros, zeros - jnp.inf, zeros - jnp.inf)
    z, totals = vary_like((to_rows(way.plan, state.replicas), totals), key, params, state)
    z, parity, totals = jax.lax.fori_loop(0, num_sweeps, sweep, (z, state.parity, totals))

    known = are_finite(params)
    valid = are_bits(state.replicas) & known
    bits = mark(from_rows(way.plan, z, state.replicas.dtype), valid)
    after = state._replace(replicas=bits, parity=parity)
    log_ratios = jax.nn.logsumexp(totals.log_up, 0) - jax.nn.logsumexp(totals.log_down, 0)
    info = TemperingInfo(
        swap_rates=jnp.mean(totals.accepted, 0) / num_sweeps,
        flips=flip_rate((state.z,), (after.z,)),
        log_z=jnp.where(jnp.all(valid), way.log_z + log_ratios.sum(), jnp.nan),
    )
    return after, info


def _log_weights(way: Path, betas: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Evaluates `up` and `down`, [chains, T - 1], of z [n + 1, chains, T]."""
    found = parts(way, z)
    lower, upper = (
        found._replace(others=found.others[..., cut], logits=found.logits[..., cut])
        for cut in (slice(None, -1), slice(1, None))
    )
    own = minus_free_energy(found, betas)
    up = minus_free_energy(lower, betas[1:]) - own[..., :-1]
    down = minus_free_energy(upper, betas[:-1]) - own[..., 1:]
    return up, down


def _exchange(swaps: jax.Array, z: jax.Array) -> jax.Array:
    """Exchanges the entries t and t + 1 of z [n + 1, chains, T] where swaps [chains, t] says so."""
    with_next = jnp.pad(swaps, ((0, 0), (0, 1)))[None]
    with_last = jnp.pad(swaps, ((0, 0), (1, 0)))[None]
    z_next, z_last = jnp.roll(z, -1, axis=-1), jnp.roll(z, 1, axis=-1)
    return jnp.where(with_next, z_next, jnp.where(with_last, z_last, z))


def adapt(
    state: TemperingState, swap_rates: ArrayLike, *, rate: float | jax.Array = 0.5
) -> TemperingState:
    """Moves the ladder toward equal rejection rates, as `rbm.tempering.adapt` does.

    Args:
        state: TemperingState.
        swap_rates: [T - 1] in [0, 1], as `step` reports them, of many chains or sweeps.
        rate: in (0, 1], the share of the new ladder that is the equalizing one.

    Returns:
        TemperingState of the same replicas; betas still increase from exactly 0 to exactly 1.

    Raises:
        ValueError: if the sizes do not fit, or rate is outside (0, 1].
    """
    ladder = tempering.TemperingState(state.replicas, state.replicas, state.betas, state.parity)
    moved = tempering.adapt(ladder, jnp.asarray(swap_rates), rate=rate)
    return state._replace(betas=moved.betas)
