"""Annealed importance sampling against log Z by enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from test_energy_and_exact import machine

from dvae.rbm import RBM, ais, exact
from dvae.rbm._estimates import estimate

STATIC = ("num_temperatures", "num_chains")
log_z = jax.jit(ais.log_z, static_argnames=STATIC)
reverse_log_z = jax.jit(ais.reverse_log_z, static_argnames="num_temperatures")


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("sizes", [(5, 7), (6, 3)])
def test_agrees_with_enumeration_within_its_error(sizes):
    params = machine(*sizes, seed=2)
    found = log_z(jax.random.key(0), params, num_temperatures=100, num_chains=2_000)
    assert abs(found.value - exact.log_z(params)) < 5 * found.std_error
    assert found.std_error < 0.05
    assert 500 < found.ess <= 2_000


@pytest.mark.thorough
def test_any_base_gives_the_same_log_z():
    params = machine(5, 7, seed=3)
    base = (jnp.full(5, 0.5), jnp.full(7, -0.5))
    key = jax.random.key(1)
    found = log_z(key, params, num_temperatures=200, num_chains=2_000, base=base)
    assert abs(found.value - exact.log_z(params)) < 5 * found.std_error


@pytest.mark.thorough
def test_both_modes_of_a_balanced_machine_are_found():
    # From the machine's own biases, which hold every unit at 0, half of Z would stay unseen.
    weights = jnp.ones((10, 10))
    params = RBM(-weights.sum(1) / 2, -weights.sum(0) / 2, weights)
    found = log_z(jax.random.key(5), params, num_temperatures=300, num_chains=1_000)
    assert abs(found.value - exact.log_z(params)) < 5 * found.std_error
    assert found.std_error < 0.1


def test_few_temperatures_bracket_log_z_from_both_sides():
    params = machine(6, 6, seed=4, scale=1.5)
    truth = exact.log_z(params)
    keys, more_keys = jax.random.split(jax.random.key(2), (2, 1_000))
    forward = jax.vmap(lambda k: log_z(k, params, num_temperatures=3, num_chains=4).value)(keys)

    def backward(key):
        key_sample, key_chain = jax.random.split(key)
        z1, _ = exact.sample(key_sample, params, 4)
        return reverse_log_z(key_chain, params, z1, num_temperatures=3).value

    upper = jax.jit(jax.vmap(backward))(more_keys)
    for values, sign in ((forward, 1), (upper, -1)):
        gap = sign * (truth - np.mean(values))
        assert gap > 5 * np.std(values) / np.sqrt(len(keys))


@pytest.mark.thorough
def test_reverse_agrees_with_enumeration_within_its_error():
    params = machine(5, 6, seed=5)
    z1, _ = exact.sample(jax.random.key(3), params, 2_000)
    found = reverse_log_z(jax.random.key(4), params, z1, num_temperatures=100)
    assert abs(found.value - exact.log_z(params)) < 5 * found.std_error


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_devices_share_the_chains_and_change_nothing(axis_type):
    params, key = machine(5, 7, seed=2), jax.random.key(6)
    mesh = jax.make_mesh((8,), ("chains",), axis_types=(axis_type,))
    layout = NamedSharding(mesh, PartitionSpec("chains"))
    settings = {"num_temperatures": 20, "num_chains": 64}
    shared = jax.jit(lambda key, params: ais.log_z(key, params, **settings, sharding=layout))
    placed = jax.device_put((key, params), NamedSharding(mesh, PartitionSpec()))
    for found, expected in zip(shared(*placed), log_z(key, params, **settings), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    text = shared.lower(*placed).compile().as_text()
    assert "f32[8,7]" in text
    assert "f32[64,7]" not in text, "a device anneals all chains"


def test_independent_units_have_no_error():
    params = machine(6, 4)._replace(weights=jnp.zeros((6, 4)))
    found = log_z(jax.random.key(0), params, num_temperatures=2, num_chains=8)
    np.testing.assert_allclose(found.value, exact.log_z(params), rtol=1e-6)
    np.testing.assert_allclose(found.ess, 8, rtol=1e-5)
    np.testing.assert_allclose(found.std_error, 0, atol=1e-5)


def test_a_collapse_shows_in_the_effective_sample_size():
    params = machine(8, 8, seed=6, scale=8.0)._replace(bias1=jnp.zeros(8), bias2=jnp.zeros(8))
    found = log_z(jax.random.key(0), params, num_temperatures=1, num_chains=1_000)
    assert found.ess < 50
    assert np.isfinite(found.value)


def test_long_sums_keep_their_digits():
    # 20,000 terms that fall from 600 to 0: a plain float32 sum would be off by 3e-4.
    params = RBM(jnp.zeros(1), jnp.array([0.3, -0.7, 0.2]), jnp.zeros((1, 3)))
    base = (jnp.zeros(1), jnp.full(3, 600.0))
    found = log_z(jax.random.key(0), params, num_temperatures=20_000, num_chains=2, base=base)
    np.testing.assert_allclose(found.value, exact.log_z(params), atol=1e-4)


def test_mistakes_are_named():
    params = machine(3, 4)
    with pytest.raises(ValueError, match="num_temperatures must be at least 1, got 0"):
        ais.log_z(jax.random.key(0), params, num_temperatures=0)
    with pytest.raises(ValueError, match="num_chains must be at least 2"):
        ais.log_z(jax.random.key(0), params, num_chains=1)
    with pytest.raises(ValueError, match="base must hold the logits of 3 and 4 units"):
        ais.log_z(jax.random.key(0), params, base=(jnp.zeros(4), jnp.zeros(3)))
    with pytest.raises(ValueError, match="base of side 2 has 4 entries that are NaN or infinite"):
        ais.log_z(jax.random.key(0), params, base=(jnp.zeros(3), jnp.full(4, jnp.inf)))
    with pytest.raises(ValueError, match=r"z1 must be \[chains, 3\]"):
        ais.reverse_log_z(jax.random.key(0), params, jnp.zeros((5, 4)))


def test_the_error_of_a_few_weights():
    found = estimate(jnp.log(jnp.asarray([1.0, 3.0])), sign=1.0, log_base=jnp.zeros(()))
    np.testing.assert_allclose(found, [np.log(2), 0.5, 1.6], rtol=1e-6)
