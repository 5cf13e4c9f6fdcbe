"""The pathwise estimator: f at one relaxed, smoothed or straight-through sample, differentiated."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae import distributions
from dvae.estimators._estimate import Estimate, Family, as_logits, differentiable, evaluate

__all__ = ["pathwise"]


def pathwise(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    sample: Callable[[jax.Array, jax.Array], jax.Array],
    family: Family = distributions.bernoulli,
) -> Estimate:
    """Differentiates f(zeta) at one sample zeta(noise, l), which has a gradient in the logits.

    For E_q[f(z)] of discrete z the gradient is biased: a relaxed sample has the gradient of a
    relaxed objective (Concrete, smoothings), a straight-through one of no objective. The samplers
    of `dvae.relax` fit, with their settings bound:

        pathwise(key, f, logits, sample=lambda k, l: relax.binary_concrete.sample(k, l, 0.5))
        pathwise(key, f, logits, sample=relax.straight_through.bernoulli)

    Args:
        key: typed PRNG key, for `sample`.
        f: maps zeta [..., n] (categorical: [..., n, C]) to [...], nats; differentiable, as it is
            evaluated between the discrete values, too.
        logits: [..., n] float (categorical: [..., n, C]).
        sample: maps key and logits to zeta, of the logits' shape.
        family: `distributions.bernoulli` or `distributions.categorical`.

    Returns:
        Estimate of f(zeta), both [...], in the dtype that f returns.

    Raises:
        ValueError: if samples have another shape than the logits, if f returns integers, or does
            not reduce zeta to one value for each example.
    """
    logits = as_logits("pathwise", logits, family)
    zeta = sample(key, logits)
    if jnp.shape(zeta) != logits.shape:
        raise ValueError(
            f"pathwise needs samples of the logits' shape {logits.shape}, got "
            f"{jnp.shape(zeta)} from sample(key, logits)"
        )
    shape = jax.eval_shape(family.log_prob, logits, logits).shape[:-1]
    f = differentiable(f, "pathwise differentiates f at a sample", "reinforce_loo or disarm")
    values = evaluate("pathwise", f, zeta, shape)
    return Estimate(values, values)
