"""Coupled samples of categorical variables: DisARM for any number of classes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae import distributions
from dvae._numerics import mark_nan, open_uniform, upcast
from dvae.estimators._estimate import Estimate, as_logits, evaluate, logits_term, with_term

__all__ = ["coupled"]


def coupled(key: jax.Array, f: Callable[[jax.Array], jax.Array], logits: jax.Array) -> Estimate:
    """Estimates the gradient of E_q[f(z)], z categorical, from two samples that avoid each other.

    A unit's class is found by breaking a stick, the rarest class first: with p_1 <= ... <= p_C and
    S_i = p_i + ... + p_C it is the first i for which u_i < p_i / S_i. The second sample takes the
    same path with 1 - u_i. Both have the law q, and for a < b

        P(z = a, z' = b) = P(z = b, z' = a) = p_a p_b / w_a,
        w_a = S_a S_{a+1} / prod_{i<a} (1 - 2 p_i / S_i),

    so that with e_z the one-hot class and a the rarer of the two, unit by unit, the gradient is

        1/2 (f(z) - f(z')) w_a (e_z - e_z') + 1/2 (grad f(z) + grad f(z')):

    its mean is sum_{a != b} p_a p_b F(a) (e_a - e_b) = sum_a F(a) p_a (e_a - p), F(a) that of f
    given the unit's class. Independent samples would have w = 1; here w_a falls from 1 - p_1 with
    a. Classes of equal probability are never drawn twice. Two classes are bits, and this is
    `disarm`. Dong, Mnih and Tucker, "Coupled Gradient Estimators for Discrete Latent Variables"
    (2021), with stick-breaking; weights as derived here.

    Args:
        key: typed PRNG key.
        f: maps one-hot z [..., n, C] to [...], nats; traced once, and mapped over the pair. It may
            close over parameters and over logits, which receive its mean gradient.
        logits: [..., n, C] float; -inf for a class without mass.

    Returns:
        Estimate of (f(z) + f(z')) / 2, both [...], in the dtype that f returns (integers: the
        default float).

    Raises:
        ValueError: if f does not reduce z to one value for each example.
    """
    logits = as_logits("coupled", logits, distributions.categorical)
    wide = jax.lax.stop_gradient(upcast(logits))
    rank = jnp.argsort(jnp.argsort(wide, axis=-1), axis=-1)  # of each class, the rarest 0
    probabilities = jnp.sort(jax.nn.softmax(wide, axis=-1), axis=-1)
    first, second = _break_sticks(key, probabilities)
    # One NaN among the logits makes all probabilities NaN.
    one_hot = lambda i: mark_nan((rank == i[..., None]).astype(wide.dtype), probabilities)
    pair = jnp.stack([one_hot(first), one_hot(second)])
    values = jax.vmap(lambda z: evaluate("coupled", f, z, wide.shape[:-2]))(
        pair.astype(logits.dtype)
    )

    difference = upcast(values[0]) - upcast(values[1])
    mean = jnp.mean(upcast(values), axis=0).astype(values.dtype)
    weights = _weights(probabilities)
    rarer = jnp.minimum(first, second)[..., None]
    weight = jnp.take_along_axis(weights, rarer, axis=-1)
    gradient = 0.5 * difference[..., None, None] * weight * (pair[0] - pair[1])
    return with_term(mean, logits_term(gradient, logits).sum(-1))


def _rest(probabilities: jax.Array) -> jax.Array:
    """Returns S_i [..., C] of ascending probabilities."""
    return jnp.cumsum(probabilities[..., ::-1], axis=-1)[..., ::-1]


def _break_sticks(key: jax.Array, probabilities: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draws the places int32 [...] of two classes among ascending probabilities [..., C]."""
    share = probabilities / _rest(probabilities)
    u = open_uniform(key, probabilities.shape).astype(share.dtype)
    last = jnp.arange(share.shape[-1]) == share.shape[-1] - 1  # whatever its share rounds to
    last = jnp.broadcast_to(last, share.shape)
    found = lambda noise: jnp.argmax((noise < share) | last, axis=-1)
    return found(u), found(1 - u)


def _weights(probabilities: jax.Array) -> jax.Array:
    """Returns w_a [..., C] of ascending probabilities; the last one is of no pair."""
    rest = _rest(probabilities)
    # w_{a+1} / w_a = S_{a+2} / (S_{a+1} - p_a), whose difference has positive terms.
    gaps = probabilities[..., 1:-1] - probabilities[..., :-2]
    ratios = rest[..., 2:] / (gaps + rest[..., 2:])
    start = rest[..., 1:2] if probabilities.shape[-1] > 1 else rest
    unused = jnp.zeros_like(probabilities[..., 1:2])
    return jnp.concatenate([jnp.cumprod(jnp.concatenate([start, ratios], -1), -1), unused], -1)
