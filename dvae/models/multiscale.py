r"""Decoders that make an image by scales: every pixel once, given all pixels of coarser scales.

    p(x | context) = p(x_0 | context) prod_i p(x_i \ x_{i-1} | x_{<i}, context)

x_i are the pixels at rows and columns divisible by 2^(S-1-i), S the number of scales, so x_{S-1} is
the image; pixels of one scale are independent given what is before. One scale is the factorial
decoder. Vahdat et al., "DVAE++" (2018), sec. 6.1, after Reed et al., "Parallel Multiscale
Autoregressive Density Estimation" (2017).

Binary pixels (0 or 1) are Bernoulli; with `num_mixtures` levels 0..255 are a mixture of discretized
logistics, channels coupled (`distributions.discretized_logistic`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import partition, spec_of, wide_dtype
from dvae.distributions import bernoulli, discretized_logistic
from dvae.models import checks, layers, se_resnet

__all__ = ["MultiscaleConfig", "MultiscaleDecoder", "center", "new_pixels"]


@dataclass(frozen=True)
class MultiscaleConfig:
    """Sizes of the decoder."""

    image_size: int | tuple[int, int] = 28  # height and width, or both in one
    channels: int = 1
    num_mixtures: int = 0  # components of the pixels' law; 0 for binary pixels
    num_scales: int = 1
    features: int = 32  # maps at full size, twice as many at half, four times below
    num_blocks: int = 1  # residual blocks at each size

    def __post_init__(self) -> None:
        """Raises ValueError for scales that the image does not have."""
        whole = min(side & -side for side in self.sides)  # the largest power of two in both
        most = whole.bit_length() if min(self.sides) > 0 else 0
        if not 1 <= self.num_scales <= most:
            raise ValueError(
                f"num_scales must be 1 to {most} at image_size={self.image_size}, which is halved "
                f"from scale to scale, got {self.num_scales}"
            )
        checks.check_sizes(channels=self.channels, features=self.features)
        if self.num_mixtures < 0 or self.num_blocks < 0:
            raise ValueError(
                "num_mixtures and num_blocks must be at least 0, got "
                f"{self.num_mixtures} and {self.num_blocks}"
            )

    @property
    def sides(self) -> tuple[int, int]:
        """Returns height and width of images."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else size

    @property
    def num_parameters(self) -> int:
        """Numbers that the last layer has for a pixel."""
        if self.num_mixtures:
            return discretized_logistic.num_parameters(self.num_mixtures, self.channels)
        return self.channels

    def features_at(self, height: int) -> int:
        """Returns the number of maps where images have this height."""
        return self.features * max(1, min(4, self.sides[0] // height))

    def step(self, scale: int) -> int:
        """Returns the distance between neighboring pixels of a scale."""
        return 2 ** (self.num_scales - 1 - scale)

    def check_images(self, images: jax.Array, batch: int | str = "B") -> None:
        """Raises ValueError unless images have the shape [B, H, W, C] and the kind of pixels."""
        kind = checks.LEVELS if self.num_mixtures else checks.BITS
        shape = (batch, *self.sides, self.channels)
        checks.check_images(images, kind=kind, shape=shape)


def center(images: jax.Array, num_mixtures: int) -> jax.Array:
    """Maps pixels 0 or 1, or levels 0..255, to [-1, 1], float32, as networks see them."""
    half = 127.5 if num_mixtures else 0.5
    return images.astype(jnp.float32) / half - 1


def new_pixels(height: int, width: int, *, first: bool) -> np.ndarray:
    """Marks the pixels of a scale, [height, width], that the scale before does not have."""
    rows, columns = (np.arange(side) % 2 == 0 for side in (height, width))
    return np.ones((height, width), bool) if first else ~(rows[:, None] & columns[None, :])


class MultiscaleDecoder(nn.Module):
    """p(x | context), for a float context [B, h, w, F].

    h and w are brought to those of the coarsest scale by doubling, or by halving and rounding up.
    """

    config: MultiscaleConfig

    def setup(self) -> None:
        """Makes one network a scale."""
        self.scales = [_Scale(self.config, scale) for scale in range(self.config.num_scales)]

    def log_likelihood(self, context: jax.Array, images: jax.Array) -> jax.Array:
        """Evaluates log p(x | context), nats [B].

        Args:
            context: float [B, h, w, F].
            images: [B, H, W, C], pixels 0 or 1 of any dtype, or uint8 levels 0..255.

        Raises:
            ValueError: context or images have other dtypes or shapes, or images, as a NumPy array,
                other values.
        """
        c = self.config
        self._check_context(context)
        c.check_images(images, len(context))
        total, state = jnp.zeros(len(images), wide_dtype(context)), None
        for scale, network in enumerate(self.scales):
            pixels = images[:, :: c.step(scale), :: c.step(scale)]
            state, params = network(context, state, center(pixels, c.num_mixtures))
            mask = new_pixels(*pixels.shape[1:3], first=scale == 0)
            total += jnp.where(mask[None], self._log_prob(pixels, params), 0).sum((1, 2))
        return total

    def generate(self, key: jax.Array, context: jax.Array) -> jax.Array:
        """Draws images scale by scale: uint8 [B, H, W, C]."""

        def draw(scale: int, params: jax.Array) -> jax.Array:
            key_scale = jax.random.fold_in(key, scale)
            if self.config.num_mixtures:
                channels = self.config.channels
                return discretized_logistic.sample(key_scale, params, num_channels=channels)
            return bernoulli.sample(key_scale, params)

        return self._walk(context, draw).astype(jnp.uint8)

    def generate_mean(self, key: jax.Array, context: jax.Array) -> jax.Array:
        """Draws binary images but for the last scale's pixels, which get their means; float32.

        Raises:
            ValueError: pixels are not binary.
        """
        if self.config.num_mixtures:
            raise ValueError("the mean of a mixture's pixels is not available; use generate")

        def draw(scale: int, params: jax.Array) -> jax.Array:
            if scale == self.config.num_scales - 1:
                return nn.sigmoid(params)
            return bernoulli.sample(jax.random.fold_in(key, scale), params)

        return self._walk(context, draw)

    def _check_context(self, context: jax.Array) -> None:
        checks.check_floats("context", context, ("B", "h", "w", "F"))
        coarsest = tuple(side // self.config.step(0) for side in self.config.sides)
        height, width = context.shape[1:3]
        while height > coarsest[0]:
            height, width = -(-height // 2), -(-width // 2)
        while 0 < height < coarsest[0]:
            height, width = 2 * height, 2 * width
        if (height, width) != coarsest:
            raise ValueError(
                f"context must have a size that doubles or halves to the coarsest scale's "
                f"{coarsest[0]}x{coarsest[1]}, got {checks.describe(context)}"
            )

    def _walk(self, context: jax.Array, draw: Callable[[int, jax.Array], jax.Array]) -> jax.Array:
        c = self.config
        self._check_context(context)
        shape = (len(context), *c.sides, c.channels)
        image = jnp.zeros(shape, jnp.float32)
        state = None
        for scale, network in enumerate(self.scales):
            step = c.step(scale)
            pixels = image[:, ::step, ::step]
            state, params = network(context, state, center(pixels, c.num_mixtures))
            mask = new_pixels(*pixels.shape[1:3], first=scale == 0)[None, :, :, None]
            drawn = draw(scale, params).astype(jnp.float32)
            pixels = jnp.where(mask, drawn, pixels)
            paste = lambda image, pixels, step=step: image.at[:, ::step, ::step].set(pixels)
            image = partition(paste, spec_of(pixels), image, pixels)
        return image

    def _log_prob(self, pixels: jax.Array, params: jax.Array) -> jax.Array:
        """Log-probabilities of pixels, all channels of one together, [B, s, s]."""
        if self.config.num_mixtures:
            return discretized_logistic.log_prob(pixels, params)
        return bernoulli.log_prob(pixels.astype(jnp.float32), params).sum(-1)


class _Scale(nn.Module):
    """Parameters of one scale's pixels, given the context and the pixels of coarser scales."""

    config: MultiscaleConfig
    scale: int

    @nn.compact
    def __call__(
        self, context: jax.Array, state: jax.Array | None, pixels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns features for the next scale [B, s, s, F], and parameters [B, s, s, P].

        Args:
            context: [B, h, w, F].
            state: features of the scale before; None at the first, which sees no pixels.
            pixels: of this scale [B, s, s, C], centered; only those of coarser scales are read.
        """
        c, (height, width) = self.config, pixels.shape[1:3]
        features = c.features_at(height)
        if state is None:
            x = self._resized(context, height)
        else:
            known = jnp.asarray(~new_pixels(height, width, first=False))[None, :, :, None]
            flags = jnp.where(known, jnp.ones_like(pixels[..., :1]), 0)
            given = jnp.concatenate([jnp.where(known, pixels, 0), flags], axis=-1)
            x = se_resnet.Up(features, 0, (height, width))(state) + layers.Conv(features, 3)(given)
            for _ in range(max(1, c.num_blocks)):
                x = se_resnet.SEResidualBlock(features)(x)
        # Zero at first, so that every pixel starts at the bias, however large the context.
        zeros = nn.initializers.zeros
        return x, layers.Conv(c.num_parameters, 3, kernel_init=zeros)(nn.elu(x))

    def _resized(self, x: jax.Array, height: int) -> jax.Array:
        """Brings the context to a height by residual blocks, down or up."""
        c = self.config
        while x.shape[1] > height:
            x = se_resnet.Down(c.features_at(x.shape[1] // 2), c.num_blocks)(x)
        while x.shape[1] < height:
            doubled = 2 * x.shape[1], 2 * x.shape[2]
            x = se_resnet.Up(c.features_at(doubled[0]), c.num_blocks, doubled)(x)
        return x
