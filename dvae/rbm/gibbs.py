"""Block Gibbs sampling of RBMs, many chains at once: each side given the other, in turn.

    state = gibbs.init(key, params, num_chains=1000)
    state, info = gibbs.step(key, params, state, num_sweeps=40)       # state.z1, state.z2

Keeping the state from one update of the parameters to the next is persistent contrastive
divergence (Tieleman, "Training Restricted Boltzmann Machines using Approximations to the
Likelihood Gradient", 2008).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from dvae._checks import check_count, check_key
from dvae._numerics import as_float, open_uniform, partition, spec_of, vary_like
from dvae.rbm._bits import flip_rate, from_noise
from dvae.rbm._checks import check_chains, check_state
from dvae.rbm._rbm import RBM, check_rbm, transpose
from dvae.rbm.energy import logits_2

__all__ = ["GibbsInfo", "GibbsState", "draw", "init", "step"]


class GibbsState(NamedTuple):
    """Chains, in the dtype of the weights."""

    z1: jax.Array  # [chains, n1] bits
    z2: jax.Array  # [chains, n2] bits


class GibbsInfo(NamedTuple):
    """What a step did."""

    flips: jax.Array  # [] fraction of all bits that differ from those before the step


def init(key: jax.Array, params: RBM, num_chains: int) -> GibbsState:
    """Starts chains from the machine without interactions: bits with the logits of the biases.

    Args:
        key: typed PRNG key.
        params: RBM.
        num_chains: at least 1.

    Returns:
        GibbsState.

    Raises:
        ValueError: if num_chains < 1, or the sizes of the parameters do not fit.
    """
    check_key(key)
    params = check_rbm(params)
    num_chains = check_count("num_chains", num_chains)
    dtype = params.weights.dtype
    biases = (
        jnp.broadcast_to(bias, (num_chains, bias.shape[0])) for bias in (params.bias1, params.bias2)
    )
    keys = jax.random.split(key)
    return GibbsState(*(draw(k, b).astype(dtype) for k, b in zip(keys, biases, strict=True)))


def step(
    key: jax.Array, params: RBM, state: GibbsState, *, num_sweeps: int = 1
) -> tuple[GibbsState, GibbsInfo]:
    """Runs sweeps, each z1 ~ p(z1 | z2) and then z2 ~ p(z2 | z1), in every chain.

    Leaves p(z1, z2) invariant. No gradient flows. Where a parameter or a bit is NaN, so are the
    bits that depend on it, and flips.

    Args:
        key: typed PRNG key.
        params: RBM.
        state: GibbsState of any number of chains.
        num_sweeps: at least 1; static.

    Returns:
        GibbsState and GibbsInfo.

    Raises:
        ValueError: if num_sweeps < 1 or traced, the sizes of parameters and state do not fit, the
            state is an array, or there is no chain.
    """
    check_key(key)
    params = check_rbm(params)
    check_state(state)
    check_chains(params.weights.shape, *state)
    num_sweeps = check_count("num_sweeps", num_sweeps)
    return _step(key, params, GibbsState(*map(as_float, state)), num_sweeps)


@functools.partial(jax.jit, static_argnums=3)
def _step(
    key: jax.Array, params: RBM, state: GibbsState, num_sweeps: int
) -> tuple[GibbsState, GibbsInfo]:
    specs = jax.tree.map(spec_of, state), PartitionSpec()
    return partition(functools.partial(_sweeps, num_sweeps), specs, key, params, state)


def _sweeps(
    num_sweeps: int, key: jax.Array, params: RBM, state: GibbsState
) -> tuple[GibbsState, GibbsInfo]:
    params, state = jax.lax.stop_gradient((params, state))
    # Transposed once: CPUs have no fast bfloat16 product with a transposed operand.
    flipped = jax.lax.optimization_barrier(transpose(params))

    def sweep(i: jax.Array, state: GibbsState) -> GibbsState:
        key_1, key_2 = jax.random.split(jax.random.fold_in(key, i))
        z1 = draw(key_1, logits_2(flipped, state.z2)).astype(state.z1.dtype)
        z2 = draw(key_2, logits_2(params, z1)).astype(state.z2.dtype)
        return GibbsState(z1, z2)

    start = vary_like(state, key, params, state)
    after = jax.lax.fori_loop(0, num_sweeps, sweep, start)
    return after, GibbsInfo(flip_rate(state, after))


def draw(key: jax.Array, logits: jax.Array) -> jax.Array:
    """Draws bits with the given logits: 1[u < sigmoid(l)], u uniform in (0, 1).

    Args:
        key: typed PRNG key.
        logits: [...] float.

    Returns:
        [...] 0 or 1, in the dtype of the logits; NaN where the logit is.
    """
    return from_noise(open_uniform(key, jnp.shape(logits)), logits)
