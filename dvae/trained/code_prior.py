"""What a model of `cifar_vq` does once a prior over its codes was learned.

Encoder, decoder and codebooks stay as they were, and so do codes. The prior p(z) is autoregressive,
of `models.code_prior`, where that of the model alone is factorial:

    log p(x) >= E_q[log p(x|z) + log p(z) - log q(z|x)]

The parameters are those of the model with "prior" beside them. Without it the model is as before:
`functions.model`, with its factorial prior.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from dvae.models import checks, code_prior
from dvae.trained import cifar_vq

__all__ = ["PRIOR", "Functions", "Terms"]

PyTree = Any
PRIOR = "prior"  # its parameters, among those of the model


class Terms(NamedTuple):
    """The discrete ELBO of N images: minus the sum of rate and distortion."""

    codes: jax.Array  # int32 [N, h, w, n]
    rate: jax.Array  # [N] nats, -H(q(z|x)) - log p(z) of one draw; -log p(z) of a single code
    distortion: jax.Array  # [N] nats, -log p(x | z)
    factorial_rate: jax.Array  # [N] nats, of the model's factorial prior


@dataclass(frozen=True)
class Functions:
    """Pure functions of the parameters of a model and a prior with these sizes."""

    kind: ClassVar[str] = cifar_vq.Functions.kind
    pixels: ClassVar[str] = checks.LEVELS

    model: cifar_vq.Functions
    prior: code_prior.CodePriorConfig

    def __post_init__(self) -> None:
        """Raises ValueError for a prior of other codes than the model's."""
        wanted, own = self.model.code_sizes, (self.prior.num_latents, self.prior.codebook_size)
        if (self.model.grid, *wanted) != (tuple(self.prior.grid), *own):
            raise ValueError(
                f"the prior must be of a grid {self.model.grid} of {wanted[0]} codes in 0 .. "
                f"{wanted[1] - 1}, those of the model, got {tuple(self.prior.grid)}, {own[0]} and "
                f"0 .. {own[1] - 1}"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.model.image_shape

    def abstract_prior(self) -> PyTree:
        """Returns shapes and dtypes of the prior's parameters."""
        shape = (1, *self.prior.grid, self.prior.num_latents)
        init = lambda *args: code_prior.make(self.prior).init(*args)["params"]
        return jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.int32))

    def abstract_params(self) -> PyTree:
        """Returns shapes and dtypes of the parameters."""
        return {**self.model.abstract_params(), PRIOR: self.abstract_prior()}

    def check_images(self, images: Any) -> None:
        """Raises ValueError unless the model takes these images.

        Bounds of other heights and widths than the model's are those of a gated prior alone, and
        refused by `evaluate` and `log_likelihood` where it is a transformer.
        """
        self.model.check_images(images)

    def _check_size(self, images: jax.Array) -> None:
        """Raises ValueError for images whose codes have places that a transformer never saw."""
        height, width, _ = self.image_shape
        if self.prior.network == code_prior.TRANSFORMER and images.shape[1:3] != (height, width):
            raise ValueError(
                f"images must be {height}x{width}, as those that the transformer prior was trained "
                f"with, got {checks.describe(images)}; the factorial prior takes other sizes: "
                "dvae.load(path, learned_prior=False)"
            )

    def check_codes(self, codes: Any) -> None:
        """Raises ValueError unless codes are those of the model."""
        self.model.check_codes(codes)

    def encode(self, params: PyTree, key: jax.Array | None, images: jax.Array) -> jax.Array:
        """Draws codes of images from their posterior, as the model without this prior does."""
        return self.model.encode(params, key, images)

    def mean_image(self, params: PyTree, codes: jax.Array) -> jax.Array:
        """Evaluates E[x | z], float32 levels [N, H, W, C]."""
        return self.model.mean_image(params, codes)

    def decode(self, params: PyTree, codes: jax.Array) -> jax.Array:
        """Rounds E[x | z] of codes [N, h, w, n] to levels, uint8 [N, H, W, C]."""
        return self.model.decode(params, codes)

    def log_prior(self, params: PyTree, codes: jax.Array) -> jax.Array:
        """Evaluates log p(z) of codes [N, h, w, n], nats [N]."""
        return code_prior.log_prob(code_prior.make(self.prior), params[PRIOR], codes)

    def start(self, params: PyTree, num_images: int) -> PyTree:
        """Returns what `advance` goes on from, before the first position; see `sample_codes`."""
        return code_prior.start(code_prior.make(self.prior), params[PRIOR], num_images)

    def advance(self, params: PyTree, cache: PyTree, key: jax.Array, position: jax.Array) -> PyTree:
        """Draws the codes of one position, into `cache.codes`; see `code_prior.advance`."""
        module = code_prior.make(self.prior)
        return code_prior.advance(module, params[PRIOR], cache, key, position)

    def sample_codes(self, params: PyTree, key: jax.Array, *, num_images: int) -> jax.Array:
        """Draws codes from the prior: int32 [num_images, h, w, n]."""
        module = code_prior.make(self.prior)
        return code_prior.sample(module, params[PRIOR], key, num_samples=num_images)

    def sample(self, params: PyTree, key: jax.Array, *, num_images: int) -> jax.Array:
        """Decodes codes drawn from the prior: uint8 [num_images, *image_shape]."""
        return self.decode(params, self.sample_codes(params, key, num_images=num_images))

    def evaluate(
        self,
        params: PyTree,
        key: jax.Array,
        images: jax.Array,
        indices: jax.Array | None = None,
    ) -> Terms:
        """Evaluates rate and distortion with one draw of the codes, that of the model alone.

            rate = E_q[log q(z|x) - log p(z)] = -H(q(z|x)) - E_q[log p(z)]

        The entropy is exact. -log p(z) is that of the draw, which in the mean is the rate's; where
        the posterior is a single code the entropy is 0.

        Args:
            params: of the model and the prior.
            key: typed PRNG key.
            images: uint8 [N, H, W, C].
            indices: int [N], their numbers, as for the model alone.

        Raises:
            ValueError: the prior is a transformer, and images have another size than the model's.
        """
        self._check_size(images)
        terms = self.model.evaluate(params, key, images, indices)
        rate = -self.model.entropy(params, images) - self.log_prior(params, terms.codes)
        return Terms(terms.codes, rate, terms.distortion, terms.rate)

    def elbo(self, params: PyTree, key: jax.Array, images: jax.Array) -> jax.Array:
        """Evaluates the discrete ELBO with hard codes, nats [N]: see `evaluate`."""
        terms = self.evaluate(params, key, images)
        return -(terms.rate + terms.distortion)

    def log_likelihood(
        self,
        params: PyTree,
        key: jax.Array,
        images: jax.Array,
        *,
        num_samples: int,
        indices: jax.Array | None = None,
    ) -> jax.Array:
        """Estimates log p(x) by importance samples, nats [N]: at most log p(x) in the mean.

        Args:
            params: of the model and the prior.
            key: typed PRNG key.
            images: uint8 [N, H, W, C].
            num_samples: K.
            indices: int [N], their numbers, as for the model alone.

        Raises:
            ValueError: as `evaluate`.
        """
        self._check_size(images)
        log_prior = lambda codes: self.log_prior(params, codes)
        return self.model.importance_bound(
            params, key, images, log_prior, num_samples=num_samples, indices=indices
        )
