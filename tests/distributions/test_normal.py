"""`distributions.normal` against float64 NumPy, quadrature and its own samples."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.distributions import normal

DTYPES = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
EXTREME = np.float32([-30, -12.5, -1, 0, 0.3, 4, 30])
PAIRS = np.float32(list(itertools.product(EXTREME, EXTREME))).T


def log_prob(x, mean, log_scale):
    x, mean, log_scale = map(np.float64, (x, mean, log_scale))
    y = (x - mean) * np.exp(-log_scale)
    return -0.5 * y**2 - log_scale - 0.5 * np.log(2 * np.pi)


def kl(mean_q, log_scale_q, mean_p, log_scale_p):
    mean_q, log_scale_q, mean_p, log_scale_p = map(
        np.float64, (mean_q, log_scale_q, mean_p, log_scale_p)
    )
    t = 2 * (log_scale_q - log_scale_p)
    return 0.5 * (np.expm1(t) - t + (mean_q - mean_p) ** 2 * np.exp(-2 * log_scale_p))


def batch(dtype=np.float32, shape=(3, 4)):
    rng = np.random.default_rng(0)
    return [np.asarray(rng.normal(size=shape), dtype) for _ in range(4)]


def every(mean_q, log_scale_q, mean_p, log_scale_p):
    return {
        "sample": normal.sample(jax.random.key(1), mean_q, log_scale_q),
        "log_prob": normal.log_prob(mean_q, mean_p, log_scale_p),
        "entropy": normal.entropy(log_scale_q),
        "kl": normal.kl(mean_q, log_scale_q, mean_p, log_scale_p),
    }


jitted = jax.jit(every)


def test_densities_entropies_and_divergences_agree_with_quadrature():
    x = np.linspace(-12, 12, 4001)[:, None]
    width = x[1, 0] - x[0, 0]
    mean_q, log_scale_q = np.float32([-1, 0, 2]), np.float32([-0.7, 0, 0.5])
    mean_p, log_scale_p = np.float32([0.5, 0, 1]), np.float32([0.4, 0, -0.2])

    def density(mean, log_scale):
        log_p = jax.jit(normal.log_prob)(np.float32(x), mean[None, :], log_scale[None, :])
        return np.float64(log_p)

    log_q, log_p = density(mean_q, log_scale_q), density(mean_p, log_scale_p)
    q = np.exp(log_q)
    np.testing.assert_allclose(q.sum(0) * width, 1, rtol=1e-6)
    np.testing.assert_allclose(normal.entropy(log_scale_q), -(q * log_q).sum(0) * width, rtol=1e-5)
    np.testing.assert_allclose(
        normal.kl(mean_q, log_scale_q, mean_p, log_scale_p),
        (q * (log_q - log_p)).sum(0) * width,
        rtol=1e-5,
        atol=1e-6,
    )


def test_log_prob_and_its_gradient_at_extreme_scales():
    # Points 1.7 standard deviations away, and 1.5 away whatever the standard deviation.
    s = np.concatenate([EXTREME, EXTREME])
    x = np.concatenate([np.float32(1.7 * np.exp(np.float64(EXTREME))), np.full(len(EXTREME), 1.5)])
    x, mean = np.float32(x), np.zeros_like(s)
    derivatives = jax.jit(jax.vmap(jax.value_and_grad(normal.log_prob, (0, 1, 2))))
    value, (by_x, by_mean, by_scale) = derivatives(x, mean, s)
    np.testing.assert_allclose(value, log_prob(x, mean, s), rtol=1e-5)
    slope = np.float64(x) * np.exp(-2 * np.float64(s))
    np.testing.assert_allclose(by_x, -slope, rtol=1e-5)
    np.testing.assert_allclose(by_mean, slope, rtol=1e-5)
    np.testing.assert_allclose(by_scale, slope * x - 1, rtol=1e-5)


def test_log_prob_of_the_farthest_point_that_float32_can_rate():
    # y^2 would overflow; its half does not.
    x = np.float32(2.2e19)
    assert np.float64(x) ** 2 > np.finfo(np.float32).max
    np.testing.assert_allclose(jax.jit(normal.log_prob)(x, 0.0, 0.0), -2.42e38, rtol=1e-6)


def test_entropy_and_its_gradient_at_extreme_scales():
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(normal.entropy)))(EXTREME)
    expected = np.float64(EXTREME) + 0.5 * np.log(2 * np.pi * np.e)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_array_equal(gradient, 1)


def test_kl_and_its_gradient_at_extreme_scales():
    s_q, s_p = PAIRS[:, PAIRS[0] - PAIRS[1] < 40]  # exp(2 * 40) still fits float32
    m_q, m_p = np.full_like(s_q, 0.75), np.full_like(s_q, -0.5)
    value, gradients = jax.jit(jax.vmap(jax.value_and_grad(normal.kl, (0, 1, 2, 3))))(
        m_q, s_q, m_p, s_p
    )
    np.testing.assert_allclose(value, kl(m_q, s_q, m_p, s_p), rtol=1e-5)
    precision = np.exp(-2 * np.float64(s_p))
    excess = np.expm1(2 * (np.float64(s_q) - s_p))
    expected = [1.25 * precision, excess, -1.25 * precision, -excess - 1.25**2 * precision]
    for actual, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-6)


def test_kl_keeps_its_digits_as_q_approaches_p():
    size = np.float32([0, 1e-12, 1e-6, 1e-4, 3e-3, 0.1, 0.2499, 0.2501, 0.6])
    gap = np.concatenate([size, -size])
    by_scale = jax.vmap(jax.value_and_grad(lambda s: normal.kl(0.0, s, 0.0, 0.0)))
    value, gradient = jax.jit(by_scale)(gap)
    t = 2 * np.float64(gap)
    series = sum(t**k / math.factorial(k) for k in range(2, 25))
    np.testing.assert_allclose(value, 0.5 * series, rtol=1e-6)
    np.testing.assert_allclose(gradient, np.expm1(t), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(normal.kl)(gap, 0.0, 0.0, 0.0), gap**2 / 2, rtol=1e-6)
    assert np.all(jax.jit(normal.kl)(gap, gap, gap, gap) == 0)


@pytest.mark.parametrize(("mean", "log_scale"), [(-2.0, 0.5), (3.0, -6.0), (0.0, 30.0)])
def test_samples_have_the_moments_of_the_normal(mean, log_scale):
    num = 20_000
    draw = jax.jit(partial(normal.sample, shape=(num,)))
    x = draw(jax.random.key(5), jnp.float32(mean), jnp.float32(log_scale))
    assert x.shape == (num,)
    y = (np.float64(x) - mean) / math.exp(log_scale)
    for moment, expected in [(y, 0), (y**2, 1), (y**3, 0), (y**4, 3), (y < 1, 0.8413447)]:
        error = np.std(moment) / math.sqrt(num)
        assert abs(np.mean(moment) - expected) < 5 * error


def test_samples_are_reparametrized():
    mean, log_scale = batch()[:2]

    def draw(mean, log_scale):
        return normal.sample(jax.random.key(2), mean, log_scale)

    x, pullback = jax.vjp(draw, mean, log_scale)
    by_mean, by_scale = pullback(jnp.ones_like(x))
    np.testing.assert_array_equal(by_mean, 1)
    np.testing.assert_allclose(by_scale, x - mean, rtol=1e-5, atol=1e-6)


def test_gradient_through_samples_is_the_gradient_of_the_expectation():
    # E[x^2] = m^2 + e^(2s), so its gradient is (2 m, 2 e^(2s)).
    mean, log_scale = jnp.float32(0.7), jnp.float32(-0.4)
    keys = jax.random.split(jax.random.key(3), 20_000)

    def square(key, mean, log_scale):
        return normal.sample(key, mean, log_scale) ** 2

    slopes = jax.jit(jax.vmap(jax.grad(square, (1, 2)), (0, None, None)))(keys, mean, log_scale)
    for slope, expected in zip(slopes, (1.4, 2 * math.exp(-0.8)), strict=True):
        assert abs(np.mean(slope) - expected) < 5 * np.std(slope) / math.sqrt(len(keys))


def test_samples_repeat_with_their_key_and_differ_within_it():
    mean, log_scale = np.zeros((3, 1), np.float32), np.zeros(4, np.float32)
    draw = jax.jit(partial(normal.sample, shape=(2,)))
    first, again, other = (np.asarray(draw(jax.random.key(k), mean, log_scale)) for k in (8, 8, 9))
    assert first.shape == (2, 3, 4)
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(np.concatenate([first, other]))) == 2 * first.size


def test_jit_equals_eager():
    eager = every(*map(jnp.asarray, batch()))
    for name, value in jitted(*batch()).items():
        np.testing.assert_allclose(value, eager[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_vmap_equals_loop_and_numbers_equal_arrays():
    mean, log_scale = batch()[:2]
    mapped = jax.jit(jax.vmap(lambda m, s: every(m, s, 0.0, 0.5)))(mean, log_scale)
    for i in range(len(mean)):
        one = jitted(mean[i], log_scale[i], np.zeros(4, np.float32), np.full(4, np.float32(0.5)))
        for name, value in one.items():
            np.testing.assert_allclose(mapped[name][i], value, rtol=1e-5, atol=1e-6)


def test_parameters_broadcast():
    mean, log_scale, mean_p, log_scale_p = batch()
    actual = jax.jit(normal.kl)(mean, log_scale[0], mean_p[:, :1], log_scale_p[None])
    expected = kl(mean, log_scale[0], mean_p[:, :1], log_scale_p[None])
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    actual = jax.jit(normal.log_prob)(mean[:, None], mean_p[0], log_scale[:, :1])
    expected = log_prob(mean[:, None], mean_p[0], log_scale[:, :1])
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@DTYPES
def test_dtype_is_kept_and_rounded_once(dtype):
    low = jitted(*batch(dtype))
    high = jitted(*map(np.float32, batch(dtype)))
    assert {value.dtype for value in low.values()} == {jnp.dtype(dtype)}
    assert jax.eval_shape(normal.kl, *batch(dtype)[:2], 0.0, 0.0).dtype == dtype
    for name, value in low.items():
        exact, eps = high[name], float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(np.float32(value), exact, rtol=eps, atol=1e-7, err_msg=name)


@DTYPES
def test_values_and_gradients_are_finite_where_half_precision_can_hold_them(dtype):
    # exp(-30)^2 and exp(30) are out of float16's range, but none of these values is.
    mean, log_scale = np.asarray([0, 0, 1], dtype), np.asarray([-30, -4, 0], dtype)

    def total(mean, log_scale):
        x = normal.sample(jax.random.key(4), mean, log_scale)
        terms = (
            x,
            normal.log_prob(mean, mean, log_scale),
            normal.entropy(log_scale),
            normal.kl(mean, log_scale, 0.0, 0.0),
            normal.kl(mean, -log_scale, mean, -log_scale),
        )
        return sum(term.astype(jnp.float32).sum() for term in terms)

    value, gradients = jax.jit(jax.value_and_grad(total, (0, 1)))(mean, log_scale)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(np.float32(g))) for g in gradients)


def test_doubles_have_noise_finer_than_float32():
    with jax.enable_x64(True):
        x = np.asarray(normal.sample(jax.random.key(0), np.zeros(100), np.zeros(100)))
    assert x.dtype == np.float64
    assert np.any(x != np.float32(x))
