"""Categorical distributions over the last axis of the logits: p = softmax(l).

Two representations of a value. One-hot z [..., C], in the logits' dtype, is what relaxations and
small models use: `sample`, `log_prob`. Integer codes [...], int32, are what big models use, since
they never build an array of size C per unit: `sample_codes`, `log_prob_of_codes`.

Logits need not be normalised, and may be -inf for a class that has no mass (not for all classes).
"""

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import mass_times, open_uniform, upcast

MAX_STATES = 2**20  # the most joint states that anything here enumerates


def sample(key: jax.Array, logits: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    """Draws one-hot samples; no gradient flows.

    Args:
        key: typed PRNG key.
        logits: [..., C] float.
        shape: sample shape, put in front of the logits' shape.

    Returns:
        [*shape, ..., C] exactly 0 or 1, in the dtype of logits.
    """
    codes = sample_codes(key, logits, shape)
    return jax.nn.one_hot(codes, logits.shape[-1], dtype=logits.dtype)


def sample_codes(key: jax.Array, logits: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    """Draws class indices by inverting the cumulative distribution function.

    code = min {k : c_k > u c_C and p_k > 0}, c the cumulative sum of the masses. One uniform per
    draw instead of the C of a Gumbel-max. Each class is drawn with its probability up to the
    rounding of a float32 cumulative sum, about 1e-7 absolute.

    Args:
        key: typed PRNG key.
        logits: [..., C] float.
        shape: sample shape, put in front of the logits' batch shape.

    Returns:
        [*shape, ...] int32 in [0, C), never a class without mass.
    """
    u = open_uniform(key, shape + logits.shape[:-1])
    return _invert_cdf(u, logits)


def _invert_cdf(u: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns the codes [*shape, ...] at cumulative masses u in (0, 1), [*shape, ...]."""
    num_classes = logits.shape[-1]
    logits = upcast(logits)
    mass = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    # A parallel cumulative sum is monotone only up to rounding. Taking its maximum as the total and
    # skipping the classes without mass keeps u = 1 - 2^-24 from landing on one of them, or on C.
    cumulative = jnp.where(mass > 0, jnp.cumsum(mass, axis=-1), 0)
    total = jnp.max(cumulative, axis=-1)
    threshold = u * jnp.broadcast_to(total, u.shape)
    cumulative = jnp.broadcast_to(cumulative, (*u.shape, num_classes))
    index = jax.lax.broadcasted_iota(jnp.int32, cumulative.shape, cumulative.ndim - 1)
    return jnp.min(jnp.where(cumulative > threshold[..., None], index, num_classes - 1), axis=-1)


def log_prob(z: jax.Array, logits: jax.Array) -> jax.Array:
    """Evaluates log p(z) = sum_k z_k log p_k over the last axis, with 0 log 0 = 0.

    Args:
        z: [..., C] float, one-hot (relaxed z on the simplex gives the linear extension).
        logits: [..., C] float; batch axes broadcast with those of z.

    Returns:
        [...] nats.
    """
    dtype = jnp.result_type(z, logits)
    log_p = jax.nn.log_softmax(upcast(logits.astype(dtype)))
    z, log_p = jnp.broadcast_arrays(upcast(z.astype(dtype)), log_p)
    return jnp.sum(mass_times(z, log_p), axis=-1).astype(dtype)


def log_prob_of_codes(codes: jax.Array, logits: jax.Array) -> jax.Array:
    """Evaluates log p(code) = l_code - logsumexp(l) without a one-hot.

    The result is float32 whatever the logits' dtype, the one exception to keeping it: these terms
    are summed over thousands of pixels and must not be rounded to bfloat16 first. The gradient,
    1[k = code] - p_k, is formed in one pass in the logits' dtype from the logits themselves, so
    that nothing but them and the logsumexp is kept for the backward pass. Reverse mode only.

    Args:
        codes: [...] integer in [0, C).
        logits: [..., C] float; batch axes broadcast with codes, the logsumexp being computed once
            for each row of logits.

    Returns:
        [...] float32, nats.
    """
    batch = jnp.broadcast_shapes(codes.shape, logits.shape[:-1])
    codes = jnp.broadcast_to(codes, batch)
    missing = len(batch) + 1 - logits.ndim
    return _log_prob_of_codes(codes, logits.reshape((1,) * missing + logits.shape))


@jax.custom_vjp
def _log_prob_of_codes(codes: jax.Array, logits: jax.Array) -> jax.Array:
    return _log_prob_of_codes_fwd(codes, logits)[0]


def _log_prob_of_codes_fwd(
    codes: jax.Array, logits: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    peak = upcast(jnp.max(logits, axis=-1, keepdims=True))
    log_sum = jnp.log(jnp.sum(jnp.exp(upcast(logits) - peak), axis=-1, keepdims=True))
    chosen = upcast(jnp.take_along_axis(logits, codes[..., None], axis=-1))
    # logsumexp = peak + log_sum stays in two parts: at l = 1e4 their float32 sum is off by 5e-4.
    return ((chosen - peak) - log_sum)[..., 0], (codes, logits, peak, log_sum)


def _log_prob_of_codes_bwd(
    residuals: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[np.ndarray, jax.Array]:
    codes, logits, peak, log_sum = residuals
    repeated = tuple(i for i, n in enumerate(logits.shape[:-1]) if n != codes.shape[i])
    shape = (*codes.shape, logits.shape[-1])
    is_code = jax.lax.broadcasted_iota(jnp.int32, shape, len(codes.shape)) == codes[..., None]
    hits = jnp.where(is_code, cotangent[..., None], 0)
    total = cotangent[..., None]
    if repeated:  # several codes under one row of logits: its gradient is their sum
        hits = jnp.sum(hits, axis=repeated, keepdims=True)
        total = jnp.sum(total, axis=repeated, keepdims=True)
    gradient = hits - total * jnp.exp((upcast(logits) - peak) - log_sum)
    return np.zeros(codes.shape, jax.dtypes.float0), gradient.astype(logits.dtype)


_log_prob_of_codes.defvjp(_log_prob_of_codes_fwd, _log_prob_of_codes_bwd)


def entropy(logits: jax.Array) -> jax.Array:
    """Evaluates H(p) = -sum_k p_k log p_k over the last axis, with 0 log 0 = 0.

    Args:
        logits: [..., C] float.

    Returns:
        [...] nats in [0, log C].
    """
    log_p = jax.nn.log_softmax(upcast(logits))
    return -jnp.sum(mass_times(jnp.exp(log_p), log_p), axis=-1).astype(logits.dtype)


def kl(logits_q: jax.Array, logits_p: jax.Array) -> jax.Array:
    """Evaluates KL(q || p) = sum_k q_k (log q_k - log p_k) over the last axis, with 0 log 0 = 0.

    Args:
        logits_q: [..., C] float.
        logits_p: [..., C] float; batch axes broadcast with those of logits_q.

    Returns:
        [...] nats, +inf where q has mass on a class and p has none.
    """
    dtype = jnp.result_type(logits_q, logits_p)
    log_p = jax.nn.log_softmax(upcast(logits_p.astype(dtype)))
    return _kl(*jnp.broadcast_arrays(upcast(logits_q.astype(dtype)), log_p)).astype(dtype)


# In terms of the logits, so that the derivative is one elementwise expression of them and two
# numbers a row; the automatic rule keeps log q, q and masks of the classes without mass.
@jax.custom_jvp
def _kl(logits_q: jax.Array, log_p: jax.Array) -> jax.Array:
    log_q = jax.nn.log_softmax(logits_q)
    return jnp.sum(_gain(log_q, log_p), axis=-1)


def _gain(log_q: jax.Array, log_p: jax.Array) -> jax.Array:
    """Evaluates q (log q - log p), 0 where q is."""
    q = jnp.exp(log_q)
    return q * jnp.where(q > 0, log_q - log_p, 0)


@_kl.defjvp
def _kl_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    logits_q, log_p = primals
    d_logits, d_log_p = tangents
    log_q = jax.nn.log_softmax(logits_q)
    value = jnp.sum(_gain(log_q, log_p), axis=-1)
    slope = _gain(log_q, log_p) - jnp.exp(log_q) * value[..., None]
    return value, jnp.sum(slope * d_logits - jnp.exp(log_q) * d_log_p, axis=-1)


def support(logits: jax.Array) -> jax.Array:
    """Lists the C^n values of a vector of n one-hot units, the last unit varying fastest.

    Args:
        logits: [..., n, C] float, of which only n, C and the dtype are used.

    Returns:
        [C^n, n, C] exactly 0 or 1, in the dtype of logits.

    Raises:
        ValueError: if there are more than `MAX_STATES` values.
    """
    num_units, num_classes = logits.shape[-2:]
    return jax.nn.one_hot(all_codes(num_units, num_classes), num_classes, dtype=logits.dtype)


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
