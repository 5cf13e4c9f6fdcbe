"""`estimators.rebar`: its relaxed draws, its limits, and the variance that tunes it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import distributions, estimators
from dvae.estimators._relaxed import draw_relaxed as draw_relaxed_eagerly

RNG = np.random.default_rng(0)
LOGITS, WEIGHTS, OUTPUT = (np.float32(RNG.normal(size=s)) for s in [(3, 5), (5, 4), (4,)])
THETA = (WEIGHTS, OUTPUT)
draw_relaxed = jax.jit(draw_relaxed_eagerly)


def objective(theta):
    weights, output = theta

    def f(z):
        hidden = jnp.tanh(z @ weights)
        return hidden @ output + 2 * hidden.sum(-1) ** 2

    return f


@jax.jit
def squared_norm(key, temperature, eta):
    """||g||^2 of the estimator itself, [batch]."""

    def total(logits):
        f = objective(THETA)
        return estimators.rebar(key, f, logits, temperature=temperature, eta=eta).surrogate.sum()

    return jnp.sum(jax.grad(total)(LOGITS) ** 2, axis=-1)


def variance(key, temperature, eta, logits=LOGITS, theta=THETA):
    return estimators.rebar_variance(
        key, objective(theta), logits, temperature=temperature, eta=eta
    )


SETTINGS = pytest.mark.parametrize(("temperature", "eta"), [(0.3, 0.8), (1.0, 1.0), (2.0, -0.5)])


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


@pytest.mark.thorough
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


def test_gradients_in_parameters_are_those_in_logits_and_those_of_f():
    """Of parameters that are the logits, and of the parameters of f; and what tunes them."""
    key, size = jax.random.key(9), len(LOGITS)
    params = {"logits": LOGITS, "theta": THETA}
    f = lambda params, z: objective(params["theta"])(z)
    baseline = np.float32([0.7, -1.0, 2.0])

    @jax.jit
    def parts(temperature, baseline):
        return estimators.rebar_gradients(
            jax.random.clone(key), lambda params: params["logits"], f, params,
            temperature=temperature, baseline=baseline,
        )  # fmt: skip

    @jax.jit
    @jax.grad
    def of_rebar(params):
        estimate = estimators.rebar(
            jax.random.clone(key), objective(params["theta"]), params["logits"],
            temperature=0.5, eta=0.8, baseline=baseline,
        )  # fmt: skip
        return estimate.surrogate.mean()

    found, expected = parts(0.5, baseline), of_rebar(params)
    whole = found.signal["logits"] + 0.8 * found.control["logits"]
    np.testing.assert_allclose(whole, expected["logits"], rtol=1e-4, atol=1e-5)
    pair = draw_relaxed(key, LOGITS).pair

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
            temperature=temperature, eta=eta, baseline=baseline,
        ).sum() / size**2  # fmt: skip

    for ours, oracle in zip(
        tuning(0.5, 0.8, baseline), of_variance(0.5, 0.8, baseline), strict=True
    ):
        np.testing.assert_allclose(ours, oracle, rtol=1e-3, atol=1e-5)


def test_parameters_receive_only_the_gradient_at_the_sample():
    key, theta = jax.random.key(2), np.float32(RNG.normal(size=5))
    bits = draw_relaxed(jax.random.clone(key), LOGITS).bits

    def total(theta, temperature, eta):
        f = lambda z: z @ theta
        return estimators.rebar(key, f, LOGITS, temperature=temperature, eta=eta).surrogate.sum()

    by_theta, *rest = jax.jit(jax.grad(total, (0, 1, 2)))(theta, 0.5, 1.0)
    np.testing.assert_allclose(by_theta, bits.sum(0))
    np.testing.assert_array_equal(rest, 0)


@SETTINGS
def test_variance_is_the_squared_norm_of_the_same_draw(temperature, eta):
    ours = jax.jit(variance)(jax.random.key(3), temperature, eta)
    assert ours.shape == (3,)
    expected = squared_norm(jax.random.key(3), temperature, eta)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(1, 2))
def total_variance(key, temperature, eta):
    return variance(key, temperature, eta).sum()


@SETTINGS
def test_variance_has_the_gradient_of_the_squared_norm(temperature, eta):
    def norm(temperature, eta):
        return float(squared_norm(jax.random.key(3), temperature, eta).sum())

    _, ours = total_variance(jax.random.key(3), temperature, eta)
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


def test_variance_and_its_gradient_are_finite_at_extremes():
    logits = np.float32([[-80.0, 80.0, 0.0], [1e4, -1e4, 20.0]])

    def total(temperature, eta):
        f = lambda z: z.sum(-1) ** 2 - distributions.bernoulli.log_prob(z, logits).sum(-1)
        return estimators.rebar_variance(
            jax.random.key(8), f, logits, temperature=temperature, eta=eta
        ).sum()

    value_and_grad = jax.jit(jax.value_and_grad(total, (0, 1)))
    for temperature in (0.01, 1.0, 100.0):
        for x in jax.tree.leaves(value_and_grad(temperature, 1.0)):
            assert np.isfinite(x)


def test_variance_of_half_precision_is_float32():
    f = lambda z: 1000 * z.sum(-1)  # squares overflow float16
    logits = np.zeros((2, 3), np.float16)
    ours = jax.jit(
        lambda x: estimators.rebar_variance(jax.random.key(9), f, x, temperature=0.5, eta=0.0)
    )(logits)
    assert ours.dtype == jnp.float32
    assert np.all(np.isfinite(ours))


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
