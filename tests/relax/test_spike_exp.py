"""`relax.spike_exp`: what the atom at zero changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.relax import spike_exp


def test_the_spike_is_exactly_zero_and_passes_no_gradient():
    rho, logits = jnp.float32([0.1, 0.4, 0.6, 0.9]), jnp.zeros(4)  # 1 - q = 1/2
    slope = jax.vmap(jax.value_and_grad(spike_exp.icdf, (0, 1, 2)), (0, 0, None))
    zeta, gradients = jax.jit(slope)(rho, logits, 4.0)
    np.testing.assert_array_equal(zeta[:2], [0, 0])
    assert np.all(zeta[2:] > 0)
    for g in gradients:
        np.testing.assert_array_equal(g[:2], [0, 0])
    assert np.all(gradients[0][2:] > 0)
    assert np.all(gradients[1][2:] > 0)


def test_icdf_is_the_formula_of_the_paper():
    rho, q, beta = np.float64([0.55, 0.8, 0.99]), 0.6, 3.0
    expected = np.log1p((rho + q - 1) / q * (np.exp(beta) - 1)) / beta
    zeta = spike_exp.icdf(jnp.float32(rho), jnp.full(3, np.log(q / (1 - q))), beta)
    np.testing.assert_allclose(zeta, expected, rtol=1e-5)


@pytest.mark.thorough
def test_frequency_of_the_spike():
    draws = spike_exp.sample(jax.random.key(0), jnp.full(50_000, -0.5), 5.0)
    p = 1 / (1 + np.exp(-0.5))
    assert abs(float(jnp.mean(draws == 0)) - p) < 5 * np.sqrt(p * (1 - p) / 50_000)


def test_no_overflow_at_large_beta():
    rho = jnp.float32([0.3, 0.50001, 0.7, 0.99])
    run = jax.vmap(jax.value_and_grad(spike_exp.icdf, (0, 1, 2)), (0, None, None))
    for beta in (79.0, 81.0, 1000.0):
        zeta, gradients = jax.jit(run)(rho, 0.0, beta)
        exact = 1 + np.log(2 * np.float64(rho[1:]) - 1) / beta  # e^{-beta} is negligible
        np.testing.assert_allclose(zeta[1:], exact, rtol=1e-5)
        assert all(np.all(np.isfinite(g)) for g in gradients)


def test_cdf_jumps_at_the_spike():
    zeta = jnp.float32([-0.1, 0.0, 1.0, 1.5])
    np.testing.assert_allclose(spike_exp.cdf(zeta, jnp.zeros(4), 3.0), [0, 0.5, 1, 1], rtol=1e-6)
