"""Where a step's images come from, and how it draws them where that is the same for programs."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dvae.data import batches
from dvae.train import feeding, sharding, state
from experiments.common.config import DEVICE, RunConfig

_PART = 4_096  # images read at a time, where a number is made of all of them


def order_key(key: jax.Array) -> jax.Array:
    """Returns the key of the order that `draw_fn` goes by."""
    return jax.random.fold_in(key, 0)


class Rows(NamedTuple):
    """The training images of a task, and which of them are read when."""

    mesh: Mesh
    images: Any  # uint8 [M, ...], those that this process keeps; on the host
    num_train: int  # of all processes
    order: Callable[[jax.Array], jax.Array] = order_key  # of `draw_fn`'s key
    # Which images an initialization reads, by its key: int32 [k].
    first: Callable[[jax.Array], jax.Array] = lambda key: jnp.zeros(1, jnp.int32)

    def on_devices(self) -> jax.Array:
        """Returns all images, shared by the devices."""
        return sharding.shard_rows(self.mesh, np.asarray(self.images), self.num_train)

    def of_init(self, keys: jax.Array) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images that initializations read, by keys [...], and positions in them."""
        first = self.first if not keys.ndim else jax.vmap(self.first)
        chosen = np.asarray(first(keys))
        return np.asarray(self.images[chosen.ravel()]), feeding.positions_of(chosen.shape)

    def feed(
        self, keys: jax.Array, batch_size: int
    ) -> Callable[[int, int], Iterator[tuple[jax.Array, jax.Array]]]:
        """Returns the `feed` of a task of training keys [...]; see `feeding.feed_rows`."""
        keys = jax.device_put(keys, feeding.host_device())

        def indices(step: jax.Array) -> jax.Array:
            one = lambda key: batches.epoch_indices(
                self.order(state.draw_key(key)),
                step,
                num_examples=self.num_train,
                batch_size=batch_size,
            )
            return one(keys) if not keys.ndim else jax.vmap(one)(keys)

        return lambda step, num_steps: feeding.feed_rows(
            self.images, indices, self.mesh, step=step, num_steps=num_steps
        )


def take(
    config: RunConfig, key: jax.Array, images: Any, step: jax.Array, num_train: int
) -> jax.Array:
    """Returns the images of a step.

    Args:
      config: the size of a batch, and where images are.
      key: of the order.
      images: all, or those that the host has fetched for the step, with their positions.
      step: its number.
      num_train: how many rows of all training images are not padding.
    """
    if config.data_on != DEVICE:
        fetched, positions = images
        return fetched[positions]
    return batches.draw(key, images, step, batch_size=config.batch_size, num_examples=num_train)


def draw_fn(
    config: RunConfig, mesh: Mesh, num_train: int, *, dynamic: bool, of_label: int = 0
) -> state.DrawFn:
    """Returns the function that draws a step's batch of training images, uint8 like them.

    Args:
      config: the size of a batch.
      mesh: the devices that share it.
      num_train: how many rows of the training images are not padding.
      dynamic: whether gray levels are means of binary pixels, which are sampled at every step.
      of_label: how many columns of rows [D + of_label] are a label, which is not sampled.
    """

    def draw(key: jax.Array, images: Any, step: jax.Array) -> jax.Array:
        key_pixels = jax.random.fold_in(key, 1)
        batch = take(config, order_key(key), images, step, num_train)
        if dynamic:
            levels = batch[:, :-of_label] if of_label else batch
            pixels = batches.binarize(jax.random.fold_in(key_pixels, step), levels)
            labels = [batch[:, -of_label:].astype(pixels.dtype)] if of_label else []
            batch = jnp.concatenate([pixels, *labels], axis=1) if labels else pixels
        return sharding.shard_batch(mesh, batch)

    return draw


def in_parts(images: Any) -> Iterator[np.ndarray]:
    """Yields images [N, ...] by some thousands, in memory one part after the other."""
    return (np.asarray(images[i : i + _PART]) for i in range(0, len(images), _PART))
