"""Evaluation of `binary_vae` in the binary limit: every z is a bit, whatever relaxation trained it.

The log-likelihood is estimated with K importance samples z ~ q(z|x) an image (a lower bound in the
mean, close to log p(x) for large K); with one sample it is the ELBO.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from dvae import bounds
from dvae.data import batches
from dvae.distributions import bernoulli
from dvae.models import mlp
from dvae.train import sharding
from experiments import binary_objectives as objectives
from experiments.binary_config import Config

PyTree = Any
CHUNK_SIZE = 10  # samples decoded at once: a thousand rows of logits stay in the cache
ACTIVE_VARIANCE = 0.01  # of E[z|x] over images, above which a unit counts as active
_EVALUATION = 2  # the role that is folded into a seed's key; training uses the halves of a split


class Evaluation(NamedTuple):
    """Results on a set of images; S is the number of seeds."""

    log_likelihood: np.ndarray  # [S, images] nats, K samples
    ess: np.ndarray  # [S, images] effective number of the K samples
    elbo: np.ndarray  # [S, images] nats, one sample
    kl: np.ndarray  # [S, groups] nats, log q - log p of that sample, mean over images
    unit_variance: np.ndarray  # [S, n] variance of q(z=1|x) over images, first group

    def means(self) -> dict[str, np.ndarray]:
        """Averages over the images, [S] each; a scalar for one seed."""
        values = {
            "nll": -self.log_likelihood.mean(-1),
            "elbo": self.elbo.mean(-1),
            "kl": self.kl.sum(-1),
            "active_units": (self.unit_variance > ACTIVE_VARIANCE).sum(-1).astype(np.float64),
        }
        if self.kl.shape[-1] > 1:
            values |= {f"kl_{g + 1}": self.kl[:, g] for g in range(self.kl.shape[-1])}
        return {name: value[0] if len(value) == 1 else value for name, value in values.items()}


class Evaluator:
    """Compiles the evaluation once for each number of samples and runs it over any images.

    Random numbers depend on the seed and on an image's batch, so they are the same at every call as
    long as batches are: `eval_batch_size`, rounded up to a multiple of the devices.
    """

    def __init__(self, config: Config, num_pixels: int, mesh: Mesh) -> None:
        self._config = config
        self._mesh = mesh
        self._module = config.model(num_pixels)
        self._evaluate_seeds = jax.jit(self._batch_of_seeds, static_argnames="num_samples")
        self._reconstruct = jax.jit(self._mean_images)
        self._sample = jax.jit(self._prior_images, static_argnames="num_images")

    def _keys(self) -> list[jax.Array]:
        """One key a seed, apart from those of its training."""
        seeds = range(self._config.seed, self._config.seed + self._config.num_seeds)
        return [jax.random.fold_in(jax.random.key(seed), _EVALUATION) for seed in seeds]

    def _batch(
        self, params: PyTree, mean: jax.Array, key: jax.Array, x: jax.Array, *, num_samples: int
    ) -> tuple[jax.Array, ...]:
        """One seed: log-likelihood, ESS, ELBO, KLs and first posterior means of images [B, D]."""
        model = objectives.bind(self._module, params["network"], mean, x)
        logits = model.posterior_logits([])
        encoded = model._replace(
            posterior_logits=lambda earlier: model.posterior_logits(earlier) if earlier else logits
        )
        draw = lambda key: objectives.ancestral(key, encoded, self._config.num_groups)
        log_weight = lambda drawn: drawn.log_likelihood - drawn.log_ratios.sum(0)
        key_weights, key_elbo = jax.random.split(key)
        estimate = bounds.log_likelihood(
            key_weights,
            lambda key: log_weight(draw(key)),
            num_samples=num_samples,
            chunk_size=CHUNK_SIZE,
        )
        drawn = draw(key_elbo)
        kls = jnp.moveaxis(drawn.log_ratios, 0, -1)  # [B, groups]
        return estimate.value, estimate.ess, log_weight(drawn), kls, jax.nn.sigmoid(logits)

    def _batch_of_seeds(
        self,
        params: PyTree,
        mean: jax.Array,
        keys: jax.Array,
        index: jax.Array,
        images: jax.Array,
        *,
        num_samples: int,
    ) -> tuple[jax.Array, ...]:
        """The same of parameters and keys [S, ...], with the images sharded over the devices."""
        x = sharding.shard_batch(self._mesh, images.astype(jnp.float32))
        one_seed = lambda params, mean, key: self._batch(
            params, mean, jax.random.fold_in(key, index), x, num_samples=num_samples
        )
        return jax.vmap(one_seed)(params, mean, keys)

    def evaluate(
        self, params: PyTree, model_state: PyTree, images: np.ndarray, *, num_samples: int
    ) -> Evaluation:
        """Evaluates every image once.

        Args:
          params: of one seed, or of `num_seeds` along a leading axis.
          model_state: likewise.
          images: uint8 [N, ...], 0 or 1.
          num_samples: K.
        """
        mean = model_state["mean"]
        if self._config.num_seeds == 1:
            params, mean = jax.tree.map(lambda x: x[None], (params, mean))
        keys = jnp.stack(self._keys())
        size = min(self._config.eval_batch_size, len(images))
        size += -size % self._mesh.size  # padding makes it divisible by the devices
        pixels = images.reshape(len(images), -1)
        parts: list[list[np.ndarray]] = []
        bar = tqdm(
            batches.padded_batches(pixels, size),
            total=-(-len(images) // size),
            desc=f"{len(images)} images, {num_samples} samples each",
            leave=False,
            disable=None,  # shown in a terminal only
        )
        for i, (batch, mask) in enumerate(bar):
            out = self._evaluate_seeds(params, mean, keys, i, batch, num_samples=num_samples)
            parts.append([values[:, mask] for values in jax.device_get(out)])
        value, ess, elbo, kls, probs = (np.concatenate(p, axis=1) for p in zip(*parts, strict=True))
        return Evaluation(value, ess, elbo, kls.mean(1), probs.astype(np.float64).var(1))

    def _mean_images(
        self, params: PyTree, mean: jax.Array, key: jax.Array, x: jax.Array
    ) -> jax.Array:
        model = objectives.bind(self._module, params["network"], mean, x)
        groups = objectives.ancestral(key, model, self._config.num_groups).groups
        return self._pixel_means(params, groups)

    def _prior_images(self, params: PyTree, key: jax.Array, *, num_images: int) -> jax.Array:
        groups: list[jax.Array] = []
        for key_group in jax.random.split(key, self._config.num_groups):
            logits = objectives.apply(
                self._module, params["network"], mlp.BinaryVAE.prior_logits, groups
            )
            shape = () if groups else (num_images,)
            groups.append(bernoulli.sample(key_group, logits, shape))
        return self._pixel_means(params, groups)

    def _pixel_means(self, params: PyTree, groups: list[jax.Array]) -> jax.Array:
        logits = objectives.apply(
            self._module, params["network"], mlp.BinaryVAE.pixel_logits, groups
        )
        return jnp.round(255 * jax.nn.sigmoid(logits)).astype(jnp.uint8)

    def reconstruct(self, params: PyTree, model_state: PyTree, images: np.ndarray) -> np.ndarray:
        """Returns E[x|z] at z ~ q(z|x) for images [N, ...], as grey levels; of one seed."""
        x = images.reshape(len(images), -1).astype(np.float32)
        pixels = self._reconstruct(params, model_state["mean"], self._keys()[0], x)
        return np.asarray(pixels).reshape(images.shape)

    def sample_prior(self, params: PyTree, num_images: int, shape: tuple[int, ...]) -> np.ndarray:
        """Returns E[x|z] at z ~ p(z) as grey levels [num_images, *shape], of one seed."""
        pixels = self._sample(params, self._keys()[0], num_images=num_images)
        return np.asarray(pixels).reshape(num_images, *shape)
