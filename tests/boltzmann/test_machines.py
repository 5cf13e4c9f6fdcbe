"""Energies, enumeration and conditioning of machines on graphs, against edge-by-edge tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sparse import by_lists, by_products, minus_energy, on, prism, states, table

from dvae import boltzmann, rbm
from dvae.boltzmann import exact, graphs

FORMS = [by_lists, by_products]


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("form", FORMS)
def test_energies_and_logits(form, monkeypatch):
    form(monkeypatch)
    params, z = prism(), states(6)
    found = boltzmann.energy(params, np.float32(z))
    np.testing.assert_allclose(found, -minus_energy(params, z), rtol=1e-5, atol=1e-5)
    # The logit of a unit is what its flip takes from the energy.
    logits = np.asarray(boltzmann.logits(params, np.float32(z)))
    for i in range(6):
        one, zero = z.copy(), z.copy()
        one[:, i], zero[:, i] = 1, 0
        expected = minus_energy(params, one) - minus_energy(params, zero)
        np.testing.assert_allclose(logits[:, i], expected, rtol=1e-5, atol=1e-5)
    # Relaxed bits, leading axes, and the gradient with respect to all of them.
    relaxed = np.random.default_rng(0).random((2, 3, 6)).astype(np.float32)
    f = lambda params, z: boltzmann.energy(params, z).sum()
    value, (gradient, slope) = jax.value_and_grad(f, (0, 1))(params, relaxed)
    flat = relaxed.reshape(-1, 6)
    np.testing.assert_allclose(value, -minus_energy(params, flat).sum(), rtol=1e-5)
    np.testing.assert_allclose(gradient.bias, -flat.sum(0), rtol=1e-5)
    i, j = params.graph.edges.T
    np.testing.assert_allclose(gradient.weights, -(flat[:, i] * flat[:, j]).sum(0), rtol=1e-5)
    np.testing.assert_allclose(slope, -boltzmann.logits(params, relaxed), rtol=1e-4, atol=1e-5)


@pytest.mark.many_cases
@pytest.mark.parametrize("form", FORMS)
def test_log_z_and_moments(form, monkeypatch):
    form(monkeypatch)
    params = prism(scale=1.5)
    p, log_z, z = table(params)
    np.testing.assert_allclose(exact.log_z(params), log_z, rtol=1e-6)
    moments = exact.moments(params)
    np.testing.assert_allclose(moments.z, p @ z, rtol=1e-4)
    i, j = params.graph.edges.T
    np.testing.assert_allclose(moments.z_z, p @ (z[:, i] * z[:, j]), rtol=1e-4)


def test_an_rbm_is_a_machine_on_a_bipartite_graph():
    rng = np.random.default_rng(0)
    params = rbm.RBM(*(jnp.float32(rng.normal(size=s)) for s in (3, 5, (3, 5))))
    machine = boltzmann.from_rbm(params)
    z = states(8)
    expected = rbm.energy(params, jnp.float32(z[:, :3]), jnp.float32(z[:, 3:]))
    np.testing.assert_allclose(boltzmann.energy(machine, z), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(exact.log_z(machine), rbm.exact.log_z(params), rtol=1e-6)
    centered = jnp.concatenate(rbm.centered_biases(params))
    np.testing.assert_allclose(boltzmann.centered_bias(machine), centered, rtol=1e-5, atol=1e-6)


@pytest.mark.many_cases
@pytest.mark.parametrize("form", FORMS)
def test_a_conditioned_machine_has_the_energies_of_the_whole(form, monkeypatch):
    form(monkeypatch)
    params = prism()
    clamp = np.array([True, False, False, True, False, False])
    values = np.array([1, 7, np.nan, 0, 7, 7])  # those of free units are not used
    part, constant = boltzmann.condition(params, clamp, values)
    assert part.graph.num_units == 4
    z = states(4)
    whole = np.tile(np.where(clamp, values, 0), (16, 1))
    whole[:, ~clamp] = z
    expected = -minus_energy(params, whole)
    np.testing.assert_allclose(boltzmann.energy(part, z) + constant, expected, rtol=1e-5, atol=1e-5)
    log_sum = np.log(np.exp(-expected).sum())
    np.testing.assert_allclose(exact.log_z(part) - constant, log_sum, rtol=1e-5)
    again, _ = jax.jit(lambda v: boltzmann.condition(params, clamp, v))(jnp.float32(values))
    assert again.graph is part.graph
    # The free energy's gradient is the mean of dE/dtheta over the free units.
    f = lambda p: (lambda m, c: exact.log_z(m) - c)(*boltzmann.condition(p, clamp, values))
    gradient = jax.grad(f)(params)
    q = np.exp(-expected - log_sum)
    i, j = params.graph.edges.T
    np.testing.assert_allclose(gradient.bias, q @ whole, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradient.weights, q @ (whole[:, i] * whole[:, j]), atol=1e-5)


def test_half_precision_is_summed_in_float32():
    graph = graphs.grid(12, 12)
    params = on(graph)
    half = params._replace(bias=params.bias.astype("bfloat16"), weights=params.weights.astype("f2"))
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    z = np.random.default_rng(0).integers(0, 2, (3, 144))
    found = boltzmann.energy(half, jnp.asarray(z, jnp.bfloat16))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, boltzmann.energy(wide, z), rtol=1e-6)
    assert boltzmann.logits(half, jnp.asarray(z, jnp.bfloat16)).dtype == jnp.float32


def test_mistakes_are_named():
    params = prism()
    with pytest.raises(ValueError, match=r"bias \[6\] and weights \[9\], got shapes \(5,\)"):
        boltzmann.energy(params._replace(bias=np.zeros(5)), np.zeros(6))
    with pytest.raises(ValueError, match="weights of the machine has 9 entries that are NaN"):
        boltzmann.energy(params._replace(weights=np.full(9, np.nan)), np.zeros(6))
    with pytest.raises(ValueError, match=r"graph must be a boltzmann\.Graph, got list"):
        boltzmann.energy(params._replace(graph=[(0, 1)]), np.zeros(6))
    with pytest.raises(ValueError, match="z must end in an axis of 6 units"):
        boltzmann.energy(params, np.ones(5))
    with pytest.raises(ValueError, match="at most 20 units, got 21"):
        exact.log_z(on(graphs.grid(21)))
    clamp = np.arange(6) < 2
    with pytest.raises(ValueError, match=r"must be 0 or 1, got 0\.5 for unit 1"):
        boltzmann.condition(params, clamp, [1, 0.5, 0, 0, 0, 0])
    with pytest.raises(ValueError, match=r"clamp must be bool \[6\], .* got int64 \(6,\)"):
        boltzmann.condition(params, np.zeros(6, int), np.zeros(6))
    with pytest.raises(ValueError, match="clamp must be static"):
        jax.jit(lambda c: boltzmann.condition(params, c, np.zeros(6))[1])(clamp)
    with pytest.raises(ValueError, match="holds all 6 units: leave one free"):
        boltzmann.condition(params, np.ones(6, bool), np.zeros(6))
    with pytest.raises(ValueError, match=r"got \(2, 6\): use jax\.vmap"):
        boltzmann.condition(params, clamp, np.zeros((2, 6)))
