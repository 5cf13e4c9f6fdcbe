"""`relax.reinmax` and `relax.gumbel_rao`: hard values, and the mean of their gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.relax import gumbel_rao, gumbel_softmax, reinmax

LOGITS = np.float32([0.4, -1.1, 0.9, 0.0])
RNG = np.random.default_rng(0)
MATRIX, VECTOR = np.float32(RNG.normal(size=(4, 4))), np.float32(RNG.normal(size=4))


def quadratic(z):
    return z @ MATRIX @ z + VECTOR @ z


def mean_and_error(draws):
    draws = np.float64(draws)
    return draws.mean(axis=0), draws.std(axis=0) / np.sqrt(len(draws))


def jacobians(sampler, logits, size):
    """Returns `size` draws of z and of the full matrices dz/dl."""

    def one(key):
        z, pullback = jax.vjp(partial(sampler, key), logits)
        return z, jax.vmap(lambda v: pullback(v)[0])(jnp.eye(logits.size, dtype=z.dtype))

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), size))


def test_reinmax_bernoulli_is_exact_for_a_quadratic():
    for logit in np.float32([-2.0, 0.3, 5.0]):
        q = 1 / (1 + np.exp(-np.float64(logit)))
        z, slopes = jacobians(lambda k, x: reinmax.bernoulli(k, x), logit[None], 200)
        z, slopes = z[:, 0], slopes[:, 0, 0]
        # Every draw's slope is a function of z alone: enumerate the two.
        np.testing.assert_allclose(slopes, np.where(z == 1, (1 - q) / 2, q / 2), rtol=1e-5)
        # f(z) = 3 z^2 - z + 2: f'(0) = -1, f'(1) = 5, f(1) - f(0) = 2.
        ours = q * 5 * (1 - q) / 2 + (1 - q) * -1 * q / 2
        np.testing.assert_allclose(ours, q * (1 - q) * 2)


@pytest.mark.thorough
def test_reinmax_categorical_is_exact_for_a_quadratic():
    z, matrices = (np.asarray(x) for x in jacobians(reinmax.categorical, LOGITS, 300))
    assert np.all(np.sort(z, axis=-1) == [0, 0, 0, 1])
    probs = np.asarray(jax.nn.softmax(LOGITS))
    expected = np.zeros(4)
    for k in range(4):
        state = np.eye(4, dtype=np.float32)[k]
        found = matrices[z[:, k] == 1]
        assert len(found) > 0
        assert np.all(found == found[0])
        paper = (state + probs) / 2  # 2 S((D + p) / 2) - S(p) / 2
        paper = 2 * (np.diag(paper) - np.outer(paper, paper))
        paper -= (np.diag(probs) - np.outer(probs, probs)) / 2
        np.testing.assert_allclose(found[0], paper, atol=1e-6)
        expected += probs[k] * found[0].T @ np.asarray(jax.grad(quadratic)(state))

    def mean(logits):
        return jax.nn.softmax(logits) @ jax.vmap(quadratic)(jnp.eye(4))

    np.testing.assert_allclose(expected, jax.grad(mean)(LOGITS), rtol=1e-4, atol=1e-6)


@pytest.mark.many_cases
@pytest.mark.parametrize("z", [0, 1])
@pytest.mark.parametrize("logit", [-1.5, 0.4])
def test_gumbel_rao_bernoulli_averages_the_conditional_slope(z, logit):
    # E[y (1 - y) / tau | z] by quadrature over the uniforms that give z.
    tau, q = 0.6, 1 / (1 + np.exp(-logit))
    low, high = (1 - q, 1) if z else (0, 1 - q)
    rho = low + (high - low) * (np.arange(20_000) + 0.5) / 20_000
    y = 1 / (1 + np.exp(-(logit + np.log(rho) - np.log1p(-rho)) / tau))
    expected = np.mean(y * (1 - y)) / tau

    sampler = partial(gumbel_rao.bernoulli, temperature=tau, num_samples=4)
    bits, slopes = jacobians(sampler, np.float32([logit]), 20_000)
    mean, error = mean_and_error(slopes[:, 0, 0][bits[:, 0] == z])
    assert abs(mean - expected) < 5 * error


@pytest.mark.thorough
def test_gumbel_rao_categorical_has_the_mean_of_straight_through_and_less_variance():
    def slope(sampler):
        run = jax.vmap(lambda key: jax.grad(lambda x: quadratic(sampler(key, x)))(LOGITS))
        return jax.jit(run)(jax.random.split(jax.random.key(3), 20_000))

    plain = slope(partial(gumbel_softmax.sample, temperature=0.5, hard=True))
    ours = slope(partial(gumbel_rao.categorical, temperature=0.5, num_samples=20))
    (mean, error), (expected, other) = mean_and_error(ours), mean_and_error(plain)
    assert np.all(np.abs(mean - expected) < 5 * np.hypot(error, other))
    assert np.all(error < 0.9 * other)


def test_gumbel_rao_of_one_sample_is_straight_through_in_law():
    # One x per z, and z a function of x or x of z: the joint law is the same, so is the variance.
    def slope(sampler):
        run = jax.vmap(lambda key: jax.grad(lambda x: quadratic(sampler(key, x)))(LOGITS))
        return np.float64(jax.jit(run)(jax.random.split(jax.random.key(4), 20_000)))

    plain = slope(partial(gumbel_softmax.sample, temperature=0.5, hard=True))
    ours = slope(partial(gumbel_rao.categorical, temperature=0.5, num_samples=1))
    for power in (1, 2):
        (a, sa), (b, sb) = mean_and_error(ours**power), mean_and_error(plain**power)
        assert np.all(np.abs(a - b) < 5 * np.hypot(sa, sb))


@pytest.mark.thorough
def test_two_classes_are_a_bit():
    logits = np.float32([0.8, 0.0])
    by_class = partial(gumbel_rao.categorical, temperature=0.7, num_samples=5)
    by_bit = partial(gumbel_rao.bernoulli, temperature=0.7, num_samples=5)
    _, matrices = jacobians(by_class, logits, 20_000)
    _, slopes = jacobians(by_bit, logits[:1], 20_000)
    (a, sa), (b, sb) = mean_and_error(matrices[:, 0, 0]), mean_and_error(slopes[:, 0, 0])
    assert abs(a - b) < 5 * np.hypot(sa, sb)


@pytest.mark.parametrize("sampler", [gumbel_rao.bernoulli, gumbel_rao.categorical])
def test_gumbel_rao_refuses_bad_settings(sampler):
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        sampler(jax.random.key(0), jnp.zeros(3), 0.5, num_samples=0)
    with pytest.raises(ValueError, match="temperature must be positive, got -1"):
        sampler(jax.random.key(0), jnp.zeros(3), -1, num_samples=2)


def test_gumbel_rao_takes_a_temperature_for_each_of_several_draws():
    temperatures = jnp.float32([[0.5], [1.0], [2.0]])
    logits = jnp.zeros((1, 40_000))

    def total(scale):
        z = gumbel_rao.bernoulli(jax.random.key(3), scale + logits, temperatures, num_samples=3)
        assert z.shape == (3, 40_000)
        return z.mean(1)

    _, slopes = jax.jvp(jax.jit(total), (jnp.zeros(()),), (jnp.ones(()),))
    for slope, temperature in zip(slopes, temperatures[:, 0], strict=True):
        alone = lambda scale, t=temperature: gumbel_rao.bernoulli(
            jax.random.key(4), scale + logits[0], t, num_samples=3
        ).mean()
        _, expected = jax.jvp(jax.jit(alone), (jnp.zeros(()),), (jnp.ones(()),))
        np.testing.assert_allclose(slope, expected, rtol=0.03)


def test_each_row_may_have_its_temperature():
    logits = np.stack([LOGITS, LOGITS])

    def slopes(temperature):
        f = lambda x: gumbel_rao.categorical(jax.random.key(0), x, temperature, num_samples=4)
        return jax.vjp(f, logits)[1](jnp.asarray(np.stack([VECTOR, VECTOR])))[0]

    ours = slopes(np.float32([[0.5], [2.0]]))
    np.testing.assert_allclose(ours[0], slopes(0.5)[0], rtol=1e-6)
    np.testing.assert_allclose(ours[1], slopes(2.0)[1], rtol=1e-6)


def test_temperatures_of_gumbel_rao_are_for_all_classes():
    sample = lambda tau: gumbel_rao.categorical(
        jax.random.key(0), jnp.zeros((2, 3)), tau, num_samples=2
    )
    with pytest.raises(ValueError, match=r"temperature must be a scalar or \[\.\.\., 1\].*\(3,\)"):
        sample(jnp.ones(3))
    assert sample(jnp.ones((4, 2, 1))).shape == (4, 2, 3)
