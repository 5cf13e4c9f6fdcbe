"""AIS and population annealing on graphs against log Z by enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sparse import by_lists, by_products, on, prism, table

from dvae import boltzmann
from dvae.boltzmann import ais, annealing, exact, graphs


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("form", [by_lists, by_products])
def test_ais_agrees_with_enumeration_within_its_error(form, monkeypatch):
    form(monkeypatch)
    params = on(graphs.grid(3, 4), seed=2, scale=1.5)
    found = ais.log_z(jax.random.key(0), params, num_temperatures=60, num_chains=2_000)
    assert abs(found.value - exact.log_z(params)) < 5 * found.std_error
    assert found.std_error < 0.05
    assert 500 < found.ess <= 2_000
    other = ais.log_z(
        jax.random.key(1), params, num_temperatures=60, num_chains=2_000, base=np.zeros(12)
    )
    assert abs(other.value - exact.log_z(params)) < 5 * other.std_error


@pytest.mark.thorough
def test_few_temperatures_bound_log_z_from_below():
    params, keys = prism(scale=3.0), jax.random.split(jax.random.key(2), 1_000)
    settings = {"num_temperatures": 2, "num_chains": 2}
    values = jax.vmap(lambda k: ais.log_z(k, params, **settings).value)(keys)
    gap = exact.log_z(params) - values
    assert gap.mean() > 5 * gap.std() / np.sqrt(len(keys))
    # The mean weight has no bias, whatever the temperatures.
    ratio = np.exp(-np.float64(gap))
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(len(keys))


@pytest.mark.thorough
def test_both_modes_of_a_balanced_machine_are_found():
    # From the machine's own biases, which hold every unit at 0, half of Z would stay unseen.
    graph = graphs.complete(10)
    params = boltzmann.Machine(jnp.full(10, -4.5), jnp.ones(45), graph)
    found = ais.log_z(jax.random.key(5), params, num_temperatures=200, num_chains=1_000)
    assert abs(found.value - exact.log_z(params)) < 5 * found.std_error
    assert found.std_error < 0.1


@pytest.mark.thorough
def test_log_z_given_some_units_is_that_of_the_conditioned_machine():
    params = prism(scale=1.5)
    clamp, values = np.arange(6) % 2 == 0, np.array([1, 0, 0, 0, 1, 0])
    part, constant = boltzmann.condition(params, clamp, values)
    found = ais.log_z(jax.random.key(0), part, num_temperatures=50, num_chains=1_000)
    p, log_z, z = table(params)
    expected = np.log(p[(z[:, clamp] == values[clamp]).all(1)].sum()) + log_z
    assert abs(found.value - constant - expected) < 5 * found.std_error


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("form", [by_lists, by_products])
def test_annealing_has_the_moments_and_log_z(form, monkeypatch):
    form(monkeypatch)
    params = on(graphs.grid(3, 4), seed=4, scale=1.5)
    state, info = annealing.anneal(jax.random.key(0), params, 4_000, num_temperatures=40)
    assert abs(info.log_z - exact.log_z(params)) < 5 * info.std_error
    assert 0 < info.std_error < 0.1
    for target in (params, params._replace(weights=params.weights + 0.05)):
        if target is not params:
            state, info = annealing.step(jax.random.key(1), target, state, num_sweeps=2)
            assert abs(info.log_z - exact.log_z(target)) < 5 * info.std_error
        weights, z = np.exp(np.float64(state.log_weights)), np.float64(state.z)
        np.testing.assert_allclose(weights.mean(), 1, rtol=1e-5)
        p, _, every = table(target)
        # Chains of one family are alike; few resamplings leave about this many.
        error = 5 * z.std(0) / np.sqrt(float(info.effective_families))
        assert np.all(np.abs(weights @ z / len(z) - p @ every) < error)


@pytest.mark.thorough
def test_the_mean_of_z_has_no_bias():
    params, keys = prism(scale=2.0), jax.random.split(jax.random.key(3), 400)
    run = lambda k: annealing.anneal(k, params, 8, num_temperatures=3)[1].log_z
    ratio = np.exp(np.float64(jax.vmap(run)(keys) - exact.log_z(params)))
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(len(keys))


@pytest.mark.thorough
def test_independent_units_have_no_error():
    params = boltzmann.Machine(jnp.linspace(-2, 2, 6), jnp.zeros(9), prism().graph)
    found = ais.log_z(jax.random.key(0), params, num_temperatures=2, num_chains=8)
    np.testing.assert_allclose(found.value, exact.log_z(params), rtol=1e-6)
    np.testing.assert_allclose(found.ess, 8, rtol=1e-5)
    _, info = annealing.anneal(jax.random.key(0), params, 8, num_temperatures=2)
    np.testing.assert_allclose(info.log_z, exact.log_z(params), rtol=1e-6)


def test_long_sums_keep_their_digits():
    # 20,000 terms that fall from 1,800 to 0: a plain float32 sum would be off by 0.1.
    params = boltzmann.Machine(jnp.array([0.3, -0.7, 0.2]), jnp.zeros(0), boltzmann.Graph(3, []))
    settings = {"num_temperatures": 20_000, "num_chains": 2, "base": jnp.full(3, 600.0)}
    found = ais.log_z(jax.random.key(0), params, **settings)
    np.testing.assert_allclose(found.value, exact.log_z(params), atol=1e-3)


def test_small_changes_of_a_large_log_z_are_not_lost():
    # Each update adds 1e-4 to a log Z of 5,000, whose neighbors in float32 are 5e-4 away.
    bias = jnp.array([0.0, 0.0, 5_000.0])
    params = boltzmann.Machine(bias, jnp.zeros(0), boltzmann.Graph(3, []))
    state = annealing.AnnealingState(
        z=jnp.ones((2, 3)),
        log_weights=jnp.zeros(2),
        log_z=jnp.float32(5_000),
        lost=jnp.float32(0),
        family=jnp.arange(2, dtype=jnp.int32),
        params=params,
    )

    def raise_bias(state, t):
        new = params._replace(bias=bias.at[:2].set(1e-4 * (t + 1)))
        return annealing.step(jax.random.fold_in(jax.random.key(1), t), new, state)

    after, _ = jax.jit(lambda s: jax.lax.scan(raise_bias, s, jnp.arange(2_000)))(state)
    rise = np.float64(after.log_z) - 5_000 - np.float64(after.lost)
    np.testing.assert_allclose(rise, 2 * (np.logaddexp(0, 0.2) - np.log(2)), atol=1e-4)


@pytest.mark.thorough
def test_estimates_of_traced_parameters_that_are_nan_are_nan():
    params = prism()
    settings = {"num_temperatures": 3}
    estimates = {
        "ais": lambda p: ais.log_z(jax.random.key(0), p, num_chains=4, **settings)[:2],
        "anneal": lambda p: annealing.anneal(jax.random.key(0), p, 4, **settings)[1].log_z,
        "exact": exact.log_z,
    }
    broken = params._replace(weights=params.weights.at[3].set(jnp.nan))
    for name, f in estimates.items():
        assert all(np.isnan(x) for x in jax.tree.leaves(jax.jit(f)(broken))), name
    base = jnp.full(6, jnp.nan)
    found = jax.jit(lambda b: ais.log_z(jax.random.key(0), params, num_chains=4, base=b))(base)
    assert np.isnan(found.value)


def test_mistakes_are_named():
    params, key = prism(), jax.random.key(0)
    with pytest.raises(ValueError, match="num_temperatures must be at least 1, got 0"):
        ais.log_z(key, params, num_temperatures=0)
    with pytest.raises(ValueError, match="num_chains must be at least 2"):
        ais.log_z(key, params, num_chains=1)
    with pytest.raises(ValueError, match=r"logits of 6 units, got shape \(5,\)"):
        ais.log_z(key, params, base=np.zeros(5))
    with pytest.raises(ValueError, match="base has 6 entries that are NaN or infinite"):
        ais.log_z(key, params, base=np.full(6, np.inf))
    with pytest.raises(ValueError, match="num_chains must be at least 2"):
        annealing.init(key, params, 1)
    state = annealing.init(key, params, 4, num_temperatures=2)
    with pytest.raises(ValueError, match="the graphs must be equal"):
        annealing.step(key, on(boltzmann.Graph(6, [(0, 1)])), state)
    with pytest.raises(ValueError, match="do not fit each other"):
        annealing.step(key, params, state._replace(log_weights=jnp.zeros(3)))


def test_the_error_of_a_single_family_is_one():
    params = prism()
    state = annealing.init(jax.random.key(0), params, 4, num_temperatures=2)
    one = state._replace(family=jnp.zeros(4, jnp.int32))
    _, info = annealing.step(jax.random.key(1), params, one)
    np.testing.assert_allclose(info.std_error, 1, rtol=1e-6)


def test_the_report_is_that_of_all_moves():
    graph, num_moves, key = graphs.grid(3, 3), 8, jax.random.key(3)
    degrees = np.bincount(graph.edges.ravel(), minlength=9)
    params = boltzmann.Machine(jnp.asarray(-4.0 * degrees, jnp.float32), jnp.full(12, 8.0), graph)
    key_start, key_move = jax.random.split(key)
    base = annealing.centered_bias(params)
    state = annealing.AnnealingState(
        z=boltzmann.gibbs.init(key_start, params._replace(bias=base), 32).z,
        log_weights=jnp.zeros(32),
        log_z=jnp.zeros(()),
        lost=jnp.zeros(()),
        family=jnp.arange(32, dtype=jnp.int32),
        params=params._replace(bias=base, weights=jnp.zeros_like(params.weights)),
    )
    infos = []
    for i in range(num_moves):
        b = (i + 1) / num_moves
        target = params._replace(bias=base + b * (params.bias - base), weights=b * params.weights)
        state, info = annealing.step(jax.random.fold_in(key_move, i), target, state)
        infos.append(info)
    clone = jax.random.clone(key)
    _, found = annealing.anneal(clone, params, 32, num_temperatures=num_moves)
    ess, resampled = (np.array([getattr(x, name) for x in infos]) for name in ("ess", "resampled"))
    np.testing.assert_array_equal(resampled, ess < 32 / 2)
    assert ess.min() < ess[-1]
    assert 0 < resampled.mean() < 1
    np.testing.assert_allclose(found.ess, ess.min(), rtol=1e-4)
    np.testing.assert_allclose(found.resampled, resampled.mean(), rtol=1e-6)
