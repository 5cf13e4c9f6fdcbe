"""Bits of chains: drawn from noise, and compared."""

import jax
import jax.numpy as jnp

from dvae._numerics import float_dtype, upcast


def from_noise(u: jax.Array, logits: jax.Array) -> jax.Array:
    """Evaluates 1[u < sigmoid(l)], u in (0, 1) of the shape of the logits; NaN where a logit is."""
    probs = jax.nn.sigmoid(jnp.asarray(logits, jnp.float32))
    # No u is below a probability that is NaN: the bit would be an ordinary 0.
    return jnp.where(u < probs, 1, 0 * probs).astype(float_dtype(logits))


def flip_rate(before: tuple[jax.Array, ...], after: tuple[jax.Array, ...]) -> jax.Array:
    """Evaluates the fraction of bits that differ, of sides [..., n] together; NaN if a bit is."""
    changed = [
        jnp.abs(upcast(new) - upcast(old)).astype(jnp.float32).sum(-1)
        for old, new in zip(before, after, strict=True)
    ]
    num_units = sum(z.shape[-1] for z in before)
    return jnp.mean(sum(changed[1:], changed[0])) / num_units
