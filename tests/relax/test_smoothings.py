"""What every smoothing promises, against float64 oracles: its law, its inverse, its gradients."""

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
    conditional_cdfs,
    density_by_difference,
    icdf_with_gradients,
    jitted_cdf,
    oracle_cdf,
    oracle_icdf,
    points,
    sigmoid,
)

from dvae import relax


@pytest.mark.many_cases
@EACH
def test_icdf_agrees_with_bisection_in_float64(name):
    rho, logits, beta = points()
    wide = [np.float64(x) for x in (rho, logits, beta)]
    expected = oracle_icdf(name, *wide)
    zeta = np.float64(icdf_with_gradients(name)(rho, logits, beta)[0])
    assert np.all(np.isfinite(zeta))
    room = 1e-6 / np.maximum(density_by_difference(name, expected, *wide[1:]), 1e-12)
    checked = room < 0.05  # elsewhere one rounding of rho decides
    assert checked.mean() > 0.7
    if name == "spike_exp":  # at the spike the density jumps
        checked &= (expected > 1e-3) | (wide[0] < sigmoid(-wide[1]) - 1e-6)
    assert np.all((np.abs(zeta - expected) <= 2e-6 + room)[checked])


@EACH
@pytest.mark.parametrize("argument", [0, 1, 2], ids=["rho", "logits", "beta"])
def test_implicit_gradients_equal_differences_of_the_oracle(name, argument):
    rng = np.random.default_rng(1)
    rho, logits = rng.uniform(0.02, 0.98, SIZE), rng.normal(size=SIZE) * 3
    beta = 10 ** rng.uniform(np.log10(0.5), 1.2, SIZE)
    args = [np.float64(np.float32(x)) for x in (rho, logits, beta)]
    zeta = oracle_icdf(name, *args)
    _, gradients = icdf_with_gradients(name)(*map(np.float32, args))
    step = np.zeros(3)
    step[argument] = 1e-5
    ends = [
        oracle_icdf(name, *(x + sign * h for x, h in zip(args, step, strict=True)))
        for sign in (-1, 1)
    ]
    expected = (ends[1] - ends[0]) / 2e-5
    # Steep places amplify the roundings of rho and zeta, and the oracle's curvature error.
    checked = (density_by_difference(name, zeta, *args[1:]) > 0.1) & (zeta != 0) & (zeta != 1)
    if name == "spike_exp":
        checked &= np.abs(args[0] - sigmoid(-args[1])) > 1e-2
    assert checked.sum() > 2000
    error = np.abs(np.float64(gradients[argument]) - expected)
    assert np.all((error <= 2e-5 + 2e-3 * np.abs(expected))[checked])


@EACH
def test_cdf_agrees_with_the_definition(name):
    _, logits, beta = points(seed=2)
    beta = np.minimum(beta, 50)
    zeta = np.float32(np.random.default_rng(3).uniform(0.01, 0.99, SIZE))
    ours = jitted_cdf(name)(zeta, logits, beta)
    expected = oracle_cdf(name, *(np.float64(x) for x in (zeta, logits, beta)))
    np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=1e-6)


@EACH
def test_cdf_of_icdf_is_the_identity(name):
    rng = np.random.default_rng(4)
    rho, logits = np.float32(rng.uniform(0.01, 0.99, SIZE)), np.float32(rng.normal(size=SIZE))
    beta = np.full(SIZE, 6, np.float32)
    zeta, _ = icdf_with_gradients(name)(rho, logits, beta)
    again = np.asarray(jitted_cdf(name)(zeta, logits, beta))
    expected = np.maximum(rho, sigmoid(-logits)) if name == "spike_exp" else rho
    # zeta is rounded to within 6e-8, which the power family's density near 1 turns into this:
    slack = 1e-6
    if name == "power":
        slack = 1e-6 + (2e-7 / 6) * np.float64(np.maximum(1 - zeta, 3e-8)) ** (1 / 6 - 1)
    assert np.all(np.abs(again - expected) <= slack)


@EACH_DENSE
def test_log_prob_is_the_derivative_of_the_cdf_and_integrates_to_one(name):
    module, edges = relax.SMOOTHINGS[name], np.linspace(1e-3, 1 - 1e-3, 4001)
    if name not in BOUNDED:
        edges = np.linspace(-12, 13, 8001)
    log_prob = jax.jit(module.log_prob)
    for logit, beta in [(-1.5, 0.7), (0.4, 3.0), (2.0, 20.0)]:
        middle = np.float32(0.5 * (edges[1:] + edges[:-1]))
        density = np.exp(np.float64(log_prob(middle, np.float32(logit), beta)))
        increments = np.diff(oracle_cdf(name, edges, logit, beta))
        width = edges[1] - edges[0]
        np.testing.assert_allclose(density * width, increments, rtol=5e-3, atol=1e-9)
        ends = oracle_cdf(name, edges[[0, -1]], logit, beta)
        missing = ends[0] + 1 - ends[1]
        np.testing.assert_allclose(density.sum() * width, 1 - missing, rtol=1e-3)


@EACH_DENSE
def test_posterior_is_bayes_rule(name):
    module = relax.SMOOTHINGS[name]
    zeta = np.float32(np.linspace(0.05, 0.95, 19))

    @jax.jit
    def ours(zeta, logits, beta):
        nu = jax.nn.sigmoid(module.posterior_logits(zeta, logits, beta))
        return nu, module.log_prob_0(zeta, beta), module.log_ratio(zeta, beta)

    for logit, beta in [(-1.0, 0.6), (0.5, 2.0), (1.5, 9.0)]:
        step = 1e-6
        rates = np.subtract(
            conditional_cdfs(name, np.float64(zeta) + step, beta),
            conditional_cdfs(name, np.float64(zeta) - step, beta),
        ) / (2 * step)
        joint = sigmoid(-logit) * rates[0], sigmoid(logit) * rates[1]
        nu, log_0, ratio = ours(zeta, logit, beta)
        np.testing.assert_allclose(nu, joint[1] / (joint[0] + joint[1]), rtol=1e-4)
        np.testing.assert_allclose(log_0, np.log(rates[0]), atol=1e-4)
        np.testing.assert_allclose(log_0 + ratio, np.log(rates[1]), atol=1e-4)


@EACH_DENSE
def test_mirror_symmetry(name):
    rng = np.random.default_rng(5)
    rho = np.float32(rng.integers(1, 1024, SIZE) / 1024)  # 1 - rho is exact
    logits, beta = np.float32(3 * rng.normal(size=SIZE)), np.full(SIZE, 8, np.float32)
    zeta, _ = icdf_with_gradients(name)(rho, logits, beta)
    mirrored, _ = icdf_with_gradients(name)(1 - rho, -logits, beta)
    np.testing.assert_allclose(zeta, 1 - mirrored, atol=2e-7)


def assert_law_of_the_cdf(name, sampler):
    logits = jnp.tile(jnp.float32([-1.0, 2.0])[:, None], (1, 20_000))
    zeta = np.float64(jax.jit(partial(sampler, beta=4.0))(jax.random.key(6), logits))
    for row, logit in zip(zeta, (-1.0, 2.0), strict=True):
        row = np.sort(row)
        expected = oracle_cdf(name, row, logit, 4.0)
        positions = np.arange(1, row.size + 1) / row.size
        # At a jump of F the empirical CDF is right only at the last of the equal samples.
        last = np.append(row[1:] != row[:-1], True)
        distance = np.abs(positions - expected)[last].max()
        assert distance < 2.4 / np.sqrt(row.size)  # Kolmogorov: exceeded once in 50,000


@pytest.mark.many_cases
@EACH
def test_samples_have_the_law_of_the_cdf(name):
    assert_law_of_the_cdf(name, relax.SMOOTHINGS[name].sample)


@pytest.mark.many_cases
@EACH_DENSE
def test_ancestral_samples_have_the_law_of_the_cdf(name):
    assert_law_of_the_cdf(name, relax.SMOOTHINGS[name].ancestral_sample)


@pytest.mark.many_cases
@EACH_DENSE
def test_ancestral_samples_have_the_gradient_of_the_inverse_cdf(name):
    logits = np.float32(np.random.default_rng(7).normal(size=SIZE))
    beta = np.full(SIZE, 5, np.float32)

    @jax.jit
    def ancestral(logits, beta):
        draw = partial(relax.SMOOTHINGS[name].ancestral_sample, jax.random.key(8))
        zeta, pullback = jax.vjp(draw, logits, beta)
        return zeta, pullback(jnp.ones(SIZE))

    zeta, ours = ancestral(logits, beta)
    # F^{-1} at the same zeta, away from where rho = F(zeta) has lost its digits.
    rho = jitted_cdf(name)(zeta, logits, beta)
    again, (_, *expected) = icdf_with_gradients(name)(rho, logits, beta)
    inside = (rho > 1e-3) & (rho < 0.999) & (zeta < 1 - 1e-4)
    np.testing.assert_allclose(again[inside], zeta[inside], atol=2e-5)
    for x, y in zip(ours, expected, strict=True):
        np.testing.assert_allclose(x[inside], y[inside], rtol=5e-3, atol=1e-4)


@pytest.mark.many_cases
@EACH
def test_large_beta_is_the_step(name):
    rho, logits = np.float32([0.1, 0.4, 0.7, 0.9]), np.float32([0.5, -2.0, 0.2, 3.0])
    # uniform_exp keeps eps of its mass in between.
    kwargs = {"eps": 0.0} if name == "uniform_exp" else {}
    zeta = jax.jit(partial(relax.SMOOTHINGS[name].icdf, **kwargs))(rho, logits, 5e4)
    np.testing.assert_allclose(zeta, relax.step.icdf(rho, logits), atol=0.02)
