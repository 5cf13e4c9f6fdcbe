"""What the evaluations of every experiment share: checks, keys of the seeds, a walk over images."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from dvae.data import batches
from dvae.models import checks
from dvae.train import sharding
from experiments.common.config import RunConfig

PyTree = Any
_EVALUATION = 2  # the role that is folded into a seed's key; training uses the halves of a split


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
    seeds = range(config.seed, config.seed + config.num_seeds)
    return [jax.random.fold_in(jax.random.key(seed), _EVALUATION) for seed in seeds]


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
