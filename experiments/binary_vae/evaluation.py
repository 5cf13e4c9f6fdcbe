"""Evaluation of `binary_vae`: log-likelihood, ELBO and the units that carry something."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dvae import bounds
from dvae.data import Dataset
from dvae.distributions import bernoulli
from dvae.models import binary as binary_model
from dvae.models import checks, mlp
from experiments.binary_vae import names
from experiments.binary_vae.config import Config
from experiments.boltzmann import evaluation as boltzmann_evaluation
from experiments.boltzmann import prior as boltzmann_prior
from experiments.boltzmann.config import BoltzmannConfig
from experiments.common import evaluation
from experiments.common.run import ValidateFn

PyTree = Any
CHUNK_SIZE = 10  # samples decoded at once: a thousand rows of logits stay in the cache
ACTIVE_VARIANCE = 0.01  # of E[z|x] over images, above which a unit counts as active


@dataclass(frozen=True)
class Evaluation(boltzmann_evaluation.Evaluation):
    """Results on a set of images; the KL has a part for each group of a directed prior, or one."""

    unit_variance: np.ndarray  # [S, n] variance of q(z=1|x) over images, first group

    @property
    def active_units(self) -> np.ndarray:
        """Units of the first group whose mean varies over images, [S]."""
        return (self.unit_variance > ACTIVE_VARIANCE).sum(-1).astype(np.float64)

    def averages(self) -> dict[str, np.ndarray]:
        """Averages over the images, [S] each."""
        values = super().averages() | {"active_units": self.active_units}
        kls = self.kl.mean(1)
        if kls.shape[-1] > 1:
            values |= {f"kl_{g + 1}": kls[:, g] for g in range(kls.shape[-1])}
        return values


def machine(config: Config) -> BoltzmannConfig | None:
    """Returns the settings of the Boltzmann prior, if that is the prior."""
    return config if config.prior == names.BOLTZMANN else None


def validator(config: Config, images: Dataset, mesh: Mesh) -> ValidateFn:
    """Returns the function that evaluates a state on validation images."""
    held_out = evaluation.spread(images.validation, config.num_eval_images)
    evaluator = Evaluator(config, images, mesh)
    return evaluation.validator(evaluator, held_out, num_samples=config.eval_samples)


class Evaluator:
    """Compiles the evaluation once for each number of samples and runs it over any images.

    Args:
      config: everything.
      images: the data set, for the shape of an image.
      mesh: the devices.
    """

    def __init__(self, config: Config, images: Dataset, mesh: Mesh) -> None:
        self._config = config
        self._image_shape = images.train.shape[1:]
        self._num_pixels = math.prod(self._image_shape)
        product_dtype = None if config.eval_dtype == "float32" else config.eval_dtype
        self._module = config.model(self._num_pixels, product_dtype=product_dtype)
        self._likelihood = boltzmann_evaluation.Likelihood(
            config, machine(config), self._batch, mesh
        )
        self._reconstruct = jax.jit(self._mean_images)
        self._sample = jax.jit(self._prior_images, static_argnames="num_images")

    def _bind(self, params: PyTree, fixed: PyTree, x: jax.Array) -> binary_model.Networks:
        network, mean, stats = params["network"], fixed["mean"], fixed["batch_stats"]
        return binary_model.bind(self._module, network, mean, x, stats)

    def _batch(
        self,
        params: PyTree,
        fixed: PyTree,
        log_z: jax.Array | None,
        key: jax.Array,
        images: jax.Array,
        *,
        num_samples: int,
    ) -> tuple[jax.Array, ...]:
        """One seed: log-likelihood, ESS, ELBO, KLs and first posterior means of images [B, D]."""
        model = self._bind(params, fixed, images.astype(jnp.float32))
        logits = model.posterior_logits([])
        encoded = model._replace(
            posterior_logits=lambda earlier: model.posterior_logits(earlier) if earlier else logits
        )
        log_prior = None
        if log_z is not None:
            log_prior = functools.partial(boltzmann_prior.log_prob, params["prior"], log_z)
        num_groups = self._config.num_groups
        draw = lambda key: binary_model.ancestral(key, encoded, num_groups, log_prior=log_prior)
        log_weight = lambda sample: sample.log_likelihood - sample.log_ratios.sum(0)
        key_weights, key_elbo = jax.random.split(key)
        estimate = bounds.log_likelihood(
            key_weights,
            lambda key: log_weight(draw(key)),
            num_samples=num_samples,
            chunk_size=CHUNK_SIZE,
        )
        sample = draw(key_elbo)
        kls = jnp.moveaxis(sample.log_ratios, 0, -1)  # [B, parts]
        return estimate.value, estimate.ess, log_weight(sample), kls, jax.nn.sigmoid(logits)

    def evaluate(
        self, params: PyTree, model_state: PyTree, images: np.ndarray, *, num_samples: int
    ) -> Evaluation:
        """Evaluates every image once, with the same random numbers at every call.

        Args:
          params: of one seed, or of `num_seeds` along a leading axis.
          model_state: likewise.
          images: [N, ...] of as many pixels as those of the data set, 0 or 1 of any dtype.
          num_samples: K, at least 1.

        Raises:
          ValueError: images are others, or none, or `num_samples` is below 1.
        """
        results, (means,) = self._likelihood.evaluate(
            params, _fixed(model_state), self._pixels(images), num_samples=num_samples
        )
        return Evaluation(**vars(results), unit_variance=means.astype(np.float64).var(1))

    def _pixels(self, images: np.ndarray) -> np.ndarray:
        """Checks images [N, ...] and returns them as [N, D]."""
        images = np.asarray(images)
        images = evaluation.check_images(images, kind=checks.BITS, shape=images.shape[1:])
        if math.prod(images.shape[1:]) != self._num_pixels:
            raise ValueError(
                f"images must have the {self._num_pixels} pixels that the model was made for, got "
                f"{checks.describe(images)}"
            )
        return images.reshape(len(images), self._num_pixels)

    def _mean_images(
        self, params: PyTree, fixed: PyTree, key: jax.Array, x: jax.Array
    ) -> jax.Array:
        model = self._bind(params, fixed, x)
        groups: list[jax.Array] = []
        for key_group in jax.random.split(key, self._config.num_groups):
            groups.append(bernoulli.sample(key_group, model.posterior_logits(groups)))
        return self._pixel_means(params, fixed, groups)

    def _prior_images(
        self, params: PyTree, model_state: PyTree, key: jax.Array, *, num_images: int
    ) -> jax.Array:
        config, fixed = self._config, _fixed(model_state)
        if config.prior == names.BOLTZMANN:
            chains = model_state["chains"]
            groups = boltzmann_prior.sample(key, config, params["prior"], chains, num_images)
            return self._pixel_means(params, fixed, groups)
        groups = []
        for key_group in jax.random.split(key, config.num_groups):
            logits = self._run(params, fixed, mlp.BinaryVAE.prior_logits, groups)
            shape = () if groups else (num_images,)
            groups.append(bernoulli.sample(key_group, logits, shape))
        return self._pixel_means(params, fixed, groups)

    def _pixel_means(self, params: PyTree, fixed: PyTree, groups: list[jax.Array]) -> jax.Array:
        logits = self._run(params, fixed, mlp.BinaryVAE.pixel_logits, groups)
        return jnp.round(255 * jax.nn.sigmoid(logits)).astype(jnp.uint8)

    def _run(self, params: PyTree, fixed: PyTree, method: Any, groups: list[jax.Array]) -> Any:
        network, stats = params["network"], fixed["batch_stats"]
        return binary_model.apply(self._module, network, method, groups, batch_stats=stats)

    def reconstruct(self, params: PyTree, model_state: PyTree, images: np.ndarray) -> np.ndarray:
        """Returns E[x|z] at z ~ q(z|x) for images as in `evaluate`, as grey levels; of one seed."""
        x = self._pixels(images).astype(np.float32)
        pixels = self._reconstruct(
            params,
            _fixed(model_state),
            boltzmann_evaluation.picture_key(self._config, boltzmann_evaluation.RECONSTRUCTIONS),
            x,
        )
        return np.asarray(pixels).reshape(np.shape(images))

    def sample_prior(self, params: PyTree, model_state: PyTree, num_images: int) -> np.ndarray:
        """Returns E[x|z] at z ~ p(z) as grey levels [num_images, ...], of one seed."""
        evaluation.check_count("num_images", num_images)
        key = boltzmann_evaluation.picture_key(self._config, boltzmann_evaluation.SAMPLES)
        pixels = self._sample(params, model_state, key, num_images=num_images)
        return np.asarray(pixels).reshape(num_images, *self._image_shape)


def _fixed(model_state: PyTree) -> PyTree:
    """What an evaluation needs of the model state."""
    return {"mean": model_state["mean"], "batch_stats": model_state["batch_stats"]}
