"""DisARM, also known as U2G: the score function averaged over an antithetic pair of samples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae._numerics import open_uniform, upcast
from dvae.estimators._estimate import (
    Estimate,
    as_logits,
    evaluate,
    logits_term,
    threshold,
    with_term,
)

__all__ = ["disarm"]


def disarm(key: jax.Array, f: Callable[[jax.Array], jax.Array], logits: jax.Array) -> Estimate:
    """Estimates the gradient of E_q[f(z)] from two samples that share their noise.

    With b = 1[u < sigmoid(l)] and b' = 1[1 - u < sigmoid(l)], the gradient in the logits is

        1/2 (f(b) - f(b')) (b - b') sigmoid(|l|) + 1/2 (grad f(b) + grad f(b')),

    unit by unit: a unit on which the pair agrees receives nothing of the first part. Unbiased,
    with nothing to tune. Dong, Mnih and Tucker, "DisARM: An Antithetic Gradient Estimator for
    Binary Latent Variables" (2020); Yin et al., "Probabilistic Best Subset Selection
    via Gradient-Based Optimization" (2020), where it is U2G.

    Args:
        key: typed PRNG key.
        f: maps z [..., n] to [...], nats; traced once, and mapped over the pair. It may close over
            parameters and over logits, which receive its mean gradient.
        logits: [..., n] float.

    Returns:
        Estimate of (f(b) + f(b')) / 2, both [...], in the dtype that f returns (integers: the
        default float).

    Raises:
        ValueError: if f does not reduce z to one value for each example.
    """
    logits = as_logits("disarm", logits)
    wide = jax.lax.stop_gradient(upcast(logits))
    u = open_uniform(key, logits.shape).astype(wide.dtype)
    # Compared in logits: sigmoid(l) and 1 - u both round to 1, where the pair would disagree.
    noise = jnp.log(u) - jnp.log1p(-u)
    pair = jnp.stack([threshold(wide - noise), threshold(wide + noise)])
    values = jax.vmap(lambda z: evaluate("disarm", f, z, wide.shape[:-1]))(
        pair.astype(logits.dtype)
    )

    difference = upcast(values[0]) - upcast(values[1])
    mean = jnp.mean(upcast(values), axis=0).astype(values.dtype)
    sign = pair[0] - pair[1]
    gradient = 0.5 * difference[..., None] * sign * jax.nn.sigmoid(jnp.abs(wide))
    return with_term(mean, logits_term(gradient, logits))
