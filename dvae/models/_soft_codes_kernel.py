"""Gumbel-softmax weights and their KL in one kernel a direction, for NVIDIA GPUs.

The arrays of a row's C numbers are the largest of a model with many codes. XLA passes over them
for every sum that needs an earlier one: the noise, two log-softmaxes, the divergence, the argmax,
and again for the gradients. Here a block of threads holds whole rows:

    forward   reads l; writes y, y rounded, KL(q || p) and argmax(l + g)
    backward  reads l, y and the gradient by y; writes the gradients by l and, in parts, by log p

with q = softmax(l) and y = softmax((l + g) / tau). The noise g is that of
`_numerics.standard_gumbel`, bit by bit. It is drawn in the forward kernel and never written.

What a block computes is a function of arrays, which is called with whole ones where a program that
was traced for a GPU is compiled for another platform.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dvae._numerics import gumbel_from_bits, threefry
from dvae.distributions._divergence import kl_slopes, kl_terms
from dvae.models._gpu import on_cuda, pallas, rows_of_block, sum_of_parts

Forward = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def forward(
    key: jax.Array,
    logits: jax.Array,
    log_p: jax.Array,
    temperature: jax.Array,
    hard: jax.Array,
    *,
    dtype: Any,
    interpret: bool = False,
) -> Forward:
    """Draws the weights.

    Args:
        key: uint32 [2], the data of a threefry key.
        logits: float32 [R, n, C].
        log_p: float32 [n, C], normalized.
        temperature: float32 [].
        hard: bool [], whether the weights are one-hot.
        dtype: of the weights.
        interpret: run the kernel without a GPU, for tests.

    Returns:
        y float32 [R, n, C], soft; the weights [R, n, C] in dtype; KL float32 [R, n]; the argmax
        int32 [R, n].
    """
    pl, params = pallas(num_warps=8)
    rows, grid, blocks = _grid(pl, logits.shape)

    def kernel(key, settings, logits, log_p, *outputs):  # type: ignore[no-untyped-def]
        row, code = (lax.broadcasted_iota(jnp.int32, logits.shape, axis) for axis in (0, 1))
        row = (pl.program_id(1) * rows + row) * grid[0] + pl.program_id(0)
        position = (row * logits.shape[1] + code).astype(jnp.uint32)
        inputs = (logits[...], log_p[...], settings[0], settings[1])
        found = _draw(key[0], key[1], position, *inputs, dtype)
        for output, values in zip(outputs, found, strict=True):
            output[...] = values

    def fused(key, settings, logits, log_p):  # type: ignore[no-untyped-def]
        sizes = 2 * [logits.shape] + 2 * [logits.shape[:2]]
        dtypes = (jnp.float32, dtype, jnp.float32, jnp.int32)
        call = pl.pallas_call(
            kernel,
            grid=grid,
            in_specs=[blocks[name] for name in ("scalars", "scalars", "all", "latent")],
            out_specs=[blocks[name] for name in ("all", "all", "row", "row")],
            out_shape=list(map(jax.ShapeDtypeStruct, sizes, dtypes)),
            compiler_params=params,
            interpret=interpret,
            name="soft_codes_forward",
        )
        return tuple(call(key, settings, logits, log_p))

    def plain(key, settings, logits, log_p):  # type: ignore[no-untyped-def]
        position = jnp.arange(logits.size, dtype=jnp.uint32).reshape(logits.shape)
        return _draw(key[0], key[1], position, logits, log_p, settings[0], settings[1], dtype)

    settings = jnp.stack([temperature.astype(jnp.float32), hard.astype(jnp.float32)])
    return on_cuda(fused, plain, interpret)(key, settings, logits, log_p)


def _draw(
    k0: jax.Array,
    k1: jax.Array,
    position: jax.Array,
    logits: jax.Array,
    log_p: jax.Array,
    temperature: jax.Array,
    hard: jax.Array,
    dtype: Any,
) -> Forward:
    """Returns what `forward` does, of rows of logits [R, ..., C] and log p [..., C]."""
    noise = gumbel_from_bits(threefry(k0, k1, position))
    scaled = (logits + noise) / temperature
    mass = jnp.exp(scaled - scaled.max(-1, keepdims=True))
    soft = mass / mass.sum(-1, keepdims=True)
    codes = lax.argmax(scaled, scaled.ndim - 1, jnp.int32)
    index = lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    one_hot = (index == codes[..., None]).astype(jnp.float32)
    weights = jnp.where(hard > 0, one_hot, soft).astype(dtype)
    kl = kl_terms(_log_softmax(logits), log_p[None]).sum(-1)
    return soft, weights, kl, codes


def backward(
    logits: jax.Array,
    log_p: jax.Array,
    soft: jax.Array,
    kl: jax.Array,
    d_weights: jax.Array,
    d_kl: jax.Array,
    temperature: jax.Array,
    *,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Pulls back gradients by the weights, [R, n, C], and by the KL, [R, n].

    Returns:
        The gradients by the logits, float32 [R, n, C], and by log p, float32 [n, C].
    """
    pl, params = pallas(num_warps=8)
    _, grid, blocks = _grid(pl, logits.shape)

    def kernel(settings, *inputs_and_outputs):  # type: ignore[no-untyped-def]
        *inputs, d_logits, d_log_p = inputs_and_outputs
        d_logits[...], gap = _pull_back(settings[0], *(x[...] for x in inputs))
        d_log_p[...] = gap.sum(0)

    def fused(settings, logits, log_p, *more):  # type: ignore[no-untyped-def]
        inputs = ("scalars", "all", "latent", "all", "row", "all", "row")
        call = pl.pallas_call(
            kernel,
            grid=grid,
            in_specs=[blocks[name] for name in inputs],
            out_specs=[blocks["all"], blocks["part"]],
            out_shape=[
                jax.ShapeDtypeStruct(logits.shape, jnp.float32),
                jax.ShapeDtypeStruct((grid[1], *log_p.shape), jnp.float32),
            ],
            compiler_params=params,
            interpret=interpret,
            name="soft_codes_backward",
        )
        d_logits, parts = call(settings, logits, log_p, *more)
        return d_logits, sum_of_parts(parts)

    def plain(settings, *inputs):  # type: ignore[no-untyped-def]
        d_logits, gap = _pull_back(settings[0], *inputs)
        return d_logits, gap.sum(0)

    settings = jnp.stack([temperature.astype(jnp.float32)] * 2)
    inputs = (settings, logits, log_p, soft, kl, d_weights, d_kl)
    return on_cuda(fused, plain, interpret)(*inputs)


def _pull_back(
    temperature: jax.Array,
    logits: jax.Array,
    log_p: jax.Array,
    soft: jax.Array,
    kl: jax.Array,
    d_weights: jax.Array,
    d_kl: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients by logits [R, ..., C] and, not yet added over rows, by log p."""
    d_weights = d_weights.astype(jnp.float32)
    relaxed = soft * (d_weights - (soft * d_weights).sum(-1, keepdims=True)) / temperature
    top = lax.argmax(logits, logits.ndim - 1, jnp.int32)
    slope, gap = kl_slopes(top, _log_softmax(logits), log_p[None], kl)
    weight = d_kl[..., None]  # 0 where the KL is not used, which may be infinite
    by_kl = jnp.where(weight == 0, 0, weight * slope)
    return relaxed + by_kl, jnp.where(weight == 0, 0, weight * gap)


def _log_softmax(logits: jax.Array) -> jax.Array:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - jnp.log(jnp.exp(shifted).sum(-1, keepdims=True))


def _grid(pl: Any, shape: tuple[int, ...]) -> tuple[int, tuple[int, int], dict[str, Any]]:
    """Returns rows a block, the grid of latent variables and blocks of rows, and the blocks."""
    num_rows, num_latents, num_codes = shape
    rows = rows_of_block(num_rows, num_codes)
    return (
        rows,
        (num_latents, num_rows // rows),
        {
            "all": pl.BlockSpec((rows, None, num_codes), lambda n, i: (i, n, 0)),
            "row": pl.BlockSpec((rows, None), lambda n, i: (i, n)),
            "latent": pl.BlockSpec((None, num_codes), lambda n, i: (n, 0)),
            "part": pl.BlockSpec((None, None, num_codes), lambda n, i: (i, n, 0)),
            "scalars": pl.BlockSpec((2,), lambda n, i: (0,)),
        },
    )
