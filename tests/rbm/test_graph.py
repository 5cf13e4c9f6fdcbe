"""General Boltzmann machines: colorings, energies, and block Gibbs against enumeration."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_energy_and_exact import machine, states

from dvae import rbm
from dvae.rbm import graph

NUM_CHAINS = 20_000
STATES = states(6)


EDGES = [(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5), (0, 3), (1, 4), (2, 5)]


def prism():
    """The adjacency of two triangles joined by three edges, which takes 3 colors."""
    adjacency = np.zeros((6, 6), bool)
    adjacency[tuple(np.transpose(EDGES))] = True
    return adjacency | adjacency.T


def frustrated():
    """Antiferromagnetic triangles: no state satisfies all of their edges."""
    rng = np.random.default_rng(1)
    bias, weights = rng.normal(size=6), np.triu(-2.0 + rng.normal(size=(6, 6)))
    weights = np.where(prism(), weights + weights.T, 0)
    return graph.BoltzmannMachine(bias.astype(np.float32), weights.astype(np.float32))


ADJACENCY = prism()
COLORS = (0, 1, 2, 1, 2, 0)
PARAMS = frustrated()


def table(params):
    """float64 probabilities of the states, and log Z."""
    b, w = (np.float64(p) for p in params)
    negative = STATES @ b + sum(w[i, j] * STATES[:, i] * STATES[:, j] for i, j in EDGES)
    log_z = np.log(np.exp(negative).sum())
    return np.exp(negative - log_z), log_z


@functools.partial(jax.jit, static_argnames=("colors", "num_sweeps"))
def step(key, params, z, *, colors=COLORS, num_sweeps=1):
    return graph.step(key, params, graph.GraphState(z), colors=colors, num_sweeps=num_sweeps)


def assert_law(params, z):
    p, _ = table(params)
    index = np.asarray(z, np.float64) @ 2 ** np.arange(6)[::-1]
    found = np.bincount(index.astype(int), minlength=64) / len(z)
    error = np.sqrt(p * (1 - p) / len(z))
    assert np.all(np.abs(found - p) < 5 * error)


def test_energy_log_z_and_moments():
    params = PARAMS
    p, log_z = table(params)
    energies = jax.jit(graph.energy)(params, STATES.astype(np.float32))
    np.testing.assert_allclose(energies, -np.log(p) - log_z, atol=1e-5)
    np.testing.assert_allclose(jax.jit(graph.log_z)(params), log_z, rtol=1e-6)
    found = jax.jit(graph.moments)(params)
    np.testing.assert_allclose(found.z, p @ STATES, rtol=1e-4)
    np.testing.assert_allclose(found.z_z, STATES.T @ (p[:, None] * STATES), rtol=1e-4)


@pytest.mark.thorough
def test_chains_start_from_the_biases_and_reach_the_law():
    start = jax.jit(graph.init, static_argnums=2)(jax.random.key(0), PARAMS, NUM_CHAINS)
    error = np.std(start.z, 0) / np.sqrt(NUM_CHAINS)
    p = 1 / (1 + np.exp(-np.float64(PARAMS.bias)))
    assert np.all(np.abs(np.asarray(start.z).mean(0, np.float64) - p) < 5 * error)
    state, info = step(jax.random.key(1), PARAMS, start.z, num_sweeps=50)
    assert_law(PARAMS, state.z)
    np.testing.assert_allclose(info.flips, np.mean(state.z != start.z), rtol=1e-6)


def test_one_sweep_leaves_the_law_invariant():
    p, _ = table(PARAMS)
    index = np.random.default_rng(0).choice(64, size=NUM_CHAINS, p=p)
    state, info = step(jax.random.key(2), PARAMS, STATES[index].astype(np.float32))
    assert_law(PARAMS, state.z)
    assert 0 < info.flips < 1


def test_colors_are_those_of_the_graph():
    colors = graph.color(ADJACENCY)
    assert colors.max() == 2
    assert np.all(colors[:, None] != colors[None], where=ADJACENCY)
    rng = np.random.default_rng(0)
    for density in (0.0, 0.1, 0.3, 0.7, 1.0):
        upper = np.triu(rng.random((30, 30)) < density, 1)
        adjacency = upper | upper.T
        colors = graph.color(adjacency)
        assert np.all(colors[:, None] != colors[None], where=adjacency)
        assert set(colors) == set(range(colors.max() + 1))
        assert colors.max() <= adjacency.sum(1).max()
    assert np.array_equal(np.sort(colors), np.arange(30))  # the complete graph


def test_bipartite_graphs_have_two_colors():
    # Trees and even cycles among them; a greedy coloring in the order of labels would need more.
    rng = np.random.default_rng(1)
    for _ in range(20):
        left = rng.random(24) < 0.5
        adjacency = np.triu(rng.random((24, 24)) < 0.12, 1) & (left[:, None] != left[None])
        assert graph.color(adjacency | adjacency.T).max() <= 1


def test_an_rbm_has_its_sides_as_colors_and_its_energies():
    params = machine(3, 5)
    embedded = graph.from_rbm(params)
    colors = graph.color(np.asarray(embedded.weights) != 0)
    assert np.array_equal(colors == colors[-1], np.arange(8) >= 3)
    assert colors.max() == 1
    z1, z2 = states(3).astype(np.float32), states(5).astype(np.float32)
    pairs = np.concatenate([np.repeat(z1, len(z2), 0), np.tile(z2, (len(z1), 1))], 1)
    expected = jax.jit(rbm.energy)(params, z1[:, None], z2[None]).ravel()
    found = jax.jit(graph.energy)(embedded, pairs)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_jitted_or_eager_steps_are_the_same_bits():
    z = np.float32(np.random.default_rng(0).random((7, 6)) < 0.5)
    eager, _ = graph.step(jax.random.key(1), PARAMS, graph.GraphState(z), colors=np.array(COLORS))
    jitted, _ = step(jax.random.key(1), PARAMS, z)
    np.testing.assert_array_equal(eager.z, jitted.z)
    assert set(np.unique(eager.z)) <= {0.0, 1.0}


def test_half_precision_is_kept():
    def run(params):
        key_start, key_step = jax.random.split(jax.random.key(0))
        state = graph.init(key_start, params, 3)
        return graph.step(key_step, params, state, colors=COLORS), graph.energy(params, state.z)

    (state, _), energy = jax.eval_shape(run, jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS))
    assert state.z.dtype == jnp.bfloat16
    assert energy.dtype == jnp.float32


def test_without_edges_one_color_draws_from_the_biases():
    params = PARAMS._replace(weights=np.zeros((6, 6), np.float32))
    z = np.zeros((NUM_CHAINS, 6), np.float32)
    state, _ = step(jax.random.key(3), params, z, colors=(0,) * 6)
    assert_law(params, state.z)


def test_projection_makes_a_machine_and_its_gradient_stays_on_edges():
    rng = np.random.default_rng(2)
    free = PARAMS._replace(weights=rng.normal(size=(6, 6)).astype(np.float32))

    def energy(free):
        params = graph.on_edges(free, ADJACENCY)
        return graph.energy(params, jnp.ones(6)), params.weights

    gradient, weights = jax.jit(jax.grad(energy, has_aux=True))(free)
    np.testing.assert_array_equal(gradient.weights, np.where(ADJACENCY, -0.5, 0))
    expected = np.where(ADJACENCY, (free.weights + free.weights.T) / 2, 0)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_mistakes_are_named():
    params, state = PARAMS, graph.GraphState(np.zeros((2, 6), np.float32))
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"got True at \(0, 1\) and False at \(1, 0\)"):
        graph.color(np.triu(ADJACENCY))
    with pytest.raises(ValueError, match=r"zero diagonal, got True at \(0, 0\)"):
        graph.color(ADJACENCY | np.eye(6, dtype=bool))
    with pytest.raises(ValueError, match=r"adjacency must be \[n, n\], got shape \(2, 6\)"):
        graph.color(ADJACENCY[:2])
    with pytest.raises(ValueError, match="units 0 and 1 have a weight and share color 0"):
        graph.step(key, params, state, colors=(0, 0, 1, 0, 1, 2))
    with pytest.raises(ValueError, match=r"colors must be 6 integers, got int64 \(5,\)"):
        graph.step(key, params, state, colors=(0, 1, 2, 0, 1))
    with pytest.raises(ValueError, match="colors must be static"):
        jax.jit(lambda c: graph.step(key, params, state, colors=c))(COLORS)
    with pytest.raises(ValueError, match="num_sweeps must be at least 1, got 0"):
        graph.step(key, params, state, colors=COLORS, num_sweeps=0)
    with pytest.raises(ValueError, match="num_chains must be at least 1, got 0"):
        graph.init(key, params, 0)
    with pytest.raises(ValueError, match="z must end in an axis of 6 units"):
        graph.energy(params, np.ones(5))
    with pytest.raises(ValueError, match=r"got shapes \(5,\) and \(6, 6\)"):
        graph.energy(params._replace(bias=np.zeros(5)), np.ones(5))
    with pytest.raises(ValueError, match="symmetric with a zero diagonal"):
        graph.log_z(params._replace(weights=np.eye(6)))
    with pytest.raises(ValueError, match="at most 20 units, got 21"):
        graph.log_z(graph.BoltzmannMachine(np.zeros(21), np.zeros((21, 21))))
    with pytest.raises(ValueError, match="adjacency is of 6 units"):
        graph.on_edges(graph.BoltzmannMachine(np.zeros(5), np.zeros((5, 5))), ADJACENCY)
