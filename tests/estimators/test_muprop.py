"""`estimators.muprop`: exactly unbiased, without variance where f is linear."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import distributions, estimators

LOGITS = np.float32([0.4, -1.1, 2.0])
THETA = np.float32([0.3, -0.7, 1.2])


def value_of(z, logits, theta):
    """f closes over the logits too, as an ELBO's log q does."""
    theta = jnp.broadcast_to(theta, z.shape)
    return (
        3 + jnp.sum(theta * z, axis=-1) ** 3 - distributions.bernoulli.log_prob(z, logits).sum(-1)
    )


def gradients(rows, theta, seed=0, **options):
    """Gradients of the estimate for each row of logits [S, n], in the row and in theta."""

    def total(logits, theta):
        f = lambda z: value_of(z, logits, theta)
        estimate = estimators.muprop(jax.random.key(seed), f, logits, **options)
        return estimate.surrogate.sum(), estimate.value

    return jax.jit(jax.grad(total, (0, 1), has_aux=True))(rows, theta)


@pytest.mark.parametrize("options", [{}, dict(baseline=1.7, scales=(0.3, 1.4))], ids=str)
def test_enumerated_draws_average_to_the_exact_gradient(monkeypatch, options):
    states = np.asarray(distributions.bernoulli.support(LOGITS))
    rows = np.broadcast_to(LOGITS, states.shape)
    thetas = np.broadcast_to(THETA, states.shape)
    monkeypatch.setattr(distributions.bernoulli, "sample", lambda key, logits: jnp.asarray(states))
    (by_logits, by_theta), values = gradients(rows, thetas, **options)
    np.testing.assert_allclose(values, value_of(states, LOGITS, THETA), rtol=1e-5)

    p = 1 / (1 + np.exp(-np.float64(LOGITS)))
    q = np.prod(np.where(states, p, 1 - p), axis=-1)
    exact = jax.jit(
        jax.grad(lambda x, theta: estimators.exact(lambda z: value_of(z, x, theta), x), (0, 1))
    )(LOGITS, THETA)
    np.testing.assert_allclose(q @ by_logits, exact[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(q @ by_theta, exact[1], rtol=1e-4, atol=1e-5)


def test_parameters_receive_only_the_gradient_at_the_sample():
    logits, theta = (np.float32(np.random.default_rng(1).normal(size=(6, 3))) for _ in range(2))
    (_, by_theta), _ = gradients(logits, theta, seed=2)

    @jax.jit
    @jax.grad
    def expected(theta):
        z = distributions.bernoulli.sample(jax.random.key(2), logits)
        return value_of(z, logits, theta).sum()

    np.testing.assert_allclose(by_theta, expected(theta), rtol=1e-5, atol=1e-6)


@pytest.mark.thorough
def test_the_residual_is_linear_in_its_scales():
    f = lambda z: value_of(z, LOGITS, THETA)
    key, rows = jax.random.key(4), np.broadcast_to(LOGITS, (5, 3))
    residual = lambda scales: estimators.muprop_residual(
        jax.random.clone(key), f, rows, scales=scales
    )
    values, by_scales = jax.jit(lambda s: (residual(s), jax.jacobian(residual)(s)))(
        (jnp.float32(0.5), jnp.float32(2.0))
    )
    z = np.float64(distributions.bernoulli.sample(key, rows))
    mu = 1 / (1 + np.exp(-np.float64(rows)))
    at_mu = np.float64(f(jnp.float32(mu)))
    slope = np.float64(jax.vmap(jax.grad(lambda m: f(m)))(jnp.float32(mu)))
    linear = (slope * (z - mu)).sum(-1)
    np.testing.assert_allclose(by_scales, [-at_mu, -linear], rtol=1e-4, atol=1e-5)
    expected = np.float64(f(jnp.float32(z))) - 0.5 * at_mu - 2 * linear
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


def test_the_residual_passes_no_gradient_to_logits_or_parameters():
    def total(logits, theta):
        f = lambda z: value_of(z, logits, theta)
        return estimators.muprop_residual(jax.random.key(4), f, logits).sum()

    rows = np.broadcast_to(LOGITS, (5, 3))
    for gradient in jax.jit(jax.grad(total, (0, 1)))(rows, THETA):
        np.testing.assert_array_equal(gradient, 0)


def test_scales_must_be_scalars():
    with pytest.raises(ValueError, match=r"muprop takes two scales, scalars.*\(3,\)"):
        estimators.muprop(jax.random.key(0), jnp.sum, jnp.zeros(3), scales=(1.0, jnp.ones(3)))


def test_linear_f_has_no_variance():
    def total(logits):
        f = lambda z: 50 + z @ THETA
        return estimators.muprop(jax.random.key(3), f, logits).surrogate.sum()

    rows = np.broadcast_to(LOGITS, (32, 3))
    p = 1 / (1 + np.exp(-np.float64(LOGITS)))
    expected = np.broadcast_to(THETA * p * (1 - p), (32, 3))
    np.testing.assert_allclose(jax.jit(jax.grad(total))(rows), expected, atol=3e-5)


def test_f_is_evaluated_twice():
    shapes = []

    def f(z):
        shapes.append(z.shape)
        return z.sum(-1)

    jax.eval_shape(lambda x: estimators.muprop(jax.random.key(0), f, x), LOGITS)
    assert shapes == [(3,), (3,)]


def test_f_must_reduce_the_units():
    with pytest.raises(ValueError, match=r"muprop needs one value .* z \(5, 3\) to \(5,\).*got"):
        jax.eval_shape(
            lambda x: estimators.muprop(jax.random.key(0), lambda z: z, x), jnp.zeros((5, 3))
        )


def test_the_mean_residual_as_baseline_lowers_the_variance_of_a_curved_f():
    rows = np.broadcast_to(LOGITS, (4_000, 3))
    f = lambda z: -5 * jnp.sum(z - 0.5, axis=-1) ** 2
    residual = jax.jit(lambda rows: estimators.muprop_residual(jax.random.key(5), f, rows))(rows)
    # f is quadratic: half the trace of its Hessian times the covariance, -5 sum q (1 - q).
    q = 1 / (1 + np.exp(-np.float64(LOGITS)))
    error = np.std(residual) / np.sqrt(len(rows))
    assert abs(np.mean(residual) + 5 * np.sum(q * (1 - q))) < 5 * error

    def variance(baseline):
        total = lambda rows: estimators.muprop(
            jax.random.key(6), f, rows, baseline=baseline
        ).surrogate.sum()
        return np.var(jax.jit(jax.grad(total))(rows), axis=0).sum()

    assert variance(np.mean(residual)) < 0.8 * variance(0.0)


def test_a_baseline_of_another_shape_is_refused():
    f = lambda z: z.sum(-1)
    with pytest.raises(ValueError, match=r"shape \(5,\), the baseline has \(5, 1\)"):
        estimators.muprop(jax.random.key(0), f, jnp.zeros((5, 3)), baseline=jnp.zeros((5, 1)))


def test_f_is_given_the_dtype_of_the_logits_alone():
    seen = set()

    def f(z):
        seen.add(z.dtype)
        return z.sum(-1).astype(jnp.float32)

    estimators.muprop(jax.random.key(0), f, jnp.asarray(LOGITS, jnp.bfloat16))
    assert seen == {jnp.dtype(jnp.bfloat16)}
