"""What the smoothings share: a mixture of two mirrored densities, its inverse CDF and its gradient.

Each smoothing gives r(zeta|z) with r(zeta|1) = r(1 - zeta|0), and the mixture

    F(zeta) = (1-q) R_0(zeta) + q R_1(zeta),  f(zeta) = (1-q) r_0(zeta) + q r_1(zeta),

q = sigmoid(l). The mirror rho, l, zeta -> 1 - rho, -l, 1 - zeta maps F to itself, so only roots
w <= 1/2 are computed; near one the same digits are then kept in 1 - zeta.

A smoothing's module describes a `Family`. Its public functions are those below of that family,
documented where they are public: elementwise, with arguments that broadcast, in the floating dtype
of rho, zeta and logits (beta follows them), computed in float32 at least.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae._checks import check_key, check_positive, check_unit
from dvae._numerics import (
    ArrayLike,
    mark_nan,
    meet,
    open_uniform,
    same_rank,
    sigmoid,
    widen,
    within,
)
from dvae.relax._implicit import Pair, SlopesFn, Target, attach, gap, tails

Function = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """What makes one smoothing: functions of arrays of one rank, in float32 at least."""

    # (zeta, beta) -> R_0, R_1.
    component_cdfs: Callable[[jax.Array, jax.Array], Pair]
    # (zeta, beta) -> log r_0, log r_1.
    component_log_probs: Callable[[jax.Array, jax.Array], Pair]
    # (zeta, beta) -> log r_1 - log r_0.
    log_ratio_fn: Function
    # (u, beta) -> R_0^-1(u).
    quantile_0: Function
    # (target, beta) -> the root w <= 1/2 of F(w) = rho.
    lower_root: Callable[[Target, jax.Array], jax.Array]
    # (w, logits, beta, min_density) -> Slopes at w <= 1/2.
    slopes_fn: SlopesFn
    # Whether zeta lies in [0, 1], or anywhere on the line.
    bounded: bool


def icdf(family: Family, *, rho: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Maps uniform noise to zeta = F^{-1}(rho)."""
    check_unit("rho", rho)
    (rho, logits), beta, dtype = prepare((rho, logits), beta)
    return _solve(family, rho, logits, beta).astype(dtype)


def sample(family: Family, *, key: jax.Array, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Draws zeta = F^{-1}(rho), rho uniform."""
    (logits,), beta, dtype = prepare((logits,), beta)
    rho = uniform_like(key, logits, beta)
    return _solve(family, rho, logits, beta).astype(dtype)


def ancestral_sample(
    family: Family, *, key: jax.Array, logits: ArrayLike, beta: ArrayLike
) -> jax.Array:
    """Draws z ~ Bernoulli(q), then zeta ~ r(zeta|z)."""
    check_key(key)
    (logits,), beta, dtype = prepare((logits,), beta)
    key_z, key_zeta = jax.random.split(key)
    z = uniform_like(key_z, logits, beta) < jax.nn.sigmoid(logits)
    # `ndtri` takes no sharded noise on a mesh with explicit axes.
    u = open_uniform(key_zeta, z.shape).astype(logits.dtype)
    zeta = meet(family.quantile_0(u, jax.lax.stop_gradient(beta)), logits, beta)
    logits = meet(logits, zeta)
    inner = zeta <= 0.5  # zeta is on the side of its z
    w = jnp.where(inner, zeta, 1 - zeta)
    lower = inner ^ z
    mirrored = jnp.where(lower, logits, -logits)
    w = attach(family.slopes_fn, w, jnp.zeros_like(w), mirrored, beta, jnp.zeros_like(w))
    return mark_nan(jnp.where(lower, w, 1 - w), logits).astype(dtype)


def cdf(family: Family, *, zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates F(zeta)."""
    (zeta, logits), beta, dtype = prepare((zeta, logits), beta)
    r0, r1 = family.component_cdfs(_clipped(family, zeta), beta)
    return (sigmoid(-logits) * r0 + sigmoid(logits) * r1).astype(dtype)


def log_prob(family: Family, *, zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates log f(zeta)."""
    (zeta, logits), beta, dtype = prepare((zeta, logits), beta)
    log_0, log_1 = family.component_log_probs(_clipped(family, zeta), beta)
    value = jnp.logaddexp(log_0 - jax.nn.softplus(logits), log_1 - jax.nn.softplus(-logits))
    return _inside(family, zeta, value).astype(dtype)


def log_prob_0(family: Family, *, zeta: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates log r(zeta|0)."""
    (zeta,), beta, dtype = prepare((zeta,), beta)
    value, _ = family.component_log_probs(_clipped(family, zeta), beta)
    return _inside(family, zeta, value).astype(dtype)


def log_ratio(family: Family, *, zeta: ArrayLike, beta: ArrayLike) -> jax.Array:
    """Evaluates log r(zeta|1) - log r(zeta|0)."""
    (zeta,), beta, dtype = prepare((zeta,), beta)
    return family.log_ratio_fn(zeta, beta).astype(dtype)


def posterior_logits(
    family: Family, *, zeta: ArrayLike, logits: ArrayLike, beta: ArrayLike
) -> jax.Array:
    """Evaluates l + log r(zeta|1) - log r(zeta|0)."""
    (zeta, logits), beta, dtype = prepare((zeta, logits), beta)
    return (logits + family.log_ratio_fn(zeta, beta)).astype(dtype)


def _clipped(family: Family, zeta: jax.Array) -> jax.Array:
    """Returns zeta moved into a bounded support."""
    return within(zeta, 0, 1) if family.bounded else zeta


def _inside(family: Family, zeta: jax.Array, value: jax.Array) -> jax.Array:
    """Returns value on the support, -inf elsewhere."""
    if not family.bounded:
        return value
    outside, value = jnp.broadcast_arrays((zeta < 0) | (zeta > 1), value)
    return jnp.where(outside, -jnp.inf, value)


def _solve(family: Family, rho: jax.Array, logits: jax.Array, beta: jax.Array) -> jax.Array:
    """Returns F^{-1}(rho) with its derivatives."""
    rho, logits = meet(rho, logits, beta), meet(logits, rho, beta)
    low, high = tails(rho)
    q, not_q = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    above_q, above_not_q = gap(low, high, q, not_q), gap(low, high, not_q, q)
    _, r1 = family.component_cdfs(jnp.full((1,) * beta.ndim, 0.5, beta.dtype), beta)
    lower = (above_not_q <= (q - not_q) * r1) & (rho != 1) | (rho == 0)
    target = Target(
        rho=jnp.where(lower, low, high),
        not_rho=jnp.where(lower, high, low),
        q=jnp.where(lower, q, not_q),
        not_q=jnp.where(lower, not_q, q),
        above_q=jnp.where(lower, above_q, -above_q),
        above_not_q=jnp.where(lower, above_not_q, -above_not_q),
    )
    w = family.lower_root(*jax.lax.stop_gradient((target, beta)))
    if family.bounded:
        w = jnp.where((rho == 0) | (rho == 1), 0, w)
    # A comparison with NaN is False, so that the ends above, and most floors, would hide it.
    w = mark_nan(mark_nan(w, logits), meet(beta, logits))
    min_density = jnp.where(w > 0, 0.5 * jnp.finfo(w.dtype).eps * low, 0)
    signed = jnp.where(lower, rho, -rho), jnp.where(lower, logits, -logits)
    w = attach(family.slopes_fn, w, *signed, beta, min_density)
    return jnp.where(lower, w, 1 - w)


def prepare(
    arrays: tuple[ArrayLike, ...], beta: ArrayLike
) -> tuple[list[jax.Array], jax.Array, jnp.dtype]:
    """Checks beta, and returns everything wide and of one rank, with the dtype of the result."""
    check_positive("beta", beta)
    wide, dtype = widen(*arrays)
    *wide, beta = same_rank(*wide, jnp.asarray(beta, wide[0].dtype))
    return wide, beta, dtype


def uniform_like(key: jax.Array, *xs: jax.Array) -> jax.Array:
    """Draws uniforms strictly inside (0, 1), one for each element of the arrays, broadcast."""
    u = open_uniform(key, jnp.broadcast_shapes(*(x.shape for x in xs)))
    return meet(u.astype(xs[0].dtype), *xs)
