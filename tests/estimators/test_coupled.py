"""`estimators.coupled`: exactly unbiased over a grid of its noise, and the law of its pairs."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import distributions, estimators

MODULE = importlib.import_module("dvae.estimators.coupled")


def midpoints(count):
    return (np.arange(count) + 0.5) / count


# Units' probabilities, and of which shares each break of a stick takes whole numbers.
CASES = {
    "two units of three": (np.array([[2, 3, 1], [6, 3, 3]]) / [[6], [12]], (12, 15)),
    "one of four": (np.array([[3, 1, 4, 2]]) / 10, (10, 9, 7)),
    "one of two": (np.array([[1, 3]]) / 4, (4,)),
    "a class without mass": (np.array([[1, 0, 3]]) / 4, (1, 4)),
}


def grid(probabilities, counts):
    """All of the noise, [rows, n, C]; the last break is certain."""
    axes = [*map(midpoints, counts), [0.5]]
    of_unit = np.float32(list(itertools.product(*axes)))
    rows = itertools.product(of_unit, repeat=len(probabilities))
    return np.stack([np.stack(row) for row in rows])


def value_of(z, logits, theta):
    """f closes over the logits too, as an ELBO's log q does."""
    score = jnp.sum(jnp.broadcast_to(theta, z.shape) * z, (-2, -1))
    return 3 + score**3 - distributions.categorical.log_prob(z, logits).sum(-1)


@pytest.mark.parametrize("name", CASES)
def test_the_mean_over_all_noise_is_the_exact_gradient(monkeypatch, name):
    probabilities, counts = CASES[name]
    noise = grid(probabilities, counts)
    monkeypatch.setattr(MODULE, "open_uniform", lambda key, shape: jnp.asarray(noise))
    with np.errstate(divide="ignore"):
        logits = np.float32(np.log(probabilities) + 0.7)
    theta = np.float32(np.random.default_rng(0).normal(size=logits.shape))

    def mean(logits, theta):
        rows = jnp.broadcast_to(logits, noise.shape)
        f = lambda z: value_of(z, rows, theta)
        return estimators.coupled(jax.random.key(0), f, rows).surrogate.mean()

    def exact(logits, theta):
        f = lambda z: value_of(z, jnp.broadcast_to(logits, z.shape), theta)
        return estimators.exact(f, logits, family=distributions.categorical)

    value, ours = jax.jit(jax.value_and_grad(mean, (0, 1)))(logits, theta)
    expected, oracle = jax.jit(jax.value_and_grad(exact, (0, 1)))(logits, theta)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for actual, gradient in zip(ours, oracle, strict=True):
        np.testing.assert_allclose(actual, gradient, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_pairs_have_the_law_that_the_weights_undo(monkeypatch, name):
    """P(a, b) w = p_a p_b off the diagonal, counted over all of the noise."""
    probabilities, counts = CASES[name]
    noise = grid(probabilities[:1], counts)
    monkeypatch.setattr(MODULE, "open_uniform", lambda key, shape: jnp.asarray(noise))
    p = np.sort(probabilities[0])
    rows = jnp.broadcast_to(jnp.float32(p), noise.shape)
    first, second = MODULE._break_sticks(jax.random.key(0), rows)
    seen = np.zeros((len(p), len(p)))
    np.add.at(seen, (np.ravel(first), np.ravel(second)), 1 / len(noise))
    weights = np.asarray(MODULE._weights(jnp.float32(p)))
    np.testing.assert_allclose(seen.sum(0), p, atol=1e-6)
    np.testing.assert_allclose(seen.sum(1), p, atol=1e-6)
    for a, b in itertools.permutations(range(len(p)), 2):
        np.testing.assert_allclose(seen[a, b] * weights[min(a, b)], p[a] * p[b], atol=1e-6)


def test_weights_fall_from_one_less_the_rarest():
    p = np.float32(np.sort(np.random.default_rng(0).dirichlet(np.ones(6), size=50)))
    weights = np.asarray(MODULE._weights(jnp.asarray(p)))[:, :-1]
    np.testing.assert_allclose(weights[:, 0], 1 - p[:, 0], rtol=1e-5)
    assert np.all(np.diff(weights) <= 1e-6)
    np.testing.assert_allclose(MODULE._weights(jnp.full((1, 4), 0.25))[:, :-1], 0.75, rtol=1e-6)


def test_equal_classes_are_never_drawn_twice():
    pair = MODULE._break_sticks(jax.random.key(1), jnp.full((200, 3, 5), 0.2))
    assert np.all(np.asarray(pair[0]) != np.asarray(pair[1]))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_extremes_keep_dtype_and_stay_finite(dtype):
    logits = jnp.asarray([[[-1e4, 1e4, 0.0], [80.0, -80.0, 1.0]]], dtype)
    f = lambda z: (z @ jnp.arange(3, dtype=dtype)).sum(-1)
    estimate, gradient = jax.value_and_grad(
        lambda x: estimators.coupled(jax.random.key(1), f, x).surrogate.sum()
    )(logits)
    assert gradient.dtype == dtype
    assert float(estimate) == 1.0  # classes 1 and 0, for certain
    np.testing.assert_array_equal(gradient, 0)


def test_nan_logits_and_bad_shapes_show():
    f = lambda z: z[..., 0].sum(-1)
    logits = jnp.float32([[[0.0, jnp.nan, 1.0]], [[0.0, 2.0, 1.0]]])
    value = estimators.coupled(jax.random.key(0), f, logits).value
    assert np.isnan(value[0])
    assert np.isfinite(value[1])
    with pytest.raises(ValueError, match="coupled needs logits"):
        estimators.coupled(jax.random.key(0), f, jnp.zeros(3))
    with pytest.raises(ValueError, match=r"coupled needs one value .* \(2, 1, 3\) to \(2,\)"):
        estimators.coupled(jax.random.key(0), lambda z: z, logits)


def test_the_least_noise_breaks_at_both_ends(monkeypatch):
    """In float32 1 - 2^-33 is 1, which is below no share."""
    monkeypatch.setattr(MODULE, "open_uniform", lambda _, shape: jnp.full(shape, 2.0**-33))
    first, second = MODULE._break_sticks(None, jnp.asarray([0.2, 0.3, 0.5]))
    assert (int(first), int(second)) == (0, 2)
