"""The step: z = 1[rho >= 1-q], the limit beta -> infinity of every smoothing.

Its gradient is zero wherever it exists, so nothing can be trained through it. It is here to draw
hard samples, for example at evaluation, with the noise and the signature of the smoothings.
"""

import jax
import jax.numpy as jnp

from dvae._numerics import check_open_unit, open_uniform
from dvae.relax._mixture import ArrayLike, prepare


def icdf(rho: ArrayLike, logits: ArrayLike, beta: ArrayLike | None = None) -> jax.Array:
    """Maps uniform noise to a bit, 1[rho >= 1-q]; no useful gradient: zero.

    Args:
        rho: [...] float in (0, 1).
        logits: [...] float; q = sigmoid(l); broadcasts with rho.
        beta: ignored; it lets the step stand in for a smoothing.

    Returns:
        [...] exactly 0 or 1.

    Raises:
        ValueError: if rho is a Python number outside (0, 1).
    """
    check_open_unit("rho", rho)
    (rho, logits), _, dtype = prepare((rho, logits), 1.0)
    return (rho >= jax.nn.sigmoid(-logits)).astype(dtype)


def sample(key: jax.Array, logits: jax.Array, beta: ArrayLike | None = None) -> jax.Array:
    """Draws bits; no useful gradient: zero (see `icdf`).

    Args:
        key: typed PRNG key.
        logits: [...] float.
        beta: ignored.

    Returns:
        [...] exactly 0 or 1, in the dtype of logits.
    """
    return icdf(open_uniform(key, jnp.shape(logits)), logits).astype(logits.dtype)
