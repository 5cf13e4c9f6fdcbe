"""What a trained model of `cifar_vq` does: images by codes of learned codebooks.

Codes are int32 [N, h, w, n], one of each of n codebooks at every fourth pixel. The parameters are
{"network": those of `models.vq_conv`, "codebook": [n, C, D]}. The model is convolutional: it takes
images of any height and width that are multiples of 4.

How codes are chosen is the `posterior`. Of each latent variable, with vectors v of the encoder,

    CATEGORICAL  a draw of q(z|x)
    NEAREST      the nearest code
    LEVELS       the digits of `vq.fsq` for v, at `levels`; the codebook is the grid
    SIGNS        the signs of v, as `vq.lfq` and `vq.bsq` have them; the codebook is the grid
    RESIDUAL     R codes, as `vq.residual` has them, and their sum: codes [N, h, w, n R],
                 codebooks [n R, C, D]
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from dvae import bounds, vq
from dvae.distributions import categorical
from dvae.models import checks, vq_conv
from dvae.trained import _codes
from dvae.trained._checks import check_shape

__all__ = [
    "CATEGORICAL",
    "LEVELS",
    "NEAREST",
    "POSTERIORS",
    "RESIDUAL",
    "SIGNS",
    "Functions",
    "Terms",
]

PyTree = Any
POSTERIORS = CATEGORICAL, NEAREST, LEVELS, SIGNS, RESIDUAL = (
    "categorical",
    "nearest",
    "levels",
    "signs",
    "residual",
)


class Terms(NamedTuple):
    """The discrete ELBO of N images: minus the sum of rate and distortion."""

    codes: jax.Array  # int32 [N, h, w, n]
    rate: jax.Array  # [N] nats, KL(q || p); -log p(z) where the posterior is the nearest code
    distortion: jax.Array  # [N] nats, -log p(x | z)


@dataclass(frozen=True)
class Functions:
    """Pure functions of the parameters of a model with these sizes."""

    kind: ClassVar[str] = "cifar_vq"
    pixels: ClassVar[str] = checks.LEVELS

    network: vq_conv.VQConvConfig
    image_shape: tuple[int, int, int]  # of the data set: those of samples
    posterior: str = CATEGORICAL  # over the codes; all others are one code each
    levels: tuple[int, ...] = ()  # of LEVELS: L_i, of D components, with a product of C

    def __post_init__(self) -> None:
        """Raises ValueError for settings that make no model."""
        check_shape(self.image_shape, vq_conv.DOWNSAMPLING)
        if self.image_shape[-1] != self.network.channels:
            raise ValueError(
                f"images of shape {self.image_shape} do not have the {self.network.channels} "
                "channels of the network"
            )
        c = self.network
        if self.posterior not in POSTERIORS:
            raise ValueError(
                f"posterior must be one of {', '.join(POSTERIORS)}, got {self.posterior}"
            )
        if c.num_stages > 1 and self.posterior != RESIDUAL:
            raise ValueError(
                f"{c.num_stages} stages are of a residual posterior, got {self.posterior}"
            )
        sizes = (c.code_dim, c.codebook_size)
        if self.posterior == LEVELS and sizes != (len(self.levels), math.prod(self.levels)):
            raise ValueError(
                f"levels must be of {c.code_dim} components and {c.codebook_size} codes, got "
                f"{self.levels}"
            )
        if self.posterior == SIGNS and c.codebook_size != 2**c.code_dim:
            raise ValueError(
                f"signs of {c.code_dim} components are {2**c.code_dim} codes, got {c.codebook_size}"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the codes of an image of `image_shape`."""
        height, width, _ = self.image_shape
        return height // vq_conv.DOWNSAMPLING, width // vq_conv.DOWNSAMPLING

    @property
    def code_sizes(self) -> tuple[int, int]:
        """How many codes a position has, n, and how many values each of them, C."""
        return self.network.num_latents * self.network.num_stages, self.network.codebook_size

    def abstract_params(self) -> PyTree:
        """Returns shapes and dtypes of the parameters."""
        c, images = self.network, jax.ShapeDtypeStruct((1, *self.image_shape), jnp.uint8)
        codebook = lambda n: jax.ShapeDtypeStruct((n, c.codebook_size, c.code_dim), jnp.float32)
        init = lambda *args: vq_conv.VQConv(c).init(*args)["params"]
        return {
            "network": jax.eval_shape(init, jax.random.key(0), images, codebook(c.num_latents)),
            "codebook": codebook(self.code_sizes[0]),
        }

    def check_images(self, images: Any) -> None:
        """Raises ValueError unless images are uint8 [N, H, W, C], H and W multiples of 4."""
        channels = self.image_shape[-1]
        checks.check_images(images, kind=checks.LEVELS, shape=("N", "H", "W", channels))
        checks.check_multiples("images", images, (1, 2), vq_conv.DOWNSAMPLING)

    def check_codes(self, codes: Any) -> None:
        """Raises ValueError unless codes are integers [N, h, w, n] below C."""
        num_codes, size = self.code_sizes
        checks.check_codes("codes", codes, ("N", "h", "w", num_codes), size)

    def _run(self, params: PyTree, method: str, *args: jax.Array) -> Any:
        module = vq_conv.VQConv(self.network)
        return module.apply({"params": params["network"]}, *args, method=method)

    def log_prior(self, params: PyTree) -> jax.Array:
        """Returns log p(z = k) of each latent variable, [n, C], the same at all positions."""
        return jnp.asarray(self._run(params, "log_prior"))

    def posterior_logits(self, params: PyTree, images: jax.Array) -> jax.Array:
        """Evaluates the logits of q(z | x) of uint8 images [N, H, W, C]: [N, h, w, n, C]."""
        vectors = self._run(params, "encode", images)
        return self._run(params, "posterior_logits", vectors, params["codebook"])

    def encode(self, params: PyTree, key: jax.Array | None, images: jax.Array) -> jax.Array:
        """Draws codes of images from their posterior; without a key takes the likeliest.

        The code of image i is drawn with `fold_in(key, i)`. Where the posterior is a single code
        the key is not read.

        Args:
            params: of the model.
            key: typed PRNG key, or None.
            images: uint8 [N, H, W, C].

        Returns:
            int32 [N, h, w, n].
        """
        if self.posterior != CATEGORICAL:
            return self._quantize(self._run(params, "encode", images), params["codebook"])
        logits = self.posterior_logits(params, images)
        if key is None:
            return logits.argmax(-1).astype(jnp.int32)
        return _codes.sample_each(key, logits, jnp.arange(len(images)))

    def _quantize(self, vectors: jax.Array, codebook: jax.Array) -> jax.Array:
        """Returns the codes of vectors [N, h, w, n, D] under a posterior that is one code."""
        if self.posterior == LEVELS:
            return vq.fsq.quantize(vectors, self.levels).codes
        if self.posterior == SIGNS:
            return vq.lfq.quantize(vectors).codes
        if self.posterior == RESIDUAL:
            stages = codebook.reshape(self.network.num_latents, -1, *codebook.shape[1:])
            split = jax.vmap(vq.residual.quantize, in_axes=(-2, 0), out_axes=-2)
            codes = split(vectors, stages).codes
            return codes.reshape(*codes.shape[:-2], -1)
        return vq_conv.nearest_codes(vectors, codebook)

    def quantized(self, params: PyTree, codes: jax.Array) -> jax.Array:
        """Returns what the decoder reads of codes [N, h, w, n]: float32 [N, h, w, n, D].

        Of a residual quantizer it is the sum over the stages.
        """
        rows = vq_conv.lookup(codes, params["codebook"])
        if self.posterior != RESIDUAL:
            return rows
        return rows.reshape(*rows.shape[:-2], self.network.num_latents, -1, rows.shape[-1]).sum(-2)

    def mean_image(self, params: PyTree, codes: jax.Array) -> jax.Array:
        """Evaluates E[x | z], differentiable in the parameters: float32 levels [N, H, W, C]."""
        return self._run(params, "mean_image", self.quantized(params, codes))

    def decode(self, params: PyTree, codes: jax.Array) -> jax.Array:
        """Rounds E[x | z] of codes [N, h, w, n] to levels, uint8 [N, H, W, C]."""
        return jnp.round(self.mean_image(params, codes)).astype(jnp.uint8)

    def reconstruct(self, params: PyTree, key: jax.Array | None, images: jax.Array) -> jax.Array:
        """Encodes and decodes uint8 images [N, H, W, C]."""
        return self.decode(params, self.encode(params, key, images))

    def sample(self, params: PyTree, key: jax.Array, *, num_images: int) -> jax.Array:
        """Decodes codes drawn from the prior: uint8 [num_images, *image_shape]."""
        log_prior = self.log_prior(params)
        codes = categorical.sample_codes(key, log_prior, (num_images, *self.grid))
        return self.decode(params, codes)

    def entropy(self, params: PyTree, images: jax.Array) -> jax.Array:
        """Evaluates H(q(z | x)), nats [N]; 0 where the posterior is a single code."""
        if self.posterior != CATEGORICAL:
            return jnp.zeros(len(images))
        return vq_conv.per_image(categorical.entropy(self.posterior_logits(params, images)))

    def evaluate(
        self,
        params: PyTree,
        key: jax.Array,
        images: jax.Array,
        indices: jax.Array | None = None,
    ) -> Terms:
        """Evaluates rate and distortion, with one draw of the codes.

        Args:
            params: of the model.
            key: typed PRNG key.
            images: uint8 [N, H, W, C].
            indices: int [N], their numbers: image i draws with `fold_in(key, i)`, so that its
                codes depend neither on the batch nor on the number of devices; 0, 1, ... by
                default.
        """
        log_prior = self.log_prior(params)
        if self.posterior != CATEGORICAL:
            codes = self.encode(params, None, images)
            rate = -vq_conv.per_image(vq_conv.log_prior_of(codes, log_prior))
        else:
            logits = self.posterior_logits(params, images)
            indices = jnp.arange(len(images)) if indices is None else indices
            codes = _codes.sample_each(key, logits, indices)
            rate = vq_conv.per_image(categorical.kl(logits, log_prior[None, None, None]))
        return Terms(codes, rate, self.distortion(params, codes, images))

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

        Where the posterior is a single code, all samples are it, and the estimate is the ELBO.

        Args:
            params: of the model.
            key: typed PRNG key.
            images: uint8 [N, H, W, C].
            num_samples: K.
            indices: int [N], numbers of the images; see `evaluate`.
        """
        return self.importance_estimate(
            params, key, images, num_samples=num_samples, indices=indices
        ).value

    def importance_bound(
        self,
        params: PyTree,
        key: jax.Array,
        images: jax.Array,
        log_prior: Callable[[jax.Array], jax.Array],
        *,
        num_samples: int,
        indices: jax.Array | None = None,
    ) -> jax.Array:
        """Estimates log p(x), nats [N], under a prior of one's own: see `importance_estimate`."""
        return self.importance_estimate(
            params, key, images, log_prior, num_samples=num_samples, indices=indices
        ).value

    def importance_estimate(
        self,
        params: PyTree,
        key: jax.Array,
        images: jax.Array,
        log_prior: Callable[[jax.Array], jax.Array] | None = None,
        *,
        num_samples: int,
        indices: jax.Array | None = None,
    ) -> bounds.LogLikelihood:
        """Estimates log p(x), nats [N], with the effective number of samples, [N] in [1, K].

        Where the posterior is a single code, all samples are alike, and that number is K.

        Args:
            params: of the model.
            key: typed PRNG key.
            images: uint8 [N, H, W, C].
            log_prior: maps codes [N, h, w, n] to log p(z), nats [N]; None: the model's prior.
            num_samples: K.
            indices: int [N], numbers of the images; see `evaluate`.
        """
        if log_prior is None:
            own = self.log_prior(params)
            log_prior = lambda codes: vq_conv.per_image(vq_conv.log_prior_of(codes, own))
        distortion = lambda codes: self.distortion(params, codes, images)
        if self.posterior != CATEGORICAL:
            codes = self.encode(params, None, images)
            value = log_prior(codes) - distortion(codes)
            return bounds.LogLikelihood(value, jnp.full_like(value, num_samples))
        logits = self.posterior_logits(params, images)
        return _codes.log_likelihood(key, logits, indices, log_prior, distortion, num_samples)

    def distortion(self, params: PyTree, codes: jax.Array, images: jax.Array) -> jax.Array:
        """Evaluates -log p(x | z) of uint8 images at codes [N, h, w, n], nats [N]."""
        return -self._run(params, "log_likelihood", self.quantized(params, codes), images)
