"""What the evaluations of every experiment share: checks, keys of the seeds, a walk over images."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from dvae.data import batches
from dvae.models import checks
from dvae.train import sharding
from dvae.train.state import TrainState
from experiments.common.config import RunConfig
from experiments.common.run import ValidateFn

PyTree = Any
_EVALUATION = 2  # the role that is folded into a seed's key; training uses the halves of a split


class Evaluation(Protocol):
    """Results of a program on a set of images."""

    def means(self) -> dict[str, np.ndarray]:
        """Averages over the images, [S] each; a scalar for one seed."""


class Evaluator(Protocol):
    """What every program's `Evaluator(config, images, mesh)` does with a trained model.

    The data set that it is made of says how large images are.
    """

    @property
    def evaluate(self) -> Callable[..., Evaluation]:
        """Takes (params, model_state, images) of all seeds.

        A program that draws importance samples takes num_samples, too.
        """

    def reconstruct(self, params: PyTree, model_state: PyTree, images: np.ndarray) -> np.ndarray:
        """Returns images like those of `evaluate` as the model sees them, uint8; of one seed."""

    @property
    def sample_prior(self) -> Callable[..., np.ndarray]:
        """Takes (params, model_state, num_images) of one seed; returns uint8 images."""


def validator(evaluator: Evaluator, images: np.ndarray, **options: Any) -> ValidateFn:
    """Returns the function that evaluates a state on validation images.

    Args:
      evaluator: of a program.
      images: [N, ...].
      **options: further arguments of `evaluate`.
    """

    def validate(state: TrainState) -> dict[str, np.ndarray]:
        return evaluator.evaluate(state.params, state.model_state, images, **options).means()

    return validate


def check_images(images: Any, *, kind: str, shape: Sequence[int | str]) -> np.ndarray:
    """Returns images as a NumPy array, once they are what an evaluation reads.

    Args:
      images: [N, *shape].
      kind: of pixels, see `dvae.models.checks`; values are checked, too.
      shape: of an image; a name stands for any length.

    Raises:
      ValueError: another dtype, shape or value, or no image.
    """
    images = np.asarray(images)
    checks.check_images(images, kind=kind, shape=("N", *shape))
    if not len(images):
        raise ValueError(f"an evaluation needs at least 1 image, got {checks.describe(images)}")
    return images


def check_count(name: str, count: int) -> None:
    """Raises ValueError unless a number of samples or images is at least 1."""
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")


def seed_keys(config: RunConfig) -> list[jax.Array]:
    """Returns one key a seed, apart from those of its training."""
    return [key_of_seed(seed) for seed in range(config.seed, config.seed + config.num_seeds)]


def key_of_seed(seed: int) -> jax.Array:
    """Returns the key that a seed's evaluations have in every run."""
    return jax.random.fold_in(jax.random.key(seed), _EVALUATION)


def stacked_keys(config: RunConfig, mesh: Mesh) -> jax.Array:
    """Returns `seed_keys` as one array [S] on all devices."""
    return sharding.replicate(mesh, jnp.stack(seed_keys(config)))


def with_seed_axis(config: RunConfig, tree: PyTree) -> PyTree:
    """Gives what belongs to a single seed the leading axis that several seeds have.

    Raises:
      ValueError: arrays of several seeds without that axis.
    """
    if config.num_seeds == 1:
        return jax.tree.map(lambda x: x[None], tree)
    for x in jax.tree.leaves(tree):
        if x.shape[:1] != (config.num_seeds,):
            raise ValueError(
                f"with num_seeds={config.num_seeds} every array needs a leading axis of that "
                f"length, got {checks.describe(x)}; stack the seeds, or set num_seeds=1"
            )
    return tree


def without_seed_axis(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Takes away the leading axis of values [S, ...] where there is a single seed."""
    return {name: value[0] if len(value) == 1 else value for name, value in values.items()}


def over_images(
    config: RunConfig,
    mesh: Mesh,
    images: np.ndarray,
    evaluate: Callable[[int, jax.Array], Sequence[jax.Array]],
    *,
    description: str = "",
) -> list[np.ndarray]:
    """Evaluates every image once, a batch of `eval_batch_size` at a time.

    Args:
      config: the size of a batch, which is rounded up to a multiple of the devices.
      mesh: the devices.
      images: [N, ...].
      evaluate: (number of the batch, images [B, ...]) -> arrays [S, B, ...], S seeds.
      description: shown beside a progress bar, in a terminal.

    Returns:
      Arrays [S, N, ...].
    """
    size = min(config.eval_batch_size, len(images))
    size += -size % mesh.size  # padding makes it divisible by the devices
    bar = tqdm(
        batches.padded_batches(images, size),
        total=-(-len(images) // size),
        desc=description or f"{len(images)} images",
        leave=False,
        disable=None,  # shown in a terminal only
    )
    parts = []
    for i, (batch, mask) in enumerate(bar):
        out = sharding.fetch(evaluate(i, sharding.replicate(mesh, batch)))
        parts.append([values[:, mask] for values in out])
    return [np.concatenate(values, axis=1) for values in zip(*parts, strict=True)]


def spread(images: np.ndarray, count: int) -> np.ndarray:
    """Returns `count` evenly spaced images (0, or more than there are: all)."""
    return images[spread_indices(len(images), count)]


def spread_indices(size: int, count: int) -> np.ndarray:
    """Returns `count` evenly spaced indices below `size` (0, or more than that: all)."""
    return np.linspace(0, size - 1, min(count or size, size)).astype(int)
