"""Codebooks trained by exponential moving averages, and the restart of dead codes.

References:
    van den Oord, Vinyals, Kavukcuoglu (2017), Neural Discrete Representation Learning,
    arXiv:1711.00937, appendix A.1.
    Dhariwal et al. (2020), Jukebox, arXiv:2005.00341, section 3.1 (restarts).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dvae._checks import check_key
from dvae._numerics import ArrayLike, partition, spec_of, upcast
from dvae.vq import _products, _search
from dvae.vq._checks import check_codebook, check_dimensions, code_index
from dvae.vq._common import is_dead
from dvae.vq.codebook import usage

__all__ = ["EMAState", "ema_init", "ema_update", "restart_dead_codes"]


class EMAState(NamedTuple):
    """Codebook trained by exponential moving averages of the vectors assigned to each code."""

    codebook: jax.Array  # [C, D], float32: sums over smoothed counts
    counts: jax.Array  # [C], float32: moving average of the vectors assigned per step, N_i
    sums: jax.Array  # [C, D], float32: moving average of their sum, m_i


def ema_init(codebook: ArrayLike) -> EMAState:
    """Starts the moving averages at one vector per code: N_i = 1, m_i = codebook.

    Args:
        codebook: [C, D], real, such as the first result of `kmeans`.

    Returns:
        EMAState in float32, or in float64 where the codebook is.

    Raises:
        ValueError: the codebook is not [C, D], or is empty.
    """
    codebook = lax.stop_gradient(upcast(codebook))
    check_codebook(codebook)
    return EMAState(codebook, jnp.ones(codebook.shape[0], codebook.dtype), codebook)


def ema_update(
    state: EMAState,
    vectors: ArrayLike,
    codes: ArrayLike,
    *,
    decay: ArrayLike,
    smoothing: ArrayLike = 1e-5,
) -> EMAState:
    """Moves each code toward the mean of the vectors that were assigned to it.

        N_i <- decay N_i + (1 - decay) n_i
        m_i <- decay m_i + (1 - decay) sum of the vectors with code i
        codebook_i = m_i / ((N_i + smoothing) / (N + C smoothing) N),  N = sum_i N_i

    No gradient flows through it. Call it after the codes were used, with those same codes. Vectors
    that are not finite, and those whose code is not in 0 .. C-1, are left out.

    The smoothing prevents 0 / 0 = NaN when a code has not been used for so long that N_i underflows
    (or at once with decay 0); such a code drifts to the origin, see `restart_dead_codes`. Where N
    itself is 0 nothing is known, and the codebook stays.

    Source: van den Oord et al. (2017), appendix A.1, with Laplace smoothing of the counts.

    Args:
        state: EMAState.
        vectors: [..., D], real, sharded or not.
        codes: [...], integer, their codes.
        decay: scalar in [0, 1], the weight of the past.
        smoothing: scalar, the pseudo-count per code, > 0.

    Returns:
        EMAState in float32, or in float64 where the state is.

    Raises:
        ValueError: the shapes do not fit, or decay or smoothing is out of range.
        TypeError: the codes are not integers.
    """
    state = _as_state(state)
    vectors, codes = jnp.asarray(vectors), jnp.asarray(codes)
    check_dimensions(vectors, state.codebook)
    if codes.shape != vectors.shape[:-1]:
        raise ValueError(
            f"codes must have the vectors' leading shape {vectors.shape[:-1]}, got {codes.shape}"
        )
    _check_number("decay", decay, "in [0, 1] (0.99 is usual)", lambda x: 0 <= x <= 1)
    _check_number(
        "smoothing",
        smoothing,
        "positive and finite (an unused code is 0 / 0)",
        lambda x: 0 < x < math.inf,
    )
    state, vectors = lax.stop_gradient((state, vectors))
    dtype, (num_codes, dim) = state.counts.dtype, state.codebook.shape
    codes = code_index(codes, num_codes)
    decay = float(decay) if _is_number(decay) else jnp.asarray(decay, dtype)
    past, new, pseudo = (jnp.asarray(x, dtype) for x in (decay, 1 - decay, smoothing))

    def update(
        state: EMAState,
        vectors: jax.Array,
        codes: jax.Array,
        past: jax.Array,
        new: jax.Array,
        pseudo: jax.Array,
    ) -> EMAState:
        vectors = vectors.reshape(-1, dim).astype(dtype)
        codes = jnp.where(_search.is_finite(vectors), codes.reshape(-1), num_codes)
        batch_counts = usage(codes, num_codes).astype(dtype)
        # Far from the origin a sum of many vectors would lose the digits in which they differ. So
        # it would without the barrier: XLA adds the vectors one by one to what is added after them.
        origin = _search.origin(state.codebook)
        moved = _products.sum_by_code(vectors - origin[None], codes, num_codes)
        batch_sums = lax.optimization_barrier(moved) + batch_counts[:, None] * origin[None]
        counts = past * state.counts + new * batch_counts
        sums = past * state.sums + new * batch_sums
        total = jnp.sum(counts)
        smoothed = (counts + pseudo) / (total + num_codes * pseudo) * total
        is_known = (smoothed != 0)[:, None]
        codebook = sums / jnp.where(is_known, smoothed[:, None], 1)
        return EMAState(jnp.where(is_known, codebook, state.codebook), counts, sums)

    specs = jax.tree.map(spec_of, state)
    return partition(update, specs, state, vectors, codes, past, new, pseudo)


def restart_dead_codes(
    key: jax.Array, state: EMAState, vectors: ArrayLike, *, threshold: ArrayLike
) -> EMAState:
    """Replaces the codes with N_i < threshold by vectors of the batch, with their EMA state.

        codebook_i = v,  N_i = max(1, 2 threshold),  m_i = N_i v

    A moved code with stale averages would jump back at the next update, so all three are set. One
    is the count that `ema_init` gives; twice the threshold leaves an unused code log 2 / -log decay
    steps (69 at decay 0.99) to find vectors before it is dead again. Codes that live are returned
    bit for bit; one with a NaN for N_i does not live. The vectors are drawn without repetition
    where the batch has at least C. A code that draws a vector that is not finite stays as it is
    until the next call.

    Source: Dhariwal et al. (2020), section 3.1.

    Args:
        key: typed PRNG key.
        state: EMAState, after `ema_update`.
        vectors: [..., D], real, the batch, sharded or not.
        threshold: scalar, in vectors per step, >= 0; N_i settles at the mean number that code i
            receives.

    Returns:
        EMAState.

    Raises:
        ValueError: the shapes do not fit, the batch is empty, key is an array of keys, or the
            threshold is negative or not finite.
    """
    check_key(key)
    state, vectors = _as_state(state), jnp.asarray(vectors)
    check_dimensions(vectors, state.codebook)
    _check_number(
        "threshold",
        threshold,
        "at least 0 (0 restarts nothing) and finite",
        lambda x: 0 <= x < math.inf,
    )
    num_codes, dim = state.codebook.shape
    num_vectors = math.prod(vectors.shape[:-1])
    if num_vectors == 0:
        raise ValueError(f"vectors must hold at least one vector to draw, got {vectors.shape}")
    # One draw from each of C equal slices of the batch, then a common rotation: distinct for the
    # price of C random integers, where a permutation would sort the batch.
    key_slice, key_rotation = jax.random.split(key)
    edges = (np.arange(num_codes + 1) * num_vectors // num_codes).astype(np.int32)
    index = jax.random.randint(key_slice, (num_codes,), edges[:-1], edges[1:], jnp.int32)
    rotation = jax.random.randint(key_rotation, (), 0, num_vectors, jnp.int32)
    index = (index + rotation) % num_vectors
    threshold = jnp.asarray(threshold, state.counts.dtype)

    def restart(
        state: EMAState, vectors: jax.Array, index: jax.Array, threshold: jax.Array
    ) -> EMAState:
        drawn = lax.stop_gradient(vectors.reshape(-1, dim)[index]).astype(state.codebook.dtype)
        dead = is_dead(state.counts, threshold) & _search.is_finite(drawn)
        count = jnp.maximum(1, 2 * threshold)
        return EMAState(
            jnp.where(dead[:, None], drawn, state.codebook),
            jnp.where(dead, count, state.counts),
            jnp.where(dead[:, None], count * drawn, state.sums),
        )

    return partition(restart, jax.tree.map(spec_of, state), state, vectors, index, threshold)


def _as_state(state: EMAState) -> EMAState:
    """Returns the state's arrays in float32 at least, or raises ValueError if they do not fit."""
    state = EMAState(*(upcast(x) for x in state))
    check_codebook(state.codebook)
    shape = state.codebook.shape
    if state.counts.shape != shape[:1] or state.sums.shape != shape:
        raise ValueError(
            "state must be of codebook [C, D], counts [C] and sums [C, D] (jax.vmap over a leading "
            f"axis of several codebooks), got {[x.shape for x in state]}"
        )
    return state


def _is_number(value: ArrayLike) -> TypeGuard[float]:
    """Tells a Python or NumPy number from an array."""
    return isinstance(value, int | float | np.number)


def _check_number(
    name: str, value: ArrayLike, expected: str, is_valid: Callable[[Any], bool]
) -> None:
    """Raises ValueError for an array that is no scalar, or a number that is not valid."""
    if jnp.ndim(value):
        raise ValueError(f"{name} must be a scalar, got shape {jnp.shape(value)}")
    if _is_number(value) and not is_valid(value):
        raise ValueError(f"{name} must be {expected}, got {value}")
