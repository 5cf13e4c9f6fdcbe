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
    a1, a2, w = (np.asarray(p, np.float64) for p in params)
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


def free_energies(params):
    """-F of all left states, float64, bit i of a state its unit i."""
    a1, a2, w = (np.float64(p) for p in params)
    z1 = (np.arange(2 ** len(a1))[:, None] >> np.arange(len(a1))) & 1
    return z1, z1 @ a1 + np.logaddexp(0, a2[None] + z1 @ w).sum(1)


@pytest.mark.thorough
def test_states_of_twenty_units_are_drawn_by_their_own_noise():
    # Noise 2e-5 (of the distance to 0 or 1) inside the float64 probabilities of a state's bits must
    # give the state: so each of the probabilities is right to about 20 x 2e-5.
    params = machine(20, 24, seed=7, scale=0.3)
    z1, log_weights = free_energies(params)
    sums, ones = [log_weights - log_weights.max()], []
    for _ in range(20):
        low, high = sums[-1][0::2], sums[-1][1::2]
        ones.insert(0, 1 / (1 + np.exp(low - high)))
        sums.append(np.logaddexp(low, high))
    index = np.random.default_rng(0).choice(2**20, 50_000, replace=False)
    noise = []
    for depth, probability in enumerate(ones):
        p, bit = probability[index >> (20 - depth)], z1[index, 19 - depth]
        noise.append(p + 2e-5 * np.where(bit, -p, 1 - p))
    found = jax.jit(exact._descend)(np.float32(noise), np.float32(log_weights))
    assert np.all(found == z1[index])


@pytest.mark.thorough
def test_rare_states_are_drawn_alike():
    # A hundredth of the mass lies on 2^20 equal states, of 1e-8 each. Cumulated in float32 only one
    # in six would be drawn, six times as often, and pairs of equal samples be six times as many.
    n, share = 20, 0.01
    weights = np.zeros((n, n), np.float32)
    weights[:, 0] = 12.0
    bias2 = np.zeros(n, np.float32)
    bias2[0] = np.log(share / (1 - share)) + n * (np.log1p(np.exp(-12.0)) - np.log(2))
    params = rbm.RBM(np.full(n, -12.0, np.float32), bias2, weights)
    z1, z2 = exact.sample(jax.random.key(0), params, 300_000)
    rare = np.asarray(z1)[np.asarray(z2)[:, 0] == 1]
    assert abs(len(rare) - 3_000) < 5 * np.sqrt(3_000)
    _, counts = np.unique(rare @ 2 ** np.arange(n), return_counts=True)
    expected = len(rare) ** 2 / 2 / 2**n
    assert abs((counts * (counts - 1) // 2).sum() - expected) < 5 * np.sqrt(expected)


@pytest.mark.thorough
def test_log_z_of_twenty_units_keeps_float32():
    params = machine(20, 24, seed=8, scale=0.3)
    _, log_weights = free_energies(params)
    top = log_weights.max()
    log_z = top + np.log(np.exp(log_weights - top).sum())
    np.testing.assert_allclose(exact.log_z(params), log_z, rtol=3e-7)


def test_doubles_are_computed_as_doubles():
    with jax.enable_x64(True):
        params = rbm.RBM(*(jnp.asarray(p, jnp.float64) for p in machine(4, 6)))
        negative, z1, z2 = table(params)
        np.testing.assert_allclose(exact.log_z(params), np.log(np.exp(negative).sum()), rtol=1e-14)
        energies = rbm.energy(params, z1[:, None], z2[None])
        np.testing.assert_allclose(energies, -negative, rtol=1e-13, atol=1e-13)
        large = params._replace(bias1=1e300 * params.bias1)
        assert np.isfinite(exact.log_z(large))
    with pytest.raises(ValueError, match="bias1 of the RBM has 4 entries that are NaN or inf"):
        exact.log_z(large._replace(bias1=np.full(4, 1e300)))


def test_no_samples_are_none():
    z1, z2 = exact.sample(jax.random.key(0), machine(3, 4), 0)
    assert (z1.shape, z2.shape) == ((0, 3), (0, 4))


def test_strong_couplings_stay_finite():
    params = machine(4, 4, scale=40.0)
    value, gradient = jax.jit(jax.value_and_grad(exact.log_z))(params)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradient)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"at most 20 units, got 21 x 30; .* rbm\.ais, "):
        exact.log_z(machine(21, 30))
    with pytest.raises(ValueError, match=r"weights \[n1, n2\], got shapes \(3,\), \(4,\) and"):
        rbm.energy(machine(3, 4)._replace(weights=jnp.zeros((4, 3))), jnp.ones(3), jnp.ones(4))
    with pytest.raises(ValueError, match="z2 must end in an axis of 4 units"):
        rbm.energy(machine(3, 4), jnp.ones(3), jnp.ones(3))
    for f in (rbm.logits_1, rbm.free_energy_2):
        with pytest.raises(ValueError, match=r"z2 must end in .* 4 units, got shape \(3,\)"):
            f(machine(3, 4), jnp.ones(3))
    for f in (rbm.logits_2, rbm.free_energy_1):
        with pytest.raises(ValueError, match=r"z1 must end in .* 3 units, got shape \(\)"):
            f(machine(3, 4), 1.0)
    with pytest.raises(ValueError, match="num_samples must be at least 0, got -1"):
        exact.sample(jax.random.key(0), machine(3, 4), -1)


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


@pytest.mark.parametrize(
    "function",
    [
        rbm.energy,
        lambda params, z1, z2: rbm.free_energy_1(params, z1),
        lambda params, z1, z2: rbm.free_energy_2(params, z2),
        lambda params, z1, z2: rbm.logits_1(params, z2),
        lambda params, z1, z2: rbm.kl.hierarchical(params, [z1, z2], [z1, z2], 0.0),
        lambda params, z1, z2: rbm.relaxed.gaussian_integral_log_prob(
            params, jnp.concatenate([z1, z2], -1), 9.0, 0.0
        ),
    ],
)
def test_products_are_as_precise_as_float32(function):
    """On accelerators the default is not: an energy of 300 nats would be off by a tenth."""
    params = machine(3, 4)
    lowered = jax.jit(function).lower(params, jnp.zeros((2, 3)), jnp.zeros((2, 4)))
    products = [line for line in lowered.as_text().splitlines() if "dot_general" in line]
    assert products
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)
