"""Keys inside of programs: what `jax.random.fold_in` and `split` return, in one small operation.

On CPUs JAX runs the rounds of its generator, Threefry-2x32, in a loop, and so does every key that
is made inside a program: a loop of ten operations, and as many kernels to compile, for two numbers.
Written out it is one kernel. Outside of programs, and for keys of other generators, both functions
are those of JAX.
"""

import jax
import jax.numpy as jnp

from dvae._numerics import is_staged, threefry

__all__ = ["fold_in", "split"]

_IMPL = "threefry2x32"


def fold_in(key: jax.Array, data: jax.typing.ArrayLike) -> jax.Array:
    """Returns `jax.random.fold_in(key, data)`.

    Args:
        key: typed PRNG key.
        data: integer [], below 2^32.
    """
    if not _written_out(key):
        return jax.random.fold_in(key, data)
    low = jnp.uint32(data)
    return _wrap(*_cipher(jax.random.key_data(key), low))


def split(key: jax.Array, num: int = 2) -> jax.Array:
    """Returns `jax.random.split(key, num)`.

    Args:
        key: typed PRNG key.
        num: of keys; static.
    """
    if not _written_out(key):
        return jax.random.split(key, num)
    jax.random.bits(key, (0,), jnp.uint32)  # draws nothing; lets `jax_debug_key_reuse` know
    return _wrap(*_cipher(jax.random.key_data(key), jnp.arange(num, dtype=jnp.uint32)))


def _written_out(key: jax.Array) -> bool:
    """Tells whether this is a single key of the generator, in a program."""
    return (
        is_staged()
        and key.ndim == 0
        and str(jax.random.key_impl(key)) == _IMPL
        and jax.threefry_partitionable.value
    )


@jax.jit
def _cipher(data: jax.Array, low: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Encrypts positions whose high word is 0."""
    return threefry(data[0], data[1], low)


def _wrap(x: jax.Array, y: jax.Array) -> jax.Array:
    # Without the barrier XLA would compute the key again in every operation that draws with it.
    words = jax.lax.optimization_barrier(jnp.stack([x, y], axis=-1))
    return jax.random.wrap_key_data(words, impl=_IMPL)
