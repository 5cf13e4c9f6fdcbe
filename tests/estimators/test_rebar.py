"""`estimators.rebar`: its relaxed draws, its limits, and the parts of its gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rebar_cases import LOGITS, RNG, THETA, TOWARD_MEAN, draw_relaxed, objective

from dvae import distributions, estimators
from dvae.estimators import _relaxed


@pytest.mark.parametrize("logit", [-3.0, 0.0, 1.2])
def test_relaxed_draws(logit):
    """Both relaxations are logistic around l; z' agrees with b and has the slope of its noise."""
    logits = np.full(40_000, logit, np.float32)
    draw = draw_relaxed(jax.random.key(5), logits)
    z, conditional = np.float64(draw.pair)
    p = 1 / (1 + np.exp(-logit))
    np.testing.assert_array_equal(z > 0, draw.bits)
    np.testing.assert_array_equal(conditional > 0, draw.bits)
    for sample in (z, conditional):
        for quantile in (0.01, 0.3, 0.5, 0.9):
            below = np.mean(sample < logit + np.log(quantile / (1 - quantile)))
            assert abs(below - quantile) < 5 * np.sqrt(quantile * (1 - quantile) / 40_000)
    # Given b the two are independent draws.
    assert abs(np.corrcoef(z[z > 0], conditional[z > 0])[0, 1]) < 5 / np.sqrt(np.sum(z > 0))

    uniform = 1 / (1 + np.exp(logit - conditional))  # z' = l + logit(u')
    on = np.asarray(draw.bits) == 1
    # u' = v p + 1 - p where b = 1, and u' = v (1 - p) where b = 0; v is held.
    v = np.where(on, (uniform - (1 - p)) / p, uniform / (1 - p))
    du_dl = np.where(on, v - 1, -v) * p * (1 - p)
    slope = 1 + du_dl / (uniform * (1 - uniform))
    np.testing.assert_allclose(draw.slopes[1], slope, atol=3e-3)


@pytest.mark.thorough
def test_without_control_variate_it_is_reinforce():
    key = jax.random.key(1)
    bits = draw_relaxed(jax.random.clone(key), LOGITS).bits

    def total(logits):
        return estimators.rebar(
            key, objective(THETA), logits, temperature=0.5, eta=0.0
        ).surrogate.sum()

    def score(logits):
        log_q = distributions.bernoulli.log_prob(bits, logits).sum(-1)
        return estimators.reinforce_surrogate(objective(THETA)(bits), log_q).surrogate.sum()

    np.testing.assert_allclose(
        jax.jit(jax.grad(total))(LOGITS), jax.jit(jax.grad(score))(LOGITS), rtol=1e-5, atol=1e-6
    )


def test_a_baseline_takes_its_multiple_of_the_score():
    """In the gradient, and twice its product with the gradient in the squared norm's."""
    draw = draw_relaxed(jax.random.key(8), LOGITS)
    baseline = np.float32([0.7, -1.0, 2.0])
    options = dict(temperature=0.5, eta=0.8)

    @jax.jit
    @jax.grad
    def gradient(logits, baseline):
        estimate = estimators.rebar(
            jax.random.key(8), objective(THETA), logits, baseline=baseline, **options
        )
        return estimate.surrogate.sum()

    g = gradient(LOGITS, baseline)
    without = gradient(LOGITS, None)
    np.testing.assert_allclose(g, without - baseline[:, None] * draw.score, rtol=1e-4, atol=1e-5)

    @jax.jit
    @jax.value_and_grad
    def norm(baseline):
        return estimators.rebar_variance(
            jax.random.key(8), objective(THETA), LOGITS, baseline=baseline, **options
        ).sum()

    value, by_baseline = norm(baseline)
    np.testing.assert_allclose(value, np.sum(np.square(g)), rtol=1e-4)
    expected = -2 * np.sum(g * draw.score, axis=-1)
    np.testing.assert_allclose(by_baseline, expected, rtol=1e-4, atol=1e-4)


@TOWARD_MEAN
def test_gradients_in_parameters_are_those_in_logits_and_those_of_f(toward_mean):
    """Of parameters that are the logits, and of the parameters of f; and what tunes them."""
    key, size = jax.random.key(9), len(LOGITS)
    params = {"logits": LOGITS, "theta": THETA}
    f = lambda params, z: objective(params["theta"])(z)
    baseline = np.float32([0.7, -1.0, 2.0])

    @jax.jit
    def parts(temperature, baseline):
        return estimators.rebar_gradients(
            jax.random.clone(key), lambda params: params["logits"], f, params,
            temperature=temperature, baseline=baseline, toward_mean=toward_mean,
        )  # fmt: skip

    @jax.jit
    @jax.grad
    def of_rebar(params):
        estimate = estimators.rebar(
            jax.random.clone(key), objective(params["theta"]), params["logits"],
            temperature=0.5, eta=0.8, baseline=baseline, toward_mean=toward_mean,
        )  # fmt: skip
        return estimate.surrogate.mean()

    found, expected = parts(0.5, baseline), of_rebar(params)
    whole = found.signal["logits"] + 0.8 * found.control["logits"]
    np.testing.assert_allclose(whole, expected["logits"], rtol=1e-4, atol=1e-5)
    pair = draw_relaxed(key, LOGITS).pair + toward_mean * 0.5**2 / 1.5 * LOGITS[None]

    @jax.jit
    @jax.grad
    def of_f(theta):
        free, given_bits = jax.vmap(objective(theta))(jax.nn.sigmoid(pair / 0.5))
        return jnp.mean(free - given_bits)

    for ours, oracle in (
        (found.signal["theta"], expected["theta"]),
        (found.control["theta"], of_f(THETA)),
    ):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, oracle
        )

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1, 2))
    def tuning(temperature, eta, baseline):
        signal, control = parts(temperature, baseline)[1:]
        return jnp.sum((signal["logits"] + eta * control["logits"]) ** 2)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1, 2))
    def of_variance(temperature, eta, baseline):
        return estimators.rebar_variance(
            jax.random.clone(key), objective(THETA), LOGITS,
            temperature=temperature, eta=eta, baseline=baseline, toward_mean=toward_mean,
        ).sum() / size**2  # fmt: skip

    for ours, oracle in zip(
        tuning(0.5, 0.8, baseline), of_variance(0.5, 0.8, baseline), strict=True
    ):
        np.testing.assert_allclose(ours, oracle, rtol=1e-3, atol=1e-5)


def test_certain_bits_add_nothing_to_the_gradients_in_parameters():
    params = {"logits": jnp.float32([0.5, jnp.inf, -jnp.inf])}
    found = estimators.rebar_gradients(
        jax.random.key(0), lambda p: p["logits"], lambda _, z: z.sum(-1), params, temperature=0.5
    )
    for gradient in (found.signal, found.control):
        assert np.all(np.isfinite(gradient["logits"]))
        np.testing.assert_array_equal(gradient["logits"][1:], 0)


def test_relaxed_bits_toward_the_mean_are_those_of_relax_with_that_control():
    """What relax says of a control that is a function of the logits is added by hand."""
    key, t, eta = jax.random.key(13), 2.0, 0.8
    factor = t**2 / (t + 1)
    c = lambda z, x: eta * objective(THETA)(jax.nn.sigmoid((z + factor * x) / t))
    pair = draw_relaxed(jax.random.clone(key), LOGITS).pair

    @jax.jit
    @jax.grad
    def expected(logits):
        of_z = estimators.relax(
            jax.random.clone(key),
            objective(THETA),
            logits,
            control_variate=lambda z: c(z, jax.lax.stop_gradient(logits)),
        ).surrogate
        return jnp.sum(of_z + c(pair[0], logits) - c(pair[1], logits))

    @jax.jit
    @jax.grad
    def found(logits):
        return estimators.rebar(
            key, objective(THETA), logits, temperature=t, eta=eta, toward_mean=True
        ).surrogate.sum()

    np.testing.assert_allclose(found(LOGITS), expected(LOGITS), rtol=1e-3, atol=1e-4)


def test_toward_the_mean_it_is_muprop_without_its_slope_in_the_limit():
    key, eta = jax.random.key(14), 0.8
    draw = draw_relaxed(jax.random.clone(key), LOGITS)

    @jax.jit
    @jax.grad
    def found(logits):
        return estimators.rebar(
            key, objective(THETA), logits, temperature=1e6, eta=eta, toward_mean=True
        ).surrogate.sum()

    f = objective(THETA)
    baseline = eta * f(jax.nn.sigmoid(LOGITS))
    expected = (f(draw.bits) - baseline)[:, None] * draw.score
    np.testing.assert_allclose(found(LOGITS), expected, rtol=1e-3, atol=1e-3)


def test_parameters_receive_only_the_gradient_at_the_sample():
    key, theta = jax.random.key(2), np.float32(RNG.normal(size=5))
    bits = draw_relaxed(jax.random.clone(key), LOGITS).bits

    def total(theta, temperature, eta):
        f = lambda z: z @ theta
        return estimators.rebar(key, f, LOGITS, temperature=temperature, eta=eta).surrogate.sum()

    by_theta, *rest = jax.jit(jax.grad(total, (0, 1, 2)))(theta, 0.5, 1.0)
    np.testing.assert_allclose(by_theta, bits.sum(0))
    np.testing.assert_array_equal(rest, 0)


@pytest.mark.parametrize("function", [estimators.rebar, estimators.rebar_variance])
def test_misuse_is_refused(function):
    def trace(f, **settings):
        estimate = lambda x: function(jax.random.key(0), f, x, **settings)
        jax.eval_shape(estimate, jnp.zeros((5, 3)))

    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        trace(lambda z: z.sum(-1), temperature=0, eta=1.0)
    with pytest.raises(ValueError, match=r"one eta for all units, a scalar, got shape \(3,\)"):
        trace(lambda z: z.sum(-1), temperature=0.5, eta=jnp.ones(3))
    with pytest.raises(ValueError, match=r"z \(5, 3\) to \(5,\) .*got \(5, 3\)"):
        trace(lambda z: z, temperature=0.5, eta=1.0)


def test_rare_bits_are_drawn(monkeypatch):
    """The fine end of the uniforms is that of the rare bits."""
    monkeypatch.setattr(_relaxed, "open_uniform", lambda _, shape: jnp.full(shape, 2.0**-33))
    draw = _relaxed.draw_relaxed(jax.random.key(0), jnp.asarray([-20.0, -24.0]))
    np.testing.assert_array_equal(draw.bits, [1, 0])
