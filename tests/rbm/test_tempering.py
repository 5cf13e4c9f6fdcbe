"""Parallel tempering: the exact law at every temperature, modes, log Z, the ladder, contracts."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy.special import logsumexp
from test_energy_and_exact import machine, table

from dvae import rbm
from dvae.rbm import exact, gibbs, tempering

NUM_CHAINS = 4_000
init = jax.jit(tempering.init, static_argnames=("num_chains", "num_temperatures"))
step = jax.jit(tempering.step, static_argnames="num_sweeps")
adapt = jax.jit(tempering.adapt)


def law(params, beta):
    """p_t(z1, z2) over all states, float64 [2^n1, 2^n2], and the states."""
    w = np.float64(params.weights)
    c1, c2 = params.bias1 + w.sum(1) / 2, params.bias2 + w.sum(0) / 2
    negative, z1, z2 = table(params)
    negative = beta * negative + (1 - beta) * ((z1 @ c1)[:, None] + (z2 @ c2)[None])
    p = np.exp(negative - negative.max())
    return p / p.sum(), z1, z2


def assert_moments(params, beta, found1, found2):
    p, z1, z2 = law(params, beta)
    moments = p.sum(1) @ z1, p.sum(0) @ z2, z1.T @ p @ z2
    found1, found2 = np.float64(found1), np.float64(found2)
    found = found1, found2, found1[:, :, None] * found2[:, None]
    for name, samples, expected in zip(("z1", "z2", "z1 z2"), found, moments, strict=True):
        error = samples.std(0) / np.sqrt(len(samples))
        assert np.all(np.abs(samples.mean(0) - expected) < 5 * error), (name, beta)


def assert_all_moments(params, state):
    for t, beta in enumerate(np.asarray(state.betas)):
        assert_moments(params, beta, state.replicas1[:, t], state.replicas2[:, t])


def exact_state(params, betas, parity=0, seed=0):
    """Independent exact samples at every temperature."""
    rng = np.random.default_rng(seed)
    replicas = [], []
    for beta in betas:
        p, *sides = law(params, beta)
        index = np.unravel_index(rng.choice(p.size, NUM_CHAINS, p=p.ravel()), p.shape)
        for side, states, i in zip(replicas, sides, index, strict=True):
            side.append(states[i].astype(np.float32))
    return tempering.TemperingState(
        *(jnp.stack(side, 1) for side in replicas), jnp.float32(betas), jnp.int32(parity)
    )


def two_modes():
    """6 + 6 units, nearly all 0 or nearly all 1, the second 1.8 times as often."""
    coupling, n = 2.0, 6
    balance = np.full(n, -coupling * n / 2, np.float32)
    return rbm.RBM(balance + np.float32(0.1), balance, np.full((n, n), coupling, np.float32))


@pytest.mark.thorough
def test_every_temperature_reaches_its_exact_moments_from_a_bad_start():
    params = machine(4, 3)
    state = init(jax.random.key(0), params, NUM_CHAINS, num_temperatures=4)
    np.testing.assert_allclose(state.betas, [0, 1 / 3, 2 / 3, 1])
    state = state._replace(
        replicas1=jnp.ones_like(state.replicas1), replicas2=jnp.zeros_like(state.replicas2)
    )
    for key in jax.random.split(jax.random.key(1), 25):
        state, info = step(key, params, state)
    assert_all_moments(params, state)
    np.testing.assert_array_equal(state.z1, state.replicas1[:, 3])
    np.testing.assert_array_equal(state.z2, state.replicas2[:, 3])
    assert 0 < info.flips < 1


@pytest.mark.parametrize("parity", [0, 1])
def test_one_sweep_leaves_the_law_of_every_temperature_invariant(parity):
    # A steep ladder: a wrong acceptance would show at once.
    params = machine(4, 3, scale=2.0)
    state = exact_state(params, [0.0, 0.2, 0.5, 1.0], parity)
    after, info = step(jax.random.key(3), params, state)
    assert_all_moments(params, after)
    assert after.parity == 1 - parity
    assert np.all((info.swap_rates > 0.1) & (info.swap_rates < 0.9))


def test_swap_rates_and_log_z_are_those_of_the_enumerated_replicas():
    params = machine(4, 3, scale=2.0)
    betas = [0.0, 0.2, 0.5, 1.0]
    _, info = step(jax.random.key(4), params, exact_state(params, betas, seed=1))
    marginals = [law(params, b)[0].sum(0) for b in betas]  # of z2
    for (p, q), found in zip(itertools.pairwise(marginals), info.swap_rates, strict=True):
        rate = np.minimum(np.outer(p, q), np.outer(q, p)).sum()
        assert abs(found - rate) < 5 * 0.5 / np.sqrt(NUM_CHAINS)
    # The variance of both means at each pair, relative to their common square.
    overlap = [np.sqrt(p * q).sum() for p, q in itertools.pairwise(marginals)]
    error = np.sqrt(sum(2 * (1 / o**2 - 1) for o in overlap) / NUM_CHAINS)
    assert abs(info.log_z - exact.log_z(params)) < 5 * error


def test_swap_rates_and_log_z_are_means_over_sweeps_and_chains():
    params, betas = machine(4, 3, scale=2.0), np.float64([0.0, 0.2, 0.5, 1.0])
    state = tempering.init(jax.random.key(5), params, 16, betas=betas)
    # The first of the sweeps draws the same bits whatever their number.
    later, _ = step(jax.random.key(6), params, state, num_sweeps=1)
    _, info = step(jax.random.key(6), params, state, num_sweeps=2)
    negative, all_z1, z2 = table(params)
    w = np.float64(params.weights)
    c1, c2 = params.bias1 + w.sum(1) / 2, params.bias2 + w.sum(0) / 2
    base = (all_z1 @ c1)[:, None] + (z2 @ c2)[None]
    minus_f = logsumexp(np.stack([b * negative + (1 - b) * base for b in betas]), axis=1)
    index = np.concatenate([x.replicas2 for x in (state, later)]).astype(int) @ [4, 2, 1]
    t = np.arange(3)
    up = (minus_f[1:] - minus_f[:-1])[t, index[:, :-1]]
    down = (minus_f[:-1] - minus_f[1:])[t, index[:, 1:]]
    rates = np.minimum(np.exp(up + down), 1).mean(0)
    np.testing.assert_allclose(info.swap_rates, rates, rtol=1e-4)
    ratios = logsumexp(up / 2, axis=0) - logsumexp(down / 2, axis=0)
    np.testing.assert_allclose(info.log_z, logsumexp(base) + ratios.sum(), rtol=1e-5)


def test_the_first_replica_is_drawn_afresh_from_independent_units():
    params = machine(4, 3)
    state = init(jax.random.key(0), params, NUM_CHAINS, num_temperatures=4)
    assert_moments(params, 0.0, state.replicas1[:, 2], state.replicas2[:, 2])
    state = state._replace(replicas2=jnp.ones_like(state.replicas2))
    after, _ = step(jax.random.key(1), params, state)
    assert_moments(params, 0.0, after.replicas1[:, 0], after.replicas2[:, 0])


@pytest.mark.thorough
def test_modes_get_their_weights_and_log_z_where_block_gibbs_stays_in_one():
    params = two_modes()
    negative, z1, _ = table(params)
    p = np.exp(negative).sum(1) / np.exp(negative).sum()
    expected = p[z1.sum(1) > 3].sum() + p[z1.sum(1) == 3].sum() / 2
    num_chains = 400
    state = tempering.init(jax.random.key(0), params, num_chains, num_temperatures=6)
    state = jax.tree.map(lambda x: jnp.zeros_like(x) if x.ndim == 3 else x, state)
    plain = gibbs.GibbsState(state.z1, state.z2)
    state, _ = step(jax.random.key(1), params, state, num_sweeps=60)
    plain, _ = jax.jit(gibbs.step, static_argnames="num_sweeps")(
        jax.random.key(1), params, plain, num_sweeps=60
    )

    def share(z1):
        score = np.asarray(z1).sum(1)
        return ((score > 3) + (score == 3) / 2).mean()

    assert abs(share(state.z1) - expected) < 5 * np.sqrt(expected * (1 - expected) / num_chains)
    assert 0.6 < expected < 0.7
    assert share(plain.z1) < 0.1
    # One mode alone would leave out 0.4 nats or more; over keys the deviation is about 0.01.
    _, info = step(jax.random.key(2), params, state, num_sweeps=60)
    np.testing.assert_allclose(info.log_z, exact.log_z(params), atol=0.05)


def test_without_weights_all_replicas_are_alike():
    params = machine(4, 3)._replace(weights=np.zeros((4, 3), np.float32))
    state = init(jax.random.key(0), params, NUM_CHAINS, num_temperatures=4)
    _, info = step(jax.random.key(1), params, state, num_sweeps=3)
    np.testing.assert_allclose(info.swap_rates, 1, atol=1e-5)
    np.testing.assert_allclose(info.log_z, exact.log_z(params), rtol=1e-5)


@pytest.mark.thorough
def test_adapting_equalizes_the_rejection_rates():
    params = machine(4, 3, scale=3.0)
    betas = [0.0, 0.05, 0.1, 1.0]
    state = tempering.init(jax.random.key(0), params, NUM_CHAINS, betas=betas)
    np.testing.assert_allclose(state.betas, betas)
    ratios = []
    for i in range(7):
        for key in jax.random.split(jax.random.key(i), 6):
            state, info = step(key, params, state)
        rejected = 1 - np.asarray(info.swap_rates)
        ratios.append(rejected.max() / rejected.min())
        state = adapt(state, info.swap_rates, rate=0.9)
        assert state.betas[0] == 0
        assert state.betas[-1] == 1
        assert np.all(np.diff(state.betas) > 0)
    assert ratios[0] > 4
    assert ratios[-1] < 1.15


def equally_spaced(num_temperatures):
    bits = np.zeros((1, num_temperatures, 2), np.float32)
    betas = np.linspace(0, 1, num_temperatures, dtype=np.float32)
    return tempering.TemperingState(bits, bits, betas, np.int32(0))


def test_adapting_inverts_the_cumulated_rejection():
    state = equally_spaced(3)
    # Half of 0.6 + 0.2 is reached at two thirds of the first interval.
    found = adapt(state, jnp.array([0.4, 0.8]), rate=1.0)
    np.testing.assert_allclose(found.betas, [0, 1 / 3, 1], atol=1e-3)
    found = adapt(state, jnp.array([0.4, 0.8]), rate=0.25)
    np.testing.assert_allclose(found.betas, [0, 0.75 / 2 + 0.25 / 3, 1], atol=1e-3)


@pytest.mark.parametrize("rates", [[1.0] * 5, [0.0] * 5, [1.0, 1.0, 0.0, 1.0, 1.0]])
def test_a_ladder_survives_jumps_and_the_absence_of_rejections(rates):
    start = state = equally_spaced(6)
    for _ in range(40):
        state = adapt(state, jnp.array(rates), rate=1.0)
    assert np.all(np.diff(state.betas) > 0)
    assert (state.betas[0], state.betas[-1]) == (0, 1)
    if len(set(rates)) == 1:
        np.testing.assert_allclose(state.betas, start.betas, atol=1e-5)


@pytest.mark.thorough
def test_jitted_over_eight_devices_equals_eager():
    params = machine(4, 3)
    state = init(jax.random.key(0), params, NUM_CHAINS, num_temperatures=4)
    expected = tempering.step(jax.random.key(1), params, state, num_sweeps=2)
    mesh = Mesh(np.array(jax.devices()), ("chains",))
    chains, everywhere = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in (("chains",), ()))
    places = tempering.TemperingState(chains, chains, everywhere, everywhere)
    found = step(jax.random.key(1), params, jax.device_put(state, places), num_sweeps=2)
    assert found[0].replicas1.sharding.spec[0] == "chains"
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert set(np.unique(expected[0].replicas1)) <= {0.0, 1.0}


def test_dtypes_are_kept():
    half = rbm.RBM(*(jnp.asarray(p, jnp.bfloat16) for p in machine(5, 6)))
    state = jax.eval_shape(functools.partial(tempering.init, num_chains=8), jax.random.key(0), half)
    after, info = jax.eval_shape(tempering.step, jax.random.key(1), half, state)
    adapted = jax.eval_shape(tempering.adapt, after, info.swap_rates)
    for found in (state, after, adapted):
        assert [x.dtype for x in found] == ["bfloat16", "bfloat16", "float32", "int32"]
    assert {x.dtype for x in info} == {np.dtype("float32")}


@pytest.mark.thorough
def test_several_machines_at_once_equal_a_loop():
    machines = [machine(4, 3, seed=s) for s in range(2)]
    params = jax.tree.map(lambda *x: jnp.stack(x), *machines)
    keys = lambda seed: jax.random.split(jax.random.key(seed), 2)

    states = [
        init(k, m, NUM_CHAINS, num_temperatures=4) for k, m in zip(keys(0), machines, strict=True)
    ]

    def run(step, adapt, key, params, state):
        after, info = step(key, params, state)
        return after, info, adapt(after, info.swap_rates)

    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    together = jax.jit(jax.vmap(functools.partial(run, tempering.step, tempering.adapt)))
    found = together(keys(1), params, stacked)
    for i in range(2):
        expected = run(step, adapt, keys(1)[i], machines[i], states[i])
        for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-5)
        np.testing.assert_array_equal(found[0].z1[i], expected[0].z1)
        np.testing.assert_array_equal(found[0].z2[i], expected[0].z2)


def test_no_gradient_flows():
    params = machine(4, 3)
    state = init(jax.random.key(0), params, NUM_CHAINS, num_temperatures=4)

    def of(params, betas):
        after, info = tempering.step(jax.random.key(1), params, state._replace(betas=betas))
        return after.z1.sum() + after.replicas2.sum() + info.log_z + info.swap_rates.sum()

    gradients = jax.jit(jax.grad(of, argnums=(0, 1)))(params, state.betas)
    assert all(not np.any(g) for g in jax.tree.leaves(gradients))


def test_strong_couplings_stay_finite():
    # e^{up + down} overflows float32 in replicas that are far from equilibrium.
    params = machine(4, 3, scale=200.0)
    state = init(jax.random.key(0), params, NUM_CHAINS, num_temperatures=4)
    bits = jax.random.bernoulli(jax.random.key(1), shape=state.replicas2.shape)
    state = state._replace(replicas2=bits.astype(jnp.float32))
    _, info = step(jax.random.key(2), params, state)
    assert np.isfinite(info.log_z)
    assert np.all((info.swap_rates >= 0) & (info.swap_rates <= 1))


def test_mistakes_are_named():
    params, key = machine(4, 3), jax.random.key(0)
    with pytest.raises(ValueError, match="num_chains must be at least 1, got 0"):
        tempering.init(key, params, 0)
    with pytest.raises(ValueError, match=r"num_temperatures must be at least 2 .* got 1"):
        tempering.init(key, params, 2, num_temperatures=1)
    for betas in ([0.1, 1.0], [0.0, 0.9], [0.0, 0.5, 0.5, 1.0]):
        with pytest.raises(ValueError, match="betas must increase strictly from 0 to 1, got"):
            tempering.init(key, params, 2, betas=betas)
    with pytest.raises(ValueError, match=r"at least 2 temperatures, got shape \(1,\)"):
        tempering.init(key, params, 2, betas=[1.0])
    state = init(key, params, NUM_CHAINS, num_temperatures=4)
    with pytest.raises(ValueError, match="num_sweeps must be at least 1, got 0"):
        tempering.step(key, params, state, num_sweeps=0)
    with pytest.raises(ValueError, match="the state has 4 and 3 units, the RBM 3 and 4"):
        tempering.step(key, machine(3, 4), state)
    with pytest.raises(ValueError, match=r"do not fit each other: shapes \(4000, 4, 4\)"):
        tempering.step(key, params, state._replace(betas=jnp.array([0.0, 1.0])))
    with pytest.raises(ValueError, match=r"swap_rates must be \[3\]"):
        tempering.adapt(state, jnp.ones(4))
    with pytest.raises(ValueError, match="rate must be above 0 and at most 1, got 0"):
        tempering.adapt(state, jnp.ones(3), rate=0)
