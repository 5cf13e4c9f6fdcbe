"""Weighted populations: resampling, and the families that are left."""

import jax
import jax.numpy as jnp


def comb(u: jax.Array, log_weights: jax.Array) -> jax.Array:
    """Finds the weight under each of the teeth (i + u) / R, u in [0, 1)."""
    num_chains = log_weights.shape[0]
    cumulative = jnp.cumsum(jax.nn.softmax(log_weights.astype(jnp.float32)))
    teeth = (jnp.arange(num_chains, dtype=jnp.float32) + u) * (cumulative[-1] / num_chains)
    # R - 1 + u may round to R: that tooth would miss every weight, and land on the last, even a 0.
    teeth = jnp.minimum(teeth, jnp.nextafter(cumulative[-1], jnp.float32(0)))
    return jnp.searchsorted(cumulative, teeth, side="right").astype(jnp.int32)


def families_of(family: jax.Array, log_weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Evaluates sum_f s_f^2 and the number of families that have a chain."""
    num_chains = family.shape[0]
    shares = jax.ops.segment_sum(jnp.exp(log_weights) / num_chains, family, num_chains)
    sizes = jax.ops.segment_sum(jnp.ones_like(family), family, num_chains)
    return jnp.sum(shares**2), jnp.sum(sizes > 0, dtype=jnp.int32)
