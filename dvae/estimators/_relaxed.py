"""Relaxed bits, and the terms of a gradient estimate by them: what RELAX and REBAR share."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dvae._checks import check_key
from dvae._numerics import bit_score, open_uniform, upcast
from dvae.estimators._estimate import differentiable, evaluate, threshold


class RelaxedDraw(NamedTuple):
    """Bits with their two relaxations; nothing here carries a gradient."""

    bits: jax.Array  # [..., n] b = 1[z > 0], in the dtype of the logits
    score: jax.Array  # [..., n] d log q(b) / dl, at least float32 like the fields below
    pair: jax.Array  # [2, ..., n] z = l + logit(u), and z' given b
    slopes: jax.Array  # [2, ..., n] dz/dl = 1, and dz'/dl at fixed b and noise


def draw_relaxed(key: jax.Array, logits: jax.Array) -> RelaxedDraw:
    """Draws b, z and z' | b (Tucker et al., 2017, appendix), all functions of l and uniforms.

    z' = l + logit(u') with u' uniform on the side of (0, 1) that gives the same b. Written out,
    z' = s softplus(logit(v) + softplus(s l)), s = 2 b - 1, where nothing rounds to log(0).
    """
    check_key(key)
    wide = jax.lax.stop_gradient(upcast(logits))
    key_free, key_given_bits = jax.random.split(key)
    # Minus: the fine end of the uniforms, near 0, serves the rare ones among the bits.
    z = wide - _logistic(key_free, wide)
    bits = threshold(z)
    sign = 2 * bits - 1
    shifted = _logistic(key_given_bits, wide) + jax.nn.softplus(sign * wide)
    conditional = sign * jax.nn.softplus(shifted)
    slope = jax.nn.sigmoid(shifted) * jax.nn.sigmoid(sign * wide)
    return RelaxedDraw(
        bits=bits.astype(logits.dtype),
        score=bit_score(bits, wide),
        pair=jnp.stack([z, conditional]),
        slopes=jnp.stack([jnp.ones_like(slope), slope]),
    )


def _logistic(key: jax.Array, like: jax.Array) -> jax.Array:
    """Draws logit(u), finite always, in the shape and dtype of `like`."""
    u = open_uniform(key, like.shape).astype(like.dtype)
    return jnp.log(u) - jnp.log1p(-u)


def relaxed_bits(z: jax.Array, temperature: jax.Array) -> jax.Array:
    """Evaluates sigmoid(z / t), which an infinite z passes no gradient through.

    Prevents the NaN of infinity times 0 in the gradient of t at certain bits.
    """
    finite = jnp.isfinite(z)
    scaled = jnp.where(finite, z, 0) / temperature
    return jax.nn.sigmoid(jnp.where(finite, scaled, jax.lax.stop_gradient(z)))


def score_gradient(values: jax.Array, draw: RelaxedDraw) -> jax.Array:
    """Evaluates f(b) grad_l log q(b) [..., n] without gradient."""
    return jax.lax.stop_gradient(upcast(values))[..., None] * draw.score


def control_gradient(
    name: str, c: Callable[[jax.Array], jax.Array], draw: RelaxedDraw, *, label: str
) -> jax.Array:
    """Evaluates grad_l c(z) - grad_l c(z') - c(z') grad_l log q(b) [..., n]; its mean is 0.

    Raises:
        ValueError: if c does not reduce z to one value for each example, or returns integers. Its
            mean is 0 only with the derivative of c, which integers do not have.
    """
    where = f"{name} differentiates {label} at relaxed bits"
    c = differentiable(c, where, "disarm, reinforce_loo, or relax with a smooth control variate")
    reduced = lambda z: evaluate(name, c, z, draw.bits.shape[:-1], label=label)
    values, pullback = jax.vjp(jax.vmap(reduced), draw.pair)
    (by_z,) = pullback(jnp.ones_like(values))
    free, given_bits = by_z * draw.slopes
    return free - given_bits - upcast(values[1])[..., None] * draw.score
