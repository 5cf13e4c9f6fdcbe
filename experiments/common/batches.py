"""How a step draws its images, where that is the same for several programs."""

import jax
from jax.sharding import Mesh

from dvae.data import batches
from dvae.train import sharding, state
from experiments.common.config import RunConfig


def draw_fn(config: RunConfig, mesh: Mesh, num_train: int, *, dynamic: bool) -> state.DrawFn:
    """Returns the function that draws a step's batch of training images, uint8 like them.

    Args:
      config: the size of a batch.
      mesh: the devices that share it.
      num_train: how many rows of the training images are not padding.
      dynamic: whether grey levels are means of binary pixels, which are sampled at every step.
    """

    def draw(key: jax.Array, images: jax.Array, step: jax.Array) -> jax.Array:
        key_order, key_pixels = (jax.random.fold_in(key, role) for role in range(2))
        batch = batches.draw(
            key_order, images, step, batch_size=config.batch_size, num_examples=num_train
        )
        if dynamic:
            batch = batches.binarize(jax.random.fold_in(key_pixels, step), batch)
        return sharding.shard_batch(mesh, batch)

    return draw
