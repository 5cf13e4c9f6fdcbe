"""k-means by Lloyd iterations from k-means++ seeds, in bounded memory.

The points are processed in blocks of `chunk_size`, so that the largest array of distances is
chunk_size x C, whatever the number of points.

References:
    Lloyd (1982), Least Squares Quantization in PCM.
    Arthur and Vassilvitskii (2007), k-means++: The Advantages of Careful Seeding.
"""

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from dvae._checks import check_key
from dvae._numerics import ArrayLike, partition, spec_of, upcast, vary_like
from dvae.vq import _search
from dvae.vq.codebook import nearest_code

__all__ = ["kmeans", "kmeans_plus_plus"]

_CHUNK_SIZE = 4096


class _Blocks(NamedTuple):
    """The points in blocks, scaled by a power of two."""

    points: jax.Array  # [num_blocks, chunk, D], 0 where not valid
    valid: jax.Array  # [num_blocks, chunk] bool: points that are finite, not padding
    scale: jax.Array  # []


def _checked(points: ArrayLike, num_codes: int, chunk_size: int) -> jax.Array:
    """Returns the points in float32 at least, or raises unless they are [N, D] and finite.

    Values can be told only of points that are no tracers.
    """
    if isinstance(points, jax.core.Tracer):
        is_traced, points = True, upcast(points)
    else:
        with jax.ensure_compile_time_eval():
            is_traced, points = False, upcast(points)
    if points.ndim != 2 or 0 in points.shape:
        raise ValueError(
            "points must be [N, D] with at least one point of one dimension (reshape them to "
            f"rows), got {points.shape}"
        )
    if not 1 <= num_codes <= points.shape[0]:
        raise ValueError(
            f"num_codes must be between 1 and the number of points, {points.shape[0]} "
            f"(every code starts at a point of its own), got {num_codes}"
        )
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    if is_traced:
        return points
    with jax.ensure_compile_time_eval():
        num_bad = points.shape[0] - int(jnp.sum(_search.is_finite(points), dtype=jnp.int32))
    if num_bad:
        raise ValueError(
            f"points must be finite (drop those that are not), got {num_bad} of {points.shape[0]} "
            "with a NaN or an infinity"
        )
    return points


def _blocks(points: jax.Array, chunk_size: int) -> _Blocks:
    """Returns points [N, D] in blocks, padded with zeros."""
    num_points, dim = points.shape
    chunk_size = min(chunk_size, num_points)
    padding = -num_points % chunk_size
    finite = _search.is_finite(points)
    points = jnp.where(finite[:, None], points, 0)
    # Squares of small differences would underflow, and those of large ones overflow.
    scale = _search.scale_to(_search.CODE_EXPONENT, points)
    blocks = jnp.pad(scale * points, ((0, padding), (0, 0))).reshape(-1, chunk_size, dim)
    return _Blocks(blocks, jnp.pad(finite, (0, padding)).reshape(blocks.shape[:2]), scale)


def _distances_to(points: jax.Array, center: jax.Array) -> jax.Array:
    """Returns squared distances [num_blocks, chunk] to one center [D], without cancellation."""
    return jnp.sum(jnp.square(points - center[None, None, :]), axis=-1)


def _draw(key: jax.Array, points: jax.Array, weights: jax.Array) -> jax.Array:
    """Draws one point [D] with probability in proportion to weights [num_blocks, chunk]."""
    # First the block, then the point in it: few random numbers, and a weight of 0 is never drawn,
    # which the rounding of one long cumulative sum would allow.
    key_block, key_point = jax.random.split(key)
    block = jax.random.categorical(key_block, jnp.log(jnp.sum(weights, axis=1)))
    return points[block, jax.random.categorical(key_point, jnp.log(weights[block]))]


def _seed(key: jax.Array, blocks: _Blocks, num_codes: int) -> jax.Array:
    """Returns a scaled codebook [C, D] of k-means++ seeds; NaN where no point is valid."""
    points, valid, _ = blocks
    alike = valid.astype(points.dtype)

    def step(distances: jax.Array, i: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Once every point is a seed they are drawn again, all equally likely.
        weights = jnp.where(jnp.max(distances) > 0, distances, alike)
        center = _draw(jax.random.fold_in(key, i), points, weights)
        # Before the first seed the distances are the weights themselves, not an upper bound.
        own = jnp.where(valid, _distances_to(points, center), 0)
        return jnp.where(i == 0, own, jnp.minimum(distances, own)), center

    codebook = lax.scan(step, vary_like(alike, key, points), jnp.arange(num_codes))[1]
    return jnp.where(jnp.any(valid), codebook, jnp.nan)


def _assign(blocks: _Blocks, codebook: jax.Array) -> jax.Array:
    """Returns the nearest codes [num_blocks, chunk], one block at a time; C where not valid."""
    codes = lax.map(lambda points: nearest_code(points, codebook), blocks.points)
    return jnp.where(blocks.valid, codes, codebook.shape[0])


def _fill_empty(
    points: jax.Array, codebook: jax.Array, empty: jax.Array, distances: jax.Array
) -> jax.Array:
    """Moves every empty code to the point that is then the farthest from its code."""

    def unfinished(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        _, empty, distances = carry
        return jnp.any(empty) & (jnp.max(distances) > 0)

    def move(
        carry: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        codebook, empty, distances = carry
        code = jnp.argmax(empty)
        farthest = points.reshape(-1, points.shape[-1])[jnp.argmax(distances)]
        distances = jnp.minimum(distances, _distances_to(points, farthest))
        return codebook.at[code].set(farthest), empty.at[code].set(False), distances

    return lax.while_loop(unfinished, move, (codebook, empty, distances))[0]


def _lloyd(blocks: _Blocks, codebook: jax.Array) -> jax.Array:
    """Returns the codebook after one Lloyd iteration.

    Assigns the points, moves every code to the mean of its points, and fills the empty ones.
    """
    num_codes = codebook.shape[0]

    def scan_block(
        carry: tuple[jax.Array, jax.Array], xs: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        sums, counts = carry
        points, valid = xs
        codes = nearest_code(points, codebook)
        residuals = points - codebook[codes]
        distances = jnp.where(valid, jnp.sum(jnp.square(residuals), axis=-1), 0)
        codes = jnp.where(valid, codes, num_codes)  # segment_sum drops what is not valid
        sums += jax.ops.segment_sum(residuals, codes, num_segments=num_codes)
        counts += jax.ops.segment_sum(valid.astype(counts.dtype), codes, num_segments=num_codes)
        return (sums, counts), distances

    zeros = (jnp.zeros_like(codebook), jnp.zeros(num_codes, jnp.int32))
    zeros = vary_like(zeros, blocks.points, codebook)
    (sums, counts), distances = lax.scan(scan_block, zeros, (blocks.points, blocks.valid))
    # The mean of the residuals, not of the points: no error from long sums of large numbers, and a
    # code whose points coincide stays exactly on them.
    codebook = codebook + sums / jnp.maximum(counts, 1).astype(sums.dtype)[:, None]
    return _fill_empty(blocks.points, codebook, counts == 0, distances)


@functools.partial(jax.jit, static_argnames=("num_codes", "chunk_size"))
def _seed_points(
    key: jax.Array, points: jax.Array, *, num_codes: int, chunk_size: int
) -> jax.Array:
    blocks = _blocks(points, chunk_size)
    return _seed(key, blocks, num_codes) / blocks.scale


@functools.partial(jax.jit, static_argnames=("num_codes", "num_iters", "chunk_size"))
def _cluster(
    key: jax.Array, points: jax.Array, *, num_codes: int, num_iters: int, chunk_size: int
) -> tuple[jax.Array, jax.Array]:
    blocks = _blocks(points, chunk_size)
    codebook = _seed(key, blocks, num_codes)
    codebook = lax.fori_loop(0, num_iters, lambda _, codes: _lloyd(blocks, codes), codebook)
    codes = _assign(blocks, codebook).reshape(-1)[: points.shape[0]]
    return codebook / blocks.scale, codes


def kmeans_plus_plus(
    key: jax.Array, points: ArrayLike, *, num_codes: int, chunk_size: int = _CHUNK_SIZE
) -> jax.Array:
    """Draws seeds among the points, each with probability in proportion to D^2.

    D is the distance of a point to the nearest seed drawn before it, so the seeds are distinct as
    long as there are distinct points left; then points are drawn again.

    Source: Arthur and Vassilvitskii (2007), section 2.2.

    Args:
        key: typed PRNG key.
        points: [N, D], real, finite. Where they are traced, as under `jax.jit`, those that are not
            are left out, and the codebook is NaN if none is.
        num_codes: C, at most N.
        chunk_size: points per block; changes the draw, not its distribution.

    Returns:
        Codebook [C, D] of rows of `points`; float64 where points are, else float32.

    Raises:
        ValueError: points are not [N, D] or not finite, num_codes is not in 1 .. N, chunk_size < 1,
            or key is an array of keys.
    """
    check_key(key)
    num_codes, chunk_size = operator.index(num_codes), operator.index(chunk_size)
    points = _checked(points, num_codes, chunk_size)
    seed = functools.partial(_seed_points, num_codes=num_codes, chunk_size=chunk_size)
    return partition(seed, PartitionSpec(), key, points)


def kmeans(
    key: jax.Array,
    points: ArrayLike,
    *,
    num_codes: int,
    num_iters: int,
    chunk_size: int = _CHUNK_SIZE,
) -> tuple[jax.Array, jax.Array]:
    """Clusters points so that the sum of |point - code|^2 is at a local minimum.

    Starts from `kmeans_plus_plus` and does a fixed number of Lloyd iterations, which never increase
    the sum. A code that loses all its points moves to the point that is farthest from its own code;
    where every point already lies on a code it stays. Numbers of any scale and offset are clustered
    alike, to their last digits.

    Memory: the points, one float per point, and chunk_size x C distances.

    Args:
        key: typed PRNG key.
        points: [N, D], real, finite. Where they are traced, as under `jax.jit`, those that are not
            are left out of seeds and means, and get code C; the codebook is NaN if none is.
        num_codes: C, at most N.
        num_iters: Lloyd iterations, at least 1; 20 to 50 usually suffice.
        chunk_size: points per block.

    Returns:
        Codebook [C, D], float64 where points are, else float32; and codes [N], int32: the nearest
        code of every point under that codebook.

    Raises:
        ValueError: points are not [N, D] or not finite, num_codes is not in 1 .. N, num_iters or
            chunk_size is less than 1, or key is an array of keys.
    """
    check_key(key)
    num_codes, num_iters, chunk_size = map(operator.index, (num_codes, num_iters, chunk_size))
    points = _checked(points, num_codes, chunk_size)
    if num_iters < 1:
        raise ValueError(
            f"num_iters must be at least 1 (kmeans_plus_plus alone does none), got {num_iters}"
        )
    sizes = {"num_codes": num_codes, "num_iters": num_iters, "chunk_size": chunk_size}
    specs = (PartitionSpec(), PartitionSpec(spec_of(points)[0]))
    return partition(functools.partial(_cluster, **sizes), specs, key, points)
