"""Spike-and-exponential smoothing: zeta = 0 for z = 0, an exponential towards 1 for z = 1.

r(zeta|0) = delta(zeta) and r(zeta|1) = beta e^{beta zeta} / (e^beta - 1) on (0, 1]. Samples on the
spike pass no gradient on. The law has an atom, so there is no density and no posterior to smooth
with; the overlapping families have both.

Reference: Rolfe, "Discrete Variational Autoencoders" (2017), section 2.
"""

import jax
import jax.numpy as jnp

from dvae._numerics import check_open_unit, open_uniform
from dvae.relax._mixture import ArrayLike, prepare
from dvae.relax.exponential import cdfs


def icdf(rho: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Maps uniform noise to 0 if rho <= 1-q, else to log(1 + u (e^beta - 1)) / beta.

    u = (rho + q - 1) / q. Differentiable in all three arguments, with gradient 0 on the spike.

    Args:
        rho: [...] float in (0, 1).
        logits: [...] float; q = sigmoid(l).
        beta: float > 0, the inverse temperature; all three broadcast.

    Returns:
        [...] zeta in [0, 1], increasing in rho and in the logits.

    Raises:
        ValueError: if beta is a Python number and not positive, or rho is one outside (0, 1).
    """
    check_open_unit("rho", rho)
    (rho, logits), beta, dtype = prepare((rho, logits), beta)
    # 1 - u = (1 - rho) / q; for q near 1 the other form keeps the digits of a small u.
    # The inner selects and the clip prevent infinite slopes, times 0 in the branch not taken.
    likely = logits > 0
    above, below = jnp.where(likely, logits, 0), jnp.where(likely, 0, jnp.maximum(logits, -80))
    u = jnp.where(
        likely,
        (rho - jax.nn.sigmoid(-above)) / jax.nn.sigmoid(above),
        1 - (1 - rho) * (1 + jnp.exp(-below)),
    )
    on = u > 0
    u = jnp.where(on, u, 0)
    # u (e^beta - 1) for what is small, 1 + log(u + (1 - u) e^{-beta}) / beta for the rest, which
    # does not overflow; the inner selects keep the other branch's infinities from the gradient.
    grown = u * jnp.expm1(jnp.minimum(beta, 80))
    small = grown < 1
    near_0 = jnp.log1p(jnp.where(small, grown, 0)) / beta
    near_1 = 1 + jnp.log(jnp.where(small, 1, u + (1 - u) * jnp.exp(-beta))) / beta
    return jnp.where(small, near_0, near_1).astype(dtype)


def sample(key: jax.Array, logits: jax.Array, beta: ArrayLike) -> jax.Array:
    """Draws zeta, reparametrised (see `icdf`).

    Args:
        key: typed PRNG key.
        logits: [...] float.
        beta: float > 0, the inverse temperature; broadcasts with logits.

    Returns:
        [...] zeta in [0, 1], in the dtype of logits.

    Raises:
        ValueError: if beta is a Python number and not positive.
    """
    rho = open_uniform(key, jnp.broadcast_shapes(logits.shape, jnp.shape(beta)))
    return icdf(rho, logits, beta).astype(logits.dtype)


def cdf(zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates F(zeta) = 1-q + q (e^{beta zeta} - 1) / (e^beta - 1) on [0, 1], with F(0) = 1-q.

    Args:
        zeta: [...] float.
        logits: [...] float.
        beta: float > 0; all three broadcast.

    Returns:
        [...] in [0, 1]; 0 below the spike.

    Raises:
        ValueError: if beta is a Python number and not positive.
    """
    (zeta, logits), beta, dtype = prepare((zeta, logits), beta)
    _, r1 = cdfs(jnp.clip(zeta, 0, 1), beta)
    value = jax.nn.sigmoid(-logits) + jax.nn.sigmoid(logits) * r1
    return jnp.where(zeta >= 0, value, 0).astype(dtype)
