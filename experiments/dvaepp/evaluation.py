"""Evaluation of `dvaepp` in the binary limit: bits are bits, whatever relaxation trained them.

The log-likelihood is estimated with K importance samples of all latent variables an image (a lower
bound in the mean, close to log p(x) for large K); with one sample it is the ELBO.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dvae import bounds, rbm
from dvae.data import Dataset
from dvae.models import checks, dvaepp
from dvae.train import sharding
from dvae.train.state import TrainState
from experiments.boltzmann import prior as boltzmann_prior
from experiments.common import evaluation
from experiments.common.run import ValidateFn
from experiments.dvaepp import latents as dvaepp_latents
from experiments.dvaepp.config import BOLTZMANN, Config
from experiments.dvaepp.task import bind

PyTree = Any
# Folded into a seed's key, apart from the indices of batches.
_LOG_Z, _RECONSTRUCTIONS, _SAMPLES = (2**31 - 1 - role for role in range(3))


class Evaluation(NamedTuple):
    """Results on a set of images; S is the number of seeds, G that of local groups."""

    log_likelihood: np.ndarray  # [S, images] nats, K samples
    ess: np.ndarray  # [S, images] effective number of the K samples
    elbo: np.ndarray  # [S, images] nats, one sample
    kl: np.ndarray  # [S, images, 1 + G] log q - log p of that sample: global, local groups
    log_z: rbm.ais.LogZ | None = None  # [S] each, of Boltzmann priors
    trusted: np.ndarray | None = None  # [S] bool, whether log Z rests on enough chains

    def means(self) -> dict[str, np.ndarray]:
        """Averages over the images, [S] each; a scalar for one seed."""
        kls = self.kl.mean(1)
        values = {
            "nll": -self.log_likelihood.mean(-1),
            "elbo": self.elbo.mean(-1),
            "kl": kls.sum(-1),
            "kl_global": kls[:, 0],
            **{f"kl_local_{j}": kls[:, j] for j in range(1, kls.shape[1])},
        }
        if self.log_z is not None and self.trusted is not None:
            values |= boltzmann_prior.validation_metrics(self.log_z, self.trusted, values["nll"])
        return {name: value[0] if len(value) == 1 else value for name, value in values.items()}


def validator(config: Config, images: Dataset, mesh: Mesh) -> ValidateFn:
    """Returns the function that evaluates a state on validation images."""
    evaluator = Evaluator(config, images.train.shape[1:], mesh)
    held_out = evaluation.spread(images.validation, config.num_eval_images)

    def validate(state: TrainState) -> dict[str, np.ndarray]:
        return evaluator.evaluate(
            state.params, state.model_state, held_out, num_samples=config.eval_samples
        ).means()

    return validate


class Evaluator:
    """Compiles the evaluation once for each number of samples and runs it over any images."""

    def __init__(self, config: Config, image_shape: tuple[int, ...], mesh: Mesh) -> None:
        self._config = config
        self._mesh = mesh
        self._image_shape = image_shape
        self._module = config.model(image_shape)
        self._evaluate_seeds = jax.jit(self._batch_of_seeds, static_argnames="num_samples")
        log_z = lambda key, prior: boltzmann_prior.evaluate_log_z(
            jax.random.fold_in(key, _LOG_Z), config, prior, mesh
        )
        self._log_z = jax.jit(jax.vmap(log_z))
        self._pictures = jax.jit(self._reconstructed)
        self._samples = jax.jit(self._generated, static_argnames=("num_draws", "num_each"))

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
        log_z: jax.Array | None,
        key: jax.Array,
        images: jax.Array,
        *,
        num_samples: int,
    ) -> tuple[jax.Array, ...]:
        """One seed: the fields of `Evaluation` of images [B, ...]."""
        run, features, posterior = self._encoder(params, images)
        draw_local = dvaepp_latents.draw_local(self._config)

        def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            key_global, key_local = jax.random.split(key)
            drawn = dvaepp_latents.draw_globals(
                key_global, self._config, posterior, params["prior"], log_z
            )
            context = run(dvaepp.DVAEPP.expand, drawn.seen)
            groups = dvaepp.DVAEPP.local_groups
            context, local = run(groups, key_local, context, features, draw_local)
            log_px = run(dvaepp.DVAEPP.log_likelihood, context, images)
            ratios = jnp.concatenate([drawn.divergence[None], local])
            return log_px - ratios.sum(0), ratios

        key_weights, key_elbo = jax.random.split(key)
        estimate = bounds.log_likelihood(
            key_weights, lambda key: draw(key)[0], num_samples=num_samples, chunk_size=1
        )
        elbo, ratios = draw(key_elbo)
        return estimate.value, estimate.ess, elbo, ratios.T

    def _batch_of_seeds(
        self,
        params: PyTree,
        log_z: jax.Array | None,
        keys: jax.Array,
        index: jax.Array,
        images: jax.Array,
        *,
        num_samples: int,
    ) -> tuple[jax.Array, ...]:
        """The same of parameters and keys [S, ...], with the images sharded over the devices."""
        shared = sharding.shard_batch(self._mesh, images)
        one_seed = lambda params, log_z, key: self._batch(
            params, log_z, jax.random.fold_in(key, index), shared, num_samples=num_samples
        )
        return jax.vmap(one_seed)(params, log_z, keys)

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
        images = self._checked(images)
        evaluation.check_count("num_samples", num_samples)
        config = self._config
        params = evaluation.with_seed_axis(config, params)
        keys = evaluation.stacked_keys(config, self._mesh)
        log_z = None
        if config.global_latents in BOLTZMANN:
            log_z = self._log_z(keys, params["prior"])
        value = None if log_z is None else log_z.value
        fields = evaluation.over_images(
            config,
            self._mesh,
            images,
            lambda i, batch: self._evaluate_seeds(
                params, value, keys, i, batch, num_samples=num_samples
            ),
            description=f"{len(images)} images, {num_samples} samples each",
        )
        found = Evaluation(fields[0], fields[1], fields[2], fields[3])
        if log_z is None:
            return found
        log_z = sharding.fetch(log_z)
        return found._replace(log_z=log_z, trusted=boltzmann_prior.trusted(config, log_z))

    def _checked(self, images: np.ndarray) -> np.ndarray:
        kind = checks.LEVELS if self._config.colored else checks.BITS
        return evaluation.check_images(images, kind=kind, shape=self._image_shape)

    def _picture(self, run: Callable[..., Any], key: jax.Array, context: jax.Array) -> jax.Array:
        """Draws images, uint8 levels; of binary ones the finest scale's means."""
        if self._config.colored:
            return run(dvaepp.DVAEPP.generate, key, context)
        means = run(dvaepp.DVAEPP.generate_mean, key, context)
        return jnp.round(255 * means).astype(jnp.uint8)

    def _reconstructed(self, params: PyTree, key: jax.Array, images: jax.Array) -> jax.Array:
        run, features, posterior = self._encoder(params, images)
        key_global, key_local, key_image = jax.random.split(key, 3)
        unknown = jnp.zeros(())  # log Z changes no sample
        drawn = dvaepp_latents.draw_globals(
            key_global, self._config, posterior, params["prior"], unknown
        )
        context, _ = run(
            dvaepp.DVAEPP.local_groups,
            key_local,
            run(dvaepp.DVAEPP.expand, drawn.seen),
            features,
            dvaepp_latents.draw_local(self._config),
        )
        return self._picture(run, key_image, context)

    def reconstruct(self, params: PyTree, images: np.ndarray) -> np.ndarray:
        """Returns draws of p(x | z, h) at z, h ~ q, uint8 levels like the images; of one seed."""
        key = jax.random.fold_in(evaluation.seed_keys(self._config)[0], _RECONSTRUCTIONS)
        return np.asarray(self._pictures(params, key, jnp.asarray(self._checked(images))))

    def _generated(
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
        self, params: PyTree, model_state: PyTree, *, num_draws: int, num_each: int
    ) -> np.ndarray:
        """Draws images from the model, uint8 levels, of one seed.

        Args:
          params, model_state: of one seed.
          num_draws: of the global variables.
          num_each: images of each draw, next to each other, which differ in all else.
        """
        evaluation.check_count("num_draws", num_draws)
        evaluation.check_count("num_each", num_each)
        key = jax.random.fold_in(evaluation.seed_keys(self._config)[0], _SAMPLES)
        pixels = self._samples(params, model_state, key, num_draws=num_draws, num_each=num_each)
        return np.asarray(pixels)

    @property
    def num_dims(self) -> int:
        """Dimensions of an image, for bits/dim."""
        return math.prod(self._image_shape)
