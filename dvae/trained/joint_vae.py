"""What a trained model of `joint_vae` does: images by classes and continuous variables.

Codes are `Latents`. The parameters are {"network": those of `models.joint`}.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from dvae import bounds
from dvae.distributions import categorical, normal
from dvae.models import checks, joint

__all__ = ["Functions", "Latents", "Terms"]

PyTree = Any
_CHUNK_SIZE = 10  # samples decoded at once


class Latents(NamedTuple):
    """The latent variables of N images."""

    classes: jax.Array  # int32 [N, j], of every discrete variable
    continuous: jax.Array  # float32 [N, n]


class Terms(NamedTuple):
    """What is evaluated of N images."""

    classes: jax.Array  # int32 [N, j], the likeliest of every discrete variable
    distortion: jax.Array  # [N] nats, -log p(x | mean of h, likeliest c)
    squared_error: jax.Array  # [N] mean over pixels, levels in [0, 1]
    elbo: jax.Array  # [N] nats, one sample of h and of c, one-hot
    kl_continuous: jax.Array  # [N, n] nats
    kl_discrete: jax.Array  # [N, j] nats


@dataclass(frozen=True)
class Functions:
    """Pure functions of the parameters of a model with these sizes."""

    kind: ClassVar[str] = "joint_vae"
    pixels: ClassVar[str] = checks.LEVELS

    network: joint.JointConfig

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return *self.network.sides, self.network.channels

    def abstract_params(self) -> PyTree:
        """Returns shapes and dtypes of the parameters."""
        blank = jax.ShapeDtypeStruct((1, *self.image_shape), jnp.float32)
        init = lambda *args: joint.JointVAE(self.network).init(*args)["params"]
        return {"network": jax.eval_shape(init, jax.random.key(0), blank)}

    def check_images(self, images: Any) -> None:
        """Raises ValueError unless images are uint8 [N, *image_shape]."""
        checks.check_images(images, kind=checks.LEVELS, shape=("N", *self.image_shape))

    def check_codes(self, codes: Any) -> None:
        """Raises ValueError unless codes are the `Latents` of this model."""
        if not isinstance(codes, tuple) or len(codes) != 2:
            raise ValueError(
                f"codes must be Latents(classes, continuous), got {type(codes).__name__}"
            )
        classes, continuous = codes
        sizes = self.network.discrete
        checks.check_floats("codes.continuous", continuous, ("N", self.network.num_continuous))
        if classes.shape != (len(continuous), len(sizes)):
            raise ValueError(
                f"codes.classes must have the shape {(len(continuous), len(sizes))}, got "
                f"{checks.describe(classes)}"
            )
        for j, size in enumerate(sizes):
            checks.check_codes(f"codes.classes[:, {j}]", classes[:, j], ("N",), size)

    def _run(self, params: PyTree, method: Any, *args: Any) -> Any:
        module = joint.JointVAE(self.network)
        return module.apply({"params": params["network"]}, *args, method=method)

    def posterior(self, params: PyTree, images: jax.Array) -> joint.Posterior:
        """Evaluates q(h, c | x) of uint8 images [N, *image_shape]."""
        return self._run(params, joint.JointVAE.encode, joint.as_float(images))

    def _draw(self, key: jax.Array, q: joint.Posterior) -> tuple[jax.Array, list[jax.Array]]:
        """Draws h [N, n] and one-hot c_j [N, n_j]."""
        key_h, *keys = jax.random.split(key, 1 + len(q.logits))
        c = [categorical.sample(k, logits) for k, logits in zip(keys, q.logits, strict=True)]
        return normal.sample(key_h, q.mean, q.log_scale), c

    def _one_hot(self, classes: jax.Array) -> list[jax.Array]:
        sizes = self.network.discrete
        return [jax.nn.one_hot(classes[:, j], size) for j, size in enumerate(sizes)]

    def encode(self, params: PyTree, key: jax.Array | None, images: jax.Array) -> Latents:
        """Draws the latent variables; without a key takes the likeliest classes and the means.

        Args:
            params: of the model.
            key: typed PRNG key, or None.
            images: uint8 [N, *image_shape].
        """
        q = self.posterior(params, images)
        if key is None:
            return Latents(joint.likeliest(q), q.mean)
        h, c = self._draw(key, q)
        return Latents(joint.likeliest(q._replace(logits=tuple(c))), h)

    def mean_image(self, params: PyTree, codes: Latents) -> jax.Array:
        """Evaluates E[x | h, c], differentiable: float32 levels [N, *image_shape] in [0, 255]."""
        one_hot = self._one_hot(codes.classes)
        logits = self._run(params, joint.JointVAE.pixel_logits, codes.continuous, one_hot)
        return 255 * jax.nn.sigmoid(logits)

    def decode(self, params: PyTree, codes: Latents) -> jax.Array:
        """Rounds E[x | h, c] to levels: uint8 [N, *image_shape]."""
        return jnp.round(self.mean_image(params, codes)).astype(jnp.uint8)

    def reconstruct(self, params: PyTree, key: jax.Array | None, images: jax.Array) -> jax.Array:
        """Encodes and decodes uint8 images [N, *image_shape]."""
        return self.decode(params, self.encode(params, key, images))

    def sample(self, params: PyTree, key: jax.Array, *, num_images: int) -> jax.Array:
        """Decodes variables drawn from the prior: uint8 [num_images, *image_shape]."""
        key_h, key_c = jax.random.split(key)
        h = jax.random.normal(key_h, (num_images, self.network.num_continuous))
        sizes = jnp.array(self.network.discrete, jnp.int32)
        classes = jax.random.randint(key_c, (num_images, len(sizes)), 0, sizes[None])
        return self.decode(params, Latents(classes, h))

    def evaluate(self, params: PyTree, key: jax.Array, images: jax.Array) -> Terms:
        """Evaluates reconstruction, ELBO and the KL of every latent variable.

        Args:
            params: of the model.
            key: typed PRNG key.
            images: uint8 [N, *image_shape].
        """
        x, q = joint.as_float(images), self.posterior(params, images)
        classes, kl = joint.likeliest(q), joint.divergences(q)
        decode = lambda h, c: self._run(params, joint.JointVAE.pixel_logits, h, c)
        best = decode(q.mean, self._one_hot(classes))
        elbo = bounds.elbo(
            joint.log_likelihood(x, decode(*self._draw(key, q))),
            kl.continuous.sum(-1) + kl.discrete.sum(-1),
        )
        error = jnp.square(jax.nn.sigmoid(best) - x).mean((1, 2, 3))
        distortion = -joint.log_likelihood(x, best)
        return Terms(classes, distortion, error, elbo, kl.continuous, kl.discrete)

    def elbo(self, params: PyTree, key: jax.Array, images: jax.Array) -> jax.Array:
        """Estimates the ELBO, nats [N]: one sample in the likelihood, the KL analytic.

        Of gray pixels the likelihood is a cross entropy, and this bounds nothing.
        """
        return self.evaluate(params, key, images).elbo

    def log_likelihood(
        self, params: PyTree, key: jax.Array, images: jax.Array, *, num_samples: int
    ) -> jax.Array:
        """Estimates log p(x) by importance samples, nats [N]; of gray pixels see `elbo`.

        Args:
            params: of the model.
            key: typed PRNG key.
            images: uint8 [N, *image_shape].
            num_samples: K.
        """
        x, q = joint.as_float(images), self.posterior(params, images)
        uniform = -sum(jnp.log(float(size)) for size in self.network.discrete)

        def log_weight(key: jax.Array) -> jax.Array:
            h, c = self._draw(key, q)
            pixels = self._run(params, joint.JointVAE.pixel_logits, h, c)
            log_q = normal.log_prob(h, q.mean, q.log_scale).sum(-1)
            for one_hot, logits in zip(c, q.logits, strict=True):
                log_q += categorical.log_prob(one_hot, logits)
            log_p = normal.log_prob(h, 0.0, 0.0).sum(-1) + uniform
            return joint.log_likelihood(x, pixels) + log_p - log_q

        return bounds.log_likelihood(
            key, log_weight, num_samples=num_samples, chunk_size=_CHUNK_SIZE
        ).value
