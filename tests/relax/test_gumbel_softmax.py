"""`relax.gumbel_softmax`: its law, its density against the change of variables, its limits."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.relax import gumbel_softmax

LOGITS = np.float32([0.5, -1.0, 2.0, 0.0])
sample = jax.jit(gumbel_softmax.sample, static_argnames="hard")


def concrete_log_density(y, logits, tau):
    """Maddison et al. (2016), Definition 1, in float64 as printed: products and powers."""
    y, alpha = np.float64(y), np.exp(np.float64(logits))
    num = y.shape[-1]
    ratio = alpha * y ** (-tau - 1) / np.sum(alpha * y**-tau, axis=-1, keepdims=True)
    return math.lgamma(num) + (num - 1) * np.log(tau) + np.log(ratio).sum(-1)


def simplex_points(num=50):
    return np.float32(np.random.default_rng(0).dirichlet(np.full(4, 2.0), num))


@pytest.mark.parametrize("tau", [0.2, 1.0, 3.0])
def test_transform_is_the_softmax_of_perturbed_logits(tau):
    gumbels = np.random.default_rng(1).gumbel(size=(6, 4)).astype(np.float32)
    scores = np.float64(gumbels + LOGITS) / tau
    expected = np.exp(scores - np.logaddexp.reduce(scores, -1, keepdims=True))
    actual = jax.jit(gumbel_softmax.transform)(gumbels, LOGITS, tau)
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("tau", [0.3, 1.0, 2.5])
def test_log_prob_is_the_concrete_density(tau):
    y = simplex_points()
    expected = concrete_log_density(y, LOGITS, tau)
    actual = jax.jit(gumbel_softmax.log_prob)(y, LOGITS, tau)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    of_log = jax.jit(gumbel_softmax.log_prob_of_log)(np.log(y), LOGITS, tau)
    np.testing.assert_allclose(of_log - np.log(y).sum(-1), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tau", [0.7, 2.0])
def test_density_integrates_to_one(tau):
    # C = 2 on a fine grid of log-odds x: dy = y (1 - y) dx.
    x = np.linspace(-60, 60, 60_001)
    log_y = np.float32(np.stack([-np.logaddexp(0, -x), -np.logaddexp(0, x)], -1))
    log_density = jax.jit(gumbel_softmax.log_prob_of_log)(log_y, LOGITS[:2], tau)
    # The density of x = log y over the simplex: p(y) = p(log y) / (y_0 y_1).
    np.testing.assert_allclose(np.exp(np.float64(log_density)).sum() * 0.002, 1, rtol=1e-4)


def test_log_prob_and_sample_ignore_a_shift_of_the_logits():
    y, shifted = simplex_points(), LOGITS + np.float32(64)
    log_prob = jax.jit(gumbel_softmax.log_prob)
    np.testing.assert_allclose(log_prob(y, LOGITS, 0.4), log_prob(y, shifted, 0.4), atol=1e-4)
    one, two = (sample(jax.random.key(0), x, 0.4) for x in (LOGITS, shifted))
    np.testing.assert_allclose(one, two, atol=1e-4)


def test_log_prob_takes_one_temperature_for_each_row():
    y = simplex_points(3)
    tau = np.float32([[0.5], [1.0], [2.0]])
    expected = [concrete_log_density(y[i], LOGITS, tau[i, 0]) for i in range(3)]
    actual = jax.jit(gumbel_softmax.log_prob)(y, LOGITS, tau)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_argmax_of_a_sample_has_the_categorical_law_at_any_temperature():
    logits = np.broadcast_to(LOGITS, (100_000, 4))
    p = np.exp(np.float64(LOGITS) - np.logaddexp.reduce(np.float64(LOGITS)))
    for tau in (0.1, 5.0):
        hard = np.asarray(sample(jax.random.key(2), logits, tau, hard=True), np.float64)
        assert np.all(np.abs(hard.mean(0) - p) < 5 * hard.std(0) / np.sqrt(len(hard)))


def test_temperature_one_sample_has_the_mean_of_its_density():
    # E y_0 by quadrature of the density, against the mean of draws.
    x = np.linspace(-60, 60, 60_001)
    log_y = np.stack([-np.logaddexp(0, -x), -np.logaddexp(0, x)], -1)
    density = np.exp(concrete_log_density(np.exp(log_y), LOGITS[:2], 0.8) + log_y.sum(-1))
    expected = (density * np.exp(log_y[:, 0])).sum() * 0.002
    draws = sample(jax.random.key(3), np.broadcast_to(LOGITS[:2], (100_000, 2)), 0.8)
    draws = np.asarray(draws, np.float64)[:, 0]
    assert abs(draws.mean() - expected) < 5 * draws.std() / np.sqrt(draws.size)


@pytest.mark.many_cases
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("tau", [1e-3, 0.7])
def test_hard_samples_are_exactly_one_hot_with_the_soft_gradient(dtype, tau):
    logits = np.asarray(np.random.default_rng(4).normal(size=(200, 33)), dtype)
    weight = np.asarray(np.random.default_rng(5).normal(size=(200, 33)), dtype)

    @jax.jit
    def differentiate(logits):
        def total(logits, hard):
            y = gumbel_softmax.sample(jax.random.key(6), logits, tau, hard=hard)
            return jnp.sum(weight * y), y

        return [jax.grad(total, has_aux=True)(logits, hard) for hard in (True, False)]

    (hard_gradient, hard), (soft_gradient, soft) = differentiate(logits)
    assert hard.dtype == soft.dtype == hard_gradient.dtype == dtype
    ones = np.asarray(hard) == 1
    assert np.all(ones | (np.asarray(hard) == 0))
    np.testing.assert_array_equal(ones.sum(-1), 1)
    np.testing.assert_allclose(  # w_k - w . y cancels in float32, and is divided by tau
        np.float32(hard_gradient),
        np.float32(soft_gradient),
        rtol=float(jnp.finfo(dtype).eps),
        atol=1e-6 / tau,
    )
    assert np.all(np.isfinite(np.float32(soft_gradient)))
    np.testing.assert_allclose(np.float32(soft).sum(-1), 1, atol=33 * float(jnp.finfo(dtype).eps))


def test_hard_samples_do_not_favor_early_classes_when_the_softmax_ties_in_bfloat16():
    logits = np.zeros((20_000, 64), jnp.bfloat16)
    hard = sample(jax.random.key(7), logits, 100.0, hard=True)
    codes = np.float64(np.argmax(np.asarray(hard), -1))
    assert abs(codes.mean() - 31.5) < 5 * codes.std() / np.sqrt(codes.size)


def test_sample_leaves_out_classes_without_mass():
    logits = np.float32([[-np.inf, 0.0, 1.0, -np.inf]] * 50)

    def total(logits, hard):
        y = gumbel_softmax.sample(jax.random.key(8), logits, 0.5, hard=hard)
        return jnp.sum(y * jnp.arange(4.0)[None]), y

    for hard in (False, True):
        gradient, y = jax.jit(jax.grad(partial(total, hard=hard), has_aux=True))(logits)
        np.testing.assert_array_equal(y[:, [0, 3]], 0)
        assert np.all(np.isfinite(gradient))
        np.testing.assert_array_equal(gradient[:, [0, 3]], 0)


def test_gradient_in_the_temperature():
    gumbels = np.random.default_rng(9).gumbel(size=4).astype(np.float32)

    def first(tau):
        return gumbel_softmax.transform(gumbels, LOGITS, tau)[0]

    y = np.float64(jax.jit(gumbel_softmax.transform)(gumbels, LOGITS, 0.9))
    scores = np.float64(gumbels + LOGITS)
    expected = -y[0] * (scores[0] - (y * scores).sum()) / 0.9**2
    np.testing.assert_allclose(jax.jit(jax.grad(first))(0.9), expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_log_prob_and_its_gradients_are_finite_where_y_underflows(dtype):
    y = np.asarray([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]], dtype)
    logits = np.asarray(np.stack([LOGITS, 50 * LOGITS, 0 * LOGITS]), dtype)

    def total(y, logits, tau):
        value = gumbel_softmax.log_prob(y, logits, tau)
        assert value.dtype == dtype
        return value.astype(jnp.float32).sum()

    for tau in (1e-3, 1.0):
        value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(y, logits, tau)
        assert np.isfinite(value)
        assert all(np.all(np.isfinite(np.float32(g))) for g in gradients[:2])
        assert np.isfinite(gradients[2])


def test_a_temperature_is_one_for_all_classes():
    """One of [B] would be taken by class wherever there are B classes."""
    x, temperatures = jnp.zeros((3, 3)), jnp.float32([0.1, 1.0, 10.0])
    logits = jnp.tile(jnp.arange(3.0), (3, 1))
    for call in (
        lambda: gumbel_softmax.sample(jax.random.key(0), x, temperatures),
        lambda: gumbel_softmax.transform_hard(x, x, temperatures),
        lambda: gumbel_softmax.log_prob(x, x, temperatures),
    ):
        with pytest.raises(ValueError, match=r"got shape \(3,\); add an axis"):
            call()
    each = gumbel_softmax.transform(0 * x, logits, temperatures[:, None])
    assert np.all(np.diff(each[:, 2]) < 0)
    one_by_one = jax.vmap(gumbel_softmax.transform)(0 * x, logits, temperatures)
    np.testing.assert_allclose(each, one_by_one, rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1, np.float32(0)])
def test_temperature_must_be_positive(temperature):
    key, x = jax.random.key(0), jnp.zeros(3)
    for call in (
        lambda: gumbel_softmax.sample(key, x, temperature),
        lambda: gumbel_softmax.transform(x, x, temperature),
        lambda: gumbel_softmax.log_prob(x, x, temperature),
        lambda: gumbel_softmax.log_prob_of_log(x, x, temperature),
    ):
        with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
            call()


@pytest.mark.thorough
def test_hardness_may_be_an_array():
    logits = jnp.linspace(-1.0, 2.0, 12).reshape(3, 4)
    draw = lambda hard: lambda x: gumbel_softmax.sample(jax.random.key(3), x, 0.5, hard=hard)
    for hard in (False, True):
        expected, pull = jax.vjp(draw(hard), logits)
        value, pull_array = jax.vjp(jax.jit(draw(jnp.array(hard))), logits)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        np.testing.assert_allclose(*(f(jnp.cos(logits))[0] for f in (pull, pull_array)), rtol=1e-5)
