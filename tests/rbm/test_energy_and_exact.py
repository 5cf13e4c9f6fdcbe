"""Energies and enumeration against float64 NumPy over all states of both sides."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import rbm
from dvae.rbm import exact

SIZES = [(3, 4), (4, 2), (1, 1)]


def machine(n1, n2, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    shapes = (n1,), (n2,), (n1, n2)
    return rbm.RBM(*(scale * rng.normal(size=s).astype(np.float32) for s in shapes))


def states(n):
    return np.array(list(itertools.product((0.0, 1.0), repeat=n)))


def table(params):
    """-E of every pair of states, float64 [2^n1, 2^n2], and the states."""
    a1, a2, w = (np.float64(p) for p in params)
    z1, z2 = states(len(a1)), states(len(a2))
    return (z1 @ a1)[:, None] + (z2 @ a2)[None] + z1 @ w @ z2.T, z1, z2


@pytest.mark.parametrize("sizes", SIZES)
def test_energy_and_free_energies(sizes):
    params = machine(*sizes)
    negative, z1, z2 = table(params)
    found = jax.jit(rbm.energy)(params, z1[:, None].astype(np.float32), z2[None].astype("f4"))
    np.testing.assert_allclose(found, -negative, rtol=1e-5, atol=1e-5)
    for f, z, axis in ((rbm.free_energy_1, z1, 1), (rbm.free_energy_2, z2, 0)):
        expected = -np.log(np.exp(negative).sum(axis))
        np.testing.assert_allclose(jax.jit(f)(params, z.astype("f4")), expected, rtol=1e-5)


@pytest.mark.parametrize("sizes", SIZES)
def test_log_z_and_moments(sizes):
    params = machine(*sizes)
    negative, z1, z2 = table(params)
    log_z = np.log(np.exp(negative).sum())
    p = np.exp(negative - log_z)
    np.testing.assert_allclose(jax.jit(exact.log_z)(params), log_z, rtol=1e-6)
    found = jax.jit(exact.moments)(params)
    np.testing.assert_allclose(found.z1, p.sum(1) @ z1, rtol=1e-4)
    np.testing.assert_allclose(found.z2, p.sum(0) @ z2, rtol=1e-4)
    np.testing.assert_allclose(found.z1_z2, z1.T @ p @ z2, rtol=1e-4)


def test_log_z_in_chunks_and_of_independent_units():
    params = machine(14, 15, seed=1)._replace(weights=np.zeros((14, 15), np.float32))
    expected = sum(np.logaddexp(0, np.float64(b)).sum() for b in params[:2])
    np.testing.assert_allclose(jax.jit(exact.log_z)(params), expected, rtol=1e-6)
    gradient = jax.jit(exact.moments)(params)
    np.testing.assert_allclose(gradient.z1, jax.nn.sigmoid(params.bias1), rtol=1e-4)


@pytest.mark.parametrize("sizes", [(2, 3), (3, 2)])
def test_exact_samples_have_the_law(sizes):
    params = machine(*sizes)
    negative, _, _ = table(params)
    p = np.exp(negative - np.log(np.exp(negative).sum())).ravel()
    num_samples = 20_000
    z1, z2 = jax.jit(exact.sample, static_argnums=2)(jax.random.key(0), params, num_samples)
    weights1, weights2 = (2 ** np.arange(n)[::-1] for n in sizes)
    index = (np.asarray(z1) @ weights1) * 2 ** sizes[1] + np.asarray(z2) @ weights2
    found = np.bincount(index.astype(int), minlength=len(p)) / num_samples
    assert np.all(np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / num_samples))


def test_strong_couplings_stay_finite():
    params = machine(4, 4, scale=40.0)
    value, gradient = jax.jit(jax.value_and_grad(exact.log_z))(params)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradient)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="at most 20 units, got 21 x 30"):
        exact.log_z(machine(21, 30))
    with pytest.raises(ValueError, match=r"weights \[n1, n2\], got shapes \(3,\), \(4,\) and"):
        rbm.energy(machine(3, 4)._replace(weights=jnp.zeros((4, 3))), jnp.ones(3), jnp.ones(4))
    with pytest.raises(ValueError, match="z2 must end in an axis of 4 units"):
        rbm.energy(machine(3, 4), jnp.ones(3), jnp.ones(3))


@pytest.mark.parametrize("name", rbm.RBM._fields)
def test_parameters_that_are_not_numbers_are_named(name):
    params = machine(2, 3)
    broken = params._replace(**{name: jnp.asarray(getattr(params, name)).at[0].set(jnp.nan)})
    key = jax.random.key(0)
    for f in (
        lambda: exact.log_z(broken),
        lambda: rbm.energy(broken, jnp.zeros(2), jnp.zeros(3)),
        lambda: rbm.gibbs.init(key, broken, 4),
        lambda: rbm.tempering.init(key, broken, 4),
        lambda: rbm.annealing.init(key, broken, 4),
        lambda: rbm.ais.log_z(key, broken),
    ):
        with pytest.raises(ValueError, match=f"{name} of the RBM has [13] entries that are NaN"):
            f()
