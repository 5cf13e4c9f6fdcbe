"""The RBM by enumeration of its smaller side: partition function, moments, exact samples.

Given one side the other is independent, so 2^min(n1, n2) free energies decide everything. They are
the reference for every sampler and estimator here.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dvae._checks import check_count, check_key
from dvae._numerics import open_uniform
from dvae.rbm._bits import from_noise
from dvae.rbm._enumeration import MAX_UNITS, log_sum, over_states
from dvae.rbm._rbm import RBM, check_rbm, transpose
from dvae.rbm.energy import free_energy_1, logits_2
from dvae.rbm.gibbs import draw

__all__ = ["Moments", "log_z", "moments", "sample"]


class Moments(NamedTuple):
    """Expectations under the machine, in the dtypes of the parameters."""

    z1: jax.Array  # [n1] E[z1]
    z2: jax.Array  # [n2] E[z2]
    z1_z2: jax.Array  # [n1, n2] E[z1 z2^T]


def log_z(params: RBM) -> jax.Array:
    """Evaluates log Z = log sum_{z1, z2} e^{-E(z1, z2)}; differentiable.

    Args:
        params: RBM with min(n1, n2) <= 20.

    Returns:
        [] nats.

    Raises:
        ValueError: if both sides have more than 20 units.
    """
    small, _ = _small_side_first(params)
    return _log_z(small)


def moments(params: RBM) -> Moments:
    """Evaluates E[z1], E[z2] and E[z1 z2^T], which are the gradient of log Z.

    Args:
        params: RBM with min(n1, n2) <= 20.

    Returns:
        Moments, each in [0, 1].

    Raises:
        ValueError: if both sides have more than 20 units.
    """
    small, exchanged = _small_side_first(params)
    found = _moments(small)
    return Moments(*(transpose(found) if exchanged else found))


def sample(key: jax.Array, params: RBM, num_samples: int) -> tuple[jax.Array, jax.Array]:
    """Draws independent samples: the smaller side from its marginal, then the other.

    No gradient flows.

    Args:
        key: typed PRNG key.
        params: RBM with min(n1, n2) <= 20.
        num_samples: N; static.

    Returns:
        z1 [N, n1] and z2 [N, n2], exactly 0 or 1, in the dtype of the weights.

    Raises:
        ValueError: if both sides have more than 20 units, or num_samples < 0.
    """
    check_key(key)
    small, exchanged = _small_side_first(params)
    num_samples = check_count("num_samples", num_samples, minimum=0)
    z, other = _sample(key, small, num_samples)
    return (other, z) if exchanged else (z, other)


def _small_side_first(params: RBM) -> tuple[RBM, bool]:
    """Returns the machine with its smaller side on the left, and whether it was exchanged."""
    params = check_rbm(params)
    sizes = params.weights.shape
    if min(sizes) > MAX_UNITS:
        raise ValueError(
            f"enumeration takes machines whose smaller side has at most {MAX_UNITS} units, got "
            f"{sizes[0]} x {sizes[1]}; of larger ones log Z comes from rbm.ais, moments and "
            "samples from rbm.gibbs"
        )
    exchanged = sizes[0] > sizes[1]
    return (transpose(params) if exchanged else params), exchanged


def _log_weights(params: RBM) -> jax.Array:
    """Evaluates the negative free energies of all left states, [chunks, states]."""
    of_states = lambda params, z: -free_energy_1(params, z)
    return over_states(of_states, params, params.bias1.shape[0], params.weights.dtype)


@jax.jit
def _log_z(params: RBM) -> jax.Array:
    return log_sum(_log_weights(params))


_moments = jax.jit(jax.grad(_log_z))


@functools.partial(jax.jit, static_argnums=2)
def _sample(key: jax.Array, params: RBM, num_samples: int) -> tuple[jax.Array, jax.Array]:
    """Draws the left side from its marginal, then the right one."""
    key_left, key_right = jax.random.split(key)
    params = jax.lax.stop_gradient(params)
    dtype = params.weights.dtype
    noise = open_uniform(key_left, (params.bias1.shape[0], num_samples))
    z1 = _descend(noise, _log_weights(params).ravel()).astype(dtype)
    return z1, draw(key_right, logits_2(params, z1)).astype(dtype)


def _descend(noise: jax.Array, log_weights: jax.Array) -> jax.Array:
    """Draws states bit by bit, each given those before it.

    The inverse CDF of all states at once is biased: in float32 a million cumulated probabilities,
    and the noise that they are compared with, have about eight values a state.

    Args:
        noise: [n, N] uniforms.
        log_weights: [2^n] of the states in the order of `_enumeration.bits`.

    Returns:
        [N, n] bits.
    """
    # sums[k] holds the log-sums over all states that agree in their k highest bits.
    sums = [log_weights - log_weights.max()]
    while len(sums[0]) > 1:
        sums.insert(0, jnp.logaddexp(sums[0][0::2], sums[0][1::2]))
    highest_first: list[jax.Array] = []
    prefix = jnp.zeros(noise.shape[1], jnp.int32)
    for u, children in zip(noise, sums[1:], strict=True):
        bit = from_noise(u, children[2 * prefix + 1] - children[2 * prefix])
        highest_first.append(bit)
        prefix = 2 * prefix + (bit > 0).astype(jnp.int32)
    return jnp.stack(highest_first[::-1], axis=-1)
