"""Each check of `dvae._checks`: what it refuses, and in which words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import _checks


@pytest.mark.parametrize(
    "value", [0, -1.0, float("nan"), np.float32(-2), np.int64(0), np.array(0.0)]
)
def test_check_positive_refuses_numbers_that_are_not(value):
    with pytest.raises(ValueError, match="temperature must be positive, got"):
        _checks.check_positive("temperature", value)


@pytest.mark.parametrize("value", [-0.5, 1.5, float("nan"), np.float32(2), np.array(2.0)])
def test_check_unit_refuses_numbers_outside(value):
    with pytest.raises(ValueError, match="rho must be between 0 and 1, got"):
        _checks.check_unit("rho", value)


def test_check_unit_lets_numbers_inside_and_arrays_pass():
    for value in (0, 0.5, 1.0, 2 * jnp.ones(2)):
        _checks.check_unit("rho", value)


def test_old_keys_come_with_their_remedy():
    with pytest.raises(TypeError, match=r"got uint32; .*jax\.random\.wrap_key_data\(key\)"):
        _checks.check_key(jax.random.PRNGKey(0))


def test_check_positive_lets_traced_values_pass():
    jax.jit(lambda t: (_checks.check_positive("temperature", t), t)[1])(jnp.float32(-1))
