"""Softmax with its digits where one class has nearly all of the mass."""

import jax
import jax.numpy as jnp

from dvae._numerics import mass_times

_Tangents = tuple[jax.Array, jax.Array]


def log_softmax(logits: jax.Array) -> jax.Array:
    """Evaluates log p, which keeps its digits where p is nearly 1."""
    shifted = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    return shifted - log_sum(shifted)


@jax.custom_jvp
def log_sum(shifted: jax.Array) -> jax.Array:
    """Evaluates log sum exp [..., 1] of logits whose maximum is 0.

    As log(1 + rest): the sum itself rounds a small rest away.
    """
    at_top = shifted == 0
    ties = jnp.sum(at_top, axis=-1, keepdims=True, dtype=jnp.int32) - 1
    rest = jnp.sum(jnp.where(at_top, 0, jnp.exp(shifted)), axis=-1, keepdims=True)
    return jnp.log1p(rest + ties.astype(rest.dtype))


@log_sum.defjvp
def _log_sum_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> _Tangents:
    value = log_sum(primals[0])
    return value, jnp.sum(jnp.exp(primals[0] - value) * tangents[0], axis=-1, keepdims=True)


def _top(logits: jax.Array) -> jax.Array:
    return jax.lax.argmax(logits, logits.ndim - 1, jnp.int32)


def balanced(slope: jax.Array, top: jax.Array) -> jax.Array:
    """Returns slopes [..., C] in logits whose sum is 0, that of the class `top` from the others.

    As written it is a small difference of large numbers where p is nearly 1.
    """
    index = jax.lax.broadcasted_iota(top.dtype, slope.shape, slope.ndim - 1)
    is_top = index == top[..., None]
    others = jnp.where(is_top, 0, slope)
    return jnp.where(is_top, -jnp.sum(others, axis=-1, keepdims=True), slope)


@jax.custom_jvp
def log_prob(z: jax.Array, logits: jax.Array) -> jax.Array:
    return jnp.sum(mass_times(z, log_softmax(logits)), axis=-1)


@log_prob.defjvp
def _log_prob_jvp(primals: _Tangents, tangents: _Tangents) -> _Tangents:
    z, logits = primals
    log_p = log_softmax(logits)
    slope = balanced(z - jnp.exp(log_p) * jnp.sum(z, axis=-1, keepdims=True), _top(logits))
    by_z = jnp.where(jnp.isinf(log_p), 0, log_p)  # infinity times 0 is NaN
    return log_prob(z, logits), jnp.sum(slope * tangents[1] + by_z * tangents[0], axis=-1)


@jax.custom_jvp
def entropy(logits: jax.Array) -> jax.Array:
    log_p = log_softmax(logits)
    return -jnp.sum(mass_times(jnp.exp(log_p), log_p), axis=-1)


@entropy.defjvp
def _entropy_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> _Tangents:
    (logits,), log_p, value = primals, log_softmax(primals[0]), entropy(primals[0])
    slope = balanced(-mass_times(jnp.exp(log_p), log_p + value[..., None]), _top(logits))
    return value, jnp.sum(slope * tangents[0], axis=-1)
