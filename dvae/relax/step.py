"""The step: z = 1[rho >= 1-q], the limit beta -> infinity of every smoothing.

Its gradient is zero wherever it exists, so nothing can be trained through it. It is here to draw
hard samples, for example at evaluation, with the noise and the signature of the smoothings.
"""

import jax

from dvae._checks import check_unit
from dvae._numerics import ArrayLike, mark_nan, meet
from dvae.relax._implicit import gap, nan_outside_unit
from dvae.relax._mixture import prepare, uniform_like

__all__ = ["icdf", "sample"]


def icdf(rho: ArrayLike, logits: ArrayLike, beta: ArrayLike | None = None) -> jax.Array:
    """Maps uniform noise to a bit, 1[rho >= 1-q]; no useful gradient: zero.

    Args:
        rho: [...] real in [0, 1].
        logits: [...] real; q = sigmoid(l); broadcasts with rho.
        beta: ignored; it lets the step stand in for a smoothing.

    Returns:
        [...] exactly 0 or 1, in the common floating dtype of rho and logits. NaN where one of them
        is or rho is outside [0, 1].

    Raises:
        ValueError: if rho is a Python number outside [0, 1].
        TypeError: if an argument is complex.
    """
    check_unit("rho", rho)
    (rho, logits), _, dtype = prepare((rho, logits), 1.0)
    return _solve(rho, logits).astype(dtype)


def sample(key: jax.Array, logits: ArrayLike, beta: ArrayLike | None = None) -> jax.Array:
    """Draws bits; no useful gradient: zero (see `icdf`).

    Args:
        key: typed PRNG key, a single one.
        logits: [...] real; q = sigmoid(l).
        beta: ignored.

    Returns:
        [...] exactly 0 or 1, in the floating dtype of logits; NaN where a logit is.

    Raises:
        ValueError: if key is an array of keys.
        TypeError: if logits are complex.
    """
    (logits,), _, dtype = prepare((logits,), 1.0)
    return _solve(uniform_like(key, logits), logits).astype(dtype)


def _solve(rho: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns the bits 1[rho >= 1-q], NaN where an argument is or rho is outside [0, 1]."""
    rho, logits = jax.lax.stop_gradient((rho, logits))
    rho = nan_outside_unit(meet(rho, logits))
    above = gap(rho, 1 - rho, jax.nn.sigmoid(-logits), jax.nn.sigmoid(logits))
    return mark_nan((above >= 0).astype(rho.dtype), above)
