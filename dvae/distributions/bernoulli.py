"""Bernoulli distributions with logits l: q(z = 1) = sigmoid(l).

Logits are finite; everything here is finite and accurate for |l| up to 1e4, far beyond the point
where sigmoid(l) rounds to 0 or 1.
"""

import jax
import jax.numpy as jnp

from dvae._numerics import open_uniform, upcast
from dvae.distributions import categorical


def sample(key: jax.Array, logits: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    """Draws z = 1[u < sigmoid(l)] for u uniform in (0, 1); no gradient flows.

    Args:
        key: typed PRNG key.
        logits: [...] float.
        shape: sample shape, put in front of the logits' shape.

    Returns:
        [*shape, ...] exactly 0 or 1, in the dtype of logits.
    """
    u = open_uniform(key, shape + logits.shape)
    probs = jax.nn.sigmoid(upcast(logits))
    return (u < jnp.broadcast_to(probs, u.shape)).astype(logits.dtype)


def log_prob(z: jax.Array, logits: jax.Array) -> jax.Array:
    """Evaluates log q(z) = z l - softplus(l), elementwise.

    The expression is linear in z, so that it also takes relaxed z.

    Args:
        z: [...] float in [0, 1].
        logits: [...] float; broadcasts with z.

    Returns:
        [...] nats.
    """
    dtype = jnp.result_type(z, logits)
    z, logits = jnp.broadcast_arrays(upcast(z.astype(dtype)), upcast(logits.astype(dtype)))
    return _log_prob(z, logits).astype(dtype)


@jax.custom_jvp
def _log_prob(z: jax.Array, logits: jax.Array) -> jax.Array:
    # z l - max(l, 0) is exactly 0 for a bit on its likely side, where z l - softplus(l) as written
    # would cancel l against l and return 0 instead of -exp(-|l|).
    return (z * logits - jnp.maximum(logits, 0)) - jnp.log1p(jnp.exp(-jnp.abs(logits)))


@_log_prob.defjvp
def _log_prob_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    # Written out because |l| and max(l, 0) have the wrong second derivative at l = 0.
    z, logits = primals
    dz, dlogits = tangents
    return _log_prob(z, logits), (z - jax.nn.sigmoid(logits)) * dlogits + logits * dz


def entropy(logits: jax.Array) -> jax.Array:
    """Evaluates H(q) = q softplus(-l) + (1 - q) softplus(l), elementwise.

    Both terms are non-negative, so nothing cancels: softplus(l) - l q would return 0 or a negative
    number from |l| = 20 on.

    Args:
        logits: [...] float.

    Returns:
        [...] nats in [0, log 2].
    """
    wide = upcast(logits)
    on = jax.nn.sigmoid(wide) * jax.nn.softplus(-wide)
    off = jax.nn.sigmoid(-wide) * jax.nn.softplus(wide)
    return (on + off).astype(logits.dtype)


def kl(logits_q: jax.Array, logits_p: jax.Array) -> jax.Array:
    """Evaluates KL(q || p) = sum_z q(z) (log q(z) - log p(z)), elementwise.

    Args:
        logits_q: [...] float.
        logits_p: [...] float; broadcasts with logits_q.

    Returns:
        [...] nats.
    """
    dtype = jnp.result_type(logits_q, logits_p)
    q, p = jnp.broadcast_arrays(upcast(logits_q.astype(dtype)), upcast(logits_p.astype(dtype)))
    on = jax.nn.sigmoid(q) * (jax.nn.softplus(-p) - jax.nn.softplus(-q))
    off = jax.nn.sigmoid(-q) * (jax.nn.softplus(p) - jax.nn.softplus(q))
    return (on + off).astype(dtype)


def support(logits: jax.Array) -> jax.Array:
    """Lists the 2^n values of a vector of n bits, the last bit varying fastest.

    Args:
        logits: [..., n] float, of which only n and the dtype are used.

    Returns:
        [2^n, n] exactly 0 or 1, in the dtype of logits.

    Raises:
        ValueError: if there are more than `categorical.MAX_STATES` values.
    """
    return categorical.all_codes(logits.shape[-1], 2).astype(logits.dtype)
