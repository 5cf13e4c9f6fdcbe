"""What a trained model of `cifar_vq` does: images by codes of learned codebooks.

Codes are int32 [N, h, w, n], one of each of n codebooks at every fourth pixel. The parameters are
{"network": those of `models.vq_conv`, "codebook": [n, C, D]}. The model is convolutional: it takes
images of any height and width that are multiples of 4.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from dvae import bounds
from dvae.distributions import categorical
from dvae.models import checks, vq_conv
from dvae.trained._checks import check_shape

__all__ = ["CATEGORICAL", "NEAREST", "Functions", "Terms"]

PyTree = Any
CATEGORICAL, NEAREST = "categorical", "nearest"


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
    posterior: str = CATEGORICAL  # over the codes; or the nearest one alone

    def __post_init__(self) -> None:
        """Raises ValueError for settings that make no model."""
        check_shape(self.image_shape, vq_conv.DOWNSAMPLING)
        if self.image_shape[-1] != self.network.channels:
            raise ValueError(
                f"images of shape {self.image_shape} do not have the {self.network.channels} "
                "channels of the network"
            )
        if self.posterior not in (CATEGORICAL, NEAREST):
            raise ValueError(f"posterior must be categorical or nearest, got {self.posterior}")

    def abstract_params(self) -> PyTree:
        """Returns shapes and dtypes of the parameters."""
        c, images = self.network, jnp.zeros((1, *self.image_shape), jnp.uint8)
        codebook = jnp.zeros((c.num_latents, c.codebook_size, c.code_dim))
        init = lambda key: vq_conv.VQConv(c).init(key, images, codebook)["params"]
        return {
            "network": jax.eval_shape(init, jax.random.key(0)),
            "codebook": jax.eval_shape(lambda: codebook),
        }

    def check_images(self, images: Any) -> None:
        """Raises ValueError unless images are uint8 [N, H, W, C], H and W multiples of 4."""
        channels = self.image_shape[-1]
        checks.check_images(images, kind=checks.LEVELS, shape=("N", "H", "W", channels))
        checks.check_multiples("images", images, (1, 2), vq_conv.DOWNSAMPLING)

    def check_codes(self, codes: Any) -> None:
        """Raises ValueError unless codes are integers [N, h, w, n] below C."""
        shape = ("N", "h", "w", self.network.num_latents)
        checks.check_codes("codes", codes, shape, self.network.codebook_size)

    def _run(self, params: PyTree, method: str, *args: jax.Array) -> Any:
        module = vq_conv.VQConv(self.network)
        return module.apply({"params": params["network"]}, *args, method=method)

    def posterior_logits(self, params: PyTree, images: jax.Array) -> jax.Array:
        """Evaluates the logits of q(z | x) of uint8 images [N, H, W, C]: [N, h, w, n, C]."""
        vectors = self._run(params, "encode", images)
        return self._run(params, "posterior_logits", vectors, params["codebook"])

    def encode(self, params: PyTree, key: jax.Array | None, images: jax.Array) -> jax.Array:
        """Draws codes of images from their posterior; without a key takes the likeliest.

        The code of image i is drawn with `fold_in(key, i)`. Where the posterior is the nearest code
        the key is not read.

        Args:
            params: of the model.
            key: typed PRNG key, or None.
            images: uint8 [N, H, W, C].

        Returns:
            int32 [N, h, w, n].
        """
        if self.posterior == NEAREST:
            vectors = self._run(params, "encode", images)
            return vq_conv.nearest_codes(vectors, params["codebook"])
        logits = self.posterior_logits(params, images)
        if key is None:
            return logits.argmax(-1).astype(jnp.int32)
        return _sample_each(key, logits, jnp.arange(len(images)))

    def mean_image(self, params: PyTree, codes: jax.Array) -> jax.Array:
        """Evaluates E[x | z], differentiable in the parameters: float32 levels [N, H, W, C]."""
        return self._run(params, "mean_image", vq_conv.lookup(codes, params["codebook"]))

    def decode(self, params: PyTree, codes: jax.Array) -> jax.Array:
        """Rounds E[x | z] of codes [N, h, w, n] to levels, uint8 [N, H, W, C]."""
        return jnp.round(self.mean_image(params, codes)).astype(jnp.uint8)

    def reconstruct(self, params: PyTree, key: jax.Array | None, images: jax.Array) -> jax.Array:
        """Encodes and decodes uint8 images [N, H, W, C]."""
        return self.decode(params, self.encode(params, key, images))

    def sample(self, params: PyTree, key: jax.Array, *, num_images: int) -> jax.Array:
        """Decodes codes drawn from the prior: uint8 [num_images, *image_shape]."""
        height, width = (side // vq_conv.DOWNSAMPLING for side in self.image_shape[:2])
        log_prior = self._run(params, "log_prior")
        codes = categorical.sample_codes(key, log_prior, (num_images, height, width))
        return self.decode(params, codes)

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
        log_prior = self._run(params, "log_prior")
        if self.posterior == NEAREST:
            codes = self.encode(params, None, images)
            rate = -vq_conv.per_image(vq_conv.log_prior_of(codes, log_prior))
        else:
            logits = self.posterior_logits(params, images)
            indices = jnp.arange(len(images)) if indices is None else indices
            codes = _sample_each(key, logits, indices)
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

        Where the posterior is the nearest code alone, all samples are that code, and the estimate
        is the ELBO.

        Args:
            params: of the model.
            key: typed PRNG key.
            images: uint8 [N, H, W, C].
            num_samples: K.
            indices: int [N], numbers of the images; see `evaluate`.
        """
        if self.posterior == NEAREST:
            return self.elbo(params, key, images)
        logits, log_prior = self.posterior_logits(params, images), self._run(params, "log_prior")
        indices = jnp.arange(len(images)) if indices is None else indices

        def log_weight(key: jax.Array) -> jax.Array:
            codes = _sample_each(key, logits, indices)
            log_q = vq_conv.per_image(categorical.log_prob_of_codes(codes, logits))
            log_p = vq_conv.per_image(vq_conv.log_prior_of(codes, log_prior))
            return log_p - log_q - self.distortion(params, codes, images)

        return bounds.log_likelihood(key, log_weight, num_samples=num_samples, chunk_size=1).value

    def distortion(self, params: PyTree, codes: jax.Array, images: jax.Array) -> jax.Array:
        """Evaluates -log p(x | z) of uint8 images at codes [N, h, w, n], nats [N]."""
        quantized = vq_conv.lookup(codes, params["codebook"])
        return -self._run(params, "log_likelihood", quantized, images)


def _sample_each(key: jax.Array, logits: jax.Array, indices: jax.Array) -> jax.Array:
    """Draws codes [N, h, w, n] of logits [N, h, w, n, C], each image with a key of its own."""
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)
    return jax.vmap(categorical.sample_codes)(keys, logits)
