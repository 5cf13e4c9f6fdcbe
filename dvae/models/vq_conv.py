"""Convolutional VQ model of images (Sonderby, Poole and Mnih 2017; van den Oord et al. 2017).

    x uint8 [B, H, W, c]  --encode-->  vectors v [B, H/4, W/4, n, D]
    posterior logits of q(z = k | x) = -scale_n |v_n - m_nk|^2  against codebooks m [n, C, D]
    chosen (or softly averaged) codes [B, H/4, W/4, n, D]  --log_likelihood-->  log p(x | z) [B]
    prior p(z) = prod over positions and latent variables of Cat(softmax(prior_logits_n))

The codebook is an argument of every method that uses it, because its owner depends on how it is
trained: a parameter under gradient training, an exponential moving average under `vq_ema`.

Every layer is convolutional, so a model trained on crops evaluates whole images; sizes are
multiples of 4. Parameters, distances, likelihood and all reductions are float32; `dtype` is that of
the convolutions.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from dvae.models import checks, layers
from dvae.models._code_vectors import (
    average,
    calibrated_log_scale,
    distances,
    log_prior_of,
    lookup,
    nearest_codes,
    per_image,
)
from dvae.models._soft_codes import scaled, soft_codes, soft_quantize
from dvae.models.pixel_head import PixelHead

__all__ = [
    "DOWNSAMPLING",
    "Decoder",
    "Encoder",
    "VQConv",
    "VQConvConfig",
    "average",
    "calibrated_log_scale",
    "distances",
    "log_prior_of",
    "lookup",
    "nearest_codes",
    "per_image",
    "soft_codes",
    "soft_quantize",
]

DOWNSAMPLING = 4


@dataclass(frozen=True)
class VQConvConfig:
    """Sizes of the model; the defaults are those of the paper's best run."""

    codebook_size: int = 512
    num_latents: int = 8
    code_dim: int = 64
    features: int = 256
    num_residual_blocks: int = 4  # "two layers of two residual blocks"
    dtype: DTypeLike = jnp.float32
    channels: int = 3  # of images: 3 for color, 1 for gray
    num_stages: int = 1  # codes of a latent variable: the stages of a residual quantizer

    def __post_init__(self) -> None:
        """Raises ValueError for sizes that make no model."""
        checks.check_sizes(
            codebook_size=self.codebook_size,
            num_latents=self.num_latents,
            code_dim=self.code_dim,
            features=self.features,
            channels=self.channels,
            num_stages=self.num_stages,
        )
        if self.num_residual_blocks < 0 or not jnp.issubdtype(self.dtype, jnp.floating):
            raise ValueError(
                "num_residual_blocks must be at least 0 and dtype one of floats, got "
                f"{self.num_residual_blocks} and {self.dtype}"
            )


class Encoder(nn.Module):
    """Maps float images in [-1, 1], [B, H, W, c], to vectors [B, H/4, W/4, n, D] in float32."""

    config: VQConvConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps float images [B, H, W, c] to vectors [B, H/4, W/4, n, D] in float32."""
        c = self.config
        checks.check_floats("x", x, ("B", "H", "W", c.channels))
        checks.check_multiples("x", x, (1, 2), DOWNSAMPLING)
        x = nn.relu(layers.Conv(c.features, 4, stride=2, dtype=c.dtype)(x))
        x = layers.Conv(c.features, 4, stride=2, dtype=c.dtype)(x)
        for _ in range(c.num_residual_blocks):
            x = layers.ResidualBlock(c.features, dtype=c.dtype)(x)
        x = layers.Conv(c.num_latents * c.code_dim, 1, dtype=c.dtype)(nn.relu(x))
        return x.astype(jnp.float32).reshape(*x.shape[:-1], c.num_latents, c.code_dim)


class Decoder(nn.Module):
    """Maps code vectors [B, h, w, n, D] to features [B, 2 h, 2 w, F], half the image's size."""

    config: VQConvConfig

    @nn.compact
    def __call__(self, codes: jax.Array) -> jax.Array:
        """Maps code vectors [B, h, w, n, D] to features [B, 2 h, 2 w, F]."""
        c = self.config
        checks.check_floats("codes", codes, ("B", "h", "w", c.num_latents, c.code_dim))
        x = codes.reshape(*codes.shape[:-2], c.num_latents * c.code_dim)
        x = layers.Conv(c.features, 1, dtype=c.dtype)(x)
        for _ in range(c.num_residual_blocks):
            x = layers.ResidualBlock(c.features, dtype=c.dtype)(x)
        return nn.relu(layers.ConvTranspose(c.features, dtype=c.dtype)(nn.relu(x)))


class VQConv(nn.Module):
    """The model's networks and its prior; see the module's docstring for the shapes."""

    config: VQConvConfig

    def setup(self) -> None:
        """Makes encoder, decoder and head, the scales of the posterior and the prior's logits."""
        c = self.config
        self.encoder = Encoder(c)
        self.decoder = Decoder(c)
        self.head = PixelHead(c.features, c.dtype, c.channels)
        zeros = nn.initializers.zeros
        self.log_scale = self.param("log_scale", zeros, (c.num_latents,), jnp.float32)
        shape = (c.num_latents * c.num_stages, c.codebook_size)
        self.prior_logits = self.param("prior_logits", zeros, shape, jnp.float32)

    def __call__(self, images: jax.Array, codebook: jax.Array) -> jax.Array:
        """Touches every parameter once; only for `init`, with the codebooks of first stages."""
        vectors = self.encode(images)
        logits = self.posterior_logits(vectors, codebook)
        return self.log_likelihood(vectors + 0.0 * logits.sum(), images) + self.log_prior().sum()

    def encode(self, images: jax.Array) -> jax.Array:
        """Encodes uint8 [B, H, W, c] to vectors float32 [B, H/4, W/4, n, D].

        Raises:
            ValueError: images are no uint8 levels, have other channels, or sizes that are not
                multiples of 4.
        """
        shape = ("B", "H", "W", self.config.channels)
        checks.check_images(images, kind=checks.LEVELS, shape=shape)
        checks.check_multiples("images", images, (1, 2), DOWNSAMPLING)
        scaled = images.astype(jnp.float32) / 127.5 - 1.0
        return self.encoder(scaled.astype(self.config.dtype))

    def posterior_logits(self, vectors: jax.Array, codebook: jax.Array) -> jax.Array:
        """Returns logits of q(z | x), -scale |v - m|^2, [B, h, w, n, C] (unnormalized).

        Args:
            vectors: float [B, h, w, n, D], from `encode`.
            codebook: float [n, C, D].
        """
        c = self.config
        shape = (c.num_latents, c.codebook_size, c.code_dim)
        checks.check_floats("codebook", codebook, shape)
        checks.check_floats("vectors", vectors, ("B", "h", "w", c.num_latents, c.code_dim))
        return -distances(*scaled(vectors, codebook, self.log_scale))

    def soft_quantize(
        self,
        key: jax.Array,
        vectors: jax.Array,
        codebook: jax.Array,
        log_prior: jax.Array,
        temperature: float | jax.Array,
        hard: bool | jax.Array = False,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns `soft_quantize` under the posterior of q(z | x), in the decoder's dtype."""
        inputs = (key, vectors, codebook, self.log_scale, log_prior, temperature)
        return soft_quantize(*inputs, hard=hard, dtype=self.config.dtype)

    def log_likelihood(self, codes: jax.Array, images: jax.Array) -> jax.Array:
        """Returns log p(x | z) in nats [B] of uint8 images, for code vectors [B, h, w, n, D]."""
        return self.head.log_likelihood(self.decoder(codes), images)

    def total_log_likelihood(
        self, codes: jax.Array, images: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the sum over images of `log_likelihood` and, without gradient, its terms."""
        return self.head.total_log_likelihood(self.decoder(codes), images)

    def mean_image(self, codes: jax.Array) -> jax.Array:
        """Returns E[x | z] for code vectors [B, h, w, n, D]: float32 [B, H, W, c] in [0, 255]."""
        return self.head.mean(self.decoder(codes))

    def log_prior(self) -> jax.Array:
        """Returns log p(z = k) of each latent variable, [n, C]; of R stages [n R, C]."""
        return nn.log_softmax(self.prior_logits)
