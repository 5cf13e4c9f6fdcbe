"""Roots of a mixture's CDF and their gradients, which are those of the implicit function:

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
Slopes = Callable[
    [jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]
]

# Squares of what is at least this large do not underflow in float32: second derivatives divide by
# the square of a density.
MIN_DENSITY = 1e-18


class Target(NamedTuple):
    """What a family inverts: F(w) = rho, w <= 1/2. Both tails and the differences keep digits."""

    rho: jax.Array
    rest: jax.Array  # 1 - rho
    p: jax.Array  # 1 - q
    q: jax.Array  # sigmoid(l)
    above_p: jax.Array  # rho - p
    above_q: jax.Array  # rho - q


def tails(rho: jax.Array, least: float = 1e-17) -> Pair:
    """Returns rho and 1 - rho, both at least `least`, without logarithms of zero.

    NaN outside [0, 1].
    """
    rho = nan_outside_unit(rho)
    return jnp.maximum(rho, least), jnp.maximum(1 - rho, least)


def nan_outside_unit(rho: jax.Array) -> jax.Array:
    """Returns rho where it is a probability."""
    return jnp.where((rho < 0) | (rho > 1), jnp.nan, rho)


def gap(rho: jax.Array, rest: jax.Array, p: jax.Array, q: jax.Array) -> jax.Array:
    """Returns rho - p, for rho + rest = p + q = 1, from the smaller pair: 1 - x loses a small x."""
    return jnp.where(rho <= rest, rho - p, q - rest)


def attach(
    slopes: Slopes,
    w: jax.Array,
    rho: jax.Array,
    logits: jax.Array,
    beta: jax.Array,
    min_density: jax.Array,
) -> jax.Array:
    """Returns the root w with the derivatives of the implicit function F(w; l, beta) = rho.

    `slopes` is that of a `Mixture`; min_density bounds 1 / f.
    """

    @jax.custom_jvp
    def attached(w: jax.Array, *parameters: jax.Array) -> jax.Array:
        return w

    def rule(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
        w = attached(*primals)
        slope, by_logits, by_beta = slopes(w, *primals[2:])
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
