"""Moving averages of codebooks and the restart of dead codes against slow NumPy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dvae import vq

nearest_code = jax.jit(vq.nearest_code)
ema_init = jax.jit(vq.ema_init)
ema_update = jax.jit(vq.ema_update, static_argnames="smoothing")
restart_dead_codes = jax.jit(vq.restart_dead_codes, static_argnames="threshold")


def draw(seed, shape, num_codes, scale=1.0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    vectors, codebook = rng.normal(size=shape), rng.normal(size=(num_codes, shape[-1]))
    return jnp.asarray(scale * vectors, dtype), jnp.asarray(scale * codebook, dtype)


def ema_oracle(codebook, batches, decay, smoothing):
    """Moving averages, one vector at a time in float64."""
    sums = np.asarray(codebook, np.float64).copy()
    counts = np.ones(len(sums))
    for vectors, codes in batches:
        counts *= decay
        sums *= decay
        for vector, code in zip(np.asarray(vectors, np.float64), np.asarray(codes), strict=True):
            counts[code] += 1 - decay
            sums[code] += (1 - decay) * vector
    total = counts.sum()
    smoothed = (counts + smoothing) / (total + len(counts) * smoothing) * total
    return vq.EMAState(sums / smoothed[:, None], counts, sums)


@pytest.mark.parametrize("smoothing", [1e-5, 0.3])
def test_ema_update_matches_the_oracle(smoothing):
    _, codebook = draw(13, (1, 3), 6)
    state, batches = ema_init(codebook), []
    for seed in range(3):
        vectors, _ = draw(20 + seed, (40, 3), 1)
        codes = nearest_code(vectors, state.codebook)
        state = ema_update(state, vectors, codes, decay=0.7, smoothing=smoothing)
        batches.append((vectors, codes))
    chex.assert_trees_all_close(
        state, ema_oracle(codebook, batches, 0.7, smoothing), rtol=1e-4, atol=1e-5
    )


def test_ema_with_decay_zero_is_a_lloyd_step():
    vectors, codebook = draw(14, (50, 2), 3)
    codes = nearest_code(vectors, codebook)
    state = ema_update(ema_init(codebook), vectors, codes, decay=0.0, smoothing=1e-9)
    want = [np.asarray(vectors)[np.asarray(codes) == k].mean(0) for k in range(3)]
    np.testing.assert_allclose(state.codebook, want, rtol=1e-5, atol=1e-6)


def test_smoothing_keeps_an_unused_code_finite():
    vectors, codebook = draw(15, (8, 2), 3)
    codes = jnp.zeros(8, jnp.int32)
    state = ema_update(ema_init(codebook), vectors, codes, decay=0.0)
    assert state.counts[1] == 0
    assert jnp.isnan(state.sums[1] / state.counts[1]).all()  # without smoothing
    assert jnp.all(jnp.isfinite(state.codebook))


def test_ema_state_is_float32_and_passes_no_gradient():
    vectors, codebook = draw(16, (2, 9, 4), 3, dtype=jnp.bfloat16)
    codes = nearest_code(vectors, codebook)

    def loss(vectors, codebook):
        state = ema_update(ema_init(codebook), vectors, codes, decay=0.9)
        return sum(x.sum() for x in state)

    for leaf in ema_update(ema_init(codebook), vectors, codes, decay=0.9):
        assert leaf.dtype == jnp.float32
    for gradient in jax.jit(jax.grad(loss, (0, 1)))(vectors, codebook):
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("num_codes", [1, 7])
@pytest.mark.parametrize("offset", [0, 100, 1e4])
def test_long_sums_far_from_the_origin(offset, num_codes):
    rng = np.random.default_rng(0)
    vectors = np.float32(offset + rng.normal(size=(50_000, 2)))
    codes = rng.integers(0, num_codes, len(vectors))
    state = ema_init(np.float32(offset + rng.normal(size=(num_codes, 2))))
    for decay in (0.0, 0.9):
        new = ema_update(state, vectors, codes, decay=decay)
        double = vectors.astype(np.float64)
        batch = np.stack([double[codes == k].sum(0) for k in range(num_codes)])
        want = decay * np.asarray(state.sums, np.float64) + (1 - decay) * batch
        sizes = np.bincount(codes)[:, None]
        np.testing.assert_allclose(new.sums / sizes, want / sizes, rtol=3e-7, atol=2e-5)


def test_vectors_that_are_not_finite_and_marks_of_no_code_are_left_out():
    vectors, codebook = draw(18, (30, 4), 5)
    vectors, codes = np.array(vectors), np.arange(30) % 5
    vectors[3, 1], vectors[7, 0], vectors[11] = np.nan, np.inf, -np.inf
    codes[[0, 1, 2]] = -1, 5, -5
    usable = np.setdiff1d(np.arange(30), [0, 1, 2, 3, 7, 11])
    state = ema_init(codebook)
    got = ema_update(state, vectors, codes, decay=0.5)
    want = ema_update(state, vectors[usable], codes[usable], decay=0.5)
    chex.assert_trees_all_close(got, want, rtol=1e-6)
    none = ema_update(state, vectors[[3, 7, 11]], codes[[3, 7, 11]], decay=0.5)
    chex.assert_trees_all_equal(none, ema_update(state, vectors[:0], codes[:0], decay=0.5))


@pytest.mark.parametrize("decay", [0.0, 1e-30])
def test_the_codebook_stays_where_nothing_is_known(decay):
    _, codebook = draw(19, (1, 3), 4)
    state = ema_init(codebook)
    empty = jnp.zeros((0, 3)), jnp.zeros(0, jnp.int32)
    with jax.debug_nans(True):
        for _ in range(2):
            state = ema_update(state, *empty, decay=decay)
    np.testing.assert_allclose(state.codebook, codebook, rtol=1e-5)
    np.testing.assert_array_equal(state.counts, 0)


@pytest.mark.thorough
def test_decay_and_smoothing_are_numbers_of_any_kind():
    vectors, codebook = draw(17, (9, 4), 3)
    state, codes = ema_init(codebook), jnp.arange(9) % 3
    want = vq.ema_update(state, vectors, codes, decay=0.99, smoothing=1e-5)
    for number in (np.float64, np.float32, jnp.float32):
        got = vq.ema_update(state, vectors, codes, decay=number(0.99), smoothing=number(1e-5))
        chex.assert_trees_all_close(got, want, rtol=1e-5)
    # 1 - 0.99609375 is no bfloat16 sum of ones, but exact in float32.
    got = vq.ema_update(state, vectors, codes, decay=jnp.bfloat16(0.99609375))
    want = vq.ema_update(state, vectors, codes, decay=0.99609375)
    chex.assert_trees_all_close(got, want, rtol=1e-6)


def test_ema_update_refuses_bad_settings():
    vectors, codebook = draw(17, (9, 4), 3)
    state, codes = ema_init(codebook), jnp.zeros(9, jnp.int32)
    for decay in (1.5, -0.1, np.float32(2), np.nan):
        with pytest.raises(ValueError, match=r"decay must be in \[0, 1\].*got"):
            vq.ema_update(state, vectors, codes, decay=decay)
    with pytest.raises(ValueError, match=r"decay must be a scalar, got shape \(3,\)"):
        vq.ema_update(state, vectors, codes, decay=jnp.ones(3))
    for smoothing in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"smoothing must be positive and finite.*got"):
            vq.ema_update(state, vectors, codes, decay=0.9, smoothing=smoothing)
    with pytest.raises(ValueError, match=r"leading shape \(9,\), got \(8,\)"):
        vq.ema_update(state, vectors, codes[:8], decay=0.9)
    with pytest.raises(TypeError, match="codes must be integers"):
        vq.ema_update(state, vectors, codes * 0.5, decay=0.9)
    for bad in (state._replace(counts=jnp.ones(4)), state._replace(sums=jnp.ones((3, 1)))):
        with pytest.raises(ValueError, match=r"counts \[C\] and sums \[C, D\]"):
            vq.ema_update(bad, vectors, codes, decay=0.9)
        with pytest.raises(ValueError, match=r"counts \[C\] and sums \[C, D\]"):
            vq.restart_dead_codes(jax.random.key(0), bad, vectors, threshold=1.0)


@pytest.mark.thorough
def test_ema_sums_are_global_under_sharding():
    vectors, codebook = draw(18, (64, 4), 5)
    vectors += jnp.arange(64.0)[:, None] / 16  # every device sees other vectors
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(vectors, NamedSharding(mesh, PartitionSpec("batch")))
    assert len(sharded.sharding.device_set) == 8

    def step(state, vectors):
        return ema_update(state, vectors, nearest_code(vectors, state.codebook), decay=0.9)

    got = jax.jit(step)(ema_init(codebook), sharded)
    want = step(ema_init(codebook), vectors)
    chex.assert_trees_all_close(got, want, rtol=1e-5)
    for shard in got.codebook.addressable_shards:  # and no device has drifted
        np.testing.assert_array_equal(shard.data, got.codebook)


def test_restart_moves_dead_codes_with_their_averages():
    vectors, codebook = draw(19, (4, 5, 3), 6)
    counts = jnp.array([3.0, 0.001, 0.5, 0.0, 0.009, 0.01])
    state = vq.EMAState(codebook, counts, 7 * codebook)
    new = restart_dead_codes(jax.random.key(0), state, vectors, threshold=0.01)
    dead = np.array([False, True, False, True, True, False])
    for before, after in zip(state, new, strict=True):
        np.testing.assert_array_equal(before[~dead], after[~dead])
    rows = np.asarray(vectors).reshape(-1, 3)
    drawn = [np.flatnonzero((rows == code).all(-1)) for code in np.asarray(new.codebook)[dead]]
    assert all(len(found) == 1 for found in drawn)
    assert len({int(found[0]) for found in drawn}) == 3
    np.testing.assert_array_equal(new.counts[dead], 1.0)
    np.testing.assert_array_equal(new.sums[dead], new.codebook[dead])
    # The averages agree with the code: an update without data leaves it where it is.
    empty = ema_update(new, rows[:0], jnp.zeros(0, jnp.int32), decay=0.9)
    np.testing.assert_allclose(empty.codebook[dead], new.codebook[dead], rtol=1e-4)


def test_a_restarted_code_has_time_before_it_is_dead_again():
    vectors, codebook = draw(23, (20, 3), 4)
    state = ema_init(codebook)._replace(counts=jnp.array([9.0, 9.0, 9.0, 0.0]))
    state = restart_dead_codes(jax.random.key(1), state, vectors, threshold=5.0)
    np.testing.assert_array_equal(state.counts, [9.0, 9.0, 9.0, 10.0])
    np.testing.assert_array_equal(state.sums[3], 10 * state.codebook[3])


def test_restart_draws_every_vector_equally_often():
    vectors = jnp.arange(7.0)[:, None]
    state = ema_init(jnp.full((3, 1), -1.0))._replace(counts=jnp.zeros(3))
    keys = jax.random.split(jax.random.key(2), 7000)
    drawn = jax.vmap(
        lambda key: restart_dead_codes(key, state, vectors, threshold=0.5).codebook[:, 0]
    )(keys)
    assert jnp.all(jnp.diff(jnp.sort(drawn, axis=1)) > 0)  # without repetition
    for code in range(3):
        share = np.bincount(np.asarray(drawn[:, code], int), minlength=7) / 7000
        np.testing.assert_allclose(share, 1 / 7, atol=5 * np.sqrt(6 / 49 / 7000))


def test_restart_with_fewer_vectors_than_codes_repeats_them():
    vectors = jnp.array([[1.0], [2.0]])
    state = ema_init(jnp.zeros((5, 1)))._replace(counts=jnp.zeros(5))
    new = restart_dead_codes(jax.random.key(3), state, vectors, threshold=0.1)
    assert set(np.asarray(new.codebook)[:, 0]) == {1.0, 2.0}
    with pytest.raises(ValueError, match="at least one vector"):
        restart_dead_codes(jax.random.key(3), state, vectors[:0], threshold=0.1)
    for threshold in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="threshold must be at least 0"):
            vq.restart_dead_codes(jax.random.key(3), state, vectors, threshold=threshold)
    for key in (jax.random.split(jax.random.key(3), 2), jax.random.PRNGKey(0), 0):
        with pytest.raises((ValueError, TypeError), match=r"key must be a (single|typed) key"):
            vq.restart_dead_codes(key, state, vectors, threshold=0.1)


@pytest.mark.thorough
def test_a_restart_draws_no_vector_that_is_not_finite():
    vectors = np.ones((6, 2), np.float32)
    vectors[0, 1], vectors[3], vectors[4, 0] = np.nan, np.inf, -np.inf
    state = ema_init(jnp.full((4, 2), -1.0))._replace(counts=jnp.array([0.0, 0, 0, jnp.nan]))
    moved = 0
    for seed in range(20):
        new = restart_dead_codes(jax.random.key(seed), state, vectors, threshold=0.1)
        restarted = np.asarray(new.codebook[:, 0] == 1)
        for leaf, before in zip(new, state, strict=True):
            np.testing.assert_array_equal(leaf[restarted], 1.0)
            np.testing.assert_array_equal(leaf[~restarted], before[~restarted])
        moved = moved + restarted
    assert np.all(moved > 3)
    assert np.sum(moved) < 80
    same = restart_dead_codes(jax.random.key(0), state, vectors * np.nan, threshold=0.1)
    chex.assert_trees_all_equal(same, state)


def test_the_threshold_may_be_traced():
    vectors, codebook = draw(23, (20, 3), 4)
    state = ema_init(codebook)._replace(counts=jnp.array([9.0, 9.0, 9.0, 0.0]))
    restart = lambda t: vq.restart_dead_codes(jax.random.key(1), state, vectors, threshold=t)
    chex.assert_trees_all_equal(jax.jit(restart)(5.0), restart(5.0))
