"""The expectation itself, by enumeration: the reference for every estimator."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae import distributions
from dvae._numerics import mass_times, upcast
from dvae.estimators._estimate import Family, as_logits, evaluate, joint_log_prob

__all__ = ["exact"]


def exact(
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    family: Family = distributions.bernoulli,
) -> jax.Array:
    """Evaluates E_q[f(z)] = sum_z q(z) f(z) over all S = 2^n (categorical: C^n) states.

    Differentiable, in the logits and in what f closes over.

    Args:
        f: maps z [S, ..., n] (categorical: one-hot [S, ..., n, C]) to [S, ...]; called once.
        logits: [..., n] float (categorical: [..., n, C]).
        family: `distributions.bernoulli` or `distributions.categorical`.

    Returns:
        [...], in the dtype that f returns (integers: the default float).

    Raises:
        ValueError: if S > 2^20 (n > 20 bits), or f does not reduce z to one value a state.
    """
    logits = as_logits("exact", logits, family)
    states = family.support(logits)  # [S, n] or [S, n, C]
    num_batch_axes = logits.ndim - (states.ndim - 1)
    states = jnp.expand_dims(states, tuple(range(1, 1 + num_batch_axes)))
    z = jnp.broadcast_to(states, (states.shape[0], *logits.shape))
    log_q = joint_log_prob(z, logits, family)
    values = evaluate("exact", f, z, log_q.shape)
    return jnp.sum(mass_times(jnp.exp(log_q), upcast(values)), axis=0).astype(values.dtype)
