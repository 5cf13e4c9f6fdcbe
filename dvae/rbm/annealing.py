"""Population annealing of RBMs: weighted chains that are resampled, and log Z as a by-product.

    state, info = annealing.anneal(key, params, num_chains=1000)      # info.log_z, info.std_error
    state, info = annealing.step(key, params, state, num_sweeps=40)   # after params have changed

A population of R chains with weights w_i of mean 1 stands for the machine it was last moved to:
mean_i w_i f(z_i) estimates E[f(z)]. When the machine changes, from E to E', every chain is
reweighted, and the mean of the new weights estimates Z' / Z:

    w_i' = w_i e^{F(z2_i) - F'(z2_i)},    log Z' = log Z + log mean_i w_i',    w_i <- w_i' / mean w'

with F(z2) = -log sum_{z1} e^{-E(z1, z2)}. Summing z1 out is right because the sweep that follows
redraws z1 from z2 before it reads it, so only z2 has to have the law p'(z2), which is proportional
to e^{-F'(z2)}; and it is better than the ratio of the joint laws, of which it is the mean given z2:
the weights vary less. Then the chains are swept under the new machine, after resampling if the
effective sample size of the weights is below R/2: more often gains little in log Z, and ends
families, which its error is read from. Up to the resolution of `gibbs.draw`, the mean of e^{log_z}
over keys is Z at any number of chains and sweeps, if the machines do not depend on the chains.

`anneal` moves in this way from independent units to the machine, along

    E_b(z) = -c1.z1 - c2.z2 - b (z1 - 1/2)^T W (z2 - 1/2),    b from 0 to 1,

(c of `centered_biases`; at b = 1 the machine, up to a constant that the biases below do not have;
modes that neither the independent units nor sweeps on the way reach stay unknown, and no number
here shows it),

and `step` moves from the machine of the last update to that of the present one, which makes the
population the negative phase of training. Where equal weights are needed:

    index = annealing.systematic_resample(key, state.log_weights)
    z1, z2 = state.z1[index], state.z2[index]

Hukushima and Iba, "Population Annealing and Its Application to a Spin Glass" (2003); Del Moral,
Doucet and Jasra, "Sequential Monte Carlo Samplers" (2006), for resampling by need; Wang, Machta and
Katzgraber, "Population annealing: Theory and application in spin glasses" (2015), for families; Lee
and Whiteley, "Variance estimation in the particle filter" (2018), for the error read from them.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from dvae._checks import check_count, check_key
from dvae._numerics import as_float, partition, softplus_rise, spec_of, upcast, vary_like
from dvae.rbm import gibbs
from dvae.rbm._bits import flip_rate
from dvae.rbm._checks import check_chains
from dvae.rbm._population import AnnealingInfo, Weights, comb, move, report, start
from dvae.rbm._rbm import RBM, check_rbm, dtype_of, product
from dvae.rbm.energy import centered_biases, logits_1
from dvae.rbm.gibbs import draw

__all__ = ["AnnealingInfo", "AnnealingState", "anneal", "init", "step", "systematic_resample"]


class _Fielded(NamedTuple):
    """Chains with what the left side sees of the right one, which weights and sweeps both need."""

    z1: jax.Array  # [chains, n1]
    z2: jax.Array  # [chains, n2]
    fields: jax.Array  # [chains, n1] W z2


_Carry = tuple[_Fielded, Weights]


class AnnealingState(NamedTuple):
    """A population and the machine that it stands for: arrays only, to be kept in checkpoints."""

    z1: jax.Array  # [chains, n1] bits, in the dtype of the weights
    z2: jax.Array  # [chains, n2] bits
    log_weights: jax.Array  # [chains] at least float32; the weights have mean 1
    log_z: jax.Array  # [] nats
    lost: jax.Array  # [] what rounding has taken from log_z so far
    family: jax.Array  # [chains] int32, which of the chains of `init` this one descends from
    params: RBM  # the machine


def init(
    key: jax.Array,
    params: RBM,
    num_chains: int,
    *,
    num_temperatures: int = 1000,
    num_sweeps: int = 1,
) -> AnnealingState:
    """Starts a population from independent units, annealed to the machine as `anneal` does it.

    Args:
        key: typed PRNG key.
        params: RBM; no gradient flows.
        num_chains: R, at least 2.
        num_temperatures: moves from b = 0 to b = 1, at least 1, equally spaced.
        num_sweeps: Gibbs sweeps at each temperature, at least 1.

    Returns:
        AnnealingState of R chains.

    Raises:
        ValueError: if a number is too small, or the sizes of the parameters do not fit.
    """
    return anneal(
        key, params, num_chains, num_temperatures=num_temperatures, num_sweeps=num_sweeps
    )[0]


def anneal(
    key: jax.Array,
    params: RBM,
    num_chains: int,
    *,
    num_temperatures: int = 1000,
    num_sweeps: int = 1,
) -> tuple[AnnealingState, AnnealingInfo]:
    """Anneals a population from exact draws of the independent units to the machine.

    Args:
        key: typed PRNG key.
        params: RBM; no gradient flows.
        num_chains: R, at least 2.
        num_temperatures: moves from b = 0 to b = 1, at least 1, equally spaced.
        num_sweeps: Gibbs sweeps in each move, at least 1; for the same number in total, more
            temperatures of one sweep each give the better log Z.

    Returns:
        AnnealingState, and AnnealingInfo of the last move, except that ess is the least of all
        moves, and resampled the fraction of the moves that did.

    Raises:
        ValueError: if a number is too small, or the sizes of the parameters do not fit.
    """
    check_key(key)
    params = check_rbm(params)
    num_sweeps = check_count("num_sweeps", num_sweeps)
    num_chains = check_count(
        "num_chains", num_chains, minimum=2, why="weights are relative to each other"
    )
    num_temperatures = check_count("num_temperatures", num_temperatures)
    return _anneal(key, params, num_chains, num_temperatures, num_sweeps)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _anneal(
    key: jax.Array, params: RBM, num_chains: int, num_temperatures: int, num_sweeps: int
) -> tuple[AnnealingState, AnnealingInfo]:
    key_start, key_move = jax.random.split(key)
    params = jax.lax.stop_gradient(params)
    dtype = dtype_of(params)
    base = centered_biases(params)
    (c1, c2), (a1, a2) = ([upcast(b).astype(dtype)[None] for b in x] for x in (base, params[:2]))
    # Transposed once: CPUs have no fast bfloat16 product with a transposed operand.
    transposed = jax.lax.optimization_barrier(params.weights.T)
    z1, z2 = gibbs.init(key_start, params._replace(bias1=base[0], bias2=base[1]), num_chains)
    weights = start(jax.nn.softplus(c1).sum() + jax.nn.softplus(c2).sum(), num_chains)

    def move_to(carry: _Carry, index: jax.Array) -> tuple[_Carry, AnnealingInfo]:
        chains, weights = carry
        before, after = ((index + i).astype(dtype) / num_temperatures for i in (0, 1))
        bias1, bias2 = c1 + after * (a1 - c1), c2 + after * (a2 - c2)

        def sweep(i: jax.Array, chains: _Fielded, key: jax.Array) -> _Fielded:
            key_1, key_2 = jax.random.split(jax.random.fold_in(key, i))
            z1 = draw(key_1, bias1 + after * chains.fields).astype(chains.z1.dtype)
            logits = bias2 + after * product(z1, params.weights)
            z2 = draw(key_2, logits).astype(chains.z2.dtype)
            return _Fielded(z1, z2, product(z2, transposed))

        def sweeps(key: jax.Array, chains: _Fielded) -> tuple[_Fielded, jax.Array]:
            swept = jax.lax.fori_loop(0, num_sweeps, functools.partial(sweep, key=key), chains)
            return swept, flip_rate(chains[:2], swept[:2])

        # F(z2) - F'(z2), unit by unit: the free energies are far larger. Of the right biases, c2.z2
        # is common to both, and (a2 - c2).z2 is -sum (W z2) / 2.
        old, new = (c1 + b * (a1 - c1 + chains.fields) for b in (before, after))
        ratio = (softplus_rise(old, new) - (after - before) / 2 * chains.fields).sum(-1)
        key = jax.random.fold_in(key_move, index)
        chains, weights, info = move(key, weights, ratio, chains, sweeps)
        return (chains, weights), info

    chains = _Fielded(z1, z2, product(z2, transposed))
    carry: _Carry = vary_like((chains, weights), key, params)
    (chains, weights), infos = jax.lax.scan(move_to, carry, jnp.arange(num_temperatures))
    return AnnealingState(chains.z1, chains.z2, *weights, params), report(infos)


def step(
    key: jax.Array, params: RBM, state: AnnealingState, *, num_sweeps: int = 1
) -> tuple[AnnealingState, AnnealingInfo]:
    """Moves the population to a machine near its own.

    log Z is carried along: each move adds an error of its own and takes none away, so that log_z
    does a random walk about the truth, to which weights and sweeps do not pull it back. Its error
    grows with the number of moves; std_error follows it until few families are left and then
    stays at 1. `init` again, once in a while or when effective_families is small, brings it back;
    the chains themselves remain good samples. No gradient flows.

    Args:
        key: typed PRNG key.
        params: RBM, the new machine.
        state: AnnealingState of at least 2 chains.
        num_sweeps: at least 1; static.

    Returns:
        AnnealingState and AnnealingInfo.

    Raises:
        ValueError: if num_sweeps < 1, the sizes of parameters and state do not fit, or there are
            fewer than 2 chains.
    """
    check_key(key)
    params = check_rbm(params)
    num_sweeps = check_count("num_sweeps", num_sweeps)
    check_chains(params.weights.shape, state.z1, state.z2, minimum=2)
    shape = np.shape(state.z1)
    if len(shape) != 2 or not shape[:1] == np.shape(state.log_weights) == np.shape(state.family):
        raise ValueError(
            "z1 [chains, n1], log_weights [chains] and family [chains] do not fit each other: "
            f"shapes {shape}, {np.shape(state.log_weights)}, {np.shape(state.family)}"
        )
    bits = {"z1": as_float(state.z1), "z2": as_float(state.z2)}
    return _step(key, params, jax.tree.map(jnp.asarray, state)._replace(**bits), num_sweeps)


@functools.partial(jax.jit, static_argnums=3)
def _step(
    key: jax.Array, params: RBM, state: AnnealingState, num_sweeps: int
) -> tuple[AnnealingState, AnnealingInfo]:
    params, state = jax.lax.stop_gradient((params, state))
    specs = jax.tree.map(spec_of, state), PartitionSpec()
    return partition(functools.partial(_move, num_sweeps), specs, key, params, state)


def systematic_resample(key: jax.Array, log_weights: jax.Array) -> jax.Array:
    """Draws R indices of R weights by a comb of R teeth with one random offset.

    Index i comes floor(R s_i) or ceil(R s_i) times, and R s_i times in the mean, s the weights
    divided by their sum. Carpenter, Clifford and Fearnhead, "Improved Particle Filter for Nonlinear
    Problems" (1999).

    Args:
        key: typed PRNG key.
        log_weights: [R] float, nats, up to a common constant; -inf is a weight of 0.

    Returns:
        [R] int32, ascending; all R, which is no index, if a weight is NaN or all are 0.

    Raises:
        ValueError: if log_weights is not [R] with R at least 1.
    """
    check_key(key)
    if len(np.shape(log_weights)) != 1 or np.size(log_weights) < 1:
        raise ValueError(
            f"log_weights must be [R] with at least 1 weight, got shape {np.shape(log_weights)}"
        )
    log_weights = upcast(log_weights)
    offset = jax.random.uniform(key, (), jnp.float32)
    return partition(comb, PartitionSpec(), offset, log_weights)


def _move(
    num_sweeps: int, key: jax.Array, params: RBM, state: AnnealingState
) -> tuple[AnnealingState, AnnealingInfo]:
    def sweep(key: jax.Array, chains: gibbs.GibbsState) -> tuple[gibbs.GibbsState, jax.Array]:
        after, swept = gibbs.step(key, params, chains, num_sweeps=num_sweeps)
        return after, swept.flips

    ratio = _log_ratio(state.params, params, state.z2)
    weights = Weights(state.log_weights, state.log_z, state.lost, state.family)
    chains = gibbs.GibbsState(state.z1, state.z2)
    chains, weights, info = move(key, weights, ratio, chains, sweep)
    return AnnealingState(*chains, *weights, params), info


def _log_ratio(old: RBM, new: RBM, z2: jax.Array) -> jax.Array:
    """Evaluates F_old(z2) - F_new(z2), unit by unit: the free energies are far larger."""
    right = product(upcast(z2), upcast(new.bias2) - upcast(old.bias2))
    return right + softplus_rise(logits_1(old, z2), logits_1(new, z2)).sum(-1)
