"""Vectors and codebooks of several latent variables: distances, lookup, averages, scales."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from dvae import vq
from dvae._checks import check_positive
from dvae.models import checks
from dvae.models._products import matmul


def distances(vectors: jax.Array, codebook: jax.Array) -> jax.Array:
    """Returns |v - m|^2: vectors [..., n, D], codebook [n, C, D] to [..., n, C]."""
    check_vectors(vectors, codebook)
    return jax.vmap(vq.squared_distances, in_axes=(-2, 0), out_axes=-2)(vectors, codebook)


def nearest_codes(vectors: jax.Array, codebook: jax.Array) -> jax.Array:
    """Returns the nearest codes: vectors [..., n, D], codebook [n, C, D] to int32 [..., n]."""
    check_vectors(vectors, codebook)
    return jax.vmap(vq.nearest_code, in_axes=(-2, 0), out_axes=-1)(vectors, codebook)


def lookup(codes: jax.Array, codebook: jax.Array) -> jax.Array:
    """Returns the code vectors: integer codes [..., n], codebook [n, C, D] to [..., n, D].

    A code of C or more gives NaN, as in `vq.lookup`; in a NumPy array it is refused.

    Raises:
        ValueError: shapes or dtypes do not fit, or a known code is out of range.
    """
    checks.check_floats("codebook", codebook, ("n", "C", "D"))
    num_latents, size, _ = codebook.shape
    checks.check_codes("codes", codes, ("...", num_latents), size)
    return jax.vmap(vq.lookup, in_axes=(-1, 0), out_axes=-2)(codes, codebook)


def log_prior_of(codes: jax.Array, log_prior: jax.Array) -> jax.Array:
    """Returns log p(z) of codes [..., n] under log_prior [n, C], elementwise; 0 of no code, -1."""
    log_p = lookup(codes, log_prior[..., None])[..., 0]
    return jnp.where(codes == vq.digits.NO_CODE, 0, log_p)


def per_image(x: jax.Array) -> jax.Array:
    """Sums the positions and latent variables of [..., h, w, n]."""
    return x.sum((-3, -2, -1))


def check_vectors(vectors: jax.Array, codebook: jax.Array) -> None:
    """Raises ValueError unless the vectors have the latent variables of the codebook."""
    checks.check_floats("codebook", codebook, ("n", "C", "D"))
    num_latents, _, dim = codebook.shape
    checks.check_floats("vectors", vectors, ("...", num_latents, dim))


def average(
    weights: jax.Array, codebook: jax.Array, *, dtype: DTypeLike = jnp.float32
) -> jax.Array:
    """Averages code vectors: weights [..., n, C], codebook [n, C, D] to [..., n, D].

    A one-hot sample gives the code itself, rounded to `dtype`, on every platform. In half precision
    sums are float32 and the result is `dtype`: what a decoder of that dtype would round it to.
    """
    checks.check_floats("codebook", codebook, ("n", "C", "D"))
    checks.check_floats("weights", weights, ("...", *codebook.shape[:2]))
    if jnp.dtype(dtype).itemsize < 4:
        product = jax.vmap(matmul, in_axes=(-2, 0), out_axes=-2)
        return product(weights.astype(dtype), codebook)
    # Full precision, as `lookup` has, which GPUs and TPUs do not have by default.
    return jnp.einsum("...nc,ncd->...nd", weights, codebook, precision=lax.Precision.HIGHEST)


def calibrated_log_scale(vectors: jax.Array, codebook: jax.Array, logit_std: float) -> jax.Array:
    """Chooses log_scale [n] such that logits spread over the codes by `logit_std` on average.

    With a moderate spread the first posterior is neither uniform (no gradient reaches the choice
    of code) nor one-hot (a relaxed sample carries no gradient):

        log_scale_n = log(logit_std / mean over vectors of std over codes of |v_n - m_nk|^2).

    Where distances do not differ beyond rounding, no scale spreads them, and log_scale is 0: so for
    a single code (C = 1), for codes that are all equal, and for distances of 0.

    Args:
        vectors: float [..., n, D], at least one.
        codebook: float [n, C, D].
        logit_std: in nats, > 0.

    Returns:
        [n], float32 or wider; finite for finite vectors and codes whose distances are.

    Raises:
        ValueError: the shapes do not fit, or logit_std is a number and not positive and finite.
    """
    check_positive("logit_std", logit_std)
    squared = distances(vectors, codebook)
    mean = lambda x: x.mean(tuple(range(x.ndim - 1)))
    spread = mean(squared.std(-1))
    # No scale spreads what is equal: it would magnify rounding, and 1 / 0 make the logits NaN.
    is_equal = spread <= 10 * jnp.finfo(squared.dtype).eps * mean(squared.mean(-1))
    return jnp.where(is_equal, 0, jnp.log(logit_std / jnp.where(is_equal, 1, spread)))
