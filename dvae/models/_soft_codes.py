"""Gumbel-softmax weights of codes, the divergence of their posterior, and the codes drawn.

`soft_codes` is what a training step of Gumbel-softmax needs of a posterior's logits, at once. On
one NVIDIA GPU it is a kernel (`_soft_codes_kernel`), elsewhere the functions that it consists of.
`soft_quantize` has the logits and the averages of codes in it, too; on one CPU it goes through
blocks (`_soft_blocks`). The noise is the same in all forms, and they are tested equal to rounding.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from dvae import relax
from dvae._checks import check_key, check_positive
from dvae.distributions import categorical
from dvae.models import _code_vectors, _gpu, _soft_blocks, checks
from dvae.models import _soft_codes_kernel as kernel
from dvae.vq import _search

Codes = tuple[jax.Array, jax.Array, jax.Array]


def soft_codes(
    key: jax.Array,
    logits: jax.Array,
    log_prior: jax.Array,
    temperature: float | jax.Array,
    *,
    hard: bool | jax.Array = False,
    dtype: DTypeLike = jnp.float32,
) -> Codes:
    """Draws y = softmax((l + g) / tau) and evaluates KL(softmax(l) || p).

    Args:
        key: typed PRNG key.
        logits: l, float32 [..., n, C].
        log_prior: log p, float32 [n, C], normalized.
        temperature: tau > 0, a scalar, through which no gradient flows.
        hard: one-hot weights with the gradient of y, as in `relax.gumbel_softmax.sample`.
        dtype: of the weights.

    Returns:
        The weights [..., n, C] in dtype; KL float32 [..., n] in nats; the codes argmax(l + g),
        int32 [..., n], exact samples of softmax(l). The kernel differentiates once, in reverse
        mode.

    Raises:
        ValueError: the shapes do not fit, the temperature is a number and not positive, or key is
            an array of keys.
        TypeError: key is not a typed key.
    """
    check_key(key)
    check_positive("temperature", temperature)
    checks.check_floats("logits", logits, ("...", "n", "C"))
    checks.check_floats("log_prior", log_prior, logits.shape[-2:])
    temperature = lax.stop_gradient(temperature)
    if _gpu.uses_kernels(logits) and _fits(key, logits, log_prior):
        num_latents, num_codes = logits.shape[-2:]
        rows = logits.reshape(-1, num_latents, num_codes)
        settings = jnp.asarray(temperature, jnp.float32), jnp.asarray(hard, bool)
        jax.random.bits(key, (0,), jnp.uint32)  # tells `jax_debug_key_reuse` that it is used
        outputs = _fused(jnp.dtype(dtype), jax.random.key_data(key), rows, log_prior, *settings)
        weights, kl, codes = (x.reshape(*logits.shape[:-2], *x.shape[1:]) for x in outputs)
        return weights, kl, codes
    weights = relax.gumbel_softmax.sample(key, logits, temperature, hard=hard)
    kl = categorical.kl(logits, jnp.expand_dims(log_prior, tuple(range(logits.ndim - 2))))
    return weights.astype(dtype), kl, jnp.argmax(weights, axis=-1)


def soft_quantize(
    key: jax.Array,
    vectors: jax.Array,
    codebook: jax.Array,
    log_scale: jax.Array,
    log_prior: jax.Array,
    temperature: float | jax.Array,
    *,
    hard: bool | jax.Array = False,
    dtype: DTypeLike = jnp.float32,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Averages code vectors under Gumbel-softmax weights y, and evaluates their posterior's KL.

    It is `average` of `soft_codes`, whose logits are l_k = -scale |v - m_k|^2. On a CPU it goes
    through blocks of vectors, which keeps arrays of C numbers a vector in the cache.

    Args:
        key: typed PRNG key.
        vectors: v, float32 [..., n, D].
        codebook: m, float32 [n, C, D].
        log_scale: float32 [n].
        log_prior: log p, float32 [n, C], normalized.
        temperature: tau > 0, a scalar, through which no gradient flows.
        hard: one-hot weights with the gradient of y, as in `relax.gumbel_softmax.sample`.
        dtype: of the averages.

    Returns:
        sum_k y_k m_k, [..., n, D] in dtype; KL(softmax(l) || p), float32 [..., n] in nats; the
        codes argmax(l + g), int32 [..., n]. By blocks it differentiates once, in reverse mode.

    Raises:
        ValueError: the shapes do not fit, the temperature is a number and not positive, or key is
            an array of keys.
        TypeError: key is not a typed key.
    """
    check_key(key)
    check_positive("temperature", temperature)
    _code_vectors.check_vectors(vectors, codebook)
    num_latents, num_codes, dim = codebook.shape
    checks.check_floats("log_scale", log_scale, (num_latents,))
    checks.check_floats("log_prior", log_prior, (num_latents, num_codes))
    near, places = scaled(vectors, codebook, log_scale)
    arrays = near, places, codebook, log_prior
    num_rows = math.prod(vectors.shape[:-2])
    sizes = {"num_rows": num_rows, "num_codes": num_codes}
    if jnp.dtype(dtype) == jnp.float32 and _soft_blocks.fits(key, *arrays, **sizes):
        origin = jax.vmap(_search.origin)(places)
        rows = near.reshape(num_rows, num_latents, dim) - origin[None]
        jax.random.bits(key, (0,), jnp.uint32)  # tells `jax_debug_key_reuse` that it is used
        inputs = (jax.random.key_data(key), rows, places - origin[:, None], codebook, log_prior)
        settings = jnp.asarray(temperature, jnp.float32), jnp.asarray(hard, bool)
        outputs = _soft_blocks.quantize(*inputs, *settings)
        averages, kl, codes = (x.reshape(*vectors.shape[:-2], *x.shape[1:]) for x in outputs)
        return averages, kl, codes
    logits = -_code_vectors.distances(near, places)
    weights, kl, codes = soft_codes(key, logits, log_prior, temperature, hard=hard, dtype=dtype)
    return _code_vectors.average(weights, codebook, dtype=dtype), kl, codes


def scaled(
    vectors: jax.Array, codebook: jax.Array, log_scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns vectors and codes whose squared distances are scale |v - m|^2."""
    # The scale goes into the small arrays: on the logits it costs passes forward and backward.
    root = jnp.exp(0.5 * log_scale)[:, None]
    return vectors * jnp.expand_dims(root, range(vectors.ndim - 2)), codebook * root[:, None]


def _fits(key: jax.Array, logits: jax.Array, log_prior: jax.Array) -> bool:
    """Tells whether the kernels take these logits: whole blocks, Threefry's noise."""
    num_rows = math.prod(logits.shape[:-2])
    return (
        logits.dtype == log_prior.dtype == jnp.float32
        and logits.size < 2**31
        and _gpu.rows_of_block(num_rows, logits.shape[-1]) > 0
        and jax.random.key_impl(key) == "threefry2x32"
        and jax.threefry_partitionable.value
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fused(dtype, key, logits, log_p, temperature, hard):  # type: ignore[no-untyped-def]
    """Calls the forward kernel."""
    return _fused_forward(dtype, key, logits, log_p, temperature, hard)[0]


def _fused_forward(dtype, key, logits, log_p, temperature, hard):  # type: ignore[no-untyped-def]
    soft, weights, kl, codes = kernel.forward(key, logits, log_p, temperature, hard, dtype=dtype)
    return (weights, kl, codes), (logits, log_p, soft, kl, temperature)


def _fused_backward(dtype, residuals, cotangents):  # type: ignore[no-untyped-def]
    del dtype
    logits, log_p, soft, kl, temperature = residuals
    d_weights, d_kl, _ = cotangents
    d_logits, d_log_p = kernel.backward(logits, log_p, soft, kl, d_weights, d_kl, temperature)
    return None, d_logits, d_log_p, None, None


_fused.defvjp(_fused_forward, _fused_backward)
