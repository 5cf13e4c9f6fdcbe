"""`estimators.rebar_variance`: the squared norm of the same draw, and what tunes the estimator."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rebar_cases import LOGITS, THETA, TOWARD_MEAN, objective

from dvae import distributions, estimators


@functools.partial(jax.jit, static_argnames="toward_mean")
def squared_norm(key, temperature, eta, toward_mean=False):
    """||g||^2 of the estimator itself, [batch]."""
    options = dict(temperature=temperature, eta=eta, toward_mean=toward_mean)

    def total(logits):
        f = objective(THETA)
        return estimators.rebar(key, f, logits, **options).surrogate.sum()

    return jnp.sum(jax.grad(total)(LOGITS) ** 2, axis=-1)


def variance(key, temperature, eta, toward_mean=False):
    return estimators.rebar_variance(
        key, objective(THETA), LOGITS, temperature=temperature, eta=eta, toward_mean=toward_mean
    )


SETTINGS = pytest.mark.parametrize(("temperature", "eta"), [(0.3, 0.8), (1.0, 1.0), (2.0, -0.5)])


@SETTINGS
@TOWARD_MEAN
def test_variance_is_the_squared_norm_of_the_same_draw(temperature, eta, toward_mean):
    of_setting = jax.jit(variance, static_argnames="toward_mean")
    ours = of_setting(jax.random.key(3), temperature, eta, toward_mean=toward_mean)
    assert ours.shape == (3,)
    expected = squared_norm(jax.random.key(3), temperature, eta, toward_mean)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@functools.partial(jax.jit, static_argnames="toward_mean")
@functools.partial(jax.value_and_grad, argnums=(1, 2))
def total_variance(key, temperature, eta, toward_mean=False):
    return variance(key, temperature, eta, toward_mean).sum()


@SETTINGS
@TOWARD_MEAN
def test_variance_has_the_gradient_of_the_squared_norm(temperature, eta, toward_mean):
    def norm(temperature, eta):
        return float(squared_norm(jax.random.key(3), temperature, eta, toward_mean).sum())

    _, ours = total_variance(jax.random.key(3), temperature, eta, toward_mean=toward_mean)
    step = 1e-2
    by_t = (norm(temperature + step, eta) - norm(temperature - step, eta)) / (2 * step)
    by_eta = (norm(temperature, eta + step) - norm(temperature, eta - step)) / (2 * step)
    np.testing.assert_allclose(ours, [by_t, by_eta], rtol=1e-2)


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(1, 2))
def total_variance_of_relax(key, temperature, eta):
    """Plain autodiff, so that the two agree to float32 precision."""
    f = objective(THETA)
    control_variate = lambda z: eta * f(jax.nn.sigmoid(z / temperature))
    return estimators.relax_variance(key, f, LOGITS, control_variate=control_variate).sum()


@SETTINGS
def test_variance_equals_that_of_relax_with_the_same_control(temperature, eta):
    ours, oracle = (
        jax.tree.leaves(fun(jax.random.key(4), temperature, eta))
        for fun in (total_variance, total_variance_of_relax)
    )
    np.testing.assert_allclose(ours, oracle, rtol=1e-3)


def test_variance_gives_the_model_no_gradient():
    def total(logits, theta):
        def f(z):
            return objective(theta)(z) - distributions.bernoulli.log_prob(z, logits).sum(-1)

        return estimators.rebar_variance(
            jax.random.key(5), f, logits, temperature=0.5, eta=1.0
        ).sum()

    for gradient in jax.tree.leaves(jax.jit(jax.grad(total, (0, 1)))(LOGITS, THETA)):
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.thorough
def test_descending_the_variance_lowers_the_measured_variance():
    def loss(tuned, key):
        log_temperature, eta = tuned
        return jnp.mean(variance(key, jnp.exp(log_temperature), eta))

    def step(tuned, key):
        gradient = jax.vmap(jax.grad(loss), (None, 0))(tuned, jax.random.split(key, 8)).mean(0)
        return tuned - 0.02 * gradient / (1 + jnp.abs(gradient)), None

    start = jnp.asarray([np.log(3.0), 0.0], jnp.float32)
    keys = jax.random.split(jax.random.key(6), 200)
    tuned = jax.jit(lambda keys: jax.lax.scan(step, start, keys)[0])(keys)

    def measure(temperature, eta):
        def gradient(key):
            def total(logits):
                return estimators.rebar(
                    key, objective(THETA), logits, temperature=temperature, eta=eta
                ).surrogate.sum()

            return jax.grad(total)(LOGITS)

        keys = jax.random.split(jax.random.key(7), 2000)  # the same at every setting
        return jax.vmap(gradient)(keys).var(0).sum()

    grid = [(t, eta) for t in (0.2, 0.4, 0.8, 1.6) for eta in (0.3, 0.6, 0.9, 1.2)]
    settings = np.float32([(3.0, 0.0), (np.exp(tuned[0]), tuned[1]), *grid])
    start, learned, *others = jax.jit(lambda s: jax.lax.map(lambda x: measure(*x), s))(settings)
    assert learned < 0.7 * start
    assert learned < 1.02 * min(others)


@TOWARD_MEAN
def test_variance_and_its_gradient_are_finite_at_extremes(toward_mean):
    logits = np.float32([[-80.0, 80.0, 0.0], [1e4, -1e4, 20.0], [np.inf, -np.inf, 0.3]])
    finite = np.clip(logits, -1e4, 1e4)  # relaxed bits inside (0, 1) have no density at infinity

    def total(temperature, eta):
        f = lambda z: z.sum(-1) ** 2 - distributions.bernoulli.log_prob(z, finite).sum(-1)
        options = dict(temperature=temperature, eta=eta, toward_mean=toward_mean)
        return estimators.rebar_variance(jax.random.key(8), f, logits, **options).sum()

    value_and_grad = jax.jit(jax.value_and_grad(total, (0, 1)))
    for temperature in (0.01, 1.0, 100.0):
        for x in jax.tree.leaves(value_and_grad(temperature, 1.0)):
            assert np.isfinite(x)


@TOWARD_MEAN
def test_gradients_of_the_temperature_ignore_certain_bits(toward_mean):
    """Those of the free bits alone, of which the certain ones are constants."""
    logits = np.float32([[0.3, np.inf, -np.inf], [-0.7, -np.inf, np.inf]])
    weights = jnp.asarray([[1.0, 2.0, 3.0]])

    def norm(temperature, logits):
        gradients = estimators.rebar_gradients(
            jax.random.key(8),
            lambda params: logits + params[0],
            lambda params, z: (params[1] * z).sum(-1) ** 2,
            (jnp.zeros(()), weights),
            temperature=temperature,
            toward_mean=toward_mean,
        )
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(gradients.control))

    ours = jax.grad(norm)(0.5, logits)
    nearly = jax.grad(norm)(0.5, np.clip(logits, -1e4, 1e4))
    np.testing.assert_allclose(ours, nearly, rtol=1e-5)


def test_variance_of_half_precision_is_float32():
    f = lambda z: 1000 * z.sum(-1)  # squares overflow float16
    logits = np.zeros((2, 3), np.float16)
    ours = jax.jit(
        lambda x: estimators.rebar_variance(jax.random.key(9), f, x, temperature=0.5, eta=0.0)
    )(logits)
    assert ours.dtype == jnp.float32
    assert np.all(np.isfinite(ours))
