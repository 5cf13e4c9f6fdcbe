"""Evaluation of `binary_vae`: log-likelihood, ELBO and the units that carry something."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dvae.data import Dataset
from dvae.models import checks
from experiments.binary_vae import conditions, gradient_noise, names
from experiments.binary_vae import model as binary_model
from experiments.binary_vae.config import Config
from experiments.boltzmann import evaluation as boltzmann_evaluation
from experiments.boltzmann.config import BoltzmannConfig
from experiments.common import evaluation
from experiments.common.run import ValidateFn

PyTree = Any
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
    return config if config.has_machine else None


def validator(config: Config, images: Dataset, mesh: Mesh) -> ValidateFn:
    """Returns the function that evaluates a state on validation images."""
    chosen = evaluation.spread_indices(len(images.validation), config.num_eval_images)
    labels = conditions.labels_of(config, images, "validation", chosen)
    evaluator = Evaluator(config, images, mesh)
    validate = evaluation.validator(
        evaluator, images.validation[chosen], num_samples=config.eval_samples, **labels
    )
    if not config.gradient_draws or config.prior != names.DIRECTED:
        return validate
    measure = gradient_noise.measure_fn(config, images, mesh)
    return lambda state: {**validate(state), **measure(state)}


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
        self._functions = binary_model.functions(config, images)
        self._condition = conditions.condition_of(config, images)
        self._likelihood = boltzmann_evaluation.Likelihood(
            config, machine(config), self._batch, mesh, self._functions.num_labels
        )
        self.log_z = self._likelihood.log_z
        self._reconstruct = jax.jit(self._functions.reconstruct)
        self._sample = jax.jit(self._functions.sample, static_argnames="num_images")

    def _batch(
        self,
        params: PyTree,
        fixed: PyTree,
        log_z: jax.Array | None,
        key: jax.Array,
        rows: jax.Array,
        *,
        num_samples: int,
    ) -> tuple[jax.Array, ...]:
        """One seed: log-likelihood, ESS, ELBO, KLs and first posterior means of images [B, D]."""
        model = binary_model.arrays(params, fixed, log_z)
        x, labels = conditions.split(rows, self._condition)
        return self._functions.evaluate(model, key, x, labels=labels, num_samples=num_samples)

    def evaluate(
        self,
        params: PyTree,
        model_state: PyTree,
        images: np.ndarray,
        *,
        num_samples: int,
        labels: np.ndarray | None = None,
    ) -> Evaluation:
        """Evaluates every image once, with the same random numbers at every call.

        Args:
          params: of one seed, or of `num_seeds` along a leading axis.
          model_state: likewise.
          images: [N, ...] of as many pixels as those of the data set, 0 or 1 of any dtype.
          num_samples: K, at least 1.
          labels: int [N] or float [N, C] of the images, where the model has labels.

        Raises:
          ValueError: images or labels are others, or none, or `num_samples` is below 1.
        """
        rows = self._rows(images, labels)
        results, (means,) = self._likelihood.evaluate(
            params, _fixed(model_state), rows, num_samples=num_samples
        )
        return Evaluation(**vars(results), unit_variance=means.astype(np.float64).var(1))

    def _rows(self, images: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        """Checks images [N, ...] and their labels and returns them as rows, see `conditions`."""
        images = np.asarray(images)
        images = evaluation.check_images(images, kind=checks.BITS, shape=images.shape[1:])
        if math.prod(images.shape[1:]) != self._num_pixels:
            raise ValueError(
                f"images must have the {self._num_pixels} pixels that the model was made for, got "
                f"{checks.describe(images)}"
            )
        self._functions.check_labels(labels, len(images))
        return conditions.rows(images, labels)

    def reconstruct(
        self,
        params: PyTree,
        model_state: PyTree,
        images: np.ndarray,
        *,
        labels: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns E[x|z] at z ~ q(z|x) for images as in `evaluate`, as gray levels; of one seed."""
        key = boltzmann_evaluation.picture_key(self._config, boltzmann_evaluation.RECONSTRUCTIONS)
        model = binary_model.arrays(params, model_state)
        rows = jnp.asarray(self._rows(images, labels))
        x, of_images = conditions.split(rows, self._condition)
        pixels = self._reconstruct(model, key, x, labels=of_images)
        return np.asarray(pixels).reshape(np.shape(images))

    def sample_prior(
        self,
        params: PyTree,
        model_state: PyTree,
        num_images: int,
        *,
        labels: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns E[x|z] at z ~ p(z) as gray levels [num_images, ...], of one seed.

        Labels are those of the images where the model has labels.
        """
        evaluation.check_count("num_images", num_images)
        self._functions.check_labels(labels, num_images)
        key = boltzmann_evaluation.picture_key(self._config, boltzmann_evaluation.SAMPLES)
        model = binary_model.arrays(params, model_state)
        return np.asarray(self._sample(model, key, num_images=num_images, labels=labels))


def _fixed(model_state: PyTree) -> PyTree:
    """What an evaluation needs of the model state."""
    return {"mean": model_state["mean"], "batch_stats": model_state["batch_stats"]}
