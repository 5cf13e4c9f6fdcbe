"""Functions of all states of a few units: chunk by chunk, so that a million need little memory."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

MAX_UNITS = 20
_CHUNK = 1 << 12  # states evaluated at once
_Params = TypeVar("_Params")


def bits(index: jax.Array, num_units: int, dtype: jnp.dtype) -> jax.Array:
    """Writes integers [...] as bits [..., n], the lowest first."""
    shifts = jnp.arange(num_units, dtype=index.dtype)
    shifts = jnp.broadcast_to(shifts, (*index.shape, num_units))
    return ((index[..., None] >> shifts) & 1).astype(dtype)


def over_states(
    f: Callable[[_Params, jax.Array], jax.Array], params: _Params, num_units: int, dtype: jnp.dtype
) -> jax.Array:
    """Evaluates f(params, z), z [states, n] to [states], at all states in the order of `bits`.

    To be called in a jitted function: the loop would be compiled at every call.

    Returns:
        [chunks, states] of f.
    """
    chunk = min(_CHUNK, 1 << num_units)

    # Recomputed in the backward pass, which would otherwise keep every chunk's fields.
    @jax.checkpoint
    def of_chunk(params: _Params, start: jax.Array) -> jax.Array:
        return f(params, bits(start + jnp.arange(chunk), num_units, dtype))

    starts = jnp.arange(0, 1 << num_units, chunk)
    return jax.lax.map(lambda start: of_chunk(params, start), starts)


def log_sum(log_terms: jax.Array) -> jax.Array:
    """Evaluates the log of the sum of e^x over [chunks, states].

    Chunk by chunk: a million terms added one by one would cost float32 its last digits.
    """
    return jax.nn.logsumexp(jax.nn.logsumexp(log_terms, axis=1))
