"""Keys made inside of programs are those of JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import _keys


def data_of(function, key, *args):
    """Words of the keys that a function returns, in a program."""
    return jax.random.key_data(jax.jit(function)(jax.random.clone(key), *args))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_are_those_of_jax(impl):
    key = jax.random.key(7, impl=impl)
    for number in (0, 5, 2**31 - 1, 2**32 - 1, np.int32(-3)):
        expected = jax.random.key_data(jax.random.fold_in(key, number))
        np.testing.assert_array_equal(
            data_of(lambda key, n=number: _keys.fold_in(key, n), key), expected
        )
    np.testing.assert_array_equal(
        data_of(_keys.fold_in, key, jnp.int32(9)),
        jax.random.key_data(jax.random.fold_in(key, 9)),
    )
    for num in (1, 2, 7):
        expected = jax.random.key_data(jax.random.split(jax.random.clone(key), num))
        np.testing.assert_array_equal(
            data_of(lambda key, n=num: _keys.split(key, n), key), expected
        )


def test_keys_under_vmap_are_a_loop_over_keys():
    keys = jax.random.split(jax.random.key(1), 4)
    numbers = jnp.arange(4)
    ours = jax.vmap(lambda key, i: _keys.split(_keys.fold_in(key, i), 3))(keys, numbers)
    keys = jax.random.split(jax.random.key(1), 4)
    theirs = jax.vmap(lambda key, i: jax.random.split(jax.random.fold_in(key, i), 3))(keys, numbers)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(jax.random.key_data(ours), jax.random.key_data(theirs))


def test_a_key_used_twice_is_noticed():
    def twice(key):
        return _keys.split(key), jax.random.bits(key)

    with pytest.raises(jax.errors.KeyReuseError):
        jax.jit(twice)(jax.random.key(0))


def test_a_key_is_one_operation_without_a_loop():
    function = lambda key, i: _keys.split(_keys.fold_in(key, i))
    text = jax.jit(function).lower(jax.random.key(0), jnp.int32(3)).as_text()
    assert "while" not in text
