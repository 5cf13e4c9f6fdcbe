"""Evaluation of `dvaepp`: log-likelihood, ELBO and the KL of global and local variables."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dvae import bounds
from dvae.data import Dataset
from dvae.models import checks, dvaepp
from experiments.boltzmann import evaluation as boltzmann_evaluation
from experiments.boltzmann.config import BoltzmannConfig
from experiments.common import evaluation
from experiments.common.run import ValidateFn
from experiments.dvaepp import latents as dvaepp_latents
from experiments.dvaepp.config import BOLTZMANN, Config
from experiments.dvaepp.task import bind

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
        self._module = config.model(self._image_shape)
        self._likelihood = boltzmann_evaluation.Likelihood(
            config, machine(config), self._batch, mesh
        )
        self._reconstruct = jax.jit(self._reconstructions)
        self._sample = jax.jit(self._prior_images, static_argnames=("num_draws", "num_each"))

    def _encoder(
        self, params: PyTree, images: jax.Array
    ) -> tuple[Callable[..., Any], dvaepp.Features, Callable[[list[jax.Array]], jax.Array]]:
        """The bound module, the images' features, and q(z_i | x, zeta_<i) by its parameters."""
        run = bind(self._module, params["network"])
        features = run(dvaepp.DVAEPP.encode, images)
        first = run(dvaepp.DVAEPP.global_posterior, features, [])  # the same in every sample
        later = lambda earlier: run(dvaepp.DVAEPP.global_posterior, features, earlier)
        return run, features, lambda earlier: later(earlier) if earlier else first

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
        del model_state
        run, features, posterior = self._encoder(params, images)
        draw_local = dvaepp_latents.draw_local(self._config)

        def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            key_global, key_local = jax.random.split(key)
            globals_ = dvaepp_latents.draw_globals(
                key_global, self._config, posterior, params["prior"], log_z
            )
            context = run(dvaepp.DVAEPP.expand, globals_.seen)
            groups = dvaepp.DVAEPP.local_groups
            context, local = run(groups, key_local, context, features, draw_local)
            log_px = run(dvaepp.DVAEPP.log_likelihood, context, images)
            ratios = jnp.concatenate([globals_.divergence[None], local])
            return log_px - ratios.sum(0), ratios

        key_weights, key_elbo = jax.random.split(key)
        estimate = bounds.log_likelihood(
            key_weights, lambda key: draw(key)[0], num_samples=num_samples, chunk_size=1
        )
        elbo, ratios = draw(key_elbo)
        return estimate.value, estimate.ess, elbo, ratios.T

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

    def _picture(self, run: Callable[..., Any], key: jax.Array, context: jax.Array) -> jax.Array:
        """Draws images, uint8 levels; of binary ones the finest scale's means."""
        if self._config.colored:
            return run(dvaepp.DVAEPP.generate, key, context)
        means = run(dvaepp.DVAEPP.generate_mean, key, context)
        return jnp.round(255 * means).astype(jnp.uint8)

    def _reconstructions(self, params: PyTree, key: jax.Array, images: jax.Array) -> jax.Array:
        run, features, posterior = self._encoder(params, images)
        key_global, key_local, key_image = jax.random.split(key, 3)
        unknown = jnp.zeros(())  # log Z changes no sample
        globals_ = dvaepp_latents.draw_globals(
            key_global, self._config, posterior, params["prior"], unknown
        )
        context, _ = run(
            dvaepp.DVAEPP.local_groups,
            key_local,
            run(dvaepp.DVAEPP.expand, globals_.seen),
            features,
            dvaepp_latents.draw_local(self._config),
        )
        return self._picture(run, key_image, context)

    def reconstruct(self, params: PyTree, model_state: PyTree, images: np.ndarray) -> np.ndarray:
        """Returns draws of p(x | z, h) at z, h ~ q, uint8 levels like the images; of one seed."""
        del model_state
        key = boltzmann_evaluation.picture_key(self._config, boltzmann_evaluation.RECONSTRUCTIONS)
        return np.asarray(self._reconstruct(params, key, jnp.asarray(self._checked(images))))

    def _prior_images(
        self, params: PyTree, model_state: PyTree, key: jax.Array, *, num_draws: int, num_each: int
    ) -> jax.Array:
        run = bind(self._module, params["network"])
        key_global, key_local, key_image = jax.random.split(key, 3)
        seen = dvaepp_latents.prior_globals(
            key_global, self._config, params["prior"], model_state, num_draws
        )
        repeated = [jnp.repeat(values, num_each, axis=0) for values in seen]
        context, _ = run(
            dvaepp.DVAEPP.local_groups,
            key_local,
            run(dvaepp.DVAEPP.expand, repeated),
            None,
            dvaepp_latents.draw_local(self._config),
        )
        return self._picture(run, key_image, context)

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
        num_draws = num_images // num_each
        pixels = self._sample(params, model_state, key, num_draws=num_draws, num_each=num_each)
        return np.asarray(pixels)
