"""Evaluation of `cifar_vq`: the discrete ELBO on whole images, with hard codes.

Rate and distortion, in nats an image, bound the negative log-likelihood: -log p(x) <= rate +
distortion. For the probabilistic estimators the rate is KL(q(z|x) || p(z)), exact, and the
distortion a single hard sample's; for the VQ rules the posterior is one code, and the rate is -log
p(z).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dvae import bounds, vq
from dvae.data import Dataset, batches
from dvae.models import checks, vq_conv
from dvae.train import sharding
from experiments.cifar_vq import model as vq_model
from experiments.cifar_vq import objectives
from experiments.cifar_vq.config import Config
from experiments.cifar_vq.task import log_pixel_histogram, rate_metrics, usage_metrics
from experiments.common import evaluation
from experiments.common.run import ValidateFn

PyTree = Any


class Evaluation(NamedTuple):
    """Results on a set of images; S is the number of seeds."""

    rate: np.ndarray  # [S, images], nats
    distortion: np.ndarray  # [S, images], nats
    counts: np.ndarray  # int [S, n, C], how often each code was used
    num_dims: int  # sub-pixels of an image

    @property
    def bits_per_dim(self) -> np.ndarray:
        """The discrete ELBO of every image, [S, images] bits/dim; an upper bound on -log p(x)."""
        return np.asarray(bounds.bits_per_dim(-(self.rate + self.distortion), self.num_dims))

    @property
    def perplexity(self) -> np.ndarray:
        """Perplexity of the code usage, [S, n]."""
        return np.asarray(vq.perplexity(jnp.asarray(self.counts)))

    @property
    def num_dead(self) -> np.ndarray:
        """Codes never used, [S, n]."""
        return np.asarray(vq.num_dead(jnp.asarray(self.counts)))

    def means(self) -> dict[str, np.ndarray]:
        """Returns what logs have of it: means over images, [S] each; a scalar for one seed."""
        values = {
            "bits_per_dim": self.bits_per_dim.mean(-1),
            **rate_metrics(self.rate.mean(-1), self.distortion.mean(-1), self.num_dims),
            **usage_metrics(self.perplexity, self.num_dead),
        }
        return evaluation.without_seed_axis(values)


class Others(NamedTuple):
    """What `Evaluation` has beside it for posteriors over codes; S is the number of seeds."""

    mode_distortion: np.ndarray  # [S, images], nats, -log p(x | z) at the posterior's argmax
    log_likelihood: np.ndarray | None = None  # [S, images], nats, of importance samples
    ess: np.ndarray | None = None  # [S, images] effective number of those


def histogram_bits_per_dim(train: np.ndarray, test: np.ndarray) -> float:
    """Returns bits/dim of the test pixels coded independently by the training pixels' histogram."""
    channels = train.shape[-1]
    test = evaluation.check_images(test, kind=checks.LEVELS, shape=("H", "W", channels))
    log_p = log_pixel_histogram(train)
    nats = np.mean([log_p[c][test[..., c]].mean() for c in range(channels)])
    return float(bounds.bits_per_dim(nats, 1))


def validator(config: Config, images: Dataset, mesh: Mesh) -> ValidateFn:
    """Returns the function that evaluates a state on validation images."""
    held_out = evaluation.spread(images.validation, config.num_eval_images)
    validate = evaluation.validator(Evaluator(config, images, mesh), held_out)
    return lambda state: validate(vq_model.evaluated(config, state))


class Evaluator:
    """Compiles the evaluation once and runs it over any number of images.

    Args:
      config: everything.
      images: the data set, for the shape of the images that are drawn.
      mesh: the devices.
    """

    def __init__(self, config: Config, images: Dataset, mesh: Mesh) -> None:
        self._config = config
        self._mesh = mesh
        self._functions = vq_model.functions(config, images.train.shape[1:])
        self._evaluate_seeds = jax.jit(self._evaluate_batch_of_seeds)
        self._evaluate_others = jax.jit(self._others_of_seeds, static_argnames="num_samples")
        self._reconstruct = jax.jit(self._functions.reconstruct)
        self._sample = jax.jit(self._functions.sample, static_argnames="num_images")

    def _evaluate_batch(
        self,
        params: PyTree,
        model_state: PyTree,
        key: jax.Array,
        images: jax.Array,
        mask: jax.Array,
        indices: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Rate [B], distortion [B] and code counts [n, C] of one seed; `indices` [B] of images."""
        model = vq_model.arrays(params, model_state)
        terms = self._functions.evaluate(model, key, images, indices)
        # Padding images count as an extra class that is cut off.
        size = self._config.num_codes
        counted = jnp.where(mask[:, None, None, None], terms.codes, size)
        counts = objectives.usage(counted, size + 1)[:, :size]
        return terms.rate, terms.distortion, counts

    def _evaluate_batch_of_seeds(
        self,
        params: PyTree,
        model_state: PyTree,
        keys: jax.Array,
        images: jax.Array,
        mask: jax.Array,
        indices: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Rates [S, B], distortions [S, B] and counts [S, n, C] of seeds; images are sharded."""
        batch = sharding.shard_batch(self._mesh, (images, mask, indices))
        each_seed = jax.vmap(self._evaluate_batch, in_axes=(0, 0, 0, None, None, None))
        return each_seed(params, model_state, keys, *batch)

    def _others_of_seeds(
        self,
        params: PyTree,
        model_state: PyTree,
        keys: jax.Array,
        images: jax.Array,
        indices: jax.Array,
        *,
        num_samples: int,
    ) -> Sequence[jax.Array]:
        """The fields of `Others` that are asked for, [S, B] each."""
        images, indices = sharding.shard_batch(self._mesh, (images, indices))
        functions = self._functions

        def one_seed(params: PyTree, model_state: PyTree, key: jax.Array) -> Sequence[jax.Array]:
            model = vq_model.arrays(params, model_state)
            mode = functions.distortion(model, functions.encode(model, None, images), images)
            if not num_samples:
                return (mode,)
            return mode, *functions.importance_estimate(
                model, key, images, num_samples=num_samples, indices=indices
            )

        return jax.vmap(one_seed)(params, model_state, keys)

    def evaluate(self, params: PyTree, model_state: PyTree, images: np.ndarray) -> Evaluation:
        """Evaluates every image once, with the same random numbers at every call.

        Args:
          params: of one seed, or of `num_seeds` along a leading axis.
          model_state: likewise.
          images: uint8 [N, H, W, C], H and W multiples of 4, whatever the model was trained on.

        Raises:
          ValueError: images are others, or none.
        """
        images = self._checked(images)
        params, model_state = evaluation.with_seed_axis(self._config, (params, model_state))
        keys = evaluation.stacked_keys(self._config, self._mesh)
        rates, distortions, counts = [], [], 0
        size = min(self._config.eval_batch_size, len(images))
        size += -size % self._mesh.size  # padding makes it divisible by the devices
        for i, (batch, mask) in enumerate(batches.padded_batches(images, size)):
            indices = np.arange(i * size, (i + 1) * size, dtype=np.int32)
            placed = sharding.replicate(self._mesh, (batch, mask, indices))
            out = self._evaluate_seeds(params, model_state, keys, *placed)
            rate, distortion, used = sharding.fetch(out)
            rates.append(rate[:, mask])
            distortions.append(distortion[:, mask])
            counts = counts + used.astype(np.int64)
        return Evaluation(
            np.concatenate(rates, 1),
            np.concatenate(distortions, 1),
            np.asarray(counts),
            math.prod(images.shape[1:]),
        )

    def evaluate_others(
        self, params: PyTree, model_state: PyTree, images: np.ndarray, num_samples: int
    ) -> Others:
        """Evaluates images at the posterior's argmax, and by importance samples.

        The former is no bound: the rate that it is added to is that of samples. The latter is one,
        and in the mean no looser than the ELBO.

        Args:
          params: as for `evaluate`.
          model_state: likewise.
          images: likewise.
          num_samples: K; 0: none.

        Raises:
          ValueError: images are others, or none.
        """
        images = self._checked(images)
        params, model_state = evaluation.with_seed_axis(self._config, (params, model_state))
        keys = evaluation.stacked_keys(self._config, self._mesh)

        def evaluate(i: int, batch: jax.Array) -> Sequence[jax.Array]:
            indices = np.arange(i * len(batch), (i + 1) * len(batch), dtype=np.int32)
            return self._evaluate_others(
                params, model_state, keys, batch, indices, num_samples=num_samples
            )

        told = f"{num_samples} samples of {len(images)} images" if num_samples else ""
        return Others(
            *evaluation.over_images(self._config, self._mesh, images, evaluate, description=told)
        )

    def reconstruct(self, params: PyTree, model_state: PyTree, images: np.ndarray) -> np.ndarray:
        """Returns E[x | z] at hard codes of uint8 images [N, H, W, C], like them; of one seed."""
        images, key = self._checked(images), evaluation.seed_keys(self._config)[0]
        return np.asarray(self._reconstruct(vq_model.arrays(params, model_state), key, images))

    def sample_prior(self, params: PyTree, model_state: PyTree, num_images: int) -> np.ndarray:
        """Returns E[x | z] at codes drawn from the prior, uint8 [num_images, H, W, C]; of one seed.

        H and W are those of the data set.
        """
        evaluation.check_count("num_images", num_images)
        model, key = vq_model.arrays(params, model_state), evaluation.seed_keys(self._config)[0]
        return np.asarray(self._sample(model, key, num_images=num_images))

    def _checked(self, images: np.ndarray) -> np.ndarray:
        shape = ("H", "W", self._functions.image_shape[-1])
        images = evaluation.check_images(images, kind=checks.LEVELS, shape=shape)
        checks.check_multiples("images", images, (1, 2), vq_conv.DOWNSAMPLING)
        return images
