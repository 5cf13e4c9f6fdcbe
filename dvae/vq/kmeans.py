"""k-means by Lloyd iterations from k-means++ seeds, in bounded memory.

The points are processed in blocks of `chunk_size`, so that the largest array of distances is
chunk_size x C, whatever the number of points.

References:
    Lloyd (1982), Least Squares Quantization in PCM.
    Arthur and Vassilvitskii (2007), k-means++: The Advantages of Careful Seeding.
"""

import jax
import jax.numpy as jnp
from jax import lax

from dvae.vq.codebook import nearest_code

_CHUNK_SIZE = 4096


def _check(points: jax.Array, num_codes: int, chunk_size: int) -> None:
    """Raise unless there are num_codes points [N, D] to start from."""
    if points.ndim != 2:
        raise ValueError(f"points must be [N, D] (reshape them to rows), got {points.shape}")
    if not 1 <= num_codes <= points.shape[0]:
        raise ValueError(
            f"num_codes must be between 1 and the number of points, {points.shape[0]} "
            f"(every code starts at a point of its own), got {num_codes}"
        )
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")


def _blocks(points: jax.Array, chunk_size: int) -> tuple[jax.Array, jax.Array]:
    """Points as [num_blocks, chunk, D], padded with zeros, and which of them are real."""
    num_points = points.shape[0]
    chunk_size = min(chunk_size, num_points)
    padding = -num_points % chunk_size
    points = points.astype(jnp.promote_types(points.dtype, jnp.float32))
    blocks = jnp.pad(points, ((0, padding), (0, 0))).reshape(-1, chunk_size, points.shape[-1])
    valid = (jnp.arange(num_points + padding) < num_points).reshape(blocks.shape[:2])
    return blocks, valid


def _distances_to(blocks: jax.Array, center: jax.Array) -> jax.Array:
    """Squared distances [num_blocks, chunk] to one center [D], without cancellation."""
    return jnp.sum(jnp.square(blocks - center[None, None, :]), axis=-1)


def _draw(key: jax.Array, blocks: jax.Array, weights: jax.Array) -> jax.Array:
    """Draw one point [D] with probability in proportion to weights [num_blocks, chunk]."""
    # First the block, then the point in it: few random numbers, and a weight of 0 is never drawn,
    # which the rounding of one long cumulative sum would allow.
    key_block, key_point = jax.random.split(key)
    block = jax.random.categorical(key_block, jnp.log(jnp.sum(weights, axis=1)))
    return blocks[block, jax.random.categorical(key_point, jnp.log(weights[block]))]


def _seed(key: jax.Array, blocks: jax.Array, valid: jax.Array, num_codes: int) -> jax.Array:
    """Codebook [C, D] of k-means++ seeds."""

    def step(distances: jax.Array, i: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Before the first seed every point is infinitely far away, and all are equally likely.
        weights = jnp.where(jnp.isinf(distances), 1, distances)
        center = _draw(jax.random.fold_in(key, i), blocks, weights)
        return jnp.minimum(distances, _distances_to(blocks, center)), center

    distances = jnp.where(valid, jnp.asarray(jnp.inf, blocks.dtype), 0)
    return lax.scan(step, distances, jnp.arange(num_codes))[1]


def _assign(blocks: jax.Array, codebook: jax.Array, mean: jax.Array) -> jax.Array:
    """Codes [num_blocks, chunk] of the nearest codes, one block at a time."""
    # Differences do not change with the origin; at the mean the matmul cancels the fewest digits.
    centered = codebook - mean[None, :]
    return lax.map(lambda block: nearest_code(block - mean[None, :], centered), blocks)


def _fill_empty(
    blocks: jax.Array, codebook: jax.Array, empty: jax.Array, distances: jax.Array
) -> jax.Array:
    """Move every empty code to the point that is then the farthest from its code."""

    def unfinished(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        _, empty, distances = carry
        return jnp.any(empty) & (jnp.max(distances) > 0)

    def move(
        carry: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        codebook, empty, distances = carry
        code = jnp.argmax(empty)
        farthest = blocks.reshape(-1, blocks.shape[-1])[jnp.argmax(distances)]
        distances = jnp.minimum(distances, _distances_to(blocks, farthest))
        return codebook.at[code].set(farthest), empty.at[code].set(False), distances

    return lax.while_loop(unfinished, move, (codebook, empty, distances))[0]


def _lloyd(blocks: jax.Array, valid: jax.Array, codebook: jax.Array, mean: jax.Array) -> jax.Array:
    """One Lloyd iteration: assign, move every code to the mean of its points, fill empty ones."""
    num_codes = codebook.shape[0]
    centered = codebook - mean[None, :]

    def scan_block(
        carry: tuple[jax.Array, jax.Array], xs: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        sums, counts = carry
        block, valid = xs
        codes = nearest_code(block - mean[None, :], centered)
        residuals = block - codebook[codes]
        distances = jnp.where(valid, jnp.sum(jnp.square(residuals), axis=-1), 0)
        codes = jnp.where(valid, codes, num_codes)  # segment_sum drops the padding
        sums += jax.ops.segment_sum(residuals, codes, num_segments=num_codes)
        counts += jax.ops.segment_sum(valid.astype(counts.dtype), codes, num_segments=num_codes)
        return (sums, counts), distances

    zeros = (jnp.zeros_like(codebook), jnp.zeros(num_codes, jnp.int32))
    (sums, counts), distances = lax.scan(scan_block, zeros, (blocks, valid))
    # The mean of the residuals, not of the points: no error from long sums of large numbers, and a
    # code whose points coincide stays exactly on them.
    codebook = codebook + sums / jnp.maximum(counts, 1)[:, None]
    return _fill_empty(blocks, codebook, counts == 0, distances)


def kmeans_plus_plus(
    key: jax.Array, points: jax.Array, *, num_codes: int, chunk_size: int = _CHUNK_SIZE
) -> jax.Array:
    """Draw seeds among the points, each with probability in proportion to D^2.

    D is the distance of a point to the nearest seed drawn before it, so the seeds are distinct as
    long as there are distinct points left.

    Source: Arthur and Vassilvitskii (2007), section 2.2.

    Args:
        key: typed PRNG key.
        points: [N, D], float or integer.
        num_codes: C, at most N.
        chunk_size: points per block; changes the draw, not its distribution.

    Returns:
        Codebook [C, D], float32, of rows of `points`.

    Raises:
        ValueError: points are not [N, D], num_codes is not in 1 .. N, or chunk_size < 1.
    """
    _check(points, num_codes, chunk_size)
    return _seed(key, *_blocks(points, chunk_size), num_codes)


def kmeans(
    key: jax.Array,
    points: jax.Array,
    *,
    num_codes: int,
    num_iters: int,
    chunk_size: int = _CHUNK_SIZE,
) -> tuple[jax.Array, jax.Array]:
    """Cluster points so that the sum of |point - code|^2 is at a local minimum.

    Starts from `kmeans_plus_plus` and does a fixed number of Lloyd iterations, which never increase
    the sum. A code that loses all its points moves to the point that is farthest from its own code,
    which lowers the sum by that squared distance at least; where every point already lies on a code
    it stays.

    Memory: the points, one float per point, and chunk_size x C distances.

    Args:
        key: typed PRNG key.
        points: [N, D], float or integer.
        num_codes: C, at most N.
        num_iters: Lloyd iterations, at least 1; 20 to 50 usually suffice.
        chunk_size: points per block.

    Returns:
        Codebook [C, D], float32 also for half-precision points, and codes [N], int32: the nearest
        code of every point under that codebook.

    Raises:
        ValueError: points are not [N, D], num_codes is not in 1 .. N, or num_iters or chunk_size
            is less than 1.
    """
    _check(points, num_codes, chunk_size)
    if num_iters < 1:
        raise ValueError(
            f"num_iters must be at least 1 (kmeans_plus_plus alone does none), got {num_iters}"
        )
    blocks, valid = _blocks(points, chunk_size)
    mean = jnp.sum(blocks, axis=(0, 1)) / points.shape[0]
    codebook = lax.fori_loop(
        0,
        num_iters,
        lambda _, codebook: _lloyd(blocks, valid, codebook, mean),
        _seed(key, blocks, valid, num_codes),
    )
    codes = _assign(blocks, codebook, mean).reshape(-1)[: points.shape[0]]
    return codebook, codes
