"""Residual vector quantization: each stage quantizes what the stages before it left.

    codebooks, _ = residual.kmeans(key, vectors, num_stages=4, num_codes=256, num_iters=20)
    q, codes = residual.quantize(v, codebooks)     # v [..., D], codebooks [R, C, D], codes [..., R]
    losses = residual.losses(v, codes, codebooks)
    penalty = losses.codebook.sum() + 0.25 * losses.commitment.sum()
    coarse = residual.lookup(codes[..., :2], codebooks[:2])

Rates add up: R log C nats in all. Codes stay on the last axis; `vq.pack_digits(codes, (C,) * R)`
makes them one integer where C^R is below 2^31. Stages of different sizes are a sequence of
codebooks [C_r, D].

A stage that is dropped has the code -1, which `vq.usage` and `vq.ema_update` leave out:

    depth = residual.draw_depth(key, num_stages, (batch_size,))
    q, codes = residual.quantize(v, codebooks, depth=depth)    # v [batch_size, D]

For codebooks of moving averages, `jax.vmap` `ema_update` over the stages, with the vectors
`stage_inputs` and the codes.

Source: Zeghidour et al. (2021), SoundStream: An End-to-End Neural Audio Codec, arXiv:2107.03312,
section III.C.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dvae._checks import check_count, check_key
from dvae._numerics import ArrayLike, as_float, float_dtype, wide_dtype
from dvae.vq._checks import check_dimensions
from dvae.vq._common import (
    Quantized,
    VQLosses,
    as_codes,
    as_vectors,
    check_codes,
    check_mask,
    gather,
    mean,
    select,
)
from dvae.vq.codebook import codebook_loss, commitment_loss, nearest_code, straight_through
from dvae.vq.digits import NO_CODE
from dvae.vq.kmeans import kmeans as _kmeans

__all__ = ["Codebooks", "draw_depth", "kmeans", "lookup", "losses", "quantize", "stage_inputs"]

Codebooks = ArrayLike | Sequence[ArrayLike]


def quantize(v: ArrayLike, codebooks: Codebooks, *, depth: ArrayLike | None = None) -> Quantized:
    """Sums the nearest codes of R stages, with a straight-through gradient.

        r_0 = v,  code_s = argmin_k |r_s - m_sk|^2,  r_{s+1} = r_s - m_{s, code_s}
        q = sum_s m_{s, code_s}

    Residuals are computed in float32 at least.

    Args:
        v: [..., D] real.
        codebooks: [R, C, D] real, or R arrays [C_r, D].
        depth: integer in 1 .. R, scalar or [...] (axes of size 1 broadcast), how many stages are in
            use; all by default. Draw it by `draw_depth` to train for several rates at once.

    Returns:
        q [..., D], in the widest of the dtypes, and codes [..., R] int32 in 0 .. C_r - 1. Stages
        from depth on have the code -1. A vector that is not finite gets codes C_r and NaN.

    Raises:
        ValueError: there is no stage, or the shapes do not fit, or a depth is out of range (traced
            ones are not checked).
        TypeError: the depth is no integer.

    Source: Zeghidour et al. (2021), algorithm 1; stages are dropped as in section III.C.
    """
    v, stages = as_vectors(v), _stages(codebooks)
    depth = _check_depth(depth, len(stages), v.shape[:-1])
    wide = v.astype(wide_dtype(v, *stages))
    rest, codes = lax.stop_gradient(wide), []
    q = jnp.zeros_like(rest)
    for stage, codebook in enumerate(stages):
        book = lax.stop_gradient(codebook).astype(wide.dtype)
        code = nearest_code(rest, book)
        if depth is not None:
            code = jnp.where(stage < depth, code, NO_CODE)
        codes.append(code)
        chosen = _row(code, book)
        q, rest = q + chosen, rest - chosen
    q = straight_through(wide, q)
    return Quantized(q.astype(float_dtype(v, *stages)), jnp.stack(codes, axis=-1))


def lookup(codes: ArrayLike, codebooks: Codebooks) -> jax.Array:
    """Sums the codes of R stages, with a gradient to the codebooks.

    For a coarser reconstruction pass the first stages only, or codes with -1 for the others.

    Args:
        codes: [..., R] integer in 0 .. C_r - 1, or -1 for a stage without a code.
        codebooks: [R, C, D] real, or R arrays [C_r, D].

    Returns:
        [..., D], in the widest dtype of the codebooks; NaN where another code is out of range.

    Raises:
        ValueError: there is no stage, or the shapes do not fit.
        TypeError: the codes are not integers.
    """
    stages = _stages(codebooks)
    codes = as_codes(codes)
    if codes.ndim < 1 or codes.shape[-1] != len(stages):
        raise ValueError(f"codes must be [..., R], R = {len(stages)} stages, got {codes.shape}")
    wide = wide_dtype(*stages)
    q = jnp.zeros((*codes.shape[:-1], stages[0].shape[1]), wide)
    for stage, codebook in enumerate(stages):
        q = q + _row(codes[..., stage], codebook.astype(wide))
    return q.astype(float_dtype(*stages))


def stage_inputs(v: ArrayLike, codes: ArrayLike, codebooks: Codebooks) -> jax.Array:
    """Computes what each stage quantized: r_s = v - sg(sum_{t<s} m_{t, code_t}).

    Args:
        v: [..., D] real.
        codes: [..., R] integer, those of `quantize`.
        codebooks: [R, C, D] real, or R arrays [C_r, D].

    Returns:
        [..., R, D], in the widest of the dtypes, with a gradient to v.

    Raises:
        ValueError: there is no stage, or the shapes do not fit.
        TypeError: the codes are not integers.
    """
    v, stages = as_vectors(v), _stages(codebooks)
    codes = check_codes(codes, (*v.shape[:-1], len(stages)))
    inputs, _ = _inputs_and_rows(v, codes, stages)
    return jnp.stack(inputs, axis=-2).astype(float_dtype(v, *stages))


def losses(
    v: ArrayLike, codes: ArrayLike, codebooks: Codebooks, *, mask: ArrayLike | None = None
) -> VQLosses:
    """Computes the means of |sg(r_s) - m_s|^2 and |r_s - sg(m_s)|^2 for every stage s.

    Each codebook learns from its own stage alone, and v from all. A stage that was dropped counts
    as 0, so that the sum over stages is that of the stages in use.

    Args:
        v: [..., D] real.
        codes: [..., R] integer, those of `quantize`, -1 where a stage was dropped.
        codebooks: [R, C, D] real, or R arrays [C_r, D].
        mask: [...] boolean, true where a position counts; all by default. Without one the losses
            are 0.

    Returns:
        VQLosses, [R] each, float32 at least.

    Raises:
        ValueError: there is no stage, or the shapes do not fit.
        TypeError: the codes are not integers.
    """
    v, stages = as_vectors(v), _stages(codebooks)
    mask = check_mask(mask, v.shape[:-1])
    codes = select(check_codes(codes, (*v.shape[:-1], len(stages))), mask)
    inputs, rows = _inputs_and_rows(select(v, mask), codes, stages)
    used = codes != NO_CODE
    both = []
    for loss in (codebook_loss, commitment_loss):
        of_stages = [loss(x, row) for x, row in zip(inputs, rows, strict=True)]
        per_stage = jnp.where(used, jnp.stack(of_stages, axis=-1), 0)
        both.append(mean(per_stage, mask, v.ndim - 1))
    return VQLosses(*both)


def draw_depth(
    key: jax.Array, num_stages: int, shape: tuple[int, ...] = (), *, min_stages: int = 1
) -> jax.Array:
    """Draws how many stages are in use, uniformly from min_stages to R.

    Args:
        key: typed PRNG key.
        num_stages: R.
        shape: of the draw: the batch for a depth of each example, () for one of all.
        min_stages: at least 1.

    Returns:
        [*shape] int32.

    Raises:
        ValueError: min_stages is not in 1 .. R, or key is an array of keys.
        TypeError: key is not a typed key.

    Source: Zeghidour et al. (2021), section III.C, quantizer dropout.
    """
    check_key(key)
    num_stages = check_count("num_stages", num_stages)
    min_stages = check_count("min_stages", min_stages)
    if not min_stages <= num_stages:
        raise ValueError(f"min_stages must be in 1 .. num_stages, got {min_stages}, {num_stages}")
    return jax.random.randint(key, shape, min_stages, num_stages + 1, jnp.int32)


def kmeans(
    key: jax.Array, points: ArrayLike, *, num_stages: int, num_codes: int, num_iters: int
) -> tuple[jax.Array, jax.Array]:
    """Fits codebooks stage after stage, each by `vq.kmeans` of what the stages before it left.

    The distortion never rises from one stage to the next on these points.

    Args:
        key: typed PRNG key.
        points: [N, D] real.
        num_stages: R, at least 1.
        num_codes: C, at most N.
        num_iters: Lloyd iterations of each stage, at least 1.

    Returns:
        Codebooks [R, C, D], float32 at least, and codes [N, R] int32.

    Raises:
        ValueError: num_stages is less than 1, `vq.kmeans` refuses the points or numbers, or key is
            an array of keys.
        TypeError: key is not a typed key.
    """
    check_key(key)
    num_stages = check_count("num_stages", num_stages)
    rest, codebooks, codes = as_float(points), [], []
    for key_stage in jax.random.split(key, num_stages):
        codebook, code = _kmeans(key_stage, rest, num_codes=num_codes, num_iters=num_iters)
        rest = rest.astype(codebook.dtype) - gather(code, codebook)
        codebooks.append(codebook)
        codes.append(code)
    return jnp.stack(codebooks), jnp.stack(codes, axis=-1)


def _stages(codebooks: Codebooks) -> list[jax.Array]:
    """Returns the codebooks [C_r, D], or raises ValueError if they do not fit together."""
    if isinstance(codebooks, Sequence):
        stages = [as_float(x) for x in codebooks]
        shapes = [x.shape for x in stages]
    else:
        array = as_float(codebooks)
        stages = [array[i] for i in range(array.shape[0])] if array.ndim == 3 else []
        shapes = [x.shape for x in stages] or [array.shape]
    if not stages or any(len(x) != 2 or x[0] < 1 or x[1] != shapes[0][1] for x in shapes):
        raise ValueError(
            "codebooks must be [R, C, D], or a sequence of arrays [C_r, D], with a stage and a "
            f"code at least, got {shapes}"
        )
    return stages


def _check_depth(
    depth: ArrayLike | None, num_stages: int, shape: tuple[int, ...]
) -> jax.Array | None:
    """Returns the depth with the axes of the codes, or raises ValueError if it does not fit."""
    if depth is None:
        return None
    given, depth = depth, as_codes(depth, "depth")
    if not isinstance(given, jax.core.Tracer) and getattr(given, "is_fully_addressable", True):
        values = np.asarray(given)
        if np.any(wrong := (values < 1) | (values > num_stages)):
            raise ValueError(
                f"depth must be in 1 .. {num_stages}, the number of stages, got "
                f"{values[wrong].flat[0]}"
            )
    if depth.ndim == 0:
        depth = depth.reshape((1,) * len(shape))
    if depth.ndim != len(shape) or any(
        a not in (1, b) for a, b in zip(depth.shape, shape, strict=True)
    ):
        raise ValueError(
            f"depth must be a scalar or broadcast to {shape}, with as many axes, got {depth.shape}"
        )
    return depth


def _row(codes: jax.Array, codebook: jax.Array) -> jax.Array:
    """Returns the code vectors [..., D], 0 where a stage has no code."""
    return jnp.where((codes == NO_CODE)[..., None], 0, gather(codes, codebook))


def _inputs_and_rows(
    v: jax.Array, codes: jax.Array, stages: list[jax.Array]
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Returns r_s and m_s, [..., D] each, of every stage."""
    rest = v.astype(wide_dtype(v, *stages))
    inputs, rows = [], []
    for stage, codebook in enumerate(stages):
        check_dimensions(rest, codebook)
        rows.append(_row(codes[..., stage], codebook.astype(rest.dtype)))
        inputs.append(rest)
        rest = rest - lax.stop_gradient(rows[-1])
    return inputs, rows
