"""Evaluation of `dvaepp`: log-likelihood, ELBO and the KL of global and local variables."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dvae.data import Dataset
from dvae.models import checks
from experiments.boltzmann import evaluation as boltzmann_evaluation
from experiments.boltzmann.config import BoltzmannConfig
from experiments.common import evaluation
from experiments.common.run import ValidateFn
from experiments.dvaepp import model as dvaepp_model
from experiments.dvaepp.config import BOLTZMANN, Config

PyTree = Any


@dataclass(frozen=True)
class Evaluation(boltzmann_evaluation.Evaluation):
    """Results on a set of images; parts of the KL: global variables, and each local group."""

    def averages(self) -> dict[str, np.ndarray]:
        """Averages over the images, [S] each."""
        kls = self.kl.mean(1)
        return super().averages() | {
            "kl_global": kls[:, 0],
            **{f"kl_local_{j}": kls[:, j] for j in range(1, kls.shape[1])},
        }


def machine(config: Config) -> BoltzmannConfig | None:
    """Returns the settings of the Boltzmann prior, if that is the prior."""
    return config if config.global_latents in BOLTZMANN else None


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
        self._functions = dvaepp_model.functions(config, self._image_shape)
        self._likelihood = boltzmann_evaluation.Likelihood(
            config, machine(config), self._batch, mesh
        )
        self.log_z = self._likelihood.log_z
        self._reconstruct = jax.jit(self._functions.reconstruct)
        self._sample = jax.jit(self._functions.sample, static_argnames=("num_images", "num_each"))

    def _batch(
        self,
        params: PyTree,
        model_state: PyTree,
        log_z: jax.Array | None,
        key: jax.Array,
        images: jax.Array,
        *,
        num_samples: int,
    ) -> tuple[jax.Array, ...]:
        """One seed: log-likelihood, ESS, ELBO and KLs of images [B, ...]."""
        model = dvaepp_model.arrays(self._config, params, model_state, log_z)
        return self._functions.evaluate(model, key, images, num_samples=num_samples)

    def evaluate(
        self, params: PyTree, model_state: PyTree, images: np.ndarray, *, num_samples: int
    ) -> Evaluation:
        """Evaluates every image once, with the same random numbers at every call.

        Args:
          params: of one seed, or of `num_seeds` along a leading axis.
          model_state: not read, the chains play no part.
          images: [N, S, S, C] of the size that the model was made for, pixels 0 or 1 of any
            dtype; of colored sets uint8 levels.
          num_samples: K, at least 1.

        Raises:
          ValueError: images are others, or none, or `num_samples` is below 1.
        """
        del model_state
        results, _ = self._likelihood.evaluate(
            params, {}, self._checked(images), num_samples=num_samples
        )
        return Evaluation(**vars(results))

    def _checked(self, images: np.ndarray) -> np.ndarray:
        kind = checks.LEVELS if self._config.colored else checks.BITS
        return evaluation.check_images(images, kind=kind, shape=self._image_shape)

    def reconstruct(self, params: PyTree, model_state: PyTree, images: np.ndarray) -> np.ndarray:
        """Returns draws of p(x | z, h) at z, h ~ q, uint8 levels like the images; of one seed."""
        key = boltzmann_evaluation.picture_key(self._config, boltzmann_evaluation.RECONSTRUCTIONS)
        model = dvaepp_model.arrays(self._config, params, model_state)
        return np.asarray(self._reconstruct(model, key, self._checked(images)))

    def sample_prior(
        self, params: PyTree, model_state: PyTree, num_images: int, *, num_each: int = 1
    ) -> np.ndarray:
        """Draws images from the model, uint8 levels [num_images, S, S, C], of one seed.

        Args:
          params: of one seed.
          model_state: likewise.
          num_images: a multiple of `num_each`.
          num_each: images of each draw of the global variables, next to each other, which differ in
            all else.

        Raises:
          ValueError: numbers are below 1, or do not divide each other.
        """
        evaluation.check_count("num_images", num_images)
        evaluation.check_count("num_each", num_each)
        if num_images % num_each:
            raise ValueError(
                f"num_images must be a multiple of num_each, got {num_images} and {num_each}"
            )
        key = boltzmann_evaluation.picture_key(self._config, boltzmann_evaluation.SAMPLES)
        model = dvaepp_model.arrays(self._config, params, model_state)
        num_draws = num_images // num_each
        return np.asarray(self._sample(model, key, num_images=num_draws, num_each=num_each))
