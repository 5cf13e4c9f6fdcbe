"""Block Gibbs: the exact law after enough sweeps, invariance, contracts and mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_energy_and_exact import machine

from dvae import rbm
from dvae.rbm import _bits, exact, gibbs

NUM_CHAINS = 20_000


def assert_moments(params, z1, z2):
    found = (z1, z2, z1[:, :, None] * z2[:, None])
    for name, samples, expected in zip("abc", found, exact.moments(params), strict=True):
        samples = np.asarray(samples, np.float64)
        error = samples.std(0) / np.sqrt(len(samples))
        assert np.all(np.abs(samples.mean(0) - expected) < 5 * error), name


def test_chains_reach_the_exact_moments():
    params = machine(4, 3)
    state = gibbs.init(jax.random.key(0), params, NUM_CHAINS)
    step = jax.jit(gibbs.step, static_argnames="num_sweeps")
    state, info = step(jax.random.key(1), params, state, num_sweeps=60)
    assert_moments(params, state.z1, state.z2)
    assert 0 < info.flips < 1


def test_one_sweep_leaves_the_law_invariant():
    params = machine(4, 3, scale=1.5)
    z1, z2 = exact.sample(jax.random.key(2), params, NUM_CHAINS)
    state, _ = jax.jit(gibbs.step)(jax.random.key(3), params, gibbs.GibbsState(z1, z2))
    assert_moments(params, state.z1, state.z2)


@pytest.mark.thorough
def test_sweeps_in_one_call_or_jitted_or_eager_are_bits_of_the_same_kind():
    params = machine(5, 6)
    state = gibbs.init(jax.random.key(0), params, 7)
    eager, _ = gibbs.step(jax.random.key(1), params, state, num_sweeps=2)
    jitted, _ = jax.jit(gibbs.step, static_argnames="num_sweeps")(
        jax.random.key(1), params, state, num_sweeps=2
    )
    for a, b in zip(eager, jitted, strict=True):
        np.testing.assert_array_equal(a, b)
        assert set(np.unique(a)) <= {0.0, 1.0}
    half = rbm.RBM(*(jnp.asarray(p, jnp.bfloat16) for p in params))
    assert gibbs.init(jax.random.key(0), half, 3).z1.dtype == jnp.bfloat16


def test_draws_have_their_probability():
    logits = jnp.array([-6.0, -1.0, 0.0, 2.0, 30.0, -30.0])
    bits = jax.jit(gibbs.draw)(jax.random.key(0), jnp.broadcast_to(logits, (200_000, 6)))
    p = np.asarray(jax.nn.sigmoid(logits), np.float64)
    error = np.sqrt(p * (1 - p) / 200_000)
    assert np.all(np.abs(np.asarray(bits).mean(0) - p) <= 5 * error)


@pytest.mark.thorough
def test_logits_that_are_nan_give_bits_that_are_nan():
    logits = jnp.array([[0.0, jnp.nan, 300.0], [-jnp.inf, jnp.inf, jnp.nan]])
    for dtype in (jnp.float32, jnp.bfloat16):
        bits = gibbs.draw(jax.random.key(0), logits.astype(dtype))
        assert bits.dtype == dtype
        np.testing.assert_array_equal(np.isnan(bits), np.isnan(logits))
        np.testing.assert_array_equal(bits[1, :2], [0, 1])
    assert gibbs.draw(jax.random.key(0), np.array([-900, 900])).tolist() == [0.0, 1.0]


def test_mistakes_are_named():
    params = machine(3, 4)
    with pytest.raises(ValueError, match="num_chains must be at least 1, got 0"):
        gibbs.init(jax.random.key(0), params, 0)
    state = gibbs.init(jax.random.key(0), params, 2)
    with pytest.raises(ValueError, match="num_sweeps must be at least 1, got 0"):
        gibbs.step(jax.random.key(0), params, state, num_sweeps=0)
    with pytest.raises(ValueError, match="the state has 3 and 4 units, the RBM 4 and 3"):
        gibbs.step(jax.random.key(0), machine(4, 3), state)
    with pytest.raises(ValueError, match=r"one array of shape \(2, 3\): pass what init"):
        gibbs.step(jax.random.key(0), params, state.z1)
    traced = jax.jit(lambda n: gibbs.step(jax.random.key(0), params, state, num_sweeps=n))
    with pytest.raises(ValueError, match="num_sweeps must be static"):
        traced(2)


def test_flips_are_counted_over_both_sides():
    before = jnp.zeros((2, 3)), jnp.zeros((2, 1))
    after = jnp.asarray([[1.0, 0, 0], [1, 1, 0]]), jnp.asarray([[1.0], [0]])
    assert _bits.flip_rate(before, after) == 4 / 8
