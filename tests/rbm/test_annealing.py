"""Population annealing against enumeration: what is unbiased is tested as such, over many runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from test_energy_and_exact import machine, table

from dvae import rbm
from dvae.rbm import _population, annealing

NUM_RUNS = 600
NUM_CHAINS = 32  # divisible by the 8 devices
STEPS = 6
OLD, NEW = machine(4, 3, seed=1), machine(4, 3, seed=4, scale=2.5)

anneal = jax.jit(annealing.anneal, static_argnames=("num_chains", "num_temperatures", "num_sweeps"))
step = jax.jit(annealing.step, static_argnames="num_sweeps")


def between(t):
    """The machine at t, OLD at 0 and NEW at 1."""
    return rbm.RBM(*(a + t * (b - a) for a, b in zip(OLD, NEW, strict=True)))


def run(key):
    """Anneals to OLD, then follows the machine to NEW in strides that force resampling."""
    key_start, key_follow = jax.random.split(key)
    first, first_info = annealing.anneal(
        key_start, OLD, NUM_CHAINS, num_temperatures=4, num_sweeps=1
    )

    def follow(state, t):
        return annealing.step(jax.random.fold_in(key_follow, t), between((t + 1) / STEPS), state)

    last, infos = jax.lax.scan(follow, first, jnp.arange(STEPS))
    return first, first_info, last, infos


@pytest.fixture(scope="module")
def runs():
    found = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), NUM_RUNS))
    return jax.tree.map(np.asarray, found)


def assert_unbiased(params, state):
    """Checks E[Zhat mean_i w_i f_i] = Z E[f], which holds for any number of chains and sweeps.

    Chains of one run are correlated, so the standard error is that over the runs.
    """
    negative, all_z1, all_z2 = table(params)
    truth = np.log(np.exp(negative).sum())
    p = np.exp(negative - truth)
    expected = (
        np.ones((1, 1)),
        p.sum(1)[None] @ all_z1,
        p.sum(0)[None] @ all_z2,
        all_z1.T @ p @ all_z2,
    )
    ratio = np.exp(np.float64(state.log_z) - truth)
    weights = np.exp(np.float64(state.log_weights))
    z1, z2 = np.float64(state.z1), np.float64(state.z2)
    np.testing.assert_allclose(weights.mean(1), 1, rtol=1e-5)
    found = [
        ratio[:, None, None],
        np.einsum("r,rc,rci->ri", ratio, weights, z1)[:, None] / NUM_CHAINS,
        np.einsum("r,rc,rcj->rj", ratio, weights, z2)[:, None] / NUM_CHAINS,
        np.einsum("r,rc,rci,rcj->rij", ratio, weights, z1, z2) / NUM_CHAINS,
    ]
    for name, x, e in zip(("z", "z1", "z2", "z1 z2"), found, expected, strict=True):
        error = x.std(0) / np.sqrt(NUM_RUNS)
        assert np.all(np.abs(x.mean(0) - e) < 5 * error), name


@pytest.mark.thorough
def test_annealing_is_unbiased_in_z_and_moments(runs):
    assert_unbiased(OLD, runs[0])


@pytest.mark.thorough
def test_following_a_machine_is_unbiased_in_z_and_moments(runs):
    _, _, last, infos = runs
    assert_unbiased(NEW, last)
    np.testing.assert_array_equal(last.log_z, infos.log_z[:, -1])
    np.testing.assert_array_equal(infos.resampled, infos.ess < NUM_CHAINS / 2)
    assert 0 < np.mean(infos.resampled) < 1
    np.testing.assert_array_equal((last.log_weights == 0).all(1), infos.resampled[:, -1])
    assert np.all((infos.flips > 0) & (infos.flips < 1))


def test_standard_error_is_that_of_repeated_runs(runs):
    for state, error in ((runs[0], runs[1].std_error), (runs[2], runs[3].std_error[:, -1])):
        deviation = np.std(state.log_z)
        assert 0.85 * deviation < np.mean(error) < 1.15 * deviation


def test_families_are_counted(runs):
    for state, info in ((runs[0], runs[1]), (runs[2], jax.tree.map(lambda x: x[:, -1], runs[3]))):
        for i in range(20):
            weights = np.exp(np.float64(state.log_weights[i]))
            shares = np.bincount(state.family[i], weights) / NUM_CHAINS
            assert info.families[i] == len(np.unique(state.family[i]))
            np.testing.assert_allclose(info.effective_families[i], 1 / np.sum(shares**2), rtol=1e-4)
    assert np.mean(runs[1].families) > np.mean(runs[3].families[:, -1])


def large_run(params):
    return anneal(jax.random.key(1), params, num_chains=1_000, num_temperatures=30, num_sweeps=3)


@pytest.mark.thorough
def test_one_large_run_agrees_within_its_error():
    params = machine(6, 8, seed=3, scale=1.2)
    state, info = large_run(params)
    truth = np.log(np.exp(table(params)[0]).sum())
    assert abs(info.log_z - truth) < 5 * info.std_error
    assert info.std_error < 0.1
    assert 500 < info.ess < 1_000
    assert info.log_z == state.log_z
    for a, b in zip(state.params, params, strict=True):
        np.testing.assert_array_equal(a, b)


def test_independent_units_have_no_error():
    params = machine(6, 8)._replace(weights=np.zeros((6, 8), np.float32))
    _, info = large_run(params)
    np.testing.assert_allclose(info.log_z, np.log(np.exp(table(params)[0]).sum()), rtol=1e-6)
    np.testing.assert_allclose(info.ess, 1_000, rtol=1e-5)
    np.testing.assert_allclose(info.effective_families, 1_000, rtol=1e-5)
    assert (info.families, info.resampled) == (1_000, 0)
    assert info.std_error < 1e-4


def test_small_changes_of_a_large_log_z_are_not_lost():
    # Each update adds 1e-4 to a log Z of 5,000, whose neighbors in float32 are 5e-4 away.
    params = rbm.RBM(jnp.zeros(2), jnp.array([5_000.0]), jnp.zeros((2, 1)))
    zero = jnp.zeros((), jnp.float32)
    state = annealing.AnnealingState(
        z1=jnp.zeros((2, 2)),
        z2=jnp.ones((2, 1)),
        log_weights=jnp.zeros(2),
        log_z=zero + 5_000,
        lost=zero,
        family=jnp.arange(2),
        params=params,
    )

    def raise_bias(state, t):
        bias1 = jnp.full(2, 1e-4) * (t + 1)
        key = jax.random.fold_in(jax.random.key(1), t)
        return annealing.step(key, params._replace(bias1=bias1), state)

    after, _ = jax.jit(lambda s: jax.lax.scan(raise_bias, s, jnp.arange(2_000)))(state)
    rise = np.float64(after.log_z) - 5_000 - np.float64(after.lost)
    np.testing.assert_allclose(rise, 2 * (np.logaddexp(0, 0.2) - np.log(2)), atol=1e-4)


def test_resampling_keeps_expected_counts():
    weights = np.array([0.5, 2.0, 0.0, 1.0, 3.3, 0.2, 0.0], np.float64)
    log_weights = jnp.log(jnp.asarray(weights, jnp.float32)) + 40.0
    keys = jax.random.split(jax.random.key(0), 5_000)
    index = np.asarray(
        jax.jit(jax.vmap(lambda k: annealing.systematic_resample(k, log_weights)))(keys)
    )
    counts = (index[..., None] == np.arange(7)).sum(1)
    expected = 7 * weights / weights.sum()
    error = counts.std(0) / np.sqrt(len(keys)) + 1e-4
    assert np.all(np.abs(counts.mean(0) - expected) < 5 * error)
    assert np.all((np.floor(expected) <= counts) & (counts <= np.ceil(expected)))
    assert np.all(np.diff(index) >= 0)


def test_weights_without_a_meaning_give_no_index():
    for log_weights in ([0.0, jnp.nan, 1.0], [-jnp.inf] * 3):
        index = annealing.systematic_resample(jax.random.key(0), jnp.array(log_weights))
        np.testing.assert_array_equal(index, 3)


def test_last_tooth_of_the_comb_finds_a_weight():
    log_weights = jnp.zeros(1_000).at[-2:].set(-jnp.inf)
    index = jax.jit(_population.comb)(
        jnp.float32(1 - 2.0**-24), log_weights
    )  # 999 + u rounds to 1000
    assert index[-1] == 997


def assert_same(tree, other):
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_vmapped_and_scanned_steps_are_those_of_a_loop(runs):
    key = jax.random.split(jax.random.key(0), NUM_RUNS)[3]
    _, key_follow = jax.random.split(key)
    state = jax.tree.map(lambda x: x[3], runs[0])
    for t in range(STEPS):
        state, info = step(
            jax.random.fold_in(key_follow, t), between(np.float32(t + 1) / STEPS), state
        )
        assert_same(info, jax.tree.map(lambda x, t=t: x[3, t], runs[3]))
    assert_same(state, jax.tree.map(lambda x: x[3], runs[2]))


@pytest.mark.thorough
def test_eager_and_sharded_steps_are_the_same(runs):
    state = jax.tree.map(lambda x: x[0], runs[0])
    expected = step(jax.random.key(5), NEW, state)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(expected))
    assert_same(annealing.step(jax.random.key(5), NEW, state), expected)
    mesh = jax.make_mesh((8,), ("chains",), axis_types=(AxisType.Auto,))
    whole = PartitionSpec()
    sharded = annealing.AnnealingState(
        *(
            jax.device_put(x, NamedSharding(mesh, PartitionSpec("chains") if x.ndim else whole))
            for x in state[:-1]
        ),
        jax.device_put(state.params, NamedSharding(mesh, whole)),
    )
    assert_same(step(jax.random.key(5), NEW, sharded), expected)


def test_half_precision_bits_and_float32_weights():
    def two(params):
        key_start, key_step = jax.random.split(jax.random.key(0))
        state = annealing.init(key_start, params, 4, num_temperatures=2, num_sweeps=1)
        return state, annealing.step(key_step, params, state)[0]

    for state in jax.eval_shape(two, jax.tree.map(lambda p: p.astype(jnp.bfloat16), OLD)):
        halves = state.z1, state.z2, *state.params
        assert all(x.dtype == jnp.bfloat16 for x in halves)
        assert all(x.dtype == jnp.float32 for x in (state.log_weights, state.log_z, state.lost))


def test_no_gradient_flows(runs):
    state = jax.tree.map(lambda x: x[0], runs[0])
    log_z = lambda params: annealing.step(jax.random.key(1), params, state)[0].log_z
    for gradient in jax.jit(jax.grad(log_z))(NEW):
        np.testing.assert_array_equal(gradient, 0)


def test_mistakes_are_named(runs):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"num_chains must be at least 2 .* got 1"):
        annealing.init(key, OLD, 1)
    with pytest.raises(ValueError, match="num_temperatures must be at least 1, got 0"):
        annealing.init(key, OLD, 2, num_temperatures=0)
    with pytest.raises(ValueError, match="num_sweeps must be at least 1, got 0"):
        annealing.init(key, OLD, 2, num_sweeps=0)
    state = jax.tree.map(lambda x: x[0], runs[0])
    with pytest.raises(ValueError, match="num_sweeps must be at least 1, got 0"):
        annealing.step(key, OLD, state, num_sweeps=0)
    with pytest.raises(ValueError, match="the state has 4 and 3 units, the RBM 3 and 4"):
        annealing.step(key, machine(3, 4), state)
    one = jax.tree.map(lambda x: x[:1] if x.shape[:1] == (NUM_CHAINS,) else x, state)
    with pytest.raises(ValueError, match=r"same chains, at least 2, got shapes \(1, 4\)"):
        annealing.step(key, OLD, one)
    with pytest.raises(ValueError, match=r"do not fit each other: shapes \(32, 4\), \(31,\)"):
        annealing.step(key, OLD, state._replace(log_weights=state.log_weights[1:]))
    with pytest.raises(ValueError, match=r"at least 1 weight, got shape \(0,\)"):
        annealing.systematic_resample(key, jnp.zeros(0))


def test_the_error_of_a_single_family_is_one():
    state, _ = anneal(jax.random.key(0), OLD, num_chains=4, num_temperatures=2)
    _, info = step(jax.random.key(1), OLD, state._replace(family=jnp.zeros(4, jnp.int32)))
    np.testing.assert_allclose(info.std_error, 1, rtol=1e-6)


def test_the_report_is_that_of_all_moves():
    new, num_moves, key = machine(4, 3, seed=4, scale=16.0), 8, jax.random.key(3)
    key_start, key_move = jax.random.split(key)
    base = annealing.centered_biases(new)
    flat = rbm.RBM(*base, jnp.zeros_like(new.weights))
    state = annealing.AnnealingState(
        *rbm.gibbs.init(key_start, new._replace(bias1=base[0], bias2=base[1]), NUM_CHAINS),
        log_weights=jnp.zeros(NUM_CHAINS),
        log_z=jnp.zeros(()),
        lost=jnp.zeros(()),
        family=jnp.arange(NUM_CHAINS, dtype=jnp.int32),
        params=flat,
    )
    infos = []
    for i in range(num_moves):
        b = (i + 1) / num_moves
        target = rbm.RBM(*(c + b * (a - c) for c, a in zip(flat, new, strict=True)))
        state, info = step(jax.random.fold_in(key_move, i), target, state)
        infos.append(info)
    clone = jax.random.clone(key)
    _, found = anneal(clone, new, num_chains=NUM_CHAINS, num_temperatures=num_moves)
    ess, resampled = (np.array([getattr(x, name) for x in infos]) for name in ("ess", "resampled"))
    np.testing.assert_array_equal(resampled, ess < NUM_CHAINS / 2)
    assert ess.min() < ess[-1]
    assert 0 < resampled.mean() < 1
    np.testing.assert_allclose(found.ess, ess.min(), rtol=1e-4)
    np.testing.assert_allclose(found.resampled, resampled.mean(), rtol=1e-6)
