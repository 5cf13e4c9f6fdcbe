"""Roots of a mixture's CDF, and their gradients as those of the implicit function.

    dzeta/drho = 1/f,  dzeta/dl = q (1-q) (R_0 - R_1) / f,  dzeta/dbeta = -(dF/dbeta) / f,

never those of a solver. A float rho stands for an interval. Between two sharp modes, on the cliff
of F^{-1}, zeta crosses all of [0, 1] within one such interval; 1 / f at a single point of it may
be e^{beta/2}, and one draw of millions would outweigh all others in a mean of gradients. There the
slope is at most that of a line across the interval, 2^24 / rho in float32.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Pair = tuple[jax.Array, jax.Array]

# Squares of what is at least this large do not underflow in float32: second derivatives divide by
# the square of a density.
MIN_DENSITY = 1e-18


class Target(NamedTuple):
    """What a family inverts: F(w) = rho, w <= 1/2. Both tails and the differences keep digits."""

    rho: jax.Array
    not_rho: jax.Array  # 1 - rho
    q: jax.Array  # sigmoid(l)
    not_q: jax.Array  # 1 - q
    above_q: jax.Array  # rho - q
    above_not_q: jax.Array  # rho - (1 - q)


class Slopes(NamedTuple):
    """The parts of the implicit function's derivatives at a root w, of one shape."""

    inverse_density: jax.Array  # 1 / f, which is dw/drho
    by_logits: jax.Array  # -dF/dl = q (1-q) (R_0 - R_1)
    by_beta: jax.Array  # -dF/dbeta


# (w, logits, beta, min_density) -> Slopes.
SlopesFn = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], Slopes]


def tails(rho: jax.Array, least: float = 1e-17) -> Pair:
    """Returns rho and 1 - rho, both at least `least`, without logarithms of zero.

    NaN outside [0, 1].
    """
    rho = nan_outside_unit(rho)
    return jnp.maximum(rho, least), jnp.maximum(1 - rho, least)


def nan_outside_unit(rho: jax.Array) -> jax.Array:
    """Returns rho where it is a probability."""
    return jnp.where((rho < 0) | (rho > 1), jnp.nan, rho)


def gap(x: jax.Array, not_x: jax.Array, y: jax.Array, not_y: jax.Array) -> jax.Array:
    """Returns x - y of probabilities, from the smaller of x and 1 - x: its digits survive."""
    return jnp.where(x <= not_x, x - y, not_y - not_x)


def attach(
    slopes_fn: SlopesFn,
    w: jax.Array,
    rho: jax.Array,
    logits: jax.Array,
    beta: jax.Array,
    min_density: jax.Array,
) -> jax.Array:
    """Returns the root w with the derivatives of the implicit function F(w; l, beta) = rho.

    Args:
        slopes_fn: the parts of the derivatives.
        w: [...] the root.
        rho: [...]; only its tangent is used.
        logits: [...] l, those of the mirrored problem where w is a mirrored root.
        beta: [...] broadcasts.
        min_density: [...] what bounds 1 / f.

    Returns:
        [...] w.
    """

    @jax.custom_jvp
    def attached(w: jax.Array, *parameters: jax.Array) -> jax.Array:
        return w

    def rule(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
        w = attached(*primals)
        slope, by_logits, by_beta = slopes_fn(w, *primals[2:])
        total = jnp.zeros_like(w)
        factors = (slope, slope * by_logits, slope * by_beta)
        for factor, tangent in zip(factors, tangents[1:4], strict=True):
            # A constant beta or rho costs nothing.
            if not isinstance(tangent, jax.custom_derivatives.SymbolicZero):
                total = total + factor * tangent
        return w, total

    attached.defjvp(rule, symbolic_zeros=True)
    return attached(w, rho, logits, beta, jax.lax.stop_gradient(min_density))


def inverse_density(f: jax.Array, min_density: jax.Array) -> jax.Array:
    """Returns 1 / f, with f no smaller than min_density and `MIN_DENSITY`."""
    return 1 / jnp.maximum(f, jnp.maximum(min_density, MIN_DENSITY))
