"""The networks of DVAE++: global latent variables over groups of local ones, and images by scales.

    features = encode(x)                                   # a tower of residual blocks
    global_posterior(features, earlier)                    # of q(z_i | x, zeta_<i)
    context = expand(globals)                              # [B, h, w, F], a quarter of the size
    context, divergences = local_groups(key, context, features, draw)   # q(h_j | x, zeta, h_<j)
    context, _ = local_groups(key, context, None, draw)                 # p(h_j | zeta, h_<j)
    context = embed_groups(context, values)                             # h_j known
    log_likelihood(context, x)                             # log p(x | zeta, h)
    generate(key, context)                                 # x

Vahdat et al., "DVAE++" (2018), sec. 6. The appendices with the published sizes are not at hand; the
layout is that of the text and of Fig. 3, sizes are ours. Globals enter as one vector, local groups
one after the other by what they add to the context, which so carries zeta and h_<j. The groups'
networks are alike, and a scan runs them: compiled once, whatever their number.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dvae.models import checks, layers, se_resnet
from dvae.models.multiscale import MultiscaleConfig, MultiscaleDecoder, center

__all__ = [
    "DVAEPP",
    "LOCAL_DOWNSAMPLING",
    "DVAEPPConfig",
    "Encoder",
    "Features",
    "LocalDraw",
    "LocalGroup",
]

LOCAL_DOWNSAMPLING = 4
# (key, q, p) -> a sample of h [B, h, w, n] as networks see it, and a divergence [B]; q and p are
# [B, h, w, P], q None when generating.
LocalDraw = Callable[[jax.Array, jax.Array | None, jax.Array], tuple[jax.Array, jax.Array]]


@dataclass(frozen=True)
class DVAEPPConfig:
    """Sizes of the model."""

    decoder: MultiscaleConfig  # which also says what images are
    global_sizes: tuple[int, ...] = (8, 8)  # variables of each layer of q(z | x)
    global_parameters: int = 1  # numbers a variable: 1 logit, or mean and log_scale
    local_groups: int = 16  # of local variables
    local_size: int = 32  # their channels
    local_parameters: int = 2  # as `global_parameters`
    hidden: tuple[int, ...] = (200,)  # of the networks of the global variables
    remat: bool = True  # recompute a local group's layers in the backward pass

    def __post_init__(self) -> None:
        """Raises ValueError for sizes that make no model."""
        if any(side % LOCAL_DOWNSAMPLING for side in self.decoder.sides):
            raise ValueError(
                f"image_size must be a multiple of {LOCAL_DOWNSAMPLING} (local variables live at "
                f"a quarter of it), got {self.decoder.image_size}"
            )
        if not self.global_sizes or min(self.global_sizes) < 1 or self.local_groups < 0:
            raise ValueError(
                "global_sizes must name at least one layer of at least 1 variable, and "
                f"local_groups be at least 0, got {self.global_sizes} and {self.local_groups}"
            )
        checks.check_sizes(
            global_parameters=self.global_parameters,
            local_size=self.local_size,
            local_parameters=self.local_parameters,
            hidden=min(self.hidden, default=1),
        )

    @property
    def features(self) -> int:
        """Returns the number of maps at the size of the local variables."""
        return self.decoder.features_at(self.local_sides[0])

    @property
    def local_sides(self) -> tuple[int, int]:
        """Returns the height and width of the local variables."""
        height, width = self.decoder.sides
        return height // LOCAL_DOWNSAMPLING, width // LOCAL_DOWNSAMPLING

    @property
    def top_sides(self) -> tuple[int, int]:
        """Returns the height and width of the coarsest features."""
        height, width = self.local_sides
        return -(-height // 2), -(-width // 2)


class Features(NamedTuple):
    """What the encoder finds in images."""

    top: jax.Array  # [B, T], for the global variables
    local: jax.Array  # [B, h, w, F], for the local ones


class Encoder(nn.Module):
    """The tower: centered images [B, H, W, C] to `Features`."""

    config: DVAEPPConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> Features:
        """Maps centered images [B, H, W, C] to `Features`."""
        decoder = self.config.decoder
        height, num_blocks = decoder.sides[0], decoder.num_blocks
        x = layers.Conv(decoder.features_at(height), 3)(x)
        x = se_resnet.Down(decoder.features_at(height // 2), num_blocks)(x)
        local = se_resnet.Down(self.config.features, num_blocks)(x)
        top = se_resnet.Down(self.config.features, num_blocks)(local)
        return Features(nn.elu(top.reshape(len(top), math.prod(top.shape[1:]))), local)


class LocalGroup(nn.Module):
    """The networks of one group of local variables."""

    config: DVAEPPConfig

    @nn.compact
    def __call__(
        self, key: jax.Array, context: jax.Array, features: jax.Array | None, draw: LocalDraw
    ) -> tuple[jax.Array, jax.Array]:
        """Draws the group; returns the context with it, and its divergence [B]."""
        c = self.config
        block, outputs = se_resnet.SEResidualBlock, c.local_size * c.local_parameters
        # Zero at first: every group starts as a sample of N(0, 1), or of fair bits, in q as in p.
        zeros = nn.initializers.zeros
        head = lambda x, name: layers.Conv(outputs, 1, kernel_init=zeros, name=f"{name}_head")(
            nn.elu(x)
        )
        p = head(block(c.features, name="prior_block")(context), "prior")
        q = None
        if features is not None:
            joined = jnp.concatenate([context, features], axis=-1)
            q = head(block(c.features, name="posterior_block")(joined), "posterior")
        h, divergence = draw(key, q, p)
        context = context + layers.Conv(c.features, 3, name="embed")(h)
        return block(c.features, name="update")(context), divergence


class DVAEPP(nn.Module):
    """All networks; see the module's docstring."""

    config: DVAEPPConfig

    def setup(self) -> None:
        """Makes the networks."""
        c = self.config
        self.encoder = Encoder(c)
        self.global_networks = [
            se_resnet.Dense(c.hidden, n * c.global_parameters) for n in c.global_sizes
        ]
        self.from_globals = se_resnet.Dense(c.hidden, math.prod(c.top_sides) * c.features)
        self.expand_up = se_resnet.Up(c.features, c.decoder.num_blocks, c.local_sides)
        if c.local_groups:
            self.group = (nn.remat(LocalGroup, static_argnums=(4,)) if c.remat else LocalGroup)(c)
        self.decoder = MultiscaleDecoder(c.decoder)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Runs every network once, in order to make its parameters."""
        c = self.config
        features = self.encode(images)
        values: list[jax.Array] = []
        for size in c.global_sizes:
            values.append(self.global_posterior(features, values)[..., :size])

        def draw(key: jax.Array, q: jax.Array | None, p: jax.Array) -> tuple[jax.Array, jax.Array]:
            del key
            assert q is not None
            return (q + p)[..., : c.local_size], q.sum((1, 2, 3))

        context, _ = self.local_groups(jax.random.key(0), self.expand(values), features, draw)
        return self.log_likelihood(context, images)

    def encode(self, images: jax.Array) -> Features:
        """Encodes images.

        Args:
            images: [B, H, W, C], pixels 0 or 1 of any dtype, or uint8 levels 0..255, as the decoder
                has them.

        Raises:
            ValueError: another shape or dtype, or, of a NumPy array, another value.
        """
        self.config.decoder.check_images(images)
        return self.encoder(center(images, self.config.decoder.num_mixtures))

    def global_posterior(self, features: Features, earlier: list[jax.Array]) -> jax.Array:
        """Evaluates the parameters of q(z_i | x, zeta_<i), i = len(earlier): [B, n P].

        Args:
            features: of `encode`.
            earlier: samples of the layers before as networks see them, float [B, n] each.

        Raises:
            ValueError: shapes or dtypes are others, or no layer comes after the earlier ones.
        """
        c = self.config
        if len(earlier) >= len(c.global_sizes):
            raise ValueError(
                f"earlier must be fewer than the {len(c.global_sizes)} layers of global variables, "
                f"got {len(earlier)}"
            )
        checks.check_floats(
            "features.top", features.top, ("B", math.prod(c.top_sides) * c.features)
        )
        self._check_layers("earlier", earlier, len(features.top))
        return self.global_networks[len(earlier)](jnp.concatenate([features.top, *earlier], -1))

    def expand(self, values: list[jax.Array]) -> jax.Array:
        """Maps all layers of global variables to the context [B, h, w, F].

        Args:
            values: the layers as networks see them, float [B, n] each.

        Raises:
            ValueError: shapes or dtypes are others, or a layer is missing.
        """
        c = self.config
        if len(values) != len(c.global_sizes):
            raise ValueError(
                f"values must be all {len(c.global_sizes)} layers of global variables, got "
                f"{len(values)}"
            )
        self._check_layers("values", values, "B")
        x = self.from_globals(jnp.concatenate(values, axis=-1))
        return self.expand_up(nn.elu(x).reshape(len(x), *c.top_sides, c.features))

    def _check_layers(self, name: str, layers: list[jax.Array], batch: int | str) -> None:
        for i, (layer, size) in enumerate(zip(layers, self.config.global_sizes, strict=False)):
            checks.check_floats(f"{name}[{i}]", layer, (batch, size))

    def local_groups(
        self, key: jax.Array, context: jax.Array, features: Features | None, draw: LocalDraw
    ) -> tuple[jax.Array, jax.Array]:
        """Draws all local groups in their order, from q given features, else from p.

        Args:
            key: typed PRNG key.
            context: float [B, h, w, F], of `expand`.
            features: of `encode`, or None.
            draw: of one group, see `LocalDraw`.

        Returns:
            The context with all of them, and the divergences [groups, B].

        Raises:
            ValueError: shapes or dtypes are others.
        """
        local_groups = self.config.local_groups
        shape = (len(context), *self.config.local_sides, self.config.features)
        checks.check_floats("context", context, ("B", *shape[1:]))
        local = None if features is None else features.local
        if local is not None:
            checks.check_floats("features.local", local, shape)
        if not local_groups:
            return context, jnp.zeros((0, len(context)), context.dtype)

        def step(
            group: LocalGroup, context: jax.Array, index: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            return group(jax.random.fold_in(key, index), context, local, draw)

        scan = nn.scan(step, variable_axes={"params": 0}, split_rngs={"params": True})
        return scan(self.group, context, jnp.arange(local_groups))

    def embed_groups(self, context: jax.Array, values: jax.Array) -> jax.Array:
        """Returns the context with all local groups at given values.

        Args:
            context: float [B, h, w, F], of `expand`.
            values: the groups as networks see them, float [groups, B, h, w, n].

        Raises:
            ValueError: shapes or dtypes are others.
        """
        c = self.config
        shape = (len(context), *c.local_sides)
        checks.check_floats("context", context, (*shape, c.features))
        checks.check_floats("values", values, (c.local_groups, *shape, c.local_size))
        if not c.local_groups:
            return context

        def step(
            group: LocalGroup, context: jax.Array, h: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            return group(jax.random.key(0), context, None, lambda key, q, p: (h, p.sum((1, 2, 3))))

        scan = nn.scan(step, variable_axes={"params": 0}, split_rngs={"params": True})
        return scan(self.group, context, values)[0]

    def log_likelihood(self, context: jax.Array, images: jax.Array) -> jax.Array:
        """Evaluates log p(x | zeta, h), nats [B]; see `MultiscaleDecoder`."""
        return self.decoder.log_likelihood(context, images)

    def generate(self, key: jax.Array, context: jax.Array) -> jax.Array:
        """Draws x ~ p(x | zeta, h), uint8 [B, H, W, C]."""
        return self.decoder.generate(key, context)

    def generate_mean(self, key: jax.Array, context: jax.Array) -> jax.Array:
        """Draws binary x but for the last scale's pixels, which get their means."""
        return self.decoder.generate_mean(key, context)
