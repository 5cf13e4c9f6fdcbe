"""Averages of codes under Gumbel-softmax weights, in blocks of rows that stay in a core's cache.

The arrays of C numbers for each row of a latent variable are the largest between encoder and
decoder. Operation by operation each is written and read many times over. Here logits, noise and
weights of a block are made where they are used, and of them only the soft weights are written for
the backward pass, which computes the logits again:

    forward   l = -|v - a|^2,  y = softmax((l + g) / tau)  to  y M,  KL(softmax(l) || p),  argmax y
    backward  the gradients by v, a, M and log p

The noise g is that of `_numerics.standard_gumbel`, bit by bit. `fits` is the one place that
chooses this form, on CPUs; a GPU has a kernel for the part between the products.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dvae._numerics import gumbel_from_bits, threefry
from dvae.distributions._divergence import kl_slopes, kl_terms
from dvae.models import _gpu
from dvae.models._products import matmul_transposed

_BLOCK = 2**18  # numbers of a block, 1 MB
_FEWEST = 64  # rows of a block: below, the loop costs more than it saves

Quantized = tuple[jax.Array, jax.Array, jax.Array]
_HIGHEST = lax.Precision.HIGHEST


def fits(key: jax.Array, *arrays: jax.Array, num_rows: int, num_codes: int) -> bool:
    """Tells whether `quantize` takes these arrays: float32 on one CPU, Threefry's noise."""
    return (
        jax.default_backend() == "cpu"
        and all(x.dtype == jnp.float32 for x in arrays)
        and _gpu.on_one_device(*arrays)
        and jax.random.key_impl(key) == "threefry2x32"
        and jax.threefry_partitionable.value
        and num_rows * num_codes < 2**31
        and rows_of_block(num_rows, num_codes) >= _FEWEST
    )


def rows_of_block(num_rows: int, num_codes: int) -> int:
    """Returns the rows of a block: the largest divisor of their number that is not too large."""
    size = max(1, min(num_rows, _BLOCK // num_codes))
    while num_rows % size:
        size -= 1
    return size


def _blocks(x: jax.Array, num_codes: int) -> jax.Array:
    """Cuts [R, n, ...] into blocks of each latent variable, [n, blocks, rows, ...]."""
    rows = rows_of_block(len(x), num_codes)
    return jnp.moveaxis(x, 1, 0).reshape(x.shape[1], -1, rows, *x.shape[2:])


def _joined(x: jax.Array) -> jax.Array:
    """Puts blocks [n, blocks, rows, ...] together again, [R, n, ...]."""
    return jnp.moveaxis(x.reshape(len(x), -1, *x.shape[3:]), 0, 1)


def _logits(v: jax.Array, places: jax.Array) -> jax.Array:
    """Returns -|v - a|^2 of a block: [rows, D] and [C, D] to [rows, C]."""
    norms = jnp.square(v).sum(-1, keepdims=True) + jnp.square(places).sum(-1)[None]
    logits = jnp.minimum(2 * jnp.matmul(v, places.T, precision=_HIGHEST) - norms, 0)
    return lax.optimization_barrier(logits)  # computed once, in memory, for all that read it


def _first_of(x: jax.Array, peak: jax.Array) -> jax.Array:
    """Returns the first index of x that has the value of the peak, int32 [rows].

    XLA compiles `argmax` for CPUs to a loop without vectors, which takes several times as long.
    """
    index = lax.broadcasted_iota(jnp.int32, x.shape, 1)
    return jnp.minimum(jnp.where(x == peak, index, x.shape[1]).min(-1), x.shape[1] - 1)


def _weights(soft: jax.Array, codes: jax.Array, hard: jax.Array) -> jax.Array:
    """Returns the weights of a block: soft, or the one-hot of the codes."""
    one_hot = lax.broadcasted_iota(jnp.int32, soft.shape, 1) == codes[:, None]
    return jnp.where(hard, one_hot.astype(soft.dtype), soft)


@jax.custom_vjp
def quantize(
    key: jax.Array,
    v: jax.Array,
    places: jax.Array,
    codebook: jax.Array,
    log_p: jax.Array,
    temperature: jax.Array,
    hard: jax.Array,
) -> Quantized:
    """Draws weights y of the codes and averages the code vectors.

    It differentiates once, in reverse mode. No gradient flows through temperature.

    Args:
        key: uint32 [2], the data of a threefry key.
        v: float32 [R, n, D].
        places: a, float32 [n, C, D]: where the codes lie among the v.
        codebook: M, float32 [n, C, D].
        log_p: float32 [n, C], normalized.
        temperature: float32 [].
        hard: bool [], whether the weights are one-hot.

    Returns:
        y M float32 [R, n, D]; KL float32 [R, n]; the codes argmax(l + g), int32 [R, n].
    """
    return _forward(key, v, places, codebook, log_p, temperature, hard)[0]


def _forward(key, v, places, codebook, log_p, temperature, hard):  # type: ignore[no-untyped-def]
    num_rows, num_latents, _ = v.shape
    num_codes = log_p.shape[-1]
    rows = rows_of_block(num_rows, num_codes)

    def of_latent(inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        latent, v, places, codebook, log_p = inputs

        def block(inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
            start, v = inputs
            logits = _logits(v, places)
            row, code = (lax.broadcasted_iota(jnp.uint32, logits.shape, i) for i in (0, 1))
            position = ((start + row) * num_latents + latent) * num_codes + code
            noise = gumbel_from_bits(threefry(key[0], key[1], position))
            scaled = lax.optimization_barrier((logits + noise) / temperature)
            peak = scaled.max(-1, keepdims=True)
            codes = _first_of(scaled, peak)
            mass = jnp.exp(scaled - peak)
            soft = mass / mass.sum(-1, keepdims=True)
            averages = jnp.matmul(_weights(soft, codes, hard), codebook, precision=_HIGHEST)
            peak = logits.max(-1, keepdims=True)
            log_mass = jnp.log(jnp.exp(logits - peak).sum(-1, keepdims=True))
            kl = kl_terms(logits - peak - log_mass, log_p[None]).sum(-1)
            return averages, kl, codes, _first_of(logits, peak), peak, log_mass, soft

        return lax.map(block, (jnp.arange(0, num_rows, rows, dtype=jnp.uint32), v))

    latents = lax.iota(jnp.uint32, num_latents)
    inputs = (latents, _blocks(v, num_codes), places, codebook, log_p)
    averages, kl, codes, *kept = lax.map(of_latent, inputs)
    residuals = (v, places, codebook, log_p, temperature, hard, kl, codes, *kept)
    return (_joined(averages), _joined(kl), _joined(codes)), residuals


def _backward(residuals: tuple[jax.Array, ...], cotangents: tuple[Any, ...]) -> tuple[Any, ...]:
    v, places, codebook, log_p, temperature, hard, *kept = residuals
    cut = lambda x: _blocks(x, log_p.shape[-1])

    def of_latent(inputs: Any) -> Any:
        (places, codebook, log_p), blocks = inputs

        def block(sums: tuple[jax.Array, ...], inputs: tuple[jax.Array, ...]) -> Any:
            v, d_average, d_kl, kl, codes, top, peak, log_mass, soft = inputs
            d_weights = jnp.matmul(d_average, codebook.T, precision=_HIGHEST)
            relaxed = soft * (d_weights - (soft * d_weights).sum(-1, keepdims=True)) / temperature
            log_q = _logits(v, places) - peak - log_mass
            slope, gap = kl_slopes(top, log_q, log_p[None], kl)
            weight = d_kl[:, None]  # 0 where the KL is not used, which may be infinite
            d_logits = relaxed + jnp.where(weight == 0, 0, weight * slope)
            # Also where the clip at 0 acts: what is clipped there is rounding.
            d_v = jnp.matmul(d_logits, places, precision=_HIGHEST)
            d_v = 2 * (d_v - d_logits.sum(-1, keepdims=True) * v)
            d_places = matmul_transposed(d_logits, v) - d_logits.sum(0)[:, None] * places
            own = (
                2 * d_places,
                matmul_transposed(_weights(soft, codes, hard), d_average),
                jnp.where(weight == 0, 0, weight * gap).sum(0),
            )
            return jax.tree.map(jnp.add, sums, own), d_v

        zeros = jax.tree.map(jnp.zeros_like, (places, codebook, log_p))
        return lax.scan(block, zeros, blocks)

    inputs = (cut(v), cut(cotangents[0]), cut(cotangents[1]), *kept)
    sums, d_v = lax.map(of_latent, ((places, codebook, log_p), inputs))
    return None, _joined(d_v), *sums, None, None


quantize.defvjp(_forward, _backward)
