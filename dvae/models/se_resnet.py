"""Residual blocks with squeeze-and-excitation, the parts that the networks of DVAE++ are made of.

Hu, Shen and Sun, "Squeeze-and-Excitation Networks" (2017); Vahdat et al., "DVAE++" (2018), sec.
6.2. Norms are over the channels of a position (layer norm): no image depends on the others in its
batch, the same function trains and evaluates, and any number of devices computes it.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dvae.models import checks, layers
from dvae.models._layer_norm import layer_norm

__all__ = ["Dense", "Down", "SEResidualBlock", "Up"]

_SQUEEZE = 4  # channels to those between the two gates' layers


class SEResidualBlock(nn.Module):
    """x + y SE(y), y = conv3x3(elu(norm(conv3x3(elu(norm x))))); [B, H, W, I] to [B, H, W, F].

    SE(y) = sigmoid(dense(relu(dense(mean of y over positions)))), one gate a channel. The last
    kernel starts at zero, so a stack of blocks starts as the identity. Where I differs from F, x
    passes a 1x1 convolution first.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps floats [B, H, W, I] to [B, H, W, F]."""
        checks.check_floats("x", x, ("B", "H", "W", "I"))
        y = layers.Conv(self.features, 3)(nn.elu(layer_norm(x)))
        zeros = nn.initializers.zeros
        y = layers.Conv(self.features, 3, kernel_init=zeros)(nn.elu(layer_norm(y)))
        squeezed = nn.relu(nn.Dense(max(1, self.features // _SQUEEZE))(y.mean((-3, -2))))
        gates = nn.sigmoid(nn.Dense(self.features)(squeezed))
        if x.shape[-1] != self.features:
            x = layers.Conv(self.features, 1)(x)
        return x + y * gates[..., None, None, :]


class Down(nn.Module):
    """Halves the size, rounded up, and applies residual blocks: [B, H, W, I] to [B, h, w, F]."""

    features: int
    num_blocks: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps floats [B, H, W, I] to [B, h, w, F], h and w half of H and W, rounded up."""
        checks.check_floats("x", x, ("B", "H", "W", "I"))
        odd = [(0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)]
        x = layers.Conv(self.features, 4, stride=2)(jnp.pad(x, odd))
        for _ in range(self.num_blocks):
            x = SEResidualBlock(self.features)(x)
        return x


class Up(nn.Module):
    """Doubles the size, cut to `sides`, and applies residual blocks: to [B, *sides, F]."""

    features: int
    num_blocks: int
    sides: tuple[int, int]  # height and width

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps floats [B, H, W, I] to [B, *sides, F]."""
        checks.check_floats("x", x, ("B", "H", "W", "I"))
        height, width = self.sides
        if any(
            not side <= 2 * now <= 2 * side
            for now, side in zip(x.shape[1:3], self.sides, strict=True)
        ):
            raise ValueError(
                f"x must have half of the sides {height}x{width}, up to all of them, got "
                f"{checks.describe(x)}"
            )
        x = layers.ConvTranspose(self.features)(x)[:, :height, :width]
        for _ in range(self.num_blocks):
            x = SEResidualBlock(self.features)(x)
        return x


class Dense(nn.Module):
    """Layers of elu(norm(dense x)) and a last dense layer: [..., I] to [..., num_outputs]."""

    hidden: Sequence[int]
    num_outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps floats [..., I] to [..., num_outputs]."""
        for features in self.hidden:
            x = nn.elu(nn.LayerNorm()(nn.Dense(features)(x)))
        return nn.Dense(self.num_outputs)(x)
