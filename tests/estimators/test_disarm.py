"""`estimators.disarm`: exactly unbiased over a grid of its noise."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import distributions, estimators

EIGHTHS = np.array([3, 5, 7]) / 8
LOGITS = np.float32(np.log(EIGHTHS / (1 - EIGHTHS)))
THETA = np.float32([0.3, -0.7, 1.2])
# Midpoints of eighths: each unit is on for exactly the right share of them.
GRID = np.float32(list(itertools.product((np.arange(8) + 0.5) / 8, repeat=3)))


def value_of(z, logits, theta):
    """f closes over the logits too, as an ELBO's log q does."""
    return 3 + (z @ theta) ** 3 - distributions.bernoulli.log_prob(z, logits).sum(-1)


@pytest.fixture
def noise_on_a_grid(monkeypatch):
    module = importlib.import_module("dvae.estimators.disarm")
    monkeypatch.setattr(module, "open_uniform", lambda key, shape: jnp.asarray(GRID))


@pytest.mark.usefixtures("noise_on_a_grid")
def test_averages_to_the_exact_gradient():
    def mean(logits, theta):
        rows = jnp.broadcast_to(logits, GRID.shape)
        f = lambda z: value_of(z, rows, theta)
        return estimators.disarm(jax.random.key(0), f, rows).surrogate.mean()

    def exact(logits, theta):
        return estimators.exact(lambda z: value_of(z, logits, theta), logits)

    value, ours = jax.jit(jax.value_and_grad(mean, (0, 1)))(LOGITS, THETA)
    expected, oracle = jax.jit(jax.value_and_grad(exact, (0, 1)))(LOGITS, THETA)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(ours[0], oracle[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours[1], oracle[1], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("noise_on_a_grid")
def test_each_draw_is_the_published_formula():
    rows = np.broadcast_to(LOGITS, GRID.shape)

    def total(rows):
        f = lambda z: (z @ THETA) ** 2
        return estimators.disarm(jax.random.key(0), f, rows).surrogate.sum()

    f = lambda z: (z @ np.float64(THETA)) ** 2
    first, second = GRID < EIGHTHS, 1 - GRID < EIGHTHS
    sign = np.where(second, -1.0, 1.0) * (first != second)
    larger = np.maximum(EIGHTHS, 1 - EIGHTHS)  # sigmoid(|l|)
    expected = 0.5 * (f(first) - f(second))[:, None] * sign * larger
    np.testing.assert_allclose(jax.jit(jax.grad(total))(rows), expected, rtol=1e-4, atol=1e-6)


def test_at_even_odds_the_pair_is_opposite():
    place = np.float32([1, 2, 4, 8])  # z @ place and its opposite's add up to 15, always
    draw = jax.jit(lambda x: estimators.disarm(jax.random.key(1), lambda z: z @ place, x))
    np.testing.assert_array_equal(draw(np.zeros((50, 4), np.float32)).value, 7.5)


def test_certain_bits_are_drawn_certain_on_both_sides():
    # sigmoid(20) and 1 - u round to 1, where a comparison of probabilities would draw 1 < 1.
    logits = jnp.full((1000, 50), 30.0)
    estimate = jax.jit(lambda x: estimators.disarm(jax.random.key(2), lambda z: z.sum(-1), x))(
        logits
    )
    np.testing.assert_array_equal(estimate.value, 50)


def test_f_must_reduce_the_units():
    with pytest.raises(ValueError, match=r"disarm needs one value .* z \(5, 3\) to \(5,\).*got"):
        jax.eval_shape(
            lambda x: estimators.disarm(jax.random.key(0), lambda z: z, x), jnp.zeros((5, 3))
        )
