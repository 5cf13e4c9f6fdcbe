"""What the evaluations of every experiment share: keys of the seeds, and a walk over the images."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from dvae.data import batches
from dvae.train import sharding
from experiments.run_config import RunConfig

PyTree = Any
_EVALUATION = 2  # the role that is folded into a seed's key; training uses the halves of a split


def seed_keys(config: RunConfig) -> list[jax.Array]:
    """Returns one key a seed, apart from those of its training."""
    seeds = range(config.seed, config.seed + config.num_seeds)
    return [jax.random.fold_in(jax.random.key(seed), _EVALUATION) for seed in seeds]


def stacked_keys(config: RunConfig, mesh: Mesh) -> jax.Array:
    """Returns `seed_keys` as one array [S] on all devices."""
    return sharding.replicate(mesh, jnp.stack(seed_keys(config)))


def with_seed_axis(config: RunConfig, tree: PyTree) -> PyTree:
    """Gives what belongs to a single seed the leading axis that several seeds have."""
    return jax.tree.map(lambda x: x[None], tree) if config.num_seeds == 1 else tree


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
