"""Categorical distributions over the last axis of the logits: p = softmax(l).

Two representations of a value. One-hot z [..., C], in the logits' dtype, is what relaxations and
small models use: `sample`, `log_prob`. Integer codes [...], int32, are what big models use, since
they never build an array of size C per unit: `sample_codes`, `log_prob_of_codes`.

Logits need not be normalized, and may be -inf for a class that has no mass (not for all classes).
NaN logits give NaN, and the code C, which is none.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dvae._checks import check_classes
from dvae._numerics import (
    ArrayLike,
    as_float,
    as_shape,
    float_dtype,
    open_uniform,
    upcast,
    widen,
)
from dvae.distributions import _softmax
from dvae.distributions._divergence import kl_slopes, kl_terms

__all__ = [
    "MAX_STATES",
    "all_codes",
    "entropy",
    "kl",
    "log_prob",
    "log_prob_of_codes",
    "sample",
    "sample_codes",
    "support",
]

MAX_STATES = 2**20  # the most joint states that anything here enumerates


def sample(key: jax.Array, logits: ArrayLike, shape: int | tuple[int, ...] = ()) -> jax.Array:
    """Draws one-hot samples; no gradient flows.

    Args:
        key: typed PRNG key.
        logits: [..., C] float.
        shape: sample shape, put in front of the logits' shape.

    Returns:
        [*shape, ..., C] exactly 0 or 1, all NaN for logits with a NaN, in the dtype of logits.

    Raises:
        ValueError: if key is an array of keys, or logits are a number.
    """
    logits = as_float(logits)
    codes = sample_codes(key, logits, shape)
    num_classes = logits.shape[-1]
    one_hot = jax.nn.one_hot(codes, num_classes, dtype=logits.dtype)
    return jnp.where((codes == num_classes)[..., None], jnp.nan, one_hot)


def sample_codes(key: jax.Array, logits: ArrayLike, shape: int | tuple[int, ...] = ()) -> jax.Array:
    """Draws class indices by inverting the cumulative distribution function.

    code = min {k : c_k > u c_C and p_k > 0}, c the cumulative sum of the masses. One uniform per
    draw instead of the C of a Gumbel-max. Each class is drawn with its probability up to the
    rounding of a float32 cumulative sum, about 1e-7 absolute.

    Args:
        key: typed PRNG key.
        logits: [..., C] float.
        shape: sample shape, put in front of the logits' batch shape.

    Returns:
        [*shape, ...] int32 in [0, C), never a class without mass; C for logits with a NaN.

    Raises:
        ValueError: if key is an array of keys, or logits are a number.
    """
    (logits,), _ = widen(logits)
    check_classes(logits)
    return _invert_cdf(open_uniform(key, (*as_shape(shape), *logits.shape[:-1])), logits)


def _invert_cdf(u: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns the codes [*shape, ...] at cumulative masses u in (0, 1), [*shape, ...]."""
    num_classes = logits.shape[-1]
    logits = upcast(jax.lax.stop_gradient(logits))
    mass = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    # A parallel cumulative sum is monotone only up to rounding. Taking its maximum as the total and
    # skipping the classes without mass keeps u = 1 - 2^-24 from landing on one of them, or on C.
    cumulative = jnp.where(mass > 0, jnp.cumsum(mass, axis=-1), 0)
    total = jnp.max(cumulative, axis=-1)
    threshold = u.astype(total.dtype) * jnp.broadcast_to(total, u.shape)
    cumulative = jnp.broadcast_to(cumulative, (*u.shape, num_classes))
    index = jax.lax.broadcasted_iota(jnp.int32, cumulative.shape, cumulative.ndim - 1)
    return jnp.min(jnp.where(cumulative > threshold[..., None], index, num_classes), axis=-1)


def log_prob(z: ArrayLike, logits: ArrayLike) -> jax.Array:
    """Evaluates log p(z) = sum_k z_k log p_k over the last axis, with 0 log 0 = 0.

    Args:
        z: [..., C] float, one-hot (relaxed z on the simplex gives the linear extension).
        logits: [..., C] float; batch axes broadcast with those of z.

    Returns:
        [...] nats.

    Raises:
        ValueError: if the two differ in their number of classes, or z are integers of fewer axes
            than the logits, which are codes.
    """
    if jnp.ndim(z) < jnp.ndim(logits) and jnp.issubdtype(jnp.result_type(z), jnp.integer):
        raise ValueError(
            f"z must be one-hot [..., C], got integers of shape {jnp.shape(z)} for logits "
            f"{jnp.shape(logits)}; codes go to log_prob_of_codes"
        )
    (z, logits), dtype = widen(z, logits)
    check_classes(z, logits)
    return _softmax.log_prob(*jnp.broadcast_arrays(z, logits)).astype(dtype)


def log_prob_of_codes(codes: ArrayLike, logits: ArrayLike) -> jax.Array:
    """Evaluates log p(code) = l_code - logsumexp(l) without a one-hot.

    The result is float32 whatever the logits' dtype, the one exception to keeping it: these terms
    are summed over thousands of pixels and must not be rounded to bfloat16 first. The gradient,
    1[k = code] - p_k, is formed in one pass in the logits' dtype from the logits themselves, so
    that nothing but them and the logsumexp is kept for the backward pass. A value near 0 is right
    to one part in 10^7 of 1, not of itself: what `log_prob` does for its digits would take two
    to four times as long here.

    Args:
        codes: [...] integer in [0, C).
        logits: [..., C] float; batch axes broadcast with codes, the logsumexp being computed once
            for each row of logits.

    Returns:
        [...] float32, nats; NaN for a code outside [0, C), such as the -1 of a dropped one.

    Raises:
        ValueError: if codes are not integers, or logits are a number.
    """
    codes, logits = jnp.asarray(codes), jnp.asarray(logits, float_dtype(logits))
    check_classes(logits)
    if not jnp.issubdtype(codes.dtype, jnp.integer):
        raise ValueError(f"codes must be integers, got {codes.dtype}; one-hots go to log_prob")
    batch = jnp.broadcast_shapes(codes.shape, logits.shape[:-1])
    # Wide enough for any C, which int8 is not.
    wide = jax.dtypes.canonicalize_dtype(np.promote_types(codes.dtype, np.int32))
    codes = jnp.broadcast_to(codes.astype(wide), batch)
    missing = len(batch) + 1 - logits.ndim
    return _compiled(codes, logits.reshape((1,) * missing + logits.shape))


@jax.custom_jvp
def _log_prob_of_codes(codes: jax.Array, logits: jax.Array) -> jax.Array:
    return _value_and_logsumexp(codes, logits)[0]


@_log_prob_of_codes.defjvp
def _log_prob_of_codes_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    codes, logits = primals
    value, peak, log_sum = _value_and_logsumexp(codes, logits)
    # Without `checkpoint` the masses, float32, would be kept for the backward pass.
    return value, jax.checkpoint(_tangent)(codes, logits, peak, log_sum, tangents[1])


_compiled = jax.jit(_log_prob_of_codes)  # `checkpoint` traces at each call


def _value_and_logsumexp(
    codes: jax.Array, logits: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    peak = upcast(jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True)))
    log_sum = jnp.log(jnp.sum(jnp.exp(upcast(logits) - peak), axis=-1, keepdims=True))
    valid = (codes >= 0) & (codes < logits.shape[-1])
    chosen = jnp.take_along_axis(logits, jnp.where(valid, codes, 0)[..., None], axis=-1)
    # logsumexp = peak + log_sum stays in two parts: at l = 1e4 their float32 sum is off by 5e-4.
    value = ((upcast(chosen) - peak) - log_sum)[..., 0]
    return jnp.where(valid, value, jnp.nan), peak, log_sum


def _tangent(
    codes: jax.Array,
    logits: jax.Array,
    peak: jax.Array,
    log_sum: jax.Array,
    tangent: jax.Array,
) -> jax.Array:
    """Returns the derivative along `tangent`, its mean under p once for each row of logits."""
    shape = (*codes.shape, logits.shape[-1])
    is_code = jax.lax.broadcasted_iota(jnp.int32, shape, len(codes.shape)) == codes[..., None]
    wide = upcast(tangent)
    chosen = jnp.sum(jnp.where(is_code, jnp.broadcast_to(wide, shape), 0), axis=-1)
    mean = jnp.sum(jnp.exp((upcast(logits) - peak) - log_sum) * wide, axis=-1)
    return chosen - mean


def entropy(logits: ArrayLike) -> jax.Array:
    """Evaluates H(p) = -sum_k p_k log p_k over the last axis, with 0 log 0 = 0.

    Args:
        logits: [..., C] float.

    Returns:
        [...] nats in [0, log C].

    Raises:
        ValueError: if logits are a number.
    """
    (logits,), dtype = widen(logits)
    check_classes(logits)
    return _softmax.entropy(logits).astype(dtype)


def kl(logits_q: ArrayLike, logits_p: ArrayLike) -> jax.Array:
    """Evaluates KL(q || p) = sum_k q_k (log q_k - log p_k) over the last axis, with 0 log 0 = 0.

    As sum_k p_k - q_k - q_k log(p_k / q_k), of which no term is negative.

    Args:
        logits_q: [..., C] float.
        logits_p: [..., C] float; batch axes broadcast with those of logits_q.

    Returns:
        [...] nats, at least 0, and exactly 0 where q equals p; +inf where q has mass on a class and
        p has none, and the gradient in logits_q is not finite either.

    Raises:
        ValueError: if the two differ in their number of classes.
    """
    (logits_q, logits_p), dtype = widen(logits_q, logits_p)
    check_classes(logits_q, logits_p)
    return _kl(*jnp.broadcast_arrays(logits_q, jax.nn.log_softmax(logits_p))).astype(dtype)


# In terms of the logits, so that the derivative is one elementwise expression of them and a few
# numbers a row; the automatic rule keeps log q, q and masks of the classes without mass.
@jax.custom_jvp
def _kl(logits_q: jax.Array, log_p: jax.Array) -> jax.Array:
    return jnp.sum(kl_terms(jax.nn.log_softmax(logits_q), log_p), axis=-1)


@_kl.defjvp
def _kl_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    logits_q, log_p = primals
    value = _kl(logits_q, log_p)
    top = jax.lax.argmax(logits_q, logits_q.ndim - 1, jnp.int32)
    slope, gap = kl_slopes(top, jax.nn.log_softmax(logits_q), log_p, value)
    return value, jnp.sum(slope * tangents[0] + gap * tangents[1], axis=-1)


def support(logits: ArrayLike) -> jax.Array:
    """Lists the C^n values of a vector of n one-hot units, the last unit varying fastest.

    Args:
        logits: [..., n, C] float, of which only n, C and the dtype are used.

    Returns:
        [C^n, n, C] exactly 0 or 1, in the dtype of logits.

    Raises:
        ValueError: if there are more than `MAX_STATES` values, or logits have fewer than two axes.
    """
    if jnp.ndim(logits) < 2:
        raise ValueError(f"expected logits [..., n, C], got shape {jnp.shape(logits)}")
    num_units, num_classes = jnp.shape(logits)[-2:]
    dtype = float_dtype(logits)
    return jax.nn.one_hot(all_codes(num_units, num_classes), num_classes, dtype=dtype)


def all_codes(num_units: int, num_classes: int) -> jax.Array:
    """Lists the C^n tuples of n codes, the last code varying fastest.

    Args:
        num_units: n.
        num_classes: C.

    Returns:
        [C^n, n] int32.

    Raises:
        ValueError: if there are more than `MAX_STATES` tuples.
    """
    num_states = num_classes**num_units
    if num_states > MAX_STATES:
        raise ValueError(
            f"{num_units} units of {num_classes} classes have {num_states} joint states, more than "
            f"the {MAX_STATES} that can be enumerated; use fewer units or a sampled estimator"
        )
    place_values = num_classes ** jnp.arange(num_units - 1, -1, -1, dtype=jnp.int32)
    return (jnp.arange(num_states, dtype=jnp.int32)[:, None] // place_values[None, :]) % num_classes
