"""`distributions.categorical` against float64 NumPy, and its sampler against its exact law."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dvae.distributions import categorical

INF = np.inf
ROWS = np.float32(
    [
        [0.3, -1.2, 2.0, 0.7],
        [-INF, 0.0, -INF, 1.0],  # two classes without mass
        [1e4, -1e4, 0.0, 9990.0],
        [0.0, -INF, -INF, -INF],  # all mass on one class
    ]
)


def log_softmax(logits):
    wide = np.asarray(logits, np.float64)
    return wide - np.logaddexp.reduce(wide, axis=-1, keepdims=True)


def test_log_prob_of_one_hots_and_codes_agree_with_the_oracle():
    codes = np.tile(np.arange(4, dtype=np.int32)[:, None], (1, 4))  # [code, row]
    expected = log_softmax(ROWS).T
    actual = jax.jit(categorical.log_prob_of_codes)(codes, ROWS)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
    actual = jax.jit(categorical.log_prob)(np.eye(4, dtype=np.float32)[codes], ROWS)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_codes", [2, 3])  # 3: as many as classes
def test_codes_are_not_taken_for_one_hots(num_codes):
    codes, logits = np.zeros(num_codes, np.int32), np.zeros((num_codes, 3), np.float32)
    with pytest.raises(ValueError, match="codes go to log_prob_of_codes"):
        categorical.log_prob(codes, logits)


def test_log_prob_gradient_is_finite_where_other_classes_have_no_mass():
    z = np.eye(4, dtype=np.float32)[[2, 3, 0, 0]]
    total = jax.jit(jax.grad(lambda z, x: categorical.log_prob(z, x).sum(), (0, 1)))
    by_z, by_logits = total(z, ROWS)
    np.testing.assert_allclose(by_logits, z - np.exp(log_softmax(ROWS)), atol=1e-6)
    # A straight-through gradient reaches classes that were not drawn, if they have mass.
    expected = np.where(np.isfinite(ROWS), log_softmax(ROWS), 0)
    np.testing.assert_allclose(by_z, expected, rtol=1e-6, atol=1e-6)


def test_log_prob_of_codes_has_the_gradient_of_the_plain_expression():
    rng = np.random.default_rng(0)
    logits = np.float32(3 * rng.normal(size=(5, 2, 7)))
    codes = rng.integers(0, 7, (5, 2), dtype=np.int32)
    weight = np.float32(rng.normal(size=(5, 2)))

    def plain(x):
        log_p = jax.nn.log_softmax(x)
        return jnp.sum(weight * jnp.take_along_axis(log_p, codes[..., None], -1)[..., 0])

    def ours(x):
        return jnp.sum(weight * categorical.log_prob_of_codes(codes, x))

    def derivatives(fn):
        return fn(logits), jax.grad(fn)(logits), jax.jacrev(jax.grad(fn))(logits)

    actual, expected = (jax.jit(derivatives, static_argnums=0)(fn) for fn in (ours, plain))
    for ours_i, plain_i in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours_i, plain_i, rtol=1e-6, atol=1e-6)


def test_log_prob_of_codes_gradient_is_finite_with_classes_without_mass():
    codes = np.int32([2, 3, 0, 0])
    total = jax.jit(jax.grad(lambda x: categorical.log_prob_of_codes(codes, x).sum()))
    gradient = total(ROWS)
    expected = np.eye(4)[codes] - np.exp(log_softmax(ROWS))
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("codes_shape", "batch_shape"),
    [((4, 3, 2), (3, 2)), ((3, 2), (4, 3, 2)), ((4, 3, 2), (3, 1)), ((2,), (3, 1)), ((5,), ())],
)
def test_log_prob_of_codes_broadcasts_either_way(codes_shape, batch_shape):
    rng = np.random.default_rng(1)
    logits = np.float32(rng.normal(size=(*batch_shape, 6)))
    codes = rng.integers(0, 6, codes_shape, dtype=np.int32)
    shape = np.broadcast_shapes(codes_shape, batch_shape)
    weight = np.arange(1.0, 1 + np.prod(shape), dtype=np.float32).reshape(shape)

    def spelled_out(x):
        rows = jnp.broadcast_to(x, (*shape, 6)).reshape(-1, 6)
        flat = np.broadcast_to(codes, shape).reshape(-1)
        return jax.nn.log_softmax(rows)[np.arange(flat.size), flat].reshape(shape)

    def weighted(fn):
        return jax.jit(jax.value_and_grad(lambda x: jnp.sum(weight * fn(x))))(logits)

    value, gradient = weighted(lambda x: categorical.log_prob_of_codes(codes, x))
    expected_value, expected_gradient = weighted(spelled_out)
    assert gradient.shape == logits.shape
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-5)


def test_log_prob_of_codes_sums_pixels_in_float32_and_keeps_one_copy_of_the_logits():
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(64, 256)), jnp.bfloat16)
    codes = np.arange(64, dtype=np.int32)
    value, pullback = jax.vjp(lambda x: categorical.log_prob_of_codes(codes, x), logits)
    assert value.dtype == jnp.float32
    expected = log_softmax(logits.astype(jnp.float32))[np.arange(64), np.arange(64)]
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    (gradient,) = pullback(jnp.ones(64))
    assert gradient.dtype == jnp.bfloat16
    large = [x for x in jax.tree.leaves(pullback) if x.size >= logits.size]
    assert [x.dtype for x in large] == [jnp.bfloat16]


def test_entropy_and_gradient_with_classes_without_mass():
    log_p = log_softmax(ROWS)
    p = np.exp(log_p)
    finite = np.where(p > 0, log_p, 0)
    expected = -(p * finite).sum(-1)
    np.testing.assert_allclose(jax.jit(categorical.entropy)(ROWS), expected, rtol=1e-5, atol=1e-7)
    gradient = jax.jit(jax.grad(lambda x: categorical.entropy(x).sum()))(ROWS)
    np.testing.assert_allclose(gradient, -p * (finite + expected[:, None]), atol=1e-6)


def test_kl_and_gradient_with_classes_without_mass():
    logits_q, logits_p = ROWS[:2], ROWS[:2] * np.float32(0.5)
    log_q, log_p = log_softmax(logits_q), log_softmax(logits_p)
    q = np.exp(log_q)
    with np.errstate(invalid="ignore"):
        gap = np.where(q > 0, log_q - log_p, 0)
    expected = (q * gap).sum(-1)
    np.testing.assert_allclose(jax.jit(categorical.kl)(logits_q, logits_p), expected, rtol=1e-5)
    total = jax.jit(jax.grad(lambda q, p: categorical.kl(q, p).sum(), (0, 1)))
    by_q, by_p = total(logits_q, logits_p)
    np.testing.assert_allclose(by_q, q * (gap - expected[:, None]), atol=1e-6)
    np.testing.assert_allclose(by_p, np.exp(log_p) - q, atol=1e-6)


@pytest.mark.thorough
def test_kl_has_second_derivatives_and_broadcasts() -> None:
    logits_q = jax.random.normal(jax.random.key(0), (2, 3, 4))
    logits_p = jax.random.normal(jax.random.key(1), (3, 4))
    check_grads(lambda q, p: categorical.kl(q, p).sum(), (logits_q, logits_p), 2, rtol=0.02)


def test_kl_is_infinite_only_where_p_misses_mass_of_q():
    full, part = np.zeros(3, np.float32), np.float32([0, 0, -INF])
    both = jax.jit(categorical.kl)(np.stack([full, part]), np.stack([part, full]))
    np.testing.assert_allclose(both, [INF, np.log(3 / 2)], rtol=1e-6)


@pytest.mark.parametrize("num_classes", [2, 5, 37])
def test_inverse_cdf_gives_each_class_its_probability(num_classes):
    row = 2 * np.random.default_rng(num_classes).normal(size=num_classes)
    logits = np.float32(np.tile(row, (4, 1)))
    for i, empty in enumerate((0, num_classes // 2, -1), 1):  # no class, the first, one, the last
        logits[i, empty] = -INF
    grid = np.float32((np.arange(2**16) + 0.5) / 2**16)  # the whole law of u, not a sample of it
    codes = np.asarray(jax.jit(categorical._invert_cdf)(np.tile(grid[:, None], (1, 4)), logits))
    counts = [np.bincount(column, minlength=num_classes) for column in codes.T]
    frequencies = np.array(counts) / grid.size
    np.testing.assert_allclose(frequencies, np.exp(log_softmax(logits)), atol=2.0**-16)


def test_inverse_cdf_never_lands_on_a_class_without_mass():
    # Rounding makes a parallel cumulative sum differ between a class and an empty neighbor, so
    # every boundary is probed, from both sides, in rows of which half the classes are empty.
    rng = np.random.default_rng(0)
    for num_classes in (8, 100, 513):
        logits = np.float32(rng.normal(size=(16, num_classes)))
        logits[rng.random(logits.shape) < 0.5] = -INF
        logits[:, 0], logits[:, -1], logits[:, 1] = -INF, -INF, 0
        p = np.exp(log_softmax(logits))
        edges = np.float32(np.clip(np.cumsum(p, -1), 2.0**-33, 1 - 2.0**-24))
        nudged = [edges * np.float32(1 + nudge) for nudge in (-2e-7, -6e-8, 0, 6e-8, 2e-7)]
        u = np.clip(np.concatenate(nudged, -1), np.float32(2.0**-33), np.float32(1 - 2.0**-24))
        codes = np.asarray(jax.jit(categorical._invert_cdf)(u.T, logits))
        assert np.all(np.take_along_axis(p, codes.T, -1) > 0)


def test_sample_codes_frequencies_and_shape():
    logits = ROWS[:2]
    draw = jax.jit(categorical.sample_codes, static_argnums=2)
    codes = draw(jax.random.key(5), logits, (100_000,))
    assert codes.shape == (100_000, 2)
    assert codes.dtype == jnp.int32
    one_hots = np.eye(4)[np.asarray(codes)]
    error = np.abs(one_hots.mean(0) - np.exp(log_softmax(logits)))
    assert np.all(error <= 5 * one_hots.std(0) / np.sqrt(len(one_hots)))


def test_sample_is_the_one_hot_of_sample_codes():
    logits = ROWS[:3]
    z = jax.jit(categorical.sample, static_argnums=2)(jax.random.key(7), logits, (5,))
    codes = jax.jit(categorical.sample_codes, static_argnums=2)(jax.random.key(7), logits, (5,))
    np.testing.assert_array_equal(z, np.eye(4)[codes])


def test_all_codes_counts_like_itertools_product():
    expected = list(itertools.product(range(3), repeat=4))
    np.testing.assert_array_equal(categorical.all_codes(4, 3), expected)


def test_support_refuses_too_many_states():
    with pytest.raises(ValueError, match="7 units of 8 classes have 2097152 joint states"):
        categorical.support(jnp.zeros((7, 8)))
