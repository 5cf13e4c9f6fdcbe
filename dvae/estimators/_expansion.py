"""Samples with the slopes of f at them: what the estimators by Taylor expansions share."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dvae._numerics import bit_score, upcast
from dvae.distributions import bernoulli
from dvae.estimators._estimate import check_num_samples, differentiable, evaluate


class Expanded(NamedTuple):
    """K samples, f and its slopes there; `values` alone carries a gradient."""

    values: jax.Array  # [K, ...] f(z_k), in the dtype that f returns
    z: jax.Array  # [K, ..., n], at least float32 like the fields below
    score: jax.Array  # [K, ..., n] z - mu, the gradient of log q(z) in the logits
    slopes: jax.Array  # [K, ..., n] f'(z_k)


def expand(
    name: str,
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    num_samples: int,
) -> Expanded:
    """Draws K samples and evaluates f and its derivative in z at them.

    Raises:
        ValueError: if num_samples < 2, f does not reduce z to one value for each sample, or it
            returns integers, which have no derivative.
    """
    check_num_samples(name, num_samples)
    z = jax.lax.stop_gradient(bernoulli.sample(key, logits, (num_samples,)))

    f = differentiable(f, f"{name} expands f about the samples", "disarm, arms or reinforce_loo")
    values, pullback = jax.vjp(lambda z: evaluate(name, f, z, z.shape[:-1]), z)
    (slopes,) = pullback(jnp.ones_like(values))
    wide = upcast(z)
    fixed = jax.lax.stop_gradient((wide, bit_score(wide, upcast(logits)[None]), upcast(slopes)))
    return Expanded(values, *fixed)


def others_mean(x: jax.Array) -> jax.Array:
    """Averages [K, ...] over the K - 1 other samples, for each."""
    total = jnp.sum(x, axis=0, keepdims=True)
    return (total - x) / (x.shape[0] - 1)
