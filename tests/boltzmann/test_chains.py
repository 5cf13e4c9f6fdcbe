"""Chains on graphs: exact laws of Gibbs, the same chains by either sum, clamps, contracts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sparse import assert_law, by_lists, by_products, on, prism, table

from dvae import boltzmann
from dvae.boltzmann import _graph, _sums, gibbs, graphs, tempering

NUM_CHAINS = 20_000
PARAMS = prism(scale=1.5)


def exact_chains(params, num_chains, seed=0):
    p, _, z = table(params)
    index = np.random.default_rng(seed).choice(len(p), num_chains, p=p)
    return jnp.float32(z[index])


@pytest.mark.many_cases
@pytest.mark.parametrize("form", [by_lists, by_products])
def test_one_sweep_leaves_the_law_invariant(form, monkeypatch):
    form(monkeypatch)
    params = prism(scale=1.5)
    state = gibbs.GibbsState(exact_chains(params, NUM_CHAINS))
    after, info = gibbs.step(jax.random.key(2), params, state)
    assert_law(table(params)[0], after.z)
    np.testing.assert_allclose(info.flips, np.mean(after.z != state.z), rtol=1e-6)
    assert info.flips > 0.1


@pytest.mark.thorough
def test_chains_start_from_the_biases_and_reach_the_law():
    state = gibbs.init(jax.random.key(0), PARAMS, NUM_CHAINS)
    assert_law(table(PARAMS._replace(weights=jnp.zeros(9)))[0], state.z)
    state = gibbs.GibbsState(jnp.zeros_like(state.z))
    for key in jax.random.split(jax.random.key(1), 25):
        state, _ = gibbs.step(key, PARAMS, state)
    assert_law(table(PARAMS)[0], state.z)


SHAPES = {
    "prism": PARAMS.graph,
    "prism, held and tempered": PARAMS.graph,
    "complete": graphs.complete(12),  # more colors than are written out: a loop
    "star": boltzmann.Graph(90, [(0, i) for i in range(1, 90)]),  # longer lists than written out
    "no edges": boltzmann.Graph(4, []),
}


@pytest.mark.many_cases
@pytest.mark.parametrize("name", SHAPES)
def test_lists_and_products_give_the_same_chains(name, monkeypatch):
    graph = SHAPES[name]
    clamp = np.arange(graph.num_units) % 3 == 1
    found = []
    for form in (by_lists, by_products):
        form(monkeypatch)
        # Another graph of the same edges: a compiled sweep belongs to one way of summing.
        same = boltzmann.Graph(graph.num_units, graph.edges, colors=graph.colors)
        same._hash += len(found)
        params = on(same, exact=True)
        state = gibbs.init(jax.random.key(0), params, 40)
        state, _ = gibbs.step(jax.random.key(1), params, state, num_sweeps=5)
        found.append([state.z])
        if "held" not in name:
            continue
        held, _ = gibbs.step(jax.random.key(2), params, state, num_sweeps=3, clamp=clamp)
        replicas = tempering.init(jax.random.key(3), params, 8, num_temperatures=3)
        replicas, _ = tempering.step(jax.random.key(4), params, replicas, num_sweeps=4)
        found[-1] += [held.z, replicas.replicas]
        np.testing.assert_array_equal(held.z[:, clamp], state.z[:, clamp])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
        assert set(np.unique(a)) <= {0.0, 1.0}


def test_dense_graphs_use_products_and_sparse_ones_lists(monkeypatch):
    assert graphs.complete(200).is_dense
    assert graphs.bipartite(100, 100).is_dense
    assert not graphs.grid(20, 20).is_dense
    calls = []
    dense = _sums.dense
    monkeypatch.setattr(_sums, "dense", lambda *args: calls.append(0) or dense(*args))
    for graph, expected in ((graphs.grid(20, 20), 0), (graphs.complete(21), 1)):
        jax.eval_shape(boltzmann.energy, on(graph), jnp.zeros(graph.num_units))
        assert len(calls) == expected


def test_a_loop_over_colors_draws_what_the_colors_written_out_draw(monkeypatch):
    found = []
    for limit in (2, 8):
        monkeypatch.setattr(_graph, "MAX_UNROLLED", limit)
        monkeypatch.setattr("dvae.boltzmann._sweep.MAX_UNROLLED", limit)
        graph = boltzmann.Graph(7, [*PARAMS.graph.edges.tolist(), (5, 6)])
        graph._hash += limit
        params = on(graph, exact=True)
        state = gibbs.init(jax.random.key(0), params, 30)
        found.append(gibbs.step(jax.random.key(1), params, state, num_sweeps=4)[0].z)
    np.testing.assert_array_equal(*found)


@pytest.mark.many_cases
@pytest.mark.parametrize("form", [by_lists, by_products])
def test_clamped_chains_have_the_conditional_law(form, monkeypatch):
    form(monkeypatch)
    params = prism(scale=1.5)
    clamp = np.array([False, True, False, True, False, False])
    values = np.zeros((NUM_CHAINS, 6), np.float32)
    values[: NUM_CHAINS // 2, 1] = 1
    values[:, 3] = 1
    values[:, 0] = np.nan  # that of a free unit is not used
    state = gibbs.init(jax.random.key(0), params, NUM_CHAINS, clamp=clamp, values=values)
    np.testing.assert_array_equal(state.z[:, clamp], values[:, clamp])
    state, _ = gibbs.step(jax.random.key(1), params, state, num_sweeps=20, clamp=clamp)
    p, _, z = table(params)
    for part, first in ((slice(None, NUM_CHAINS // 2), 1), (slice(NUM_CHAINS // 2, None), 0)):
        given = np.where((z[:, 1] == first) & (z[:, 3] == 1), p, 0)
        assert_law(given / given.sum(), state.z[part])
    # New values of all chains at once.
    again, _ = gibbs.step(
        jax.random.key(2), params, state, num_sweeps=20, clamp=clamp, values=np.zeros(6)
    )
    given = np.where((z[:, 1] == 0) & (z[:, 3] == 0), p, 0)
    assert_law(given / given.sum(), again.z)


def test_all_units_clamped_stay():
    state = gibbs.init(jax.random.key(0), PARAMS, 5)
    after, info = gibbs.step(jax.random.key(1), PARAMS, state, clamp=np.ones(6, bool))
    np.testing.assert_array_equal(after.z, state.z)
    assert info.flips == 0


STEPS = {
    "gibbs": (gibbs.init, gibbs.step, {}),
    "tempering": (tempering.init, tempering.step, {"num_temperatures": 3}),
    "annealing": (
        boltzmann.annealing.init,
        boltzmann.annealing.step,
        {"num_temperatures": 3},
    ),
}


JITTED = {name: jax.jit(step) for name, (_, step, _) in STEPS.items()}


def start(name):
    init, _, settings = STEPS[name]
    return init(jax.random.key(0), PARAMS, 16, **settings)


@pytest.mark.many_cases
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("field", ["bias", "weights"])
def test_traced_parameters_that_are_nan_show(name, field):
    step, state = JITTED[name], start(name)
    broken = PARAMS._replace(**{field: getattr(PARAMS, field).at[-1].set(jnp.nan)})
    after, info = step(jax.random.key(1), broken, state)
    assert np.all(np.isnan(after.z))
    assert np.isnan(info.flips)
    assert np.isnan(getattr(info, "log_z", np.nan))
    again, info = step(jax.random.key(2), PARAMS, after)
    assert np.all(np.isnan(again.z)), "good parameters hide bad chains"
    assert np.isnan(info.flips)


@pytest.mark.many_cases
@pytest.mark.parametrize("value", [np.nan, 0.5, 2.0])
def test_a_chain_with_an_entry_that_is_no_bit_becomes_nan(value):
    z = start("gibbs").z.at[1, 2].set(value)
    after, info = JITTED["gibbs"](jax.random.key(1), PARAMS, gibbs.GibbsState(z))
    np.testing.assert_array_equal(np.isnan(after.z), np.arange(16)[:, None] == [[1] * 6] * 16)
    assert np.isnan(info.flips)
    # One such replica or chain leaves no estimate of log Z.
    replicas = start("tempering")
    replicas = replicas._replace(replicas=replicas.replicas.at[1, 0, 2].set(value))
    after, info = JITTED["tempering"](jax.random.key(1), PARAMS, replicas)
    np.testing.assert_array_equal(np.isnan(after.replicas).any(-1).nonzero(), [[1], [0]])
    assert np.isnan(info.log_z)
    population = start("annealing")
    population = population._replace(z=population.z.at[1, 2].set(value))
    assert np.isnan(JITTED["annealing"](jax.random.key(1), PARAMS, population)[1].log_z)
    # Of a traced clamp, too, which no check can read.
    held = jax.jit(
        lambda v: gibbs.init(jax.random.key(0), PARAMS, 16, clamp=np.arange(6) == 0, values=v)
    )
    after, _ = JITTED["gibbs"](jax.random.key(1), PARAMS, held(jnp.full(6, value)))
    assert np.all(np.isnan(after.z))


def test_weights_near_the_end_of_the_range_give_bits():
    params = PARAMS._replace(weights=1e30 * PARAMS.weights)
    after, _ = JITTED["gibbs"](jax.random.key(1), params, start("gibbs"))
    assert set(np.unique(after.z)) <= {0.0, 1.0}


@pytest.mark.many_cases
@pytest.mark.parametrize(
    ("name", "axis_type"),
    [*((name, AxisType.Explicit) for name in STEPS), ("gibbs", AxisType.Auto)],
)
def test_devices_share_chains_and_change_nothing(name, axis_type):
    step, state = JITTED[name], start(name)
    mesh = jax.make_mesh((8,), ("chains",), axis_types=(axis_type,))
    place = lambda x, *axes: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))
    per_chain = lambda x: x.ndim > 0 and x.shape[0] == 16
    sharded = jax.tree.map(lambda x: place(x, "chains") if per_chain(x) else place(x), state)
    arguments = place(jax.random.key(1)), jax.tree.map(place, PARAMS), sharded
    expected = step(jax.random.key(1), PARAMS, state)
    with jax.set_mesh(mesh):
        found = step(*arguments)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[0].z, expected[0].z)
    assert found[0].z.sharding.spec[0] == "chains"


def test_dtypes_are_kept():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    for init, step, settings in STEPS.values():
        begin = functools.partial(init, num_chains=4, **settings)
        state = jax.eval_shape(begin, jax.random.key(0), half)
        after, info = jax.eval_shape(step, jax.random.key(1), half, state)
        assert after[0].dtype == jnp.bfloat16
        assert info.flips.dtype == jnp.float32


def test_mistakes_are_named():
    key, state = jax.random.key(0), gibbs.init(jax.random.key(0), PARAMS, 3)
    clamp = np.arange(6) < 2
    for settings, match in (
        ({"num_sweeps": 0}, "num_sweeps must be at least 1, got 0"),
        ({"values": np.zeros(6)}, "values need a clamp"),
        ({"clamp": clamp[:5]}, r"clamp must be bool \[6\], .* got bool \(5,\)"),
        ({"clamp": clamp, "values": np.full(6, 0.5)}, r"must be 0 or 1, got 0\.5 for unit 0"),
        ({"clamp": clamp, "values": np.full(6, np.nan)}, "must be 0 or 1, got nan for unit 0"),
        ({"clamp": clamp, "values": np.zeros((2, 6))}, r"one for each chain, \(3, 6\), got \(2"),
        ({"clamp": clamp, "values": np.zeros(5)}, "values must end in an axis of 6 units"),
    ):
        with pytest.raises(ValueError, match=match):
            gibbs.step(key, PARAMS, state, **settings)
    with pytest.raises(ValueError, match=r"one array of shape \(3, 6\): pass what init"):
        gibbs.step(key, PARAMS, state.z)
    with pytest.raises(ValueError, match="clamp must be static"):
        jax.jit(lambda c: gibbs.step(key, PARAMS, state, clamp=c))(clamp)
    with pytest.raises(ValueError, match="pass both or none"):
        gibbs.init(key, PARAMS, 3, clamp=clamp)
    with pytest.raises(ValueError, match=r"z must be \[chains, 6\], at least 1 chain, got"):
        gibbs.step(key, PARAMS, gibbs.GibbsState(state.z[:0]))
    with pytest.raises(ValueError, match="num_chains must be at least 1, got 0"):
        gibbs.init(key, PARAMS, 0)
    with pytest.raises(ValueError, match="num_temperatures must be at least 2"):
        tempering.init(key, PARAMS, 3, num_temperatures=1)
    with pytest.raises(ValueError, match="betas must increase strictly from 0 to 1"):
        tempering.init(key, PARAMS, 3, betas=[0.0, 0.5])
    replicas = tempering.init(jax.random.key(1), PARAMS, 3, num_temperatures=2)
    with pytest.raises(ValueError, match="start chains with init"):
        tempering.step(key, PARAMS, replicas._replace(betas=jnp.zeros(3)))
