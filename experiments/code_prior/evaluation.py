"""Evaluation of `code_prior`: the bound on images with the learned prior, and with the factorial.

    -log p(x) <= E_q[log q(z|x) - log p(z)] + E_q[-log p(x|z)] = rate + distortion

A change of the prior changes the rate alone. The codes of an image are those that the evaluation
of the model's own run draws, so that what is compared has the same noise.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from dvae import bounds, trained
from dvae.data import Dataset, batches
from dvae.train import sharding
from experiments.code_prior import model as prior_model
from experiments.code_prior.config import Config
from experiments.common import evaluation
from experiments.common.run import ValidateFn

PyTree = Any


class Evaluation(NamedTuple):
    """Results on N images; S is the number of seeds."""

    rate: np.ndarray  # [S, N], nats, with the learned prior
    distortion: np.ndarray  # [S, N], nats
    factorial_rate: np.ndarray  # [S, N], nats, with the factorial prior
    num_dims: int  # sub-pixels of an image

    @property
    def bits_per_dim(self) -> np.ndarray:
        """The bound of every image with the learned prior, [S, N] bits/dim."""
        return _bits(self.rate + self.distortion, self.num_dims)

    @property
    def factorial_bits_per_dim(self) -> np.ndarray:
        """The bound of every image with the factorial prior, [S, N] bits/dim."""
        return _bits(self.factorial_rate + self.distortion, self.num_dims)


def _bits(nats: np.ndarray, num_dims: int) -> np.ndarray:
    return np.asarray(bounds.bits_per_dim(-nats, num_dims))


def validator(config: Config, images: Dataset, mesh: Mesh) -> ValidateFn:
    """Returns the function that evaluates the rate of validation images."""
    evaluator = Evaluator(config, mesh)
    held_out = evaluation.spread(images.validation, config.num_eval_images)

    def validate(state: Any) -> dict[str, np.ndarray]:
        rate = evaluator.rate(state.params, held_out)
        return evaluation.without_seed_axis({"rate": rate.mean(-1)})

    return validate


class Evaluator:
    """Compiles the evaluation once and runs it over any number of images.

    Args:
      config: everything.
      mesh: the devices.

    Raises:
      ValueError: the model is gone, or another than that which training began with.
    """

    def __init__(self, config: Config, mesh: Mesh) -> None:
        self._config, self._mesh = config, mesh
        model = prior_model.load(config)
        self.model = model
        self._functions = prior_model.functions(config, model)
        self._placed = sharding.replicate(mesh, model.params)
        # The key of the model's own evaluation.
        self._key = evaluation.key_of_seed(model.info["seed"])
        self._evaluate = jax.jit(self._batch)
        self._rate = jax.jit(lambda *args: self._batch(*args).rate)
        self._start = jax.jit(self._functions.start, static_argnames="num_images")
        self._advance = jax.jit(self._functions.advance)
        self._decode = jax.jit(self._functions.decode)
        self._sample_factorial = jax.jit(self._functions.model.sample, static_argnames="num_images")

    def _batch(
        self, model: PyTree, priors: PyTree, images: jax.Array, indices: jax.Array
    ) -> trained.code_prior.Terms:
        """Terms [S, B] of priors of S seeds; the images are sharded over the devices."""
        images, indices = sharding.shard_batch(self._mesh, (images, indices))
        params = {**model, trained.code_prior.PRIOR: priors}
        axes = {**dict.fromkeys(model), trained.code_prior.PRIOR: 0}
        each_seed = jax.vmap(self._functions.evaluate, in_axes=(axes, None, None, None))
        return each_seed(params, self._key, images, indices)

    def _walk(self, evaluate: Any, priors: PyTree, images: np.ndarray) -> PyTree:
        """Evaluates images, a batch at a time; arrays [S, N]."""
        priors = evaluation.with_seed_axis(self._config, priors)
        size = min(self._config.eval_batch_size, len(images))
        size += -size % self._mesh.size  # padding makes it divisible by the devices
        parts = []
        for i, (batch, mask) in enumerate(batches.padded_batches(images, size)):
            indices = np.arange(i * size, (i + 1) * size, dtype=np.int32)
            placed = sharding.replicate(self._mesh, (batch, indices))
            out = sharding.fetch(evaluate(self._placed, priors, *placed))
            parts.append(jax.tree.map(lambda x, mask=mask: x[:, mask], out))
        return jax.tree.map(lambda *x: np.concatenate(x, axis=1), *parts)

    def evaluate(self, params: PyTree, images: np.ndarray) -> Evaluation:
        """Evaluates every image once, with the same random numbers at every call.

        Args:
          params: of the prior, of one seed, or of `num_seeds` along a leading axis.
          images: uint8 [N, H, W, C].
        """
        terms = self._walk(self._evaluate, params, images)
        return Evaluation(terms.rate, terms.distortion, terms.factorial_rate, images[0].size)

    def rate(self, params: PyTree, images: np.ndarray) -> np.ndarray:
        """Evaluates the rate alone, nats [S, N]; the decoder does not run."""
        rate = self._walk(self._rate, params, images)
        return np.asarray(rate)

    def sample_prior(self, params: PyTree, num_images: int) -> np.ndarray:
        """Returns E[x|z] at codes drawn from the learned prior, uint8 images; of one seed."""
        both = prior_model.arrays(self.model, params)
        key, cache = self._sampling_key(), self._start(both, num_images=num_images)
        positions = range(int(np.prod(self._functions.prior.grid)))
        bar = tqdm(positions, desc="sampling codes", unit="position", leave=False, disable=None)
        for position in bar:
            cache = self._advance(both, cache, key, position)
        return np.asarray(self._decode(both, cache.codes))

    def sample_factorial(self, num_images: int) -> np.ndarray:
        """Returns E[x|z] at codes drawn from the factorial prior, uint8 images."""
        key = self._sampling_key()
        return np.asarray(self._sample_factorial(self.model.params, key, num_images=num_images))

    def _sampling_key(self) -> jax.Array:
        return evaluation.seed_keys(self._config)[0]
