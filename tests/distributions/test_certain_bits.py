"""Distributions where something is certain, impossible or not a number."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.distributions import bernoulli, categorical, discretized_logistic, normal

INF, NAN = math.inf, math.nan
LOG2 = math.log(2)


def value_and_slopes(function, *xs):
    return jax.jit(jax.value_and_grad(function, tuple(range(len(xs)))))(*map(np.float32, xs))


@pytest.mark.parametrize(
    ("z", "logit", "expected", "slope"),
    [
        (1, INF, 0, 0),
        (0, -INF, 0, 0),
        (0, INF, -INF, -1),
        (1, -INF, -INF, 1),
        (0.5, INF, -INF, -0.5),
    ],
)
def test_log_prob_of_a_certain_bit(z, logit, expected, slope):
    value, (by_z, by_logit) = value_and_slopes(bernoulli.log_prob, z, logit)
    assert value == expected
    assert by_z == 0
    assert by_logit == slope
    # Forward mode forms the product with the tangent of z, which is zero.
    along = jax.jvp(lambda x: bernoulli.log_prob(np.float32(z), x), (np.float32(logit),), (1.0,))
    assert along == (expected, slope)


@pytest.mark.parametrize("logit", [INF, -INF])
def test_entropy_of_a_certain_bit(logit):
    value, slopes = value_and_slopes(bernoulli.entropy, logit)
    assert value == 0
    assert slopes == (0,)


@pytest.mark.parametrize(
    ("q", "p", "expected", "by_q", "by_p"),
    [
        (INF, INF, 0, 0, 0),
        (-INF, -INF, 0, 0, 0),
        (INF, 0, LOG2, 0, -0.5),
        (-INF, 0, LOG2, 0, 0.5),
        (INF, -INF, INF, 0, -1),
        (-INF, INF, INF, 0, 1),
        (0, INF, INF, -INF, 0.5),
        (0, -INF, INF, INF, -0.5),
    ],
)
def test_kl_of_certain_bits(q, p, expected, by_q, by_p):
    value, slopes = value_and_slopes(bernoulli.kl, q, p)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(slopes, (by_q, by_p), rtol=1e-6)
    # The same bit as a categorical of two classes, one without mass.
    pairs = [np.float32([0, x] if x < INF else [-INF, 0]) for x in (q, p)]
    value, slopes = jax.value_and_grad(categorical.kl, (0, 1))(*pairs)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    if expected < INF:
        np.testing.assert_allclose(slopes[1], [-by_p, by_p], rtol=1e-6)
        np.testing.assert_array_equal(slopes[0], [0, 0])


LOGITS = np.float32([-1e4, -80, -18, -3, -0.5, 0, 1e-3, 2, 17, 60, 1e4])
GAPS = np.float32([0, 1e-7, 1e-4, 0.01, 0.3, 0.49, 0.51, 0.99, 1.01, 5, 40, 1e4])


def exact_kl(q, p):
    """KL and its slopes in float64; the masses and their logarithms from the smaller side."""
    mirrored = q > 0
    a, b = np.where(mirrored, -q, q), np.where(mirrored, -p, p)
    small, other = np.exp(a - np.logaddexp(0, a)), np.exp(-np.logaddexp(0, a))
    gap = b - a
    lift = np.expm1(np.minimum(gap, 30))
    # log(1 - q + q e^gap) - q gap, from its cumulants where it cancels.
    variance = small * other
    series = variance * gap**2 / 2 + variance * (other - small) * gap**3 / 6
    series = series + variance * (1 - 6 * variance) * gap**4 / 24
    far = np.where(gap > 30, np.logaddexp(0, b) - np.logaddexp(0, a), np.log1p(small * lift))
    value = np.where(np.abs(gap) < 2e-3, series, far - small * gap)
    up = np.exp(-np.logaddexp(0, -np.maximum(q, p)) - np.logaddexp(0, np.minimum(q, p)))
    return value, variance * (q - p), np.sign(p - q) * up * -np.expm1(-np.abs(p - q))


def test_kl_of_bits_is_accurate_relative_to_its_size_and_never_negative():
    q, gap, sign = np.array(list(itertools.product(LOGITS, GAPS, [-1, 1])), np.float32).T
    p = q + sign * gap
    value, (by_q, by_p) = jax.jit(jax.vmap(jax.value_and_grad(bernoulli.kl, (0, 1))))(q, p)
    expected, slope_q, slope_p = exact_kl(np.float64(q), np.float64(p))
    assert np.all(value >= 0)
    assert np.all(value[q == p] == 0)
    np.testing.assert_allclose(value, expected, rtol=3e-5, atol=1e-35)
    np.testing.assert_allclose(by_q, slope_q, rtol=1e-5, atol=1e-35)
    np.testing.assert_allclose(by_p, slope_p, rtol=1e-5, atol=1e-35)
    # -18 against 1e4: sigmoid(18) rounds to 1.
    _, (by_q, _) = value_and_slopes(bernoulli.kl, -18, 1e4)
    np.testing.assert_allclose(by_q, -1.5257e-4, rtol=1e-4)


def test_kl_of_bits_has_second_derivatives_at_equality():
    hessian = jax.jit(jax.vmap(jax.hessian(bernoulli.kl, (0, 1))))(LOGITS, LOGITS)
    wide = np.float64(LOGITS)
    variance = np.exp(-np.logaddexp(0, wide) - np.logaddexp(0, -wide))
    for i, j in itertools.product(range(2), range(2)):
        expected = (-1) ** (i + j) * variance
        np.testing.assert_allclose(hessian[i][j], expected, rtol=1e-5, atol=1e-35)


def test_other_slopes_of_bits_survive_a_sigmoid_that_rounds_to_one():
    for logit in np.float32([-20, 20, 50]):
        far = math.exp(-abs(logit))
        likely = float(logit > 0)
        slope = jax.grad(bernoulli.log_prob, 1)(likely, logit)
        np.testing.assert_allclose(slope, math.copysign(far, logit), rtol=1e-5)
        slope = jax.grad(bernoulli.entropy)(logit)
        np.testing.assert_allclose(slope, -float(logit) * far, rtol=1e-5)


def exact_categorical_kl(q, p):
    """KL and its slopes in float64, the largest class from the others."""
    log_q = q - np.logaddexp.reduce(q, axis=-1, keepdims=True)
    log_p = p - np.logaddexp.reduce(p, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        gap = np.where(np.exp(log_q) > 0, log_q - log_p, 0)
    value = (np.exp(log_q) * gap).sum(-1)
    slope = np.exp(log_q) * (gap - value[..., None])
    top = np.argmax(q, -1)[..., None] == np.arange(q.shape[-1])
    slope = np.where(top, -np.where(top, 0, slope).sum(-1, keepdims=True), slope)
    return value, slope, np.exp(log_p) - np.exp(log_q)


def test_kl_of_classes_is_accurate_and_never_negative():
    rng = np.random.default_rng(0)
    q = np.float32(3 * rng.normal(size=(400, 7)))
    q[:100, 0] += 30  # a dominant class, whose probability rounds to 1
    gap = np.float32(10 ** rng.uniform(-5, 1.5, (400, 1)) * rng.normal(size=(400, 7)))
    p = q + gap
    q[::7, 3], p[::7, 3] = -INF, -INF  # and a class that neither has
    q[5::7, 4] = -INF
    p[-20:] = q[-20:] + np.float32(2.5)  # the same distribution

    def total(q, p):
        value = categorical.kl(q, p)
        return value.sum(), value

    (_, value), (by_q, by_p) = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(q, p)
    expected, slope_q, slope_p = exact_categorical_kl(np.float64(q), np.float64(p))
    assert np.all(value >= 0)
    np.testing.assert_array_equal(value[-20:], 0)
    np.testing.assert_array_equal(categorical.kl(q, q), 0)
    # An error common to all log-ratios counts by its square; each has its own rounding as well.
    np.testing.assert_allclose(value[:-20], expected[:-20], rtol=1e-3, atol=1e-11)
    size = np.abs(slope_q).max(-1, keepdims=True)
    assert np.all(np.abs(by_q - slope_q) <= 1e-3 * np.abs(slope_q) + 1e-5 * size + 1e-6)
    np.testing.assert_allclose(by_p, slope_p, rtol=1e-3, atol=1e-6)
    # The likely class of two has the slope of the other, which is no difference.
    pair = np.float32([0, -18]), np.float32([0, 1e4])
    by_q, _ = jax.grad(categorical.kl, (0, 1))(*pair)
    np.testing.assert_allclose(by_q, [1.5257e-4, -1.5257e-4], rtol=1e-4)


def test_equal_rows_have_no_divergence_whatever_the_shape_in_which_they_come():
    row = np.float32(5 * np.random.default_rng(1).normal(size=511))
    many = jnp.broadcast_to(row, (64, 511))
    np.testing.assert_array_equal(jax.jit(categorical.kl)(many, row[None]), 0)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32])
def test_codes_that_are_none_give_nan(dtype):
    num_classes = 200  # more than int8 counts to
    logits = np.zeros((6, num_classes), np.float32)
    none = {np.int8: [-1, -128], np.uint8: [200, 255], np.int32: [-1, 200], np.uint32: [200, 2**31]}
    codes = np.array([0, 7, 100, 127, *none[dtype]], dtype)
    value = jax.jit(categorical.log_prob_of_codes)(codes, logits)
    np.testing.assert_allclose(value[:4], -math.log(num_classes), rtol=1e-6)
    assert np.all(np.isnan(value[4:]))


def test_dropped_codes_can_be_masked_out():
    codes, logits = np.int32([-1, 2]), np.float32([[0, 1, 2], [0, 1, 2]])

    def total(logits):
        return jnp.sum(jnp.where(codes < 0, 0, categorical.log_prob_of_codes(codes, logits)))

    gradient = jax.grad(total)(logits)
    np.testing.assert_array_equal(gradient[0], 0)
    np.testing.assert_allclose(gradient[1], np.eye(3)[2] - jax.nn.softmax(logits[1]), atol=1e-6)


@pytest.mark.thorough
def test_log_prob_of_codes_has_forward_mode_and_hessian_vector_products():
    rng = np.random.default_rng(2)
    logits, along = np.float32(rng.normal(size=(2, 5, 7)))
    codes = rng.integers(0, 7, (3, 5), dtype=np.int32)

    def ours(x):
        return categorical.log_prob_of_codes(codes, x).sum() ** 2

    def plain(x):
        log_p = jnp.broadcast_to(jax.nn.log_softmax(x), (3, 5, 7))
        return jnp.take_along_axis(log_p, codes[..., None], -1).sum() ** 2

    for mode in (lambda f: f, jax.grad):
        actual, expected = (jax.jvp(mode(f), (logits,), (along,)) for f in (ours, plain))
        for x, y in zip(actual, expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)


def test_levels_outside_the_range_give_nan():
    params = np.zeros((4, 3), np.float32)
    pixels = np.int32([[-1], [0], [255], [256]])
    log_p = discretized_logistic.log_prob(pixels, params)
    np.testing.assert_array_equal(np.isnan(log_p), [True, False, False, True])


@pytest.mark.thorough
def test_nan_logits_stay_visible_in_samples():
    logits = np.float32([[NAN, 0, 1], [0, 1, 2], [-INF, 0, NAN], [-INF, -INF, -INF]])
    bad = [True, False, True, True]
    bits = jax.jit(bernoulli.sample, static_argnums=2)(jax.random.key(0), logits[:3], (50,))
    np.testing.assert_array_equal(np.isnan(bits), np.broadcast_to(np.isnan(logits[:3]), (50, 3, 3)))
    codes = categorical.sample_codes(jax.random.key(1), logits, 50)
    np.testing.assert_array_equal(codes == 3, np.broadcast_to(bad, (50, 4)))
    assert np.all((codes >= 0) & (codes <= 3))
    one_hots = categorical.sample(jax.random.key(1), logits)
    np.testing.assert_array_equal(np.isnan(one_hots).all(-1), bad)
    np.testing.assert_array_equal(np.isnan(one_hots).any(-1), bad)
    # What is looked up by the code shows it too.
    log_p = categorical.log_prob_of_codes(codes[0], np.zeros((4, 3), np.float32))
    np.testing.assert_array_equal(np.isnan(log_p), bad)
    gradient = jax.grad(lambda x: bernoulli.sample(jax.random.key(0), x).sum())(logits)
    np.testing.assert_array_equal(gradient, 0)


def pair(x):
    return jnp.stack([x, jnp.zeros(())])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: bernoulli.log_prob(1.0, x),
        lambda x: bernoulli.log_prob(0.0, x),
        bernoulli.entropy,
        lambda x: bernoulli.kl(x, 0.0),
        lambda x: bernoulli.kl(0.0, x),
        lambda x: categorical.log_prob(np.float32([0, 1]), pair(x)),
        lambda x: categorical.entropy(pair(x)),
        lambda x: categorical.kl(pair(x), np.zeros(2, np.float32)),
        lambda x: categorical.kl(np.zeros(2, np.float32), pair(x)),
        lambda x: normal.log_prob(x, 0.0, 0.0),
        lambda x: normal.kl(x, 0.0, 0.0, 0.0),
    ],
)
def test_nan_stays_visible_in_values(function):
    assert np.isnan(function(jnp.float32(NAN)))


def test_normal_at_its_ends():
    assert normal.log_prob(INF, 0.0, 0.0) == -INF
    assert normal.kl(0.0, -INF, 0.0, 0.0) == INF
    assert normal.kl(INF, 0.0, 0.0, 0.0) == INF
    assert normal.entropy(-INF) == -INF
