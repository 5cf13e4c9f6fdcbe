"""Bernoulli distributions with logits l: q(z = 1) = sigmoid(l).

Values and gradients are accurate relative to their size at all logits, far beyond the point where
sigmoid(l) rounds to 0 or 1. At l = -inf and inf the bit is certain: values are the limits, and
gradients are finite, except those of an infinite divergence. NaN logits give NaN.
"""

import jax
import jax.numpy as jnp

from dvae._numerics import (
    ArrayLike,
    as_shape,
    bit_score,
    float_dtype,
    mark_nan,
    mass_times,
    open_uniform,
    sigmoid,
    widen,
)
from dvae.distributions import categorical
from dvae.distributions._divergence import excess

__all__ = ["entropy", "kl", "log_prob", "sample", "support"]

_Tangents = tuple[jax.Array, jax.Array]


def sample(key: jax.Array, logits: ArrayLike, shape: int | tuple[int, ...] = ()) -> jax.Array:
    """Draws z = 1[u < sigmoid(l)] for u uniform in (0, 1); no gradient flows.

    Args:
        key: typed PRNG key.
        logits: [...] float.
        shape: sample shape, put in front of the logits' shape.

    Returns:
        [*shape, ...] exactly 0 or 1, NaN for a NaN logit, in the dtype of logits.

    Raises:
        ValueError: if key is an array of keys.
    """
    (logits,), dtype = widen(logits)
    u = open_uniform(key, (*as_shape(shape), *logits.shape)).astype(logits.dtype)
    probs = jnp.broadcast_to(jax.nn.sigmoid(jax.lax.stop_gradient(logits)), u.shape)
    return mark_nan((u < probs).astype(dtype), probs)


def log_prob(z: ArrayLike, logits: ArrayLike) -> jax.Array:
    """Evaluates log q(z) = z l - softplus(l), elementwise.

    The expression is linear in z, so that it also takes relaxed z. Its gradient in z, l, is taken
    to be 0 where l is infinite.

    Args:
        z: [...] float in [0, 1].
        logits: [...] float; broadcasts with z.

    Returns:
        [...] nats; -inf for what is impossible.
    """
    xs, dtype = widen(z, logits)
    return _log_prob(*jnp.broadcast_arrays(*xs)).astype(dtype)


@jax.custom_jvp
def _log_prob(z: jax.Array, logits: jax.Array) -> jax.Array:
    # z l - max(l, 0) is exactly 0 for a bit on its likely side, where z l - softplus(l) as written
    # would cancel l against l and return 0 instead of -exp(-|l|).
    unlikely = mass_times(jnp.where(logits > 0, z - 1, z), logits)
    return unlikely - jnp.log1p(jnp.exp(-jnp.abs(logits)))


@_log_prob.defjvp
def _log_prob_jvp(primals: _Tangents, tangents: _Tangents) -> _Tangents:
    # Written out because |l| and max(l, 0) have the wrong second derivative at l = 0.
    z, logits = primals
    dz, dlogits = tangents
    slope = bit_score(z, logits)
    return _log_prob(z, logits), slope * dlogits + jnp.where(jnp.isinf(logits), 0, logits) * dz


def entropy(logits: ArrayLike) -> jax.Array:
    """Evaluates H(q) = q softplus(-l) + (1 - q) softplus(l), elementwise.

    Both terms are non-negative, so nothing cancels: softplus(l) - l q would return 0 or a negative
    number from |l| = 20 on.

    Args:
        logits: [...] float.

    Returns:
        [...] nats in [0, log 2].
    """
    (logits,), dtype = widen(logits)
    return _entropy(logits).astype(dtype)


@jax.custom_jvp
def _entropy(logits: jax.Array) -> jax.Array:
    on = mass_times(sigmoid(logits), jax.nn.softplus(-logits))
    return on + mass_times(sigmoid(-logits), jax.nn.softplus(logits))


@_entropy.defjvp
def _entropy_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> _Tangents:
    (logits,), (dlogits,) = primals, tangents
    slope = -mass_times(sigmoid(logits) * sigmoid(-logits), logits)
    return _entropy(logits), slope * dlogits


def kl(logits_q: ArrayLike, logits_p: ArrayLike) -> jax.Array:
    """Evaluates KL(q || p) = sum_z q(z) (log q(z) - log p(z)), elementwise.

    As the sum of p(z) - q(z) - q(z) log(p(z) / q(z)), of which none is negative.

    Args:
        logits_q: [...] float.
        logits_p: [...] float; broadcasts with logits_q.

    Returns:
        [...] nats, at least 0, and exactly 0 where the logits are equal; +inf where p is certain
        and q is not of the same bit, and so is the gradient in logits_q for 0 < q < 1.
    """
    xs, dtype = widen(logits_q, logits_p)
    return _kl(*jnp.broadcast_arrays(*xs)).astype(dtype)


@jax.custom_jvp
def _kl(logits_q: jax.Array, logits_p: jax.Array) -> jax.Array:
    # Mirrored so that z = 1 is the less likely value under q. Its log-ratio, the difference of the
    # logits less that of their softplus, keeps the digits of a small difference.
    mirrored = logits_q > 0
    a, b = (jnp.where(mirrored, -x, x) for x in (logits_q, logits_p))
    lift = jnp.where(a == b, 0, b - a)
    near = jnp.abs(lift) < 1
    shift = jnp.log1p(sigmoid(a) * jnp.expm1(jnp.where(near, lift, 0)))
    shift = jnp.where(near, shift, jax.nn.softplus(b) - jax.nn.softplus(a))
    far = jax.nn.softplus(-a) - jax.nn.softplus(-b)  # finite for b = inf
    on = jnp.where(near, lift - shift, far)
    return excess(sigmoid(a), sigmoid(b), on) + excess(sigmoid(-a), sigmoid(-b), -shift)


@_kl.defjvp
def _kl_jvp(primals: _Tangents, tangents: _Tangents) -> _Tangents:
    q, p = primals
    gap = jnp.where(jnp.isinf(q) & (q == p), 0, q - p)
    by_q = mass_times(sigmoid(q) * sigmoid(-q), gap)
    # sigmoid(p) - sigmoid(q) as a product: relative to its size it is accurate everywhere.
    more = gap < 0
    up = sigmoid(p) * sigmoid(-q) * -jnp.expm1(jnp.where(more, gap, 0))
    down = sigmoid(q) * sigmoid(-p) * jnp.expm1(jnp.where(more, 0, -gap))
    return _kl(q, p), by_q * tangents[0] + jnp.where(more, up, down) * tangents[1]


def support(logits: ArrayLike) -> jax.Array:
    """Lists the 2^n values of a vector of n bits, the last bit varying fastest.

    Args:
        logits: [..., n] float, of which only n and the dtype are used.

    Returns:
        [2^n, n] exactly 0 or 1, in the dtype of logits.

    Raises:
        ValueError: if there are more than `categorical.MAX_STATES` values, or logits are a number.
    """
    if not jnp.ndim(logits):
        raise ValueError("logits must have a last axis of bits, got a number; pass [..., n]")
    return categorical.all_codes(jnp.shape(logits)[-1], 2).astype(float_dtype(logits))
