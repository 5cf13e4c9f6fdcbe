"""Evaluation of `joint_vae`: reconstruction, KL of every latent variable, and what codes predict.

Images are reconstructed from the mean of q(h|x) and the likeliest codes. Each code stands for the
class that is commonest among its training images; the accuracy is that of held-out images.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jax.sharding import Mesh

from dvae.analysis import codes as code_tables
from dvae.data import Dataset
from dvae.models import checks
from dvae.train import sharding
from dvae.train.state import TrainState
from dvae.trained import joint_vae
from experiments.common import evaluation
from experiments.common.run import ValidateFn
from experiments.joint_vae import model as joint_model
from experiments.joint_vae.config import Config
from experiments.joint_vae.task import kl_metrics

PyTree = Any
QUANTILES = np.linspace(0.05, 0.95, 10)  # of the prior, where continuous variables are drawn


class Evaluation(NamedTuple):
    """Results on N images; S is the number of seeds."""

    codes: np.ndarray  # int32 [S, N, j], the likeliest class of every discrete variable
    distortion: np.ndarray  # [S, N] nats, -log p(x | mean of h, likeliest c)
    squared_error: np.ndarray  # [S, N] mean over pixels, levels in [0, 1]
    elbo: np.ndarray  # [S, N] nats, one sample of h and of c, one-hot
    kl_continuous: np.ndarray  # [S, N, n] nats
    kl_discrete: np.ndarray  # [S, N, j] nats

    def means(self) -> dict[str, np.ndarray]:
        """Averages over the images, [S] each; a scalar for one seed."""
        values = {
            "distortion": self.distortion.mean(1),
            "rmse": np.sqrt(self.squared_error.mean(1)),
            "elbo": self.elbo.mean(1),
            **kl_metrics(self.kl_continuous.mean(1), self.kl_discrete.mean(1)),
        }
        return evaluation.without_seed_axis(values)


def accuracy(
    config: Config,
    fit: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
    variable: int | None = None,
) -> float:
    """Returns how well codes predict the classes of images.

    Args:
      config: sizes of the discrete variables.
      fit: codes [N, j] and labels [N] that each code's class is read off.
      held_out: codes and labels that are scored.
      variable: which discrete variable; None for all of them together.

    Raises:
      ValueError: codes or labels have other shapes, or are out of range.
    """
    num_variables = len(config.discrete_sizes)
    for name, (codes, labels) in (("fit", fit), ("held_out", held_out)):
        if codes.shape != (len(labels), num_variables) or labels.ndim != 1 or not len(labels):
            raise ValueError(
                f"{name} must be codes [N, {num_variables}] and labels [N], N at least 1, got "
                f"{checks.describe(codes)} and {checks.describe(labels)}"
            )
        for j, size in enumerate(config.discrete_sizes):
            checks.check_codes(f"codes[:, {j}] of {name}", codes[:, j], ("N",), size)
        if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
            raise ValueError(
                f"labels of {name} must be integers from 0 on, got {checks.describe(labels)} from "
                f"{labels.min()} on"
            )

    both = np.concatenate([fit[0], held_out[0]])
    if variable is not None:
        both = both[:, variable : variable + 1]
    # Only combinations that occur have numbers: of ten variables there can be more than fit into
    # an integer, and a table of all would not fit into the memory.
    combinations, numbers = np.unique(both, axis=0, return_inverse=True)
    fit_codes, held_out_codes = np.split(numbers.reshape(-1), [len(fit[0])])
    counts = code_tables.confusion(
        fit_codes, fit[1], num_codes=len(combinations), num_classes=1 + int(fit[1].max())
    )
    classes = code_tables.majority_classes(counts)
    return code_tables.accuracy(classes, held_out_codes, held_out[1])


class Evaluator:
    """Compiles the evaluation once and runs it over any number of images.

    Args:
      config: everything.
      images: the data set; the classes of its training images are those of codes.
      mesh: the devices.
    """

    def __init__(self, config: Config, images: Dataset, mesh: Mesh) -> None:
        self._config = config
        self._images = images
        self._mesh = mesh
        self._functions = joint_model.functions(config, images.train.shape[1:])
        # Classes of codes are read off the training images, those of all processes.
        whole = functools.partial(sharding.gather_rows, mesh, num_rows=images.num_train)
        self.train = whole(images.train)
        labels = images.train_labels if images.has_classes else None
        self.train_labels = None if labels is None else whole(labels)
        self._evaluate_seeds = jax.jit(self._batch_of_seeds)
        self._decode = jax.jit(self._functions.decode)
        self._encode = jax.jit(self._functions.encode)
        self._sample = jax.jit(self._functions.sample, static_argnames="num_images")

    def _batch_of_seeds(
        self, params: PyTree, keys: jax.Array, index: jax.Array, images: jax.Array
    ) -> tuple[jax.Array, ...]:
        """Fields of `Evaluation`, of parameters and keys [S, ...] and images over the devices."""
        shared = sharding.shard_batch(self._mesh, images)
        one_seed = lambda p, key: self._functions.evaluate(
            joint_model.arrays(p), jax.random.fold_in(key, index), shared
        )
        return jax.vmap(one_seed)(params, keys)

    def evaluate(self, params: PyTree, model_state: PyTree, images: np.ndarray) -> Evaluation:
        """Evaluates every image once, with the same random numbers at every call.

        Args:
          params: of one seed, or of `num_seeds` along a leading axis.
          model_state: not read, there is none.
          images: uint8 [N, S, S, C], of the size that the model was made for.

        Raises:
          ValueError: images are others, or none.
        """
        del model_state
        images = self._checked(images)
        params = evaluation.with_seed_axis(self._config, params)
        keys = evaluation.stacked_keys(self._config, self._mesh)
        fields = evaluation.over_images(
            self._config,
            self._mesh,
            images,
            lambda i, batch: self._evaluate_seeds(params, keys, i, batch),
        )
        return Evaluation(*fields)

    def _checked(self, images: np.ndarray) -> np.ndarray:
        shape = self._functions.image_shape
        return evaluation.check_images(images, kind=checks.LEVELS, shape=shape)

    def decode(self, params: PyTree, h: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Returns E[x | h, c] as uint8 for h [B, n] and codes [B, j]; parameters of one seed.

        Raises:
          ValueError: shapes are others, or a code is out of range.
        """
        h, codes = np.asarray(h, np.float32), np.asarray(codes)
        checks.check_floats("h", h, ("B", self._config.continuous))
        sizes = self._config.discrete_sizes
        if codes.shape != (len(h), len(sizes)):
            raise ValueError(
                f"codes must have the shape {(len(h), len(sizes))}, got {checks.describe(codes)}"
            )
        for j, size in enumerate(sizes):
            checks.check_codes(f"codes[:, {j}]", codes[:, j], ("B",), size)
        latents = joint_vae.Latents(jnp.asarray(codes, jnp.int32), jnp.asarray(h))
        return np.asarray(self._decode(joint_model.arrays(params), latents))

    def reconstruct(self, params: PyTree, model_state: PyTree, images: np.ndarray) -> np.ndarray:
        """Returns E[x | mean of h, likeliest c] of uint8 images, like them; of one seed."""
        del model_state
        latents = self._encode(joint_model.arrays(params), None, self._checked(images))
        return self.decode(params, np.asarray(latents.continuous), np.asarray(latents.classes))

    def sample_prior(self, params: PyTree, model_state: PyTree, num_images: int) -> np.ndarray:
        """Returns E[x | h, c] at h and c drawn from the prior, uint8, of one seed."""
        del model_state
        evaluation.check_count("num_images", num_images)
        key, model = evaluation.seed_keys(self._config)[0], joint_model.arrays(params)
        return np.asarray(self._sample(model, key, num_images=num_images))

    def traverse(
        self, params: PyTree, base_codes: np.ndarray
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Decodes every latent variable over its range, the others at h = 0 and `base_codes`.

        Args:
          params: of one seed.
          base_codes: int [j].

        Returns:
          Images of each continuous variable at `QUANTILES` of the prior, and of each discrete one
          at all its codes.
        """
        config, values = self._config, scipy.stats.norm.ppf(QUANTILES)
        paths = np.zeros((config.continuous, len(values), config.continuous))
        for i in range(config.continuous):
            paths[i, :, i] = values
        repeats = np.tile(base_codes, (len(values), 1))
        continuous = [self.decode(params, h, repeats) for h in paths]
        discrete = []
        for j, size in enumerate(config.discrete_sizes):
            codes = np.tile(base_codes, (size, 1))
            codes[:, j] = np.arange(size)
            discrete.append(self.decode(params, np.zeros((size, config.continuous)), codes))
        return continuous, discrete


def validator(config: Config, images: Dataset, mesh: Mesh) -> ValidateFn:
    """Returns the function that evaluates a state on validation images.

    The codes' classes are those of as many training images.
    """
    evaluator, count = Evaluator(config, images, mesh), config.num_eval_images
    held_out = evaluation.spread_indices(len(images.validation), count)
    sample = evaluation.spread_indices(len(evaluator.train), count)

    def validate(state: TrainState) -> dict[str, np.ndarray]:
        evaluate = lambda images: evaluator.evaluate(state.params, state.model_state, images)
        results = evaluate(images.validation[held_out])
        values = results.means()
        train_labels, held_labels = evaluator.train_labels, images.validation_labels
        if train_labels is None or held_labels is None or not config.discrete_sizes:
            return values
        fit = evaluate(evaluator.train[sample])
        labels = train_labels[sample], held_labels[held_out]
        accuracies = [
            accuracy(config, (codes, labels[0]), (held_codes, labels[1]))
            for codes, held_codes in zip(fit.codes, results.codes, strict=True)
        ]
        return values | evaluation.without_seed_axis({"accuracy": np.array(accuracies)})

    return validate
