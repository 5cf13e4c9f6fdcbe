"""Codebooks trained by exponential moving averages, and the restart of dead codes.

References:
    van den Oord, Vinyals, Kavukcuoglu (2017), Neural Discrete Representation Learning,
    arXiv:1711.00937, appendix A.1.
    Dhariwal et al. (2020), Jukebox, arXiv:2005.00341, section 3.1 (restarts).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dvae.vq.codebook import check_dimensions, usage, wide_dtype


class EMAState(NamedTuple):
    """Codebook trained by exponential moving averages of the vectors assigned to each code."""

    codebook: jax.Array  # [C, D], float32: sums over smoothed counts
    counts: jax.Array  # [C], float32: moving average of the vectors assigned per step, N_i
    sums: jax.Array  # [C, D], float32: moving average of their sum, m_i


def ema_init(codebook: jax.Array) -> EMAState:
    """Start the moving averages at one vector per code: N_i = 1, m_i = codebook.

    Args:
        codebook: [C, D], float, such as the first result of `kmeans`.

    Returns:
        EMAState in float32.
    """
    codebook = lax.stop_gradient(codebook.astype(wide_dtype(codebook)))
    return EMAState(codebook, jnp.ones(codebook.shape[0], codebook.dtype), codebook)


def ema_update(
    state: EMAState,
    vectors: jax.Array,
    codes: jax.Array,
    *,
    decay: float | jax.Array,
    smoothing: float = 1e-5,
) -> EMAState:
    """Move each code towards the mean of the vectors that were assigned to it.

        N_i <- decay N_i + (1 - decay) n_i
        m_i <- decay m_i + (1 - decay) sum of the vectors with code i
        codebook_i = m_i / ((N_i + smoothing) / (N + C smoothing) N),  N = sum_i N_i

    No gradient flows through it. Call it after the codes were used, with those same codes. The
    smoothing prevents 0 / 0 = NaN when a code has not been used for so long that N_i underflows
    (or at once with decay 0); such a code drifts to the origin, see `restart_dead_codes`.

    Source: van den Oord et al. (2017), appendix A.1, with Laplace smoothing of the counts.

    Args:
        state: EMAState.
        vectors: [..., D], float, sharded or not.
        codes: [...], integer, their codes.
        decay: scalar in [0, 1], the weight of the past.
        smoothing: pseudo-count per code, > 0.

    Returns:
        EMAState in float32.

    Raises:
        ValueError: the shapes do not fit, or decay or smoothing is out of range.
    """
    check_dimensions(vectors, state.codebook)
    if codes.shape != vectors.shape[:-1]:
        raise ValueError(
            f"codes must have the vectors' leading shape {vectors.shape[:-1]}, got {codes.shape}"
        )
    if isinstance(decay, float | int) and not 0 <= decay <= 1:
        raise ValueError(f"decay must be in [0, 1] (0.99 is usual), got {decay}")
    if smoothing <= 0:
        raise ValueError(f"smoothing must be positive (an unused code is 0 / 0), got {smoothing}")
    state, vectors = lax.stop_gradient((state, vectors))
    num_codes, dim = state.codebook.shape
    vectors = vectors.reshape(-1, dim).astype(state.sums.dtype)
    codes = codes.reshape(-1)
    batch_counts = usage(codes, num_codes).astype(state.counts.dtype)
    batch_sums = jax.ops.segment_sum(vectors, codes, num_segments=num_codes)
    counts = decay * state.counts + (1 - decay) * batch_counts
    sums = decay * state.sums + (1 - decay) * batch_sums
    total = jnp.sum(counts)
    smoothed = (counts + smoothing) / (total + num_codes * smoothing) * total
    return EMAState(sums / smoothed[:, None], counts, sums)


def restart_dead_codes(
    key: jax.Array, state: EMAState, vectors: jax.Array, *, threshold: float
) -> EMAState:
    """Replace the codes with N_i < threshold by vectors of the batch, with their EMA state.

        codebook_i = v,  N_i = max(1, 2 threshold),  m_i = N_i v

    A moved code with stale averages would jump back at the next update, so all three are set. One
    is the count that `ema_init` gives; twice the threshold leaves an unused code log 2 / -log decay
    steps (69 at decay 0.99) to find vectors before it is dead again. Codes that live are returned
    bit for bit. The vectors are drawn without repetition where the batch has at least C.

    Source: Dhariwal et al. (2020), section 3.1.

    Args:
        key: typed PRNG key.
        state: EMAState, after `ema_update`.
        vectors: [..., D], float, the batch.
        threshold: in vectors per step, >= 0; N_i settles at the mean number that code i receives.

    Returns:
        EMAState.

    Raises:
        ValueError: the shapes do not fit, the batch is empty, or the threshold is negative.
    """
    check_dimensions(vectors, state.codebook)
    if threshold < 0:
        raise ValueError(f"threshold must be at least 0 (0 restarts nothing), got {threshold}")
    num_codes, dim = state.codebook.shape
    vectors = vectors.reshape(-1, dim)
    num_vectors = vectors.shape[0]
    if num_vectors == 0:
        raise ValueError(f"vectors must hold at least one vector to draw, got {vectors.shape}")
    # One draw from each of C equal slices of the batch, then a common rotation: distinct for the
    # price of C random integers, where a permutation would sort the batch.
    key_slice, key_rotation = jax.random.split(key)
    edges = np.arange(num_codes + 1) * num_vectors // num_codes
    index = jax.random.randint(key_slice, (num_codes,), edges[:-1], edges[1:])
    index = (index + jax.random.randint(key_rotation, (), 0, num_vectors)) % num_vectors
    drawn = lax.stop_gradient(vectors[index]).astype(state.codebook.dtype)
    count = max(1.0, 2 * threshold)
    dead = state.counts < threshold
    return EMAState(
        jnp.where(dead[:, None], drawn, state.codebook),
        jnp.where(dead, count, state.counts),
        jnp.where(dead[:, None], count * drawn, state.sums),
    )
