"""Convolutional model of images with continuous and discrete latent variables (JointVAE).

    x [B, H, W, C] in [0, 1]  --encode-->  q(h | x) = N(mean, exp(log_scale)^2)      [B, n]
                                           q(c_j | x) = Cat(softmax(logits_j))        [B, n_j] each
    h [..., n], c_j [..., n_j] (one-hot or relaxed)  --pixel_logits-->  logits of p(x | h, c)
    p(h) = N(0, 1), p(c_j) uniform

Dupont, "Learning Disentangled Joint Continuous and Discrete Representations" (2018), appendix A: at
32x32, 4x4 convolutions of stride 2 with 32, 64 and 64 maps and a dense layer of 256 units, and the
same mirrored. The authors' program has 32 maps, not 64, behind the decoder's first convolution:
decoder_features=32. A pixel is the mean of a Bernoulli, so gray levels are targets of a cross
entropy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from dvae.distributions import bernoulli, categorical, normal
from dvae.models import checks, layers

__all__ = [
    "DOWNSAMPLING",
    "Divergences",
    "JointConfig",
    "JointVAE",
    "Posterior",
    "as_float",
    "divergences",
    "likeliest",
    "log_likelihood",
]

DOWNSAMPLING = 8


@dataclass(frozen=True)
class JointConfig:
    """Sizes of the model; the defaults are those of the publication's text for MNIST."""

    image_size: int | tuple[int, int] = 32  # height and width, or both in one; multiples of 8
    channels: int = 1
    num_continuous: int = 10
    discrete: tuple[int, ...] = (10,)  # classes of each discrete variable
    features: int = 32  # of the outer convolutions; the inner ones have twice as many
    hidden_units: int = 256
    # Maps of the decoder's first transposed convolution; 0: those of the inner ones.
    decoder_features: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for sizes that make no model."""
        if min(self.sides) < DOWNSAMPLING or any(side % DOWNSAMPLING for side in self.sides):
            raise ValueError(
                f"image_size must be a multiple of {DOWNSAMPLING} (three convolutions of stride "
                f"2), got {self.image_size}"
            )
        if self.num_continuous < 0 or any(size < 2 for size in self.discrete):
            raise ValueError(
                f"num_continuous must be at least 0 and every discrete variable have at least 2 "
                f"classes, got {self.num_continuous} and {self.discrete}"
            )
        if not self.num_continuous and not self.discrete:
            raise ValueError("the model needs a latent variable, continuous or discrete")
        if self.decoder_features < 0:
            raise ValueError(
                f"decoder_features must be at least 0 (which is twice the features), got "
                f"{self.decoder_features}"
            )
        checks.check_sizes(
            channels=self.channels, features=self.features, hidden_units=self.hidden_units
        )

    @property
    def sides(self) -> tuple[int, int]:
        """Returns height and width."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else size


class Posterior(NamedTuple):
    """Parameters of q(h, c | x)."""

    mean: jax.Array  # [B, n]
    log_scale: jax.Array  # [B, n], logarithm of the standard deviation
    logits: tuple[jax.Array, ...]  # [B, n_j] each


class JointVAE(nn.Module):
    """The networks; see the module's docstring for the shapes."""

    config: JointConfig

    def setup(self) -> None:
        """Makes the layers of encoder and decoder."""
        c = self.config
        maps = (c.features, 2 * c.features, 2 * c.features)
        self.convolutions = [layers.Conv(features, 4, stride=2) for features in maps]
        self.hidden = nn.Dense(c.hidden_units)
        if c.num_continuous:
            self.mean = nn.Dense(c.num_continuous)
            self.log_scale = nn.Dense(c.num_continuous)
        self.class_logits = [nn.Dense(size) for size in c.discrete]
        self.from_latents = nn.Dense(c.hidden_units)
        self.to_maps = nn.Dense(math.prod(self._coarsest()) * maps[-1])
        widths = (c.decoder_features or maps[1], maps[0], c.channels)
        self.transposed = [layers.ConvTranspose(features) for features in widths]

    def _coarsest(self) -> tuple[int, int]:
        """Returns height and width of the maps that the decoder begins with."""
        height, width = self.config.sides
        return height // DOWNSAMPLING, width // DOWNSAMPLING

    def __call__(self, x: jax.Array) -> jax.Array:
        """Runs both networks once, in order to make their parameters; returns pixel logits."""
        q = self.encode(x)
        return self.pixel_logits(q.mean + q.log_scale, q.logits)

    def encode(self, x: jax.Array) -> Posterior:
        """Encodes float images [B, H, W, C] in [0, 1].

        Raises:
            ValueError: x has another dtype or shape, or as a NumPy array other values.
        """
        c = self.config
        shape = ("B", *c.sides, c.channels)
        checks.check_images(x, kind=checks.UNIT, shape=shape, name="x")
        for convolution in self.convolutions:
            x = nn.relu(convolution(x))
        x = nn.relu(self.hidden(x.reshape(len(x), math.prod(x.shape[1:]))))
        logits = tuple(layer(x) for layer in self.class_logits)
        if not self.config.num_continuous:
            return Posterior(x[:, :0], x[:, :0], logits)
        return Posterior(self.mean(x), self.log_scale(x), logits)

    def pixel_logits(self, h: jax.Array, c: Sequence[jax.Array]) -> jax.Array:
        """Decodes to logits of the pixels' means [B, H, W, C].

        Args:
            h: float [B, n], empty [B, 0] where there are no continuous variables.
            c: float [B, n_j] each, one-hot or relaxed, in the variables' order.

        Raises:
            ValueError: number, dtypes or shapes of the variables are others.
        """
        sizes = self.config.discrete
        checks.check_floats("h", h, ("B", self.config.num_continuous))
        if len(c) != len(sizes):
            raise ValueError(
                f"c must have one array for each of {len(sizes)} variables, got {len(c)}"
            )
        for j, (values, size) in enumerate(zip(c, sizes, strict=True)):
            checks.check_floats(f"c[{j}]", values, (len(h), size))
        x = nn.relu(self.from_latents(jnp.concatenate([h, *c], axis=-1)))
        x = nn.relu(self.to_maps(x)).reshape(len(x), *self._coarsest(), 2 * self.config.features)
        for i, layer in enumerate(self.transposed):
            x = layer(x if i == 0 else nn.relu(x))
        return x


def as_float(images: jax.Array) -> jax.Array:
    """Maps uint8 levels [B, H, W, C] to [0, 1], float32; ValueError for other dtypes."""
    checks.check_images(images, kind=checks.LEVELS, shape=("B", "H", "W", "C"))
    return images.astype(jnp.float32) / 255


def log_likelihood(x: jax.Array, pixel_logits: jax.Array) -> jax.Array:
    """Evaluates sum over pixels of x log p + (1 - x) log(1 - p), nats [B], for x in [0, 1].

    The log-likelihood of binary pixels, for gray ones minus a cross entropy: it bounds nothing.

    Args:
        x: float [B, H, W, C] in [0, 1].
        pixel_logits: float [B, H, W, C].

    Raises:
        ValueError: dtypes or shapes are others, or x as a NumPy array has other values.
    """
    checks.check_floats("pixel_logits", pixel_logits, ("B", "H", "W", "C"))
    checks.check_images(x, kind=checks.UNIT, shape=pixel_logits.shape, name="x")
    terms = bernoulli.log_prob(x, pixel_logits)
    # By a product: XLA computes the logarithms inside of a sum one by one on CPUs.
    ones = jnp.ones(terms.shape[1:], terms.dtype)
    return jnp.einsum("bhwc,hwc->b", terms, ones, precision=lax.Precision.HIGHEST)


class Divergences(NamedTuple):
    """KL of every latent variable to its prior, nats."""

    continuous: jax.Array  # [B, n] from N(0, 1)
    discrete: jax.Array  # [B, j] from the uniform distribution


def divergences(q: Posterior) -> Divergences:
    """Evaluates the KL of every latent variable, analytically."""
    discrete = [categorical.kl(logits, jnp.zeros_like(logits)) for logits in q.logits]
    none = jnp.zeros((*q.mean.shape[:-1], 0), q.mean.dtype)
    stacked = jnp.stack(discrete, axis=-1) if discrete else none
    return Divergences(normal.kl(q.mean, q.log_scale, 0.0, 0.0), stacked)


def likeliest(q: Posterior) -> jax.Array:
    """Returns the likeliest class of every discrete variable, int32 [B, j]."""
    codes = [logits.argmax(-1).astype(jnp.int32) for logits in q.logits]
    none = jnp.zeros((*q.mean.shape[:-1], 0), jnp.int32)
    return jnp.stack(codes, axis=-1) if codes else none
