"""Evaluation of `binary_vae` in the binary limit: every z is a bit, whatever relaxation trained it.

The log-likelihood is estimated with K importance samples z ~ q(z|x) an image (a lower bound in the
mean, close to log p(x) for large K); with one sample it is the ELBO.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dvae import bounds, rbm
from dvae.data import Dataset
from dvae.distributions import bernoulli
from dvae.models import checks, mlp
from dvae.train import sharding
from dvae.train.state import TrainState
from experiments.binary_vae import model as binary_model
from experiments.binary_vae import names
from experiments.binary_vae.config import Config
from experiments.boltzmann import prior as boltzmann_prior
from experiments.common import evaluation
from experiments.common.run import ValidateFn

PyTree = Any
CHUNK_SIZE = 10  # samples decoded at once: a thousand rows of logits stay in the cache
ACTIVE_VARIANCE = 0.01  # of E[z|x] over images, above which a unit counts as active
# Folded into a seed's key, apart from the indices of batches.
_LOG_Z, _RECONSTRUCTIONS, _SAMPLES = (2**31 - 1 - role for role in range(3))


class Evaluation(NamedTuple):
    """Results on a set of images; S is the number of seeds."""

    log_likelihood: np.ndarray  # [S, images] nats, K samples
    ess: np.ndarray  # [S, images] effective number of the K samples
    elbo: np.ndarray  # [S, images] nats, one sample
    kl: np.ndarray  # [S, parts] log q - log p of that sample, mean over images; parts: the groups
    # of a directed prior, or 1
    unit_variance: np.ndarray  # [S, n] variance of q(z=1|x) over images, first group
    log_z: rbm.ais.LogZ | None = None  # [S] each, of Boltzmann priors
    trusted: np.ndarray | None = None  # [S] bool, whether log Z rests on enough chains

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
        if self.log_z is not None and self.trusted is not None:
            values |= boltzmann_prior.validation_metrics(self.log_z, self.trusted, values["nll"])
        return {name: value[0] if len(value) == 1 else value for name, value in values.items()}


def validator(config: Config, images: Dataset, mesh: Mesh) -> ValidateFn:
    """Returns the function that evaluates a state on validation images."""
    evaluator = Evaluator(config, images.train[0].size, mesh)
    held_out = evaluation.spread(images.validation, config.num_eval_images)

    def validate(state: TrainState) -> dict[str, np.ndarray]:
        return evaluator.evaluate(
            state.params, state.model_state, held_out, num_samples=config.eval_samples
        ).means()

    return validate


class Evaluator:
    """Compiles the evaluation once for each number of samples and runs it over any images.

    Random numbers depend on the seed and on an image's batch, so they are the same at every call as
    long as batches are: `eval_batch_size`, rounded up to a multiple of the devices.
    """

    def __init__(self, config: Config, num_pixels: int, mesh: Mesh) -> None:
        self._config = config
        self._mesh = mesh
        self._num_pixels = num_pixels
        rounded = None if config.eval_dtype == "float32" else config.eval_dtype
        self._module = config.model(num_pixels, product_dtype=rounded)
        self._evaluate_seeds = jax.jit(self._batch_of_seeds, static_argnames="num_samples")
        evaluate_log_z = lambda key, prior: boltzmann_prior.evaluate_log_z(
            jax.random.fold_in(key, _LOG_Z), config, prior, mesh
        )
        self._log_z = jax.jit(jax.vmap(evaluate_log_z))
        self._reconstruct = jax.jit(self._mean_images)
        self._sample = jax.jit(self._prior_images, static_argnames="num_images")

    def _bind(self, params: PyTree, fixed: PyTree, x: jax.Array) -> binary_model.Networks:
        network, mean, stats = params["network"], fixed["mean"], fixed["batch_stats"]
        return binary_model.bind(self._module, network, mean, x, stats)

    def _batch(
        self, params: PyTree, fixed: PyTree, key: jax.Array, x: jax.Array, *, num_samples: int
    ) -> tuple[jax.Array, ...]:
        """One seed: log-likelihood, ESS, ELBO, KLs and first posterior means of images [B, D]."""
        model = self._bind(params, fixed, x)
        logits = model.posterior_logits([])
        encoded = model._replace(
            posterior_logits=lambda earlier: model.posterior_logits(earlier) if earlier else logits
        )
        log_prior = None
        if "log_z" in fixed:
            log_prior = functools.partial(boltzmann_prior.log_prob, params["prior"], fixed["log_z"])
        num_groups = self._config.num_groups
        draw = lambda key: binary_model.ancestral(key, encoded, num_groups, log_prior=log_prior)
        log_weight = lambda drawn: drawn.log_likelihood - drawn.log_ratios.sum(0)
        key_weights, key_elbo = jax.random.split(key)
        estimate = bounds.log_likelihood(
            key_weights,
            lambda key: log_weight(draw(key)),
            num_samples=num_samples,
            chunk_size=CHUNK_SIZE,
        )
        drawn = draw(key_elbo)
        kls = jnp.moveaxis(drawn.log_ratios, 0, -1)  # [B, parts]
        return estimate.value, estimate.ess, log_weight(drawn), kls, jax.nn.sigmoid(logits)

    def _batch_of_seeds(
        self,
        params: PyTree,
        fixed: PyTree,
        keys: jax.Array,
        index: jax.Array,
        images: jax.Array,
        *,
        num_samples: int,
    ) -> tuple[jax.Array, ...]:
        """The same of parameters and keys [S, ...], with the images sharded over the devices."""
        x = sharding.shard_batch(self._mesh, images.astype(jnp.float32))
        one_seed = lambda params, fixed, key: self._batch(
            params, fixed, jax.random.fold_in(key, index), x, num_samples=num_samples
        )
        return jax.vmap(one_seed)(params, fixed, keys)

    def evaluate(
        self, params: PyTree, model_state: PyTree, images: np.ndarray, *, num_samples: int
    ) -> Evaluation:
        """Evaluates every image once.

        Args:
          params: of one seed, or of `num_seeds` along a leading axis.
          model_state: likewise.
          images: [N, ...], `num_pixels` pixels each, 0 or 1 of any dtype.
          num_samples: K, at least 1.

        Raises:
          ValueError: images are others, or none, or `num_samples` is below 1.
        """
        pixels = self._pixels(images)
        evaluation.check_count("num_samples", num_samples)
        fixed = _fixed(model_state)
        params, fixed = evaluation.with_seed_axis(self._config, (params, fixed))
        keys = evaluation.stacked_keys(self._config, self._mesh)
        log_z = None
        if self._config.prior == names.BOLTZMANN:
            log_z = self._log_z(keys, params["prior"])
            fixed["log_z"] = log_z.value
        value, ess, elbo, kls, probs = evaluation.over_images(
            self._config,
            self._mesh,
            pixels,
            lambda i, batch: self._evaluate_seeds(
                params, fixed, keys, i, batch, num_samples=num_samples
            ),
            description=f"{len(pixels)} images, {num_samples} samples each",
        )
        variances = probs.astype(np.float64).var(1)
        found = Evaluation(value, ess, elbo, kls.mean(1), variances)
        if log_z is None:
            return found
        log_z = sharding.fetch(log_z)
        return found._replace(log_z=log_z, trusted=boltzmann_prior.trusted(self._config, log_z))

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
            jax.random.fold_in(evaluation.seed_keys(self._config)[0], _RECONSTRUCTIONS),
            x,
        )
        return np.asarray(pixels).reshape(np.shape(images))

    def sample_prior(
        self, params: PyTree, model_state: PyTree, num_images: int, shape: tuple[int, ...]
    ) -> np.ndarray:
        """Returns E[x|z] at z ~ p(z) as grey levels [num_images, *shape], of one seed."""
        evaluation.check_count("num_images", num_images)
        if math.prod(shape) != self._num_pixels:
            raise ValueError(f"shape must have {self._num_pixels} pixels, got {shape}")
        key = jax.random.fold_in(evaluation.seed_keys(self._config)[0], _SAMPLES)
        pixels = self._sample(params, model_state, key, num_images=num_images)
        return np.asarray(pixels).reshape(num_images, *shape)


def _fixed(model_state: PyTree) -> PyTree:
    """What an evaluation needs of the model state."""
    return {"mean": model_state["mean"], "batch_stats": model_state["batch_stats"]}
