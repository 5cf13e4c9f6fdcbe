import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from dvae import bounds

BATCH = 100  # enough for XLA to vectorize


def elementwise_weights(key):
    return -50.0 * jax.random.uniform(key, (BATCH,)) - 3000.0


def evaluate(log_weight_fn, num_samples, chunk_size, seed=0):
    @jax.jit
    def run(key):
        return bounds.log_likelihood(
            key, log_weight_fn, num_samples=num_samples, chunk_size=chunk_size
        )

    return run(jax.random.key(seed))


def all_weights(log_weight_fn, num_samples, seed=0):
    """The same samples by a Python loop, in float64."""
    key = jax.random.key(seed)
    draw = jax.jit(lambda i: log_weight_fn(jax.random.fold_in(key, i)))
    return np.stack([draw(i) for i in range(num_samples)]).astype(np.float64)


def test_matches_a_loop_over_the_samples():
    log_weights = all_weights(elementwise_weights, 50)
    result = evaluate(elementwise_weights, 50, 8)
    shift = log_weights.max(0)
    weights = np.exp(log_weights - shift)
    np.testing.assert_allclose(result.value, shift + np.log(weights.mean(0)), rtol=3e-7)
    # A weight moves by the spacing of float32 at 3,000: 2e-4.
    np.testing.assert_allclose(result.ess, weights.sum(0) ** 2 / (weights**2).sum(0), rtol=1e-3)


def test_one_sample_is_the_weight_itself():
    result = evaluate(elementwise_weights, 1, 1)
    np.testing.assert_array_equal(result.value, all_weights(elementwise_weights, 1)[0])
    np.testing.assert_array_equal(result.ess, 1.0)


@pytest.mark.thorough
def test_bitwise_the_same_for_any_chunk_size():
    expected = evaluate(elementwise_weights, 50, 5)
    for chunk_size in (1, 7, 50, 1000):
        result = evaluate(elementwise_weights, 50, chunk_size)
        np.testing.assert_array_equal(result.value, expected.value, str(chunk_size))
        np.testing.assert_array_equal(result.ess, expected.ess, str(chunk_size))


def test_matrix_products_agree_to_rounding():
    weights = jax.random.normal(jax.random.key(1), (30, BATCH))

    def log_weight_fn(key):
        return jnp.dot(jax.random.normal(key, (30,)), weights) - 100.0

    expected = evaluate(log_weight_fn, 40, 8)
    for chunk_size in (1, 16):
        result = evaluate(log_weight_fn, 40, chunk_size)
        np.testing.assert_allclose(result.value, expected.value, rtol=1e-5)
        np.testing.assert_allclose(result.ess, expected.ess, rtol=1e-4)


def test_equal_weights_have_full_effective_sample_size():
    result = evaluate(lambda key: jnp.full(BATCH, -5000.0), 4000, 256)
    np.testing.assert_allclose(result.value, -5000.0, rtol=1e-6)
    np.testing.assert_allclose(result.ess, 4000.0, rtol=1e-4)


def test_approaches_the_evidence_from_below():
    # p(x) = E_q[w] = 0.7 * 0.2 + 0.3 * 0.9 with z ~ Bernoulli(0.7).
    def log_weight_fn(key):
        return jnp.where(jax.random.bernoulli(key, 0.7, (400,)), jnp.log(0.2), jnp.log(0.9))

    evidence = np.log(0.7 * 0.2 + 0.3 * 0.9)
    few, many = (evaluate(log_weight_fn, k, 100, seed=k) for k in (2, 400))
    few, many = (bounds.mean_and_standard_error(r.value) for r in (few, many))
    assert few.value + 5 * few.std_error < evidence
    assert abs(many.value - evidence) < 5 * many.std_error + 1e-3  # bias about 1 / (2 K)


def test_impossible_samples():
    # Image 0: every weight is zero. Image 1: only some are, the first among them.
    def log_weight_fn(key):
        possible = jnp.log(jax.random.bernoulli(key, 0.5).astype(jnp.float32))
        return jnp.stack([jnp.array(-jnp.inf), possible])

    log_weights = all_weights(log_weight_fn, 20, seed=1)
    assert log_weights[0, 1] == -np.inf
    num_possible = np.isfinite(log_weights[:, 1]).sum()
    result = evaluate(log_weight_fn, 20, 6, seed=1)
    np.testing.assert_allclose(result.value, [-np.inf, np.log(num_possible / 20)], rtol=1e-6)
    np.testing.assert_allclose(result.ess, [0.0, num_possible], rtol=1e-6)


def test_nan_weights_are_not_hidden():
    result = evaluate(lambda key: jnp.array([jnp.nan, 0.0]), 4, 2)
    np.testing.assert_array_equal(np.isnan(result.value), [True, False])
    np.testing.assert_array_equal(np.isnan(result.ess), [True, False])


def test_half_precision_weights_are_accumulated_in_float32():
    result = evaluate(lambda key: jnp.zeros(BATCH, jnp.bfloat16), 1000, 10)
    assert result.value.dtype == result.ess.dtype == jnp.float32
    np.testing.assert_allclose(result.value, 0.0, atol=1e-6)


@pytest.mark.parametrize(("num_samples", "chunk_size"), [(0, 1), (1, 0), (-1, 1)])
def test_static_misuse(num_samples, chunk_size):
    with pytest.raises(ValueError, match="at least 1, got"):
        evaluate(elementwise_weights, num_samples, chunk_size)


@pytest.mark.parametrize("count", [2.5, None, 2**30 + 1])
@pytest.mark.parametrize("name", ["num_samples", "chunk_size"])
def test_counts_are_integers_that_an_int32_holds(name, count):
    counts = {"num_samples": 4, "chunk_size": 4, name: count}
    with pytest.raises(ValueError, match=rf"{name} must be an integer, .*got {count}"):
        bounds.log_likelihood(jax.random.key(0), elementwise_weights, **counts)


@pytest.mark.parametrize("shape", [(), (4, 1), (4, 3)])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_one_log_weight_an_image_is_needed(shape, transform):
    run = lambda key: bounds.log_likelihood(
        key, lambda key: jnp.zeros(shape), num_samples=2, chunk_size=1
    )
    with pytest.raises(ValueError, match=r"must return \[batch\], .*got shape"):
        transform(run)(jax.random.key(0))


def exact_weights(level):
    """Log-weights in which no operation rounds, so that nothing depends on what XLA fuses."""

    def log_weight_fn(key):
        return -jax.random.randint(key, level.shape, 0, 16).astype(jnp.float32) / 8 - level

    return log_weight_fn


def eager(key, log_weight_fn, num_samples, chunk_size):
    return bounds.log_likelihood(key, log_weight_fn, num_samples=num_samples, chunk_size=chunk_size)


@pytest.mark.many_cases
@pytest.mark.parametrize("chunk_size", [1, 7, 50])
def test_without_jit_the_result_is_the_same(chunk_size):
    level = jnp.arange(4.0)
    expected = jax.jit(lambda key: eager(key, exact_weights(level), 50, 8))(jax.random.key(0))
    ours = eager(jax.random.key(0), exact_weights(level), 50, chunk_size)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.thorough
def test_without_jit_nothing_is_left_behind():
    def live(count):
        for i in range(count):
            eager(jax.random.key(0), exact_weights(jnp.arange(4.0) + i), 6, 4)
        gc.collect()
        return len(jax.live_arrays()), len(gc.get_objects())

    arrays, objects = live(2)
    again, more = live(20)
    assert again <= arrays
    assert more - objects < 500  # a program for each call would be thousands


def test_without_jit_it_can_be_mapped():
    keys, levels = jax.random.split(jax.random.key(0), 3), jnp.arange(12.0).reshape(3, 4)
    mapped = jax.vmap(lambda key, level: eager(key, exact_weights(level), 6, 4))(keys, levels)
    for i in range(3):
        one = eager(keys[i], exact_weights(levels[i]), 6, 4)
        np.testing.assert_allclose(mapped.value[i], one.value, rtol=1e-6)
        np.testing.assert_allclose(mapped.ess[i], one.ess, rtol=1e-5)


def test_inside_shard_map():
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
    level = np.arange(8, dtype=np.float32)

    def shard(level):
        key = jax.random.fold_in(jax.random.key(0), jax.lax.axis_index("batch"))
        return eager(key, exact_weights(level), 6, 4)

    spec = jax.P("batch")
    ours = jax.jit(jax.shard_map(shard, mesh=mesh, in_specs=spec, out_specs=spec))(level)
    for i, part in enumerate((level[:4], level[4:])):
        one = eager(jax.random.fold_in(jax.random.key(0), i), exact_weights(part), 6, 4)
        np.testing.assert_array_equal(ours.value[4 * i : 4 * i + 4], one.value)


@pytest.mark.many_cases
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_images_sharded_over_an_explicit_mesh(transform):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,))
    run = lambda level: transform(lambda key, level: eager(key, exact_weights(level), 6, 4))(
        jax.random.key(0), level
    )
    expected = run(jnp.arange(4.0))
    with jax.set_mesh(mesh):
        ours = run(jax.device_put(jnp.arange(4.0), jax.P("batch")))
    for a, b in zip(ours, expected, strict=True):
        assert a.sharding.spec == jax.P("batch")
        np.testing.assert_array_equal(a, b)


def test_memory_does_not_grow_with_the_samples():
    def temporary_bytes(num_samples):
        def run(key):
            return bounds.log_likelihood(
                key, elementwise_weights, num_samples=num_samples, chunk_size=16
            )

        compiled = jax.jit(run).lower(jax.random.key(0)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(32) == temporary_bytes(32_000)


def test_mean_and_standard_error():
    values = np.random.default_rng(0).normal(-4000.0, 30.0, size=500).astype(np.float32)
    result = bounds.mean_and_standard_error(jnp.asarray(values))
    exact = values.astype(np.float64)
    np.testing.assert_allclose(result.value, exact.mean(), rtol=1e-6)
    np.testing.assert_allclose(result.std_error, exact.std(ddof=1) / np.sqrt(500), rtol=1e-4)


def test_mean_and_standard_error_in_half_precision():
    # The squares, 90,000, would overflow in float16.
    values = jnp.array([300.0, -300.0], jnp.float16)
    result = bounds.mean_and_standard_error(values)
    assert result.value.dtype == result.std_error.dtype == jnp.float16
    np.testing.assert_allclose(result.std_error, 300.0, rtol=1e-3)


@pytest.mark.parametrize("shape", [(), (1,), (3, 2)])
def test_mean_and_standard_error_needs_two_images(shape):
    with pytest.raises(ValueError, match="at least 2 images"):
        bounds.mean_and_standard_error(jnp.zeros(shape))
