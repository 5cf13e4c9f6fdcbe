"""What holds of every sampler: mistakes stay visible, devices may share the chains."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from test_energy_and_exact import machine

from dvae import rbm
from dvae.rbm import ais, annealing, exact, gibbs, graph, tempering

NUM_CHAINS = 16  # divisible by the 8 devices
COLORS = (0,) * 5 + (1,) * 3


class Sampler(NamedTuple):
    """A sampler of RBMs."""

    init: Callable[..., Any]
    step: Callable[..., Any]


SAMPLERS = {
    "gibbs": Sampler(gibbs.init, gibbs.step),
    "tempering": Sampler(tempering.init, tempering.step),
    "annealing": Sampler(annealing.init, annealing.step),
    "graph": Sampler(
        lambda key, params, chains: graph.init(key, graph.from_rbm(params), chains),
        lambda key, params, state: graph.step(
            key, graph.from_rbm(params), state, colors=COLORS, num_sweeps=1
        ),
    ),
}
STEPS = {name: jax.jit(sampler.step) for name, sampler in SAMPLERS.items()}


def start(name, params=None, num_chains=NUM_CHAINS):
    settings = {"num_temperatures": 3} if name in ("tempering", "annealing") else {}
    params = machine(5, 3) if params is None else params
    return SAMPLERS[name].init(jax.random.key(0), params, num_chains, **settings)


def chains_of(state):
    return (state.z,) if hasattr(state, "z") else (state.z1, state.z2)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("field", rbm.RBM._fields)
def test_traced_parameters_that_are_nan_show(name, field):
    params = machine(5, 3)
    broken = getattr(params, field).copy()
    broken.flat[-1] = np.nan
    state, info = STEPS[name](jax.random.key(1), params._replace(**{field: broken}), start(name))
    assert any(np.isnan(z).all(0).any() for z in chains_of(state))
    assert np.isnan(info.flips)
    assert np.isnan(getattr(info, "log_z", np.nan))
    again, info = STEPS[name](jax.random.key(2), params, state)
    assert all(np.isnan(z).any() for z in chains_of(again)), "good parameters hide bad chains"
    assert np.isnan(info.flips)


@pytest.mark.many_cases
@pytest.mark.parametrize("name", SAMPLERS)
def test_weights_near_the_end_of_the_range_give_bits(name):
    params = machine(5, 3)._replace(weights=np.float32(1e30) * machine(5, 3).weights)
    state, info = STEPS[name](jax.random.key(1), params, start(name))
    for z in chains_of(state):
        assert set(np.unique(z)) <= {0.0, 1.0}
    assert 0 <= info.flips <= 1


@pytest.mark.many_cases
@pytest.mark.parametrize("name", SAMPLERS)
def test_parameters_may_be_integers_doubles_and_of_several_dtypes(name):
    rng = np.random.default_rng(0)
    integers = rbm.RBM(*(rng.integers(-2, 3, size) for size in (5, 3, (5, 3))))
    mixed = rbm.RBM(
        integers.bias1, integers.bias2.astype(np.float64), jnp.asarray(integers.weights, jnp.int8)
    )
    floats = rbm.RBM(*(x.astype(np.float32) for x in integers))
    results = [
        SAMPLERS[name].step(jax.random.key(1), params, start(name, params))
        for params in (floats, integers, mixed)
    ]
    expected = jax.tree.leaves(results[0])
    for result in results[1:]:
        for a, b in zip(jax.tree.leaves(result), expected, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    # A bias of another dtype than the weights takes part in no promotion of the chains.
    half = floats._replace(weights=jnp.asarray(floats.weights, jnp.bfloat16))
    state, _ = jax.eval_shape(STEPS[name], jax.random.key(1), half, start(name, half))
    assert all(x.dtype == jnp.bfloat16 for x in state[: 1 if name == "graph" else 2])


@pytest.mark.many_cases
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("name", SAMPLERS)
def test_devices_share_chains_and_noise_and_change_nothing(name, axis_type):
    params, state = machine(5, 3), start(name)
    mesh = jax.make_mesh((8,), ("chains",), axis_types=(axis_type,))
    place = lambda x, *axes: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))
    per_chain = lambda x: x.ndim > 0 and x.shape[0] == NUM_CHAINS
    sharded = jax.tree.map(lambda x: place(x, "chains") if per_chain(x) else place(x), state)
    arguments = place(jax.random.key(1)), jax.tree.map(place, params), sharded
    expected = STEPS[name](jax.random.key(1), params, state)
    with jax.set_mesh(mesh):
        found = STEPS[name](*arguments)
        text = STEPS[name].lower(*arguments).compile().as_text()
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(chains_of(found[0]), chains_of(expected[0]), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.sharding.spec[0] == "chains"
    units = 3 if name != "tempering" else "3,3"
    assert f"u32[2,{units}]" in text
    assert f"u32[16,{units}]" not in text, "a device draws the noise of all chains"


@pytest.mark.thorough
def test_a_part_of_the_state_that_is_the_same_on_all_devices_stays_so():
    # Of a ladder that all shards share: check_vma would refuse it as an output otherwise.
    params, state = machine(5, 3), start("tempering")
    mesh = jax.make_mesh((2,), ("chains",), axis_types=(AxisType.Auto,))
    shard, whole = PartitionSpec("chains"), PartitionSpec()

    def step(key, params, state):
        key = jax.random.fold_in(key, jax.lax.axis_index("chains"))
        return tempering.step(key, params, state)[0]

    places = tempering.TemperingState(shard, shard, whole, whole)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(whole, whole, places), out_specs=places)
    after = jax.eval_shape(mapped, jax.random.key(1), params, state)
    assert after.replicas1.shape == state.replicas1.shape


@pytest.mark.thorough
@pytest.mark.parametrize("name", SAMPLERS)
def test_states_without_chains_are_refused(name):
    state = jax.tree.map(
        lambda x: x[:0] if jnp.ndim(x) and len(x) == NUM_CHAINS else x, start(name)
    )
    with pytest.raises(ValueError, match=r"at least [12]( chain|, got shapes \(0, )"):
        SAMPLERS[name].step(jax.random.key(1), machine(5, 3), state)


@pytest.mark.thorough
def test_states_whose_sides_are_not_the_same_chains_are_refused():
    for name in ("gibbs", "tempering", "annealing"):
        state = start(name)
        side = "replicas2" if name == "tempering" else "z2"
        short = state._replace(**{side: getattr(state, side)[1:]})
        with pytest.raises(ValueError, match="both sides of the same chains"):
            SAMPLERS[name].step(jax.random.key(1), machine(5, 3), short)


def test_counts_are_integers():
    params, state = machine(5, 3), start("gibbs")
    with pytest.raises(ValueError, match=r"num_sweeps must be an integer, got 2\.5"):
        gibbs.step(jax.random.key(1), params, state, num_sweeps=2.5)
    whole, _ = gibbs.step(jax.random.key(1), params, state, num_sweeps=np.int64(2))
    same, _ = gibbs.step(jax.random.key(1), params, state, num_sweeps=2)
    np.testing.assert_array_equal(whole.z1, same.z1)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("field", rbm.RBM._fields)
def test_estimates_of_log_z_from_parameters_that_are_nan_are_nan(field):
    params = machine(5, 3)
    broken = getattr(params, field).copy()
    broken.flat[0] = np.nan
    broken = params._replace(**{field: broken})
    settings = {"num_temperatures": 3}
    key, z1 = jax.random.key, jnp.zeros((4, 5))
    estimates = {
        "forward": lambda p: ais.log_z(key(0), p, num_chains=4, **settings)[:2],
        "reverse": lambda p: ais.reverse_log_z(key(0), p, z1, **settings)[:2],
        "anneal": lambda p: annealing.anneal(key(0), p, 4, **settings)[1].log_z,
        "exact": exact.log_z,
        "moments": lambda p: exact.moments(p).z1,
        "samples": lambda p: jnp.concatenate(exact.sample(key(0), p, 4), axis=1),
    }
    found_by = jax.jit(lambda p: {name: f(p) for name, f in estimates.items()})
    for name, found in found_by(broken).items():
        assert all(np.isnan(x).any() for x in jax.tree.leaves(found)), name


def test_machines_without_units_are_refused():
    empty = rbm.RBM(np.zeros(0), np.zeros(3), np.zeros((0, 3)))
    with pytest.raises(ValueError, match="at least one unit on each side, got 0 and 3"):
        gibbs.init(jax.random.key(0), empty, 4)
    with pytest.raises(ValueError, match="n at least 1, got shapes"):
        graph.log_z(graph.BoltzmannMachine(np.zeros(0), np.zeros((0, 0))))
