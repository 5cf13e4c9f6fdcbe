"""Two million words of noise, and as many bits: fused rounds against the loop JAX runs on CPUs.

    python benchmarks/noise.py

`_numerics.random_bits` against `jax.random.bits`, which draws the same words.
"""

import functools

import jax
import jax.numpy as jnp
from _timing import Comparison, compare, show

from dvae import _numerics
from dvae.rbm import gibbs

SHAPE = (1_000, 2_000)


def bits() -> Comparison:
    """The words themselves."""
    key = jax.random.key(0)
    ours = jax.jit(lambda key: _numerics.random_bits(key, SHAPE))
    plain = jax.jit(lambda key: jax.random.bits(key, SHAPE, jnp.uint32))
    calls = {
        "_numerics.random_bits": functools.partial(ours, key),
        "jax.random.bits": functools.partial(plain, key),
    }
    return compare(f"{SHAPE[0]} x {SHAPE[1]} random words", calls)


def draws() -> Comparison:
    """Bits with given logits."""
    key, logits = jax.random.key(0), jax.random.normal(jax.random.key(1), SHAPE)
    ours = jax.jit(gibbs.draw)
    plain = jax.jit(lambda key, logits: jax.random.bernoulli(key, jax.nn.sigmoid(logits)))
    calls = {
        "rbm.gibbs.draw": functools.partial(ours, key, logits),
        "jax.random.bernoulli": functools.partial(plain, key, logits),
    }
    return compare(f"{SHAPE[0]} x {SHAPE[1]} bits with given logits", calls)


def comparisons() -> list[Comparison]:
    """Times both."""
    return [bits(), draws()]


if __name__ == "__main__":
    show(comparisons())
