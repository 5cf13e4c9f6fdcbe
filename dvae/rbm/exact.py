"""The RBM by enumeration of its smaller side: partition function, moments, exact samples.

Given one side the other is independent, so 2^min(n1, n2) free energies decide everything. They are
the reference for every sampler and estimator here.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dvae.distributions import bernoulli
from dvae.rbm.energy import RBM, check, free_energy_1, logits_2, transpose

MAX_UNITS = 20
_CHUNK = 1 << 12  # states evaluated at once: a million of them need not lie in memory with fields


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
    return jax.nn.logsumexp(-_free_energies(small))


def moments(params: RBM) -> Moments:
    """Evaluates E[z1], E[z2] and E[z1 z2^T], which are the gradient of log Z.

    Args:
        params: RBM with min(n1, n2) <= 20.

    Returns:
        Moments, each in [0, 1].

    Raises:
        ValueError: if both sides have more than 20 units.
    """
    return Moments(*jax.grad(log_z)(params))


def sample(key: jax.Array, params: RBM, num_samples: int) -> tuple[jax.Array, jax.Array]:
    """Draws independent samples: the smaller side from its marginal, then the other.

    Args:
        key: typed PRNG key.
        params: RBM with min(n1, n2) <= 20.
        num_samples: N.

    Returns:
        z1 [N, n1] and z2 [N, n2], exactly 0 or 1, in the dtype of the weights.

    Raises:
        ValueError: if both sides have more than 20 units.
    """
    small, exchanged = _small_side_first(params)
    key_index, key_other = jax.random.split(key)
    log_p = -jax.lax.stop_gradient(_free_energies(small))
    # By the inverse CDF: a Gumbel for each of a million states and each sample would not fit.
    cumulative = jnp.cumsum(jnp.exp(log_p - jax.nn.logsumexp(log_p)))
    u = jax.random.uniform(key_index, (num_samples,), cumulative.dtype)
    index = jnp.searchsorted(cumulative, u * cumulative[-1], side="right")
    z = _bits(jnp.minimum(index, len(log_p) - 1), small.bias1.shape[0], params.weights.dtype)
    other = bernoulli.sample(key_other, logits_2(small, z)).astype(params.weights.dtype)
    return (other, z) if exchanged else (z, other)


def _small_side_first(params: RBM) -> tuple[RBM, bool]:
    """Returns the machine with its smaller side on the left, and whether it was exchanged."""
    check(params)
    sizes = params.weights.shape
    if min(sizes) > MAX_UNITS:
        raise ValueError(
            f"enumeration takes machines whose smaller side has at most {MAX_UNITS} units, got "
            f"{sizes[0]} x {sizes[1]}; moments and samples of larger ones come from rbm.gibbs"
        )
    exchanged = sizes[0] > sizes[1]
    return (transpose(params) if exchanged else params), exchanged


def _bits(index: jax.Array, num_units: int, dtype: jnp.dtype) -> jax.Array:
    """Writes integers [...] as bits [..., n]."""
    shifts = jnp.broadcast_to(jnp.arange(num_units), (*index.shape, num_units))
    return ((index[..., None] >> shifts) & 1).astype(dtype)


def _free_energies(params: RBM) -> jax.Array:
    """Evaluates the free energies of all left states, [2^n1]."""
    num_units = params.bias1.shape[0]
    num_states = 1 << num_units
    chunk = min(_CHUNK, num_states)

    # Recomputed in the backward pass, which would otherwise keep every chunk's fields.
    @jax.checkpoint
    def of_chunk(params: RBM, start: jax.Array) -> jax.Array:
        z = _bits(start + jnp.arange(chunk), num_units, params.weights.dtype)
        return free_energy_1(params, z)

    starts = jnp.arange(0, num_states, chunk)
    return jax.lax.map(lambda start: of_chunk(params, start), starts).reshape(-1)
