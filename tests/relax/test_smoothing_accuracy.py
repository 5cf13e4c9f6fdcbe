"""The inverse CDFs over all that samplers reach: tiny rho, certain bits, cliffs, both ends."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from smoothing_oracles import (
    BOUNDED,
    EACH,
    EACH_DENSE,
    both_tails,
    exact_icdf,
    extreme_points,
)

from dvae import relax

SIZE = 20_000
LOGITS = np.float32([-80, -40, -16, -5, -1, 0, 1e-3, 5, 16, 40, 80])
BETAS = np.float32([0.1, 0.5, 1, 2, 8, 30, 100, 200])


@cache
def with_slopes(function):
    """Returns a jitted (rho, logits, beta) -> zeta and its three derivatives, elementwise."""

    def both(*args):
        zeta, pullback = jax.vjp(function, *args)
        return zeta, pullback(jnp.ones_like(zeta))

    return jax.jit(both)


def assert_accurate(
    zeta, slope, expected, expected_slope, density, rho, beta, *, least_density=1e-7
):
    """Errors are those of a rounding of zeta, and of a few of the smaller of rho and 1 - rho."""
    size = np.maximum(1, np.abs(expected))
    error = np.abs(np.float64(zeta) - expected)
    whole = 2e-6 * size + 1e-6 / density
    assert np.all((error <= whole) | (1e-6 / density > 0.05))
    # Below 1e-7, [0, 1] has less mass than the interval of one rho, and the slope its limit.
    tail = 1e-6 * np.minimum(np.float64(rho), 1 - np.float64(rho)) / density
    tail = np.where((density < least_density) & (expected > 0) & (expected < 1), np.inf, tail)
    assert np.all((error <= 2e-6 * size + tail) | (tail > 0.05))
    checked = tail < 1e-4 / (1 + beta)
    assert checked.mean() > 0.9
    error = np.abs(np.float64(slope) - expected_slope)
    good = (error <= 1e-5) | (error <= 3e-3 * np.abs(expected_slope))
    assert np.all(good | ~checked)
    good = (error <= 1e-5) | (error <= 2e-3 * np.abs(expected_slope))
    assert np.all(good | (1e-6 / density >= 1e-4 / (1 + beta)))


@pytest.mark.many_cases
@EACH_DENSE
def test_values_and_slopes_are_accurate_over_the_whole_range(name):
    rho, logits, beta = extreme_points(SIZE)
    zeta, (_, slope, _) = with_slopes(relax.SMOOTHINGS[name].icdf)(rho, logits, beta)
    # The steps of gaussian do not all converge on its deep cliffs.
    least = 1e-5 if name == "gaussian" else 1e-7
    expected = exact_icdf(name, rho, logits, beta)
    assert_accurate(zeta, slope, *expected, rho, beta, least_density=least)


@pytest.mark.thorough
def test_a_likely_bit_at_a_tiny_rho():
    # 50 digits: 0.79276563, 9.3586e-7. At 1 - rho = 1 the cliff would be taken, of slope 4.9e6.
    zeta, slope = jax.value_and_grad(relax.exponential.icdf, 1)(1e-9, 30.0, 100.0)
    np.testing.assert_allclose(zeta, 0.7927656, rtol=2e-6)
    np.testing.assert_allclose(slope, 9.3586e-7, rtol=1e-3)


def test_spike_exp_is_accurate_over_the_whole_range():
    rho, logits, beta = extreme_points(SIZE, seed=1)
    zeta, (_, slope, _) = with_slopes(relax.spike_exp.icdf)(rho, logits, beta)
    wide, logit, b = (np.float64(x) for x in (rho, logits, beta))
    p, q = expit(-logit), expit(logit)
    u = np.maximum(np.where(wide < 0.5, wide - p, q - (1 - wide)) / q, 0)
    expected = np.where(u * np.expm1(b) < 1, np.log1p(u * np.expm1(b)) / b, 0)
    near_1 = 1 + np.log(np.where(u > 0, u + (1 - u) * np.exp(-b), 1)) / b
    expected = np.where(u * np.expm1(b) < 1, expected, near_1)
    _, _, _, rest, _, r1 = both_tails("exponential", expected, b)
    # p (1 - R_1) / r_1; q r_1 is the density. No rounding of rho decides what is compared.
    clear = np.abs(u) > 1e-5
    columns = (x[clear] for x in (zeta, slope, expected, p * rest / r1, q * r1, rho, b))
    assert_accurate(*columns)
    np.testing.assert_array_equal(zeta[u == 0], 0)
    np.testing.assert_array_equal(slope[u == 0], 0)


def test_binary_concrete_is_accurate_over_the_whole_range():
    rho, logits, beta = extreme_points(SIZE, seed=2)
    tau = 1 / beta
    zeta, (_, slope, _) = with_slopes(relax.binary_concrete.icdf)(rho, logits, tau)
    wide, logit, t = (np.float64(x) for x in (rho, logits, tau))
    y = (logit + np.log(wide) - np.log1p(-wide)) / t
    slopes = expit(y) * expit(-y) / t
    density = wide * (1 - wide) * t / np.maximum(expit(y) * expit(-y), 1e-300)
    assert_accurate(zeta, slope, expit(y), slopes, density, rho, beta)


@pytest.mark.many_cases
@EACH_DENSE
@pytest.mark.parametrize("beta", [100.0, 0.5, 8.0, 20.0, 200.0])
def test_no_draw_outweighs_the_mean_of_the_slopes(name, beta):
    # E dzeta/dl = q (1-q) int R_0 - R_1 over all float32 rho, each with its share: near the cliff
    # they are taken one by one. A slope of e^{beta/2} at one of them would be the whole mean.
    logits = np.float32([-30, -12, -5, -0.3, 0, 2, 9, 16, 30])
    at = np.linspace(0, 1, 20_001) if name in BOUNDED else np.linspace(-60, 61, 400_001)
    at = np.clip(at, 1e-12, 1 - 1e-12) if name == "power" else at
    r0, s0, r1, s1, _, _ = both_tails(name, at, beta)
    gap = np.trapezoid(np.where(r1 > 0.5, s1 - s0, r0 - r1), at)
    for logit in logits:
        q, p = expit(np.float64(logit)), expit(-np.float64(logit))
        fine = np.float32(10 ** np.linspace(np.log10(2.0**-33), 0, 4000))
        rho = [fine, 1 - fine, np.linspace(0, 1, 4000)]
        rho += [p * (1 + s * 10 ** np.linspace(-7, -0.01, 2000)) for s in (-1, 1)]
        steps = [np.float32(p)]
        for _ in range(50):
            steps.append(np.nextafter(steps[-1], np.float32(0)))
        for _ in range(100):
            steps.append(np.nextafter(np.max(steps), np.float32(1)))
        rho = np.unique(np.clip(np.float32(np.concatenate([*rho, steps])), 2.0**-33, 1 - 2.0**-24))
        size = 20_000
        padded = np.append(rho, np.full(size - rho.size, np.float32(0.5)))
        _, slopes = icdf_slopes(name)(padded, np.full(size, logit), np.full(size, np.float32(beta)))
        slopes = np.float64(slopes)[: rho.size]
        edges = np.concatenate([[0], 0.5 * (np.float64(rho[1:]) + rho[:-1]), [1]])
        terms = slopes * np.diff(edges)
        sharp = beta > 50 and name in ("exponential", "logistic", "gaussian")
        exact = q * p * gap
        # What the smallest rho and 1 - rho stand for is missing, or whole.
        slack = 3e-7 * (1 + 1 / beta)
        if (
            sharp
        ):  # most of the mean comes from one interval of rho, which draws miss, or take whole
            assert -slack <= terms.sum() <= 3 * exact + slack
        else:
            assert abs(terms.sum() - exact) <= 0.03 * abs(exact) + slack


@cache
def icdf_slopes(name):
    def both(rho, logits, beta):
        zeta, pullback = jax.vjp(lambda x: relax.SMOOTHINGS[name].icdf(rho, x, beta), logits)
        return zeta, pullback(jnp.ones_like(zeta))[0]

    return jax.jit(both)


def cliffs_and_ends():
    """rho at both ends and at floats around 1 - q, for all logits and inverse temperatures."""
    rows = []
    for logit in LOGITS:
        p = np.float32(expit(-np.float64(logit)))
        near = [p]
        for target in (0, 1):
            near.append(np.nextafter(p, np.float32(target)))
            near.append(np.nextafter(near[-1], np.float32(target)))
        near = np.clip(np.float32(near), np.float32(2.0**-33), np.float32(1 - 2.0**-24))
        ends = np.float32([0, 2.0**-33, 1e-5, 0.5, 1 - 1e-5, 1 - 2.0**-24, 1])
        rows += [(rho, logit, beta) for rho in (*near, *ends) for beta in BETAS]
    return np.float32(rows).T


@pytest.mark.many_cases
@EACH
def test_second_derivatives_are_finite_on_cliffs_and_at_the_ends(name):
    hessian = jax.hessian(relax.SMOOTHINGS[name].icdf, (0, 1, 2))
    for part in jax.tree.leaves(jax.jit(jax.vmap(hessian))(*cliffs_and_ends())):
        assert np.all(np.isfinite(part))


@pytest.mark.many_cases
@EACH
def test_the_ends_of_the_unit_interval_are_those_of_the_support(name):
    logits, beta = (x.ravel() for x in np.meshgrid(LOGITS, np.append(BETAS, np.float32(0.05))))
    ends = {}
    for rho in (0, 1):
        run = with_slopes(relax.SMOOTHINGS[name].icdf)
        ends[rho], slopes = run(np.full_like(logits, rho), logits, beta)
        assert all(np.all(np.isfinite(x)) for x in (ends[rho], *slopes))
        if name in BOUNDED:
            np.testing.assert_array_equal(ends[rho], rho)
    if name not in BOUNDED:
        # Beyond the extreme draws, and no more than 1e-17 of a tail away.
        low = exact_icdf(name, np.full(logits.shape, 2.0**-33), logits, beta)[0]
        high = exact_icdf(name, np.full(logits.shape, 1 - 2.0**-24), logits, beta)[0]
        assert np.all((ends[0] < low) & (ends[1] > high))
    for rho in (0, 1.0):  # numbers
        assert np.isfinite(relax.SMOOTHINGS[name].icdf(rho, 0.3, 2.0))


@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_binary_concrete_is_finite_at_the_ends(rho):
    for function in (relax.binary_concrete.icdf, relax.binary_concrete.icdf_logit):
        run = jax.vmap(jax.value_and_grad(function, (0, 1, 2)), (None, 0, None))
        zeta, slopes = jax.jit(run)(jnp.float32(rho), LOGITS, 0.05)
        assert all(np.all(np.isfinite(x)) for x in (zeta, *slopes))
    np.testing.assert_array_equal(relax.binary_concrete.icdf(rho, LOGITS, 0.05), rho)


@pytest.mark.thorough
@EACH
def test_small_inverse_temperatures(name):
    # Below 1 r(zeta|z) leans to the other end; power is Newton's hardest there.
    rho, logits, _ = extreme_points(SIZE, seed=3)
    beta = np.float32(10 ** np.random.default_rng(4).uniform(np.log10(0.05), -1, SIZE))
    zeta, slopes = with_slopes(relax.SMOOTHINGS[name].icdf)(rho, logits, beta)
    assert all(np.all(np.isfinite(x)) for x in (zeta, *slopes))
    if name == "spike_exp":
        return
    expected, _, density = exact_icdf(name, rho, logits, beta)
    size = np.maximum(1, np.abs(expected))
    assert np.all(np.abs(np.float64(zeta) - expected) <= 2e-6 * size + 1e-6 / density)


def test_power_at_large_inverse_temperatures():
    rho, logits, _ = extreme_points(SIZE, seed=5)
    beta = np.float32(10 ** np.random.default_rng(6).uniform(2.3, 3.3, SIZE))
    zeta, (_, slope, _) = with_slopes(relax.power.icdf)(rho, logits, beta)
    expected, _, density = exact_icdf("power", rho, logits, beta)
    assert np.all(np.abs(np.float64(zeta) - expected) <= 2e-6 + 1e-6 / density)
    assert np.all(np.isfinite(slope))


def test_power_takes_as_many_steps_as_steep_ends_need():
    # At zeta of 0.0015, of which one step less would miss a seventh.
    rho = np.float32([2.48e-4, 2.29e-4, 2.3e-4])
    logits, beta = np.float32([8.302, 8.381, 8.377]), np.float32([1923, 1939, 1581])
    expected = exact_icdf("power", rho, logits, beta)[0]
    np.testing.assert_allclose(relax.power.icdf(rho, logits, beta), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("eps", [1e-4, 0.3, 0.9])
def test_uniform_exp_of_other_weights_solves_its_equation(eps):
    rho, logits, beta = extreme_points(SIZE, seed=7)
    zeta = np.float64(jax.jit(partial(relax.uniform_exp.icdf, eps=eps))(rho, logits, beta))
    r0, s0, r1, s1, d0, d1 = both_tails("exponential", zeta, np.float64(beta))
    p, q = (expit(sign * np.float64(logits)) for sign in (-1, 1))
    lower = (1 - eps) * (p * r0 + q * r1) + eps * zeta - rho
    upper = (1 - np.float64(rho)) - (1 - eps) * (p * s0 + q * s1) - eps * (1 - zeta)
    density = (1 - eps) * (p * d0 + q * d1) + eps
    error = np.abs(np.where(rho < 0.5, lower, upper)) / density
    tail = 1e-6 * np.minimum(rho, 1 - np.float64(rho)) / density
    assert np.all(error <= 2e-6 + tail)
