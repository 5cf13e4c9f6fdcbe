"""MuProp: the score function with a linear control variate, expanded at the mean of q."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae._numerics import upcast
from dvae.distributions import bernoulli
from dvae.estimators._estimate import Estimate, check_reduced, logits_term


def muprop(key: jax.Array, f: Callable[[jax.Array], jax.Array], logits: jax.Array) -> Estimate:
    """Estimates the gradient of E_q[f(z)] with the first-order expansion of f as control variate.

    With mu = sigmoid(l), the gradient in the logits is

        (f(z) - f(mu) - f'(mu)^T (z - mu)) grad log q(z) + f'(mu) dmu/dl + grad f(z),

    where the last term is f's own dependence on the logits and on parameters: the expansion is
    taken as a fixed function of z, so that f(mu) adds no gradient of its own. f must treat the
    examples of a batch apart. Unbiased; without variance where f is linear in z. Gu, Levine,
    Sutskever and Mnih, "MuProp: Unbiased Backpropagation for Stochastic Neural Networks" (2015).

    Args:
        key: typed PRNG key.
        f: maps z [..., n] to [...], nats, and is differentiable at z in (0, 1)^n; called twice,
            at a sample and at mu. It may close over parameters and over logits, which receive its
            gradient at the sample.
        logits: [..., n] float.

    Returns:
        Estimate of f(z), both [...], in the dtype that f returns.

    Raises:
        ValueError: if f does not reduce z to one value for each example.
    """
    z = jax.lax.stop_gradient(bernoulli.sample(key, logits))
    values = f(z)
    check_reduced("muprop", values, logits)

    wide = jax.lax.stop_gradient(upcast(logits))
    mean = jax.nn.sigmoid(wide)
    at_mean, pullback = jax.vjp(f, mean.astype(logits.dtype))
    slope = upcast(pullback(jnp.ones_like(at_mean))[0])
    score = upcast(z) - mean  # also the displacement from mu
    residual = upcast(values) - upcast(at_mean) - jnp.sum(slope * score, axis=-1)
    gradient = residual[..., None] * score + slope * mean * jax.nn.sigmoid(-wide)
    return Estimate(values, values + logits_term(gradient, logits).astype(values.dtype))
