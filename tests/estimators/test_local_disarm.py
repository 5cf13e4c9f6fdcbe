"""`estimators.local_disarm`: exactly unbiased for the bound of K samples, over a grid of noise."""

import functools
import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import distributions, estimators

EIGHTHS = np.array([3, 7]) / 8
LOGITS = np.float32(np.log(EIGHTHS / (1 - EIGHTHS)))
THETA = np.float32([0.8, -1.7])
STATES = np.float32(list(itertools.product((0, 1), repeat=2)))


def log_weight(z, logits, theta):
    """It closes over the logits too, as that of an ELBO does."""
    return (z @ theta) ** 3 - distributions.bernoulli.log_prob(z, logits).sum(-1)


def grid(num_samples):
    """Midpoints of eighths for every unit of every sample, [K, 8^(2 K), 2]: all of the noise."""
    axis = (np.arange(8) + 0.5) / 8
    rows = np.float32(list(itertools.product(axis, repeat=2 * num_samples)))
    return rows.reshape(-1, num_samples, 2).swapaxes(0, 1)


def exact_bound(logits, theta, num_samples):
    """E[log 1/K sum_k exp l_k] over all tuples of states."""
    rows = jnp.broadcast_to(logits, STATES.shape)
    log_q = distributions.bernoulli.log_prob(STATES, rows).sum(-1)
    values = log_weight(STATES, rows, theta)
    tuples = np.array(list(itertools.product(range(4), repeat=num_samples))).T
    bounds = jax.nn.logsumexp(values[tuples], axis=0) - np.log(num_samples)
    return jnp.sum(jnp.exp(log_q[tuples].sum(0)) * bounds)


@pytest.mark.parametrize("num_samples", [1, 2])
def test_the_mean_over_all_noise_is_the_gradient_of_the_bound(monkeypatch, num_samples):
    module = importlib.import_module("dvae.estimators.local_disarm")
    noise = grid(num_samples)
    monkeypatch.setattr(module, "open_uniform", lambda key, shape: jnp.asarray(noise))

    def mean(logits, theta):
        rows = jnp.broadcast_to(logits, noise.shape[1:])
        f = lambda z: log_weight(z, jnp.broadcast_to(rows[None], z.shape), theta)
        key = jax.random.key(0)
        return estimators.local_disarm(key, f, rows, num_samples=num_samples).surrogate.mean()

    value, ours = jax.jit(jax.value_and_grad(mean, (0, 1)))(LOGITS, THETA)
    exact = jax.jit(jax.value_and_grad(exact_bound, (0, 1)), static_argnums=2)
    expected, oracle = exact(LOGITS, THETA, num_samples)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for actual, gradient in zip(ours, oracle, strict=True):
        np.testing.assert_allclose(actual, gradient, rtol=1e-4, atol=1e-5)


def test_a_single_pair_is_disarm():
    f = lambda z: (z @ THETA) ** 3
    rows = np.tile(LOGITS, (50, 1))
    pair = lambda x: estimators.disarm(jax.random.key(3), f, x).surrogate.sum()
    ours = lambda x: estimators.local_disarm(jax.random.key(3), f, x, num_samples=1).surrogate.sum()
    for actual, expected in zip(
        jax.value_and_grad(ours)(rows), jax.value_and_grad(pair)(rows), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_log_weights_of_images_keep_their_digits():
    """A shift of thousands of nats leaves the gradient what it is, but for float32's rounding."""
    f = lambda shift: lambda z: jnp.round(4 * (z @ THETA) ** 3) / 4 + shift
    one = lambda x, shift: estimators.local_disarm(
        jax.random.key(3), f(shift), x, num_samples=3
    ).surrogate.sum()
    gradient = jax.jit(jax.grad(one))
    rows = np.tile(LOGITS, (9, 1))
    np.testing.assert_allclose(gradient(rows, -5000.0), gradient(rows, 0.0), rtol=1e-4, atol=1e-6)


def test_integers_count_like_floats():
    count = lambda z: (3 * z[..., 0] + z[..., 1]).astype(jnp.int32)

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(f):
        one = lambda x: estimators.local_disarm(jax.random.key(4), f, x, num_samples=3)
        return jax.grad(lambda x: one(x).surrogate.sum())(np.tile(LOGITS, (9, 1)))

    seen = gradient(count)
    assert np.any(np.asarray(seen) != 0)
    np.testing.assert_array_equal(seen, gradient(lambda z: count(z).astype(jnp.float32)))


@pytest.mark.parametrize("num_samples", [0, 1.5])
def test_the_number_of_samples_is_checked(num_samples):
    with pytest.raises(ValueError, match="integer of at least 1 for local_disarm, got"):
        estimators.local_disarm(jax.random.key(0), lambda z: z, LOGITS, num_samples=num_samples)
