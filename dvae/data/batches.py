"""Batches drawn on the device, inside the jitted step, from a key and the step number.

The whole set lies on the device as uint8. Which examples a step sees is computed pointwise from
(key, step), so an epoch costs no host work, nothing is sorted, and a run resumed at step t sees
what an uninterrupted one would have:

    indices = epoch_indices(key_order, step, num_examples=45_000, batch_size=64)

`key_order` stays the same for the whole run: the order of an epoch belongs to it. Fold the step
only into keys of noise (`random_crop`, `binarize`).
"""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from dvae._checks import check_key
from dvae._numerics import open_uniform

__all__ = ["binarize", "draw", "epoch_indices", "padded_batches", "random_crop", "random_flip"]

_ROUNDS = 8  # with 6, the 120 orders of five examples still come out visibly uneven
_MAX_UNROLLED = 16  # steps of a walk; sets of more than 183 examples need no more


def epoch_indices(
    key: jax.Array, step: jax.Array | int, *, num_examples: int, batch_size: int
) -> jax.Array:
    """Returns the examples that step `step` sees.

    With S = num_examples // batch_size steps an epoch, step t belongs to epoch e = t // S and
    takes entries (t mod S) batch_size, ..., (t mod S + 1) batch_size - 1 of a permutation keyed by
    fold_in(key, e). Inside an epoch no example repeats; each epoch has its own order and leaves
    out its own remainder.

    Args:
        key: typed key, the same at every step of a run.
        step: int32 scalar, 0 or more, may be traced.
        num_examples: size of the data set, less than 2^31.
        batch_size: 1 to num_examples.

    Returns:
        int32 [batch_size], each in [0, num_examples).

    Raises:
        ValueError: batch_size is not in [1, num_examples].
    """
    check_key(key)
    if not 1 <= batch_size <= num_examples:
        raise ValueError(
            f"batch_size must be between 1 and num_examples, got batch_size={batch_size} and "
            f"num_examples={num_examples}; use a smaller batch or more data"
        )
    epoch, position = jnp.divmod(jnp.asarray(step, jnp.int32), num_examples // batch_size)
    positions = position * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
    return _permute(jax.random.fold_in(key, epoch), positions, num_examples)


def draw(
    key: jax.Array,
    images: jax.Array,
    step: jax.Array | int,
    *,
    batch_size: int,
    num_examples: int | None = None,
) -> jax.Array:
    """Gathers the batch of step `step`: images[epoch_indices(key, step)].

    Where the devices share the images by rows, the batch alone moves between them.

    Args:
        key: typed key, the same at every step of a run.
        images: [N, ...], on the device.
        step: int32 scalar, may be traced.
        batch_size: 1 to num_examples.
        num_examples: the first so many rows are drawn from, the others are padding; None: all N.

    Returns:
        [batch_size, ...], dtype of `images`.

    Raises:
        ValueError: batch_size is not in [1, num_examples], or num_examples exceeds N.
    """
    count = len(images) if num_examples is None else num_examples
    if count > len(images):
        raise ValueError(f"num_examples={count} exceeds the {len(images)} images that are there")
    return images[epoch_indices(key, step, num_examples=count, batch_size=batch_size)]


def random_crop(key: jax.Array, images: jax.Array, *, size: int) -> jax.Array:
    """Cuts a window out of each image, at an offset of its own, uniform over all that fit.

    Args:
        key: typed key.
        images: [B, H, W, C].
        size: side of the window in pixels, 1 to min(H, W).

    Returns:
        [B, size, size, C], dtype of `images`; the images themselves where size = H = W.

    Raises:
        ValueError: the window does not fit.
    """
    check_key(key)
    batch, height, width, channels = images.shape
    if not 1 <= size <= min(height, width):
        raise ValueError(f"size must be between 1 and the image's {height}x{width}, got {size}")
    if size == height == width:
        return images
    key_row, key_column = jax.random.split(key)
    rows = jax.random.randint(key_row, (batch,), 0, height - size + 1)
    columns = jax.random.randint(key_column, (batch,), 0, width - size + 1)
    return jax.vmap(
        lambda image, row, column: jax.lax.dynamic_slice(
            image, (row, column, 0), (size, size, channels)
        )
    )(images, rows, columns)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image, left and right, with probability one half.

    Args:
        key: typed key.
        images: [B, H, W, C].

    Returns:
        [B, H, W, C], dtype of `images`.
    """
    check_key(key)
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def binarize(key: jax.Array, images: jax.Array) -> jax.Array:
    """Draws each pixel from Bernoulli(images / 255).

    Source: Salakhutdinov and Murray, "On the Quantitative Analysis of Deep Belief Networks" (2008).

    Args:
        key: typed key.
        images: uint8 [...], gray levels 0..255.

    Returns:
        uint8 [...], 0 or 1; level 0 is always 0 and level 255 always 1.
    """
    return (open_uniform(key, images.shape) < images.astype(jnp.float32) / 255).astype(jnp.uint8)


def padded_batches(images: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cuts a set into batches of one shape, in order, for evaluation on the host's side.

    Args:
        images: [N, ...].
        batch_size: at least 1.

    Returns:
        Iterator over (batch [batch_size, ...], mask bool [batch_size]); the last batch is filled up
        with zeros, where the mask is False. The masks sum to N.

    Raises:
        ValueError: batch_size is less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return (
        _padded(images[i : i + batch_size], batch_size) for i in range(0, len(images), batch_size)
    )


def _padded(batch: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Fills a batch up with zeros and says which rows are real."""
    missing = batch_size - len(batch)
    padded = np.pad(batch, [(0, missing)] + [(0, 0)] * (batch.ndim - 1)) if missing else batch
    return padded, np.arange(batch_size) < len(batch)


def _permute(key: jax.Array, positions: jax.Array, size: int) -> jax.Array:
    """Applies a keyed permutation of range(size) to int32 positions in it.

    A Feistel network on Z_a x Z_b, the smallest near-square grid of at least `size` cells, gives a
    permutation of the grid; walking on from images outside range(size) until they fall inside
    makes it one of range(size). Fewer than a cells lie outside, so the walk is short.
    """
    rows = math.isqrt(size - 1) + 1
    columns = -(-size // rows)
    round_keys = jax.random.bits(key, (_ROUNDS, 2), jnp.uint32)

    def shuffle(cells: jax.Array) -> jax.Array:
        row, column = jnp.divmod(cells, jnp.uint32(columns))
        for i in range(_ROUNDS):
            row = (row + _hash(column, round_keys[i, 0]) % rows) % rows
            column = (column + _hash(row, round_keys[i, 1]) % columns) % columns
        return row * columns + column

    cells = shuffle(positions.astype(jnp.uint32))
    walk = lambda cells: jnp.where(cells >= size, shuffle(cells), cells)
    steps = _longest_walk(size, rows * columns)
    if steps > _MAX_UNROLLED or not _unrolls():
        cells = jax.lax.while_loop(lambda cells: jnp.any(cells >= size), walk, cells)
    else:
        for _ in range(steps):
            cells = walk(cells)
    return cells.astype(jnp.int32)


def _unrolls() -> bool:
    """Tells whether walks are written out: a GPU would wait for the host to look at each step."""
    return jax.default_backend() != "cpu"


def _longest_walk(size: int, num_cells: int) -> int:
    """Returns after how many steps a position is outside with a probability below 2^-64."""
    outside = (num_cells - size) / num_cells
    return math.ceil(64 / -math.log2(outside)) if outside else 0


def _hash(values: jax.Array, key: jax.Array) -> jax.Array:
    """Mixes 32-bit words with a key (the finalizer of MurmurHash3)."""
    word = values + key
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)
