"""Layer normalization over few channels, in a form that CPUs run fast.

On CPUs means over few channels are products with a constant matrix, which was faster there
(docs/results/cpu_speed.md).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dvae.models import _convolution
from dvae.models._products import matmul


def layer_norm(x: jax.Array) -> jax.Array:
    """Applies `nn.LayerNorm`, with its parameters, inside of a module's `nn.compact`.

    (x - mean) / sqrt(variance + 1e-6) scale + bias over the channels of a position. Ba, Kiros and
    Hinton, "Layer Normalization" (2016).

    Args:
        x: float [..., C].

    Returns:
        [..., C], at least float32.
    """
    is_few = x.shape[-1] <= _convolution.FEW and x.dtype == jnp.float32
    return (LayerNorm if is_few and _convolution.use_matmul() else nn.LayerNorm)()(x)


class LayerNorm(nn.Module):
    """`nn.LayerNorm` by products; Flax names parameters after the class."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps floats [..., C] to floats of that shape."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        mean = jnp.full((channels, channels), 1 / channels, x.dtype)
        centered = matmul(x, jnp.eye(channels, dtype=x.dtype) - mean)
        variance = matmul(centered * centered, mean)
        scale, bias = (p.reshape((1,) * (x.ndim - 1) + p.shape) for p in (scale, bias))
        return centered * (jax.lax.rsqrt(variance + 1e-6) * scale) + bias
