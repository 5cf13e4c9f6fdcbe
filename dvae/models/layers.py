"""Layers of the image models: convolutions with bias, and the residual block of them.

Parameters are float32 and named `kernel` and `bias`; `dtype` is that of products and results.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from dvae.models import checks
from dvae.models._bias import add_bias
from dvae.models._convolution import conv, conv_transpose

__all__ = ["Conv", "ConvTranspose", "ResidualBlock"]

# Only a quarter of the taps of a stride-2 transposed convolution meet at one output pixel.
_transpose_init = nn.initializers.variance_scaling(8.0, "fan_in", "truncated_normal")


class Conv(nn.Module):
    """Convolution with bias: floats [B, H, W, I] to [B, H / stride, W / stride, features]."""

    features: int
    size: int
    stride: int = 1
    dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps floats [B, H, W, I] to [B, H / stride, W / stride, features]."""
        checks.check_floats("x", x, ("B", "H", "W", "I"))
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return add_bias(conv(x.astype(self.dtype), kernel, stride=self.stride), bias)


class ConvTranspose(nn.Module):
    """Transposed 4x4 convolution with bias: floats [B, H, W, I] to [B, 2H, 2W, features]."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps floats [B, H, W, I] to [B, 2H, 2W, features]."""
        checks.check_floats("x", x, ("B", "H", "W", "I"))
        shape = (4, 4, x.shape[-1], self.features)
        kernel = self.param("kernel", _transpose_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return add_bias(conv_transpose(x.astype(self.dtype), kernel), bias)


class ResidualBlock(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))) (van den Oord et al. 2017, section 4.1).

    The last kernel starts at zero: the block is the identity at first, and a stack of them keeps
    its scale.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps floats [B, H, W, I] to floats of that shape."""
        y = Conv(self.features, 3, dtype=self.dtype)(nn.relu(x))
        zeros = nn.initializers.zeros
        y = Conv(x.shape[-1], 1, dtype=self.dtype, kernel_init=zeros)(nn.relu(y))
        return x + y
