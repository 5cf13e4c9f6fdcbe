"""Log-likelihood of held-out images: importance sampling in memory independent of K."""

import math
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dvae._checks import check_key
from dvae._numerics import as_float, is_staged, upcast, wide_dtype

__all__ = [
    "MAX_SAMPLES",
    "LogLikelihood",
    "MeanEstimate",
    "log_likelihood",
    "mean_and_standard_error",
]

MAX_SAMPLES = 2**30  # a padded chunk of them is counted by an int32


class LogLikelihood(NamedTuple):
    """Importance-sampling estimate of log p(x) for each image."""

    value: jax.Array  # [batch] log 1/K sum_k w_k in nats; in the mean a lower bound of log p(x)
    ess: jax.Array  # [batch] effective sample size (sum w)^2 / sum w^2, in [1, K]; 0 if all w are 0


class MeanEstimate(NamedTuple):
    """A mean and how well the sample determines it."""

    value: jax.Array  # [] mean
    std_error: jax.Array  # [] standard error of the mean


class _Sums(NamedTuple):
    """Running sums of weights, relative to the largest one so far."""

    log_max: jax.Array  # [batch] largest log-weight
    total: jax.Array  # [batch] sum of w / max w
    total_squares: jax.Array  # [batch] sum of (w / max w)^2


def log_likelihood(
    key: jax.Array,
    log_weight_fn: Callable[[jax.Array], jax.Array],
    *,
    num_samples: int,
    chunk_size: int,
) -> LogLikelihood:
    """Estimates log p(x) with many importance samples, a chunk at a time.

        log 1/K sum_k w_k,    w_k = p(x, z_k) / q(z_k|x),    z_k ~ q(z|x)

    Its mean over the samples is a lower bound of log p(x) that tightens with K (Burda et al. 2016,
    eq. 8), provided that the samples are discrete; weights of relaxed samples bound nothing. An
    effective sample size near one says that the bound is still loose.

    Sample k is drawn with `fold_in(key, k)` and the sums run over k in order, so the chunk size
    changes speed and memory (`chunk_size` evaluations of `log_weight_fn` at once), not the result:
    bit for bit on CPU, as long as `log_weight_fn` returns the same bits alone as under `vmap`.
    Elementwise arithmetic does; a matrix product may be blocked otherwise for another chunk, and
    then the results agree to rounding. The last chunk is padded, so a `chunk_size` that does not
    divide `num_samples` costs a few evaluations whose weights are dropped.

    Encode once, outside: `log_weight_fn` closes over the posterior's logits. Under `jax.jit` all is
    one program; elsewhere the chunks run one after the other and `log_weight_fn` operation by
    operation, which compiles nothing in a second call.

    Args:
        key: typed key.
        log_weight_fn: maps a key to [batch], one sample of log p(x, z) - log q(z|x) an image, nats.
        num_samples: K, the number of samples an image, at most 2^30.
        chunk_size: number of samples evaluated at once.

    Returns:
        A `LogLikelihood`, accumulated and returned in float32 or wider.

    Raises:
        ValueError: if `num_samples` or `chunk_size` is below 1, `num_samples` is too large,
            `log_weight_fn` does not return one log-weight an image, or key is an array of keys.
    """
    check_key(key)
    num_samples = _check_count("num_samples", num_samples)
    chunk_size = min(_check_count("chunk_size", chunk_size), num_samples)
    num_chunks = -(-num_samples // chunk_size)

    def draw_chunk(samples: jax.typing.ArrayLike) -> jax.Array:
        keys = jax.vmap(lambda sample: jax.random.fold_in(key, sample))(samples)
        return upcast(jax.vmap(lambda key: _checked(log_weight_fn(key)))(keys))

    if is_staged():
        weight = jax.eval_shape(lambda key: _checked(log_weight_fn(key)), key)

        def add_chunk(chunk: jax.Array, sums: _Sums) -> _Sums:
            first = chunk.astype(jnp.int32) * chunk_size
            log_weights = draw_chunk(first + jnp.arange(chunk_size, dtype=jnp.int32))
            return _add_samples(sums, log_weights, num_samples - first)

        sums = jax.lax.fori_loop(0, num_chunks, add_chunk, _no_sums(weight))
    else:
        sums = None
        for first in range(0, num_samples, chunk_size):
            log_weights = draw_chunk(np.arange(first, first + chunk_size, dtype=np.int32))
            sums = _no_sums(log_weights[0]) if sums is None else sums
            sums = _add_samples(sums, log_weights, num_samples - first)
            # Without waiting, the chunks' arrays would pile up in the queue of the device.
            jax.block_until_ready(sums)
    return _log_mean(sums, float(num_samples))


def mean_and_standard_error(values: jax.typing.ArrayLike) -> MeanEstimate:
    """Computes the mean over images and its standard error.

        mean = 1/N sum_i v_i,    std_error = sqrt(sum_i (v_i - mean)^2 / (N (N - 1)))

    The error is that of having N images, each value taken as given; it does not include the gap
    between a bound and log p(x).

    Args:
        values: [batch], one number an image (nats, or bits/dim).

    Returns:
        A `MeanEstimate` of scalars in the unit and dtype of `values`.

    Raises:
        ValueError: if `values` is not one-dimensional or has fewer than 2 entries.
    """
    values = as_float(jnp.asarray(values))
    if values.ndim != 1 or values.shape[0] < 2:
        raise ValueError(
            f"values must be [batch], at least 2 images for a standard error, got {values.shape}"
        )
    wide = upcast(values)
    std_error = jnp.std(wide, ddof=1) / math.sqrt(values.shape[0])
    return MeanEstimate(jnp.mean(wide).astype(values.dtype), std_error.astype(values.dtype))


def _check_count(name: str, count: int) -> int:
    """Returns the count, or raises ValueError if it is no integer in 1..MAX_SAMPLES."""
    try:
        number = operator.index(count)
    except TypeError:
        number = 0
    if not 1 <= number <= MAX_SAMPLES:
        raise ValueError(f"{name} must be an integer, at most 2^30 and at least 1, got {count}")
    return number


def _checked(log_weights: jax.Array) -> jax.Array:
    """Returns the log-weights of one sample, or raises ValueError unless they are [batch]."""
    if jnp.ndim(log_weights) != 1:
        raise ValueError(
            "log_weight_fn must return [batch], one log-weight an image (sum over its units, keep "
            f"the images), got shape {jnp.shape(log_weights)}"
        )
    return as_float(log_weights)


def _no_sums(log_weight: jax.typing.ArrayLike) -> _Sums:
    """Returns the sums of no samples for weights of this shape, dtype and sharding."""
    zeros = jnp.zeros_like(log_weight, wide_dtype(log_weight))
    return _Sums(jnp.full_like(zeros, -jnp.inf), zeros, zeros)


@jax.jit
def _add_samples(sums: _Sums, log_weights: jax.Array, num_valid: jax.typing.ArrayLike) -> _Sums:
    """Adds the first num_valid rows of [chunk, batch] log-weights to the sums, one by one."""
    is_padding = jnp.arange(log_weights.shape[0], dtype=jnp.int32)[:, None] >= num_valid
    # A weight of zero leaves the sums as they are, bit for bit.
    log_weights = jnp.where(is_padding, -jnp.inf, log_weights)
    if log_weights.shape[0] == 1:
        # XLA would inline a loop of one step, and round its sums differently there.
        empty_row = jnp.full_like(log_weights, -jnp.inf)
        log_weights = jnp.concatenate([log_weights, empty_row])
    return jax.lax.scan(_add_sample, sums, log_weights)[0]


def _add_sample(sums: _Sums, log_weight: jax.Array) -> tuple[_Sums, None]:
    """Adds one weight an image to the running sums."""
    log_max = jnp.maximum(sums.log_max, log_weight)
    # While all weights are zero the maximum is -inf, and -inf - (-inf) = NaN.
    reference = jnp.where(jnp.isneginf(log_max), 0.0, log_max)
    shrink = jnp.exp(sums.log_max - reference)
    relative = jnp.exp(log_weight - reference)
    total = sums.total * shrink + relative
    total_squares = sums.total_squares * shrink**2 + relative**2
    return _Sums(log_max, total, total_squares), None


@jax.jit
def _log_mean(sums: _Sums, num_samples: jax.typing.ArrayLike) -> LogLikelihood:
    """Returns the mean of the weights added so far, and their effective sample size."""
    value = sums.log_max + jnp.log(sums.total / num_samples)
    # If every weight is zero, the ratio is 0 / 0 = NaN.
    has_weight = sums.total_squares != 0.0
    denominator = jnp.where(has_weight, sums.total_squares, 1.0)
    return LogLikelihood(value, sums.total**2 / denominator)
