"""log p(level) of logits y + bias in one kernel a direction, for NVIDIA GPUs.

The logits of pixels are the largest array of an image model. A block of threads holds whole rows of
levels, so that nothing of their size is written but the gradient:

    forward   reads y; writes log p(level) = l_level - logsumexp(l), l = y + bias
    backward  reads y; writes d y = d (1[k = level] - softmax(l)_k), and in parts its sums over rows
"""

import jax
import jax.numpy as jnp
from jax import lax

from dvae.models import _gpu


@jax.custom_vjp
def log_prob(y: jax.Array, bias: jax.Array, levels: jax.Array) -> jax.Array:
    """Evaluates log p of levels; differentiable once, in reverse mode.

    Args:
        y: float32 or half precision [R, C, K], logits without their bias.
        bias: float32 [C, K].
        levels: int32 [R, C], in 0 .. K-1.

    Returns:
        float32 [R, C], nats.
    """
    return forward(y, bias, levels)


def _log_softmax(y: jax.Array, bias: jax.Array) -> jax.Array:
    logits = y.astype(jnp.float32) + bias[None]
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - jnp.log(jnp.exp(shifted).sum(-1, keepdims=True))


def _values(y: jax.Array, bias: jax.Array, levels: jax.Array) -> jax.Array:
    """Returns log p of levels [R, ...] of y [R, ..., K] and bias [..., K]."""
    level = lax.broadcasted_iota(jnp.int32, y.shape, y.ndim - 1)
    return jnp.where(level == levels[..., None], _log_softmax(y, bias), 0).sum(-1)


def _gradient(y: jax.Array, bias: jax.Array, levels: jax.Array, d_values: jax.Array) -> jax.Array:
    """Returns the gradient by the logits in float32."""
    level = lax.broadcasted_iota(jnp.int32, y.shape, y.ndim - 1)
    is_level = (level == levels[..., None]).astype(jnp.float32)
    return d_values[..., None] * (is_level - jnp.exp(_log_softmax(y, bias)))


def _call(kernel, y, inputs, outputs, interpret):  # type: ignore[no-untyped-def]
    """Runs a kernel over blocks of rows of each channel."""
    pl, params = _gpu.pallas(num_warps=4)
    num_rows, channels, num_levels = y.shape
    rows = _gpu.rows_of_block(num_rows, num_levels)
    blocks = {
        "all": pl.BlockSpec((rows, None, num_levels), lambda c, i: (i, c, 0)),
        "row": pl.BlockSpec((rows, None), lambda c, i: (i, c)),
        "channel": pl.BlockSpec((None, num_levels), lambda c, i: (c, 0)),
        "part": pl.BlockSpec((None, None, num_levels), lambda c, i: (i, c, 0)),
    }
    shapes = {
        "all": (y.shape, y.dtype),
        "row": (y.shape[:2], jnp.float32),
        "part": ((num_rows // rows, channels, num_levels), jnp.float32),
    }
    return pl.pallas_call(
        kernel,
        grid=(channels, num_rows // rows),
        in_specs=[blocks[kind] for kind in inputs],
        out_specs=[blocks[kind] for kind in outputs],
        out_shape=[jax.ShapeDtypeStruct(*shapes[kind]) for kind in outputs],
        compiler_params=params,
        interpret=interpret,
        name=kernel.__name__,
    )


def forward(
    y: jax.Array, bias: jax.Array, levels: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """Computes `log_prob`; `interpret` runs the kernel without a GPU, for tests."""

    def levels_forward(y, bias, levels, values):  # type: ignore[no-untyped-def]
        values[...] = _values(y[...], bias[...], levels[...])

    def fused(y, bias, levels):  # type: ignore[no-untyped-def]
        call = _call(levels_forward, y, ("all", "channel", "row"), ("row",), interpret)
        return call(y, bias, levels)[0]

    return _gpu.on_cuda(fused, _values, interpret)(y, bias, levels)


def backward(
    y: jax.Array,
    bias: jax.Array,
    levels: jax.Array,
    d_values: jax.Array,
    *,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Pulls back a gradient by the values: to y, in its dtype, and to the bias, in float32."""

    def levels_backward(y, bias, levels, d_values, d_y, d_bias):  # type: ignore[no-untyped-def]
        d_logits = _gradient(y[...], bias[...], levels[...], d_values[...])
        d_y[...] = d_logits.astype(y.dtype)
        d_bias[...] = d_logits.sum(0)

    def fused(y, *inputs):  # type: ignore[no-untyped-def]
        kinds = ("all", "channel", "row", "row")
        d_y, parts = _call(levels_backward, y, kinds, ("all", "part"), interpret)(y, *inputs)
        return d_y, _gpu.sum_of_parts(parts)

    def plain(y, *inputs):  # type: ignore[no-untyped-def]
        d_logits = _gradient(y, *inputs)
        return d_logits.astype(y.dtype), d_logits.sum(0)

    return _gpu.on_cuda(fused, plain, interpret)(y, bias, levels, d_values)


def _forward_rule(y, bias, levels):  # type: ignore[no-untyped-def]
    return forward(y, bias, levels), (y, bias, levels)


def _backward_rule(residuals, d_values):  # type: ignore[no-untyped-def]
    y, bias, levels = residuals
    d_y, d_bias = backward(y, bias, levels, d_values)
    return d_y, d_bias, None


log_prob.defvjp(_forward_rule, _backward_rule)
