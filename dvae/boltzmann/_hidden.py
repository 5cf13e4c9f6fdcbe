"""What hidden units add to the KL: see `kl.hierarchical`."""

import jax
import jax.numpy as jnp

from dvae._numerics import softplus_rise
from dvae.boltzmann import _cover, _sums
from dvae.boltzmann._cover import Cover, Hidden
from dvae.boltzmann._machine import Machine, dtype_of


def term(
    found: Cover, params: Machine, mu: jax.Array, known: jax.Array, samples: jax.Array
) -> jax.Array:
    """Evaluates the mean of G over samples, with the gradients of machine and probabilities.

    Args:
        found: Cover.
        params: Machine.
        mu: [..., m] of the covered units, group after group; not used.
        known: [..., m] their probabilities given all zeta.
        samples: [S, ..., n] bits.

    Returns:
        [...] nats.
    """
    del mu
    parts = _cover.hidden(params.graph, found)
    dtype = jnp.promote_types(dtype_of(params), known.dtype)
    z = jnp.moveaxis(jax.lax.stop_gradient(samples).astype(dtype), -1, 0)  # [n, S, ...]
    value = jnp.mean(_energy(parts, params, dtype, z), axis=0)
    slopes = _slopes(parts, jax.lax.stop_gradient(params), dtype, z)  # [n, ...]
    means = jnp.moveaxis(known.astype(dtype), -1, 0)
    # In value exactly 0.
    change = means - jax.lax.stop_gradient(means)
    return value + jnp.sum(_sums.rows(slopes, found.units) * change, axis=0)


def _fields(parts: Hidden, weights: jax.Array, bias: jax.Array, z: jax.Array) -> jax.Array:
    """Evaluates the logits of the summed units given all others, [s, S, ...]."""
    own, other = parts.ends.T
    terms = _expand(weights[parts.inner], z) * _sums.rows(z, other)
    sums = jax.ops.segment_sum(terms, own, len(parts.summed))
    return _expand(bias[parts.summed], z) + sums


def _energy(parts: Hidden, params: Machine, dtype: jnp.dtype, z: jax.Array) -> jax.Array:
    """Evaluates E(v, h) - E(v, 0) of the drawn h with the summed ones summed out, [S, ...]."""
    bias, weights = params.bias.astype(dtype), params.weights.astype(dtype)
    i, j = params.graph.edges[parts.pairs].T
    pairs = _expand(weights[parts.pairs], z) * _sums.rows(z, i) * _sums.rows(z, j)
    linear = _expand(bias[parts.drawn], z) * _sums.rows(z, parts.drawn)
    summed = jax.nn.softplus(_fields(parts, weights, bias, z))
    return -pairs.sum(0) - linear.sum(0) - summed.sum(0)


def _slopes(parts: Hidden, params: Machine, dtype: jnp.dtype, z: jax.Array) -> jax.Array:
    """Evaluates G at v_i = 1 less G at v_i = 0 for all units, from h ~ p(h | v): [n, ...]."""
    bias, weights = params.bias.astype(dtype), params.weights.astype(dtype)
    sign = 1 - 2 * z  # of the change of a bit that is flipped
    # The fall of the energy where unit i alone is flipped: by its drawn neighbors,
    fall = jnp.zeros_like(z)
    for own, other in (params.graph.edges[parts.pairs].T, params.graph.edges[parts.pairs].T[::-1]):
        terms = _expand(weights[parts.pairs], z) * _sums.rows(z, other)
        fall = fall.at[own].add(_sums.rows(sign, own) * terms)
    # and by those that are summed out.
    own, other = parts.ends.T
    logits = _sums.rows(_fields(parts, weights, bias, z), own)
    step = _sums.rows(sign, other) * _expand(weights[parts.inner], z)
    fall = fall.at[other].add(softplus_rise(logits, logits + step))
    num_samples = z.shape[1]
    mean = jax.nn.logsumexp(fall, axis=1) - jnp.log(jnp.asarray(num_samples, dtype))
    return -sign[:, 0] * mean


def _expand(x: jax.Array, z: jax.Array) -> jax.Array:
    return x.reshape(-1, *(1,) * (z.ndim - 1))
