"""Bad input to the smoothings, and what single families promise at their limits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from smoothing_oracles import (
    BOUNDED,
    EACH,
    EACH_DENSE,
    SIZE,
    icdf_with_gradients,
    points,
    sigmoid,
)

from dvae import relax


@EACH
@pytest.mark.parametrize("beta", [0, -1.0, np.float32(-2)])
def test_beta_must_be_positive(name, beta):
    with pytest.raises(ValueError, match="beta must be positive, got"):
        relax.SMOOTHINGS[name].icdf(0.5, jnp.zeros(2), beta)
    with pytest.raises(ValueError, match="beta must be positive, got"):
        relax.SMOOTHINGS[name].sample(jax.random.key(0), jnp.zeros(2), beta)


@EACH
@pytest.mark.parametrize("rho", [-1, -0.1, 1.5])
def test_rho_must_be_inside_the_unit_interval(name, rho):
    with pytest.raises(ValueError, match=f"between 0 and 1, got {rho}"):
        relax.SMOOTHINGS[name].icdf(rho, jnp.zeros(2), 8.0)


@pytest.mark.parametrize("eps", [-0.1, 1.1])
def test_eps_must_be_a_weight(eps):
    with pytest.raises(ValueError, match=f"eps must be in .* got {eps}"):
        relax.uniform_exp.icdf(0.5, jnp.zeros(2), 8.0, eps=eps)


@EACH_DENSE
def test_nothing_lies_outside_a_bounded_support(name):
    module = relax.SMOOTHINGS[name]
    outside = jnp.float32([-0.5, 1.5])
    log_f = jax.jit(module.log_prob)(outside, jnp.zeros(2), 3.0)
    if name in BOUNDED:
        np.testing.assert_array_equal(log_f, [-np.inf, -np.inf])
        np.testing.assert_array_equal(module.cdf(outside, jnp.zeros(2), 3.0), [0, 1])
    else:
        assert np.all(np.isfinite(log_f))


def test_uniform_exp_has_the_exponential_and_the_uniform_as_its_limits():
    rho, logits, _ = points(seed=10)
    rho = np.clip(rho, 0.01, 0.99)
    both = [jax.jit(relax.exponential.icdf)(rho, logits, 3.0)]
    both.append(jax.jit(partial(relax.uniform_exp.icdf, eps=0.0))(rho, logits, 3.0))
    np.testing.assert_allclose(*both, atol=2e-6)
    uniform = jax.jit(partial(relax.uniform_exp.icdf, eps=1.0))(rho, logits, 3.0)
    np.testing.assert_allclose(uniform, rho, atol=1e-6)
    slope = jax.jit(jax.grad(lambda x: relax.uniform_exp.icdf(rho, x, 99.0).sum()))(logits)
    assert np.max(slope) < 20  # 1 / eps, where the exponential's reaches e^{beta/2}


def test_uniform_exp_log_prob_is_finite_at_both_limits():
    for eps in (0.0, 1.0):
        run = jax.jit(jax.grad(partial(relax.uniform_exp.log_prob, eps=eps), (0, 1, 2)))
        assert np.all(np.isfinite(run(np.float32(0.3), np.float32(1.0), np.float32(4.0))))


@pytest.mark.thorough
def test_power_density_is_finite_at_zeta_that_rounded_to_the_ends():
    ends = jnp.float32([0.0, 1.0])
    for function in (relax.power.log_prob, relax.power.posterior_logits):
        value, slope = jax.vmap(jax.value_and_grad(partial(function, beta=50.0)))(ends, jnp.ones(2))
        assert np.all(np.isfinite(value))
        assert np.all(np.isfinite(slope))
    np.testing.assert_array_equal(relax.power.cdf(ends, jnp.ones(2), 50.0), [0, 1])


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["exponential", "uniform_exp"])
def test_slopes_at_the_ends_are_those_beside_them(name):
    """Samples in bfloat16 round to the ends, where half a slope would be lost."""
    log_prob = relax.SMOOTHINGS[name].log_prob
    slope = jax.vmap(jax.grad(lambda zeta: log_prob(zeta, 1.0, 4.0)))
    beside = slope(jnp.float32([1e-5, 1 - 1e-5]))
    np.testing.assert_allclose(slope(jnp.float32([0, 1])), beside, rtol=1e-2)


def test_power_is_exact_at_the_ends():
    """At small beta one rounding before 1 is far from 1, and the slope at 0 overflows."""
    power, betas = relax.power, jnp.float32([0.01, 0.1, 0.5])
    np.testing.assert_array_equal(power.cdf(2.0, -10.0, betas), 1)
    np.testing.assert_array_equal(power.cdf(jnp.float32(1), 10.0, betas), 1)
    np.testing.assert_array_equal(power.cdf(jnp.float32(0), -10.0, betas), 0)
    for function in (power.log_ratio, power.log_prob_0):
        slopes = jax.vmap(jax.grad(function), (0, None))(jnp.float32([0, 1]), 0.1)
        assert np.all(np.isfinite(slopes)), function


def test_step_is_hard_and_passes_no_gradient():
    rho, logits = jnp.float32([0.1, 0.5, 0.9]), jnp.float32([3.0, 0.0, -4.0])
    np.testing.assert_array_equal(relax.step.icdf(rho, logits, 8.0), [1, 1, 0])
    gradient = jax.grad(lambda x: relax.step.icdf(rho, x).sum())(logits)
    np.testing.assert_array_equal(gradient, [0, 0, 0])
    draws = np.asarray(relax.step.sample(jax.random.key(0), jnp.full(20_000, 1.0)))
    mean = float(sigmoid(1.0))
    assert abs(draws.mean() - mean) < 5 * np.sqrt(mean * (1 - mean) / draws.size)


@EACH
@pytest.mark.parametrize("beta", [5.0, 50.0])
def test_samples_and_slopes_are_finite_where_a_probability_underflows(name, beta):
    logits = jnp.float32([-jnp.inf, -1e4, -90, -88, -86, 86, 88, 90, 1e4, jnp.inf])
    for rho in (1e-6, 0.3, 0.999):
        icdf = lambda x, rho=rho: relax.SMOOTHINGS[name].icdf(rho, x, beta)
        zeta, slope = jax.vmap(jax.value_and_grad(icdf))(logits)
        assert np.all(np.isfinite(zeta))
        assert np.all(np.isfinite(slope))
        # Where one value is all but certain, further logits change nothing.
        np.testing.assert_allclose(zeta[:4], zeta[4], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(zeta[6:], zeta[5], rtol=1e-4, atol=1e-6)


@EACH
def test_values_and_gradients_are_finite_at_extremes(name):
    grid = np.meshgrid(
        np.float32([1e-7, 1e-3, 0.5, 0.999, 1 - 1e-7]),
        np.float32([-80, -30, -5, 0, 5, 30, 80]),
        np.float32([0.5, 1, 8, 100]),
    )
    zeta, gradients = icdf_with_gradients(name)(*(np.resize(x, SIZE) for x in grid))
    for x in (zeta, *gradients):
        assert np.all(np.isfinite(x))
    if name in BOUNDED:
        assert np.all((zeta >= 0) & (zeta <= 1))


@pytest.mark.many_cases
@EACH_DENSE
def test_densities_are_finite_at_samples_of_extreme_mixtures(name):
    module = relax.SMOOTHINGS[name]
    logits, beta = jnp.tile(jnp.float32([-80.0, -10, 0, 10, 80]), 40), jnp.float32([0.5, 100])

    def total(logits, beta):
        zeta = module.sample(jax.random.key(3), logits[:, None], beta)
        value = module.log_prob(zeta, logits[:, None], beta) + module.cdf(zeta, 0.5, beta)
        return jnp.sum(value + module.posterior_logits(zeta, logits[:, None], beta))

    value, gradients = jax.jit(jax.value_and_grad(total, (0, 1)))(logits, beta)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(g)) for g in gradients)
