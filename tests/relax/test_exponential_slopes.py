"""Derivatives of the exponential smoothings in beta, against differences in 60 digits."""

from decimal import Decimal, getcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.relax import exponential, spike_exp, uniform_exp

BETAS = [1e-6, 1e-4, 0.3, 0.5, 1.0, 3.0, 30.0, 200.0]
EPS = 0.05  # of uniform_exp, its default
STEP = Decimal("1e-25")


@pytest.fixture(autouse=True)
def digits(monkeypatch):
    monkeypatch.setattr(getcontext(), "prec", 60)


def exact_cdf(name, zeta, logit, beta):
    zeta, logit, beta = (
        Decimal(float(x)) if not isinstance(x, Decimal) else x for x in (zeta, logit, beta)
    )
    r0 = (1 - (-beta * zeta).exp()) / (1 - (-beta).exp())
    r1 = ((beta * zeta).exp() - 1) / (beta.exp() - 1)
    if name == "spike_exp":
        r0 = Decimal(1)
    if name == "uniform_exp":
        share = Decimal(EPS)
        r0, r1 = ((1 - share) * r + share * zeta for r in (r0, r1))
    return (r0 + logit.exp() * r1) / (1 + logit.exp())


def slope(function, x):
    x = Decimal(float(x)) if not isinstance(x, Decimal) else x
    return (function(x + STEP) - function(x - STEP)) / (2 * STEP)


def exact_icdf_slope(name, rho, logit, beta):
    """-(dF/dbeta) / f at the root."""
    low, high = Decimal(0), Decimal(1)
    for _ in range(130):
        middle = (low + high) / 2
        below = exact_cdf(name, middle, logit, beta) < Decimal(float(rho))
        low, high = (middle, high) if below else (low, middle)
    by_beta = slope(lambda b: exact_cdf(name, low, logit, b), beta)
    return float(-by_beta / slope(lambda z: exact_cdf(name, z, logit, beta), low))


@pytest.mark.parametrize(
    ("module", "rho", "logit"),
    [
        (exponential, 0.3, 3.0),
        (exponential, 1e-9, 5.0),
        (exponential, 0.9, -1.0),
        (uniform_exp, 0.3, 3.0),
        (spike_exp, 0.5, 3.0),
    ],
)
def test_roots_have_their_slope_in_beta(module, rho, logit):
    name = module.__name__.rsplit(".", 1)[1]
    rho, betas = np.float32(rho), np.float32(BETAS)
    found = jax.vmap(jax.grad(lambda b: module.icdf(rho, np.float32(logit), b)))(betas)
    expected = [exact_icdf_slope(name, rho, logit, b) for b in betas]
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_the_upper_end_of_the_noise_has_no_slope_at_small_beta():
    grad = jax.grad(exponential.icdf, 2)(np.float32(1 - 2.0**-24), np.float32(0), np.float32(1e-6))
    assert abs(grad) < 1e-12  # 9.9e-15


@pytest.mark.parametrize("zeta", [0.0, 0.25, 0.7, 1.0])
def test_cdfs_and_densities_have_their_slope_in_beta(zeta):
    zeta, logit, betas = np.float32(zeta), np.float32(3), np.float32(BETAS)
    for module in (exponential, spike_exp):
        name = module.__name__.rsplit(".", 1)[1]
        found = jax.vmap(jax.grad(lambda b, m=module: m.cdf(zeta, logit, b)))(betas)
        expected = [float(slope(lambda b, n=name: exact_cdf(n, zeta, logit, b), b)) for b in betas]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    found = jax.vmap(jax.grad(lambda b: exponential.log_prob_0(zeta, b)))(betas)
    log_r0 = lambda b: b.ln() - b * Decimal(float(zeta)) - (1 - (-b).exp()).ln()
    expected = [float(slope(log_r0, b)) for b in betas]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_cdfs_and_densities_have_second_derivatives():
    zeta, logit = jnp.float32(0.3), jnp.float32(0.5)
    hessian = jax.jit(jax.hessian(lambda x: exponential.cdf(x[0], logit, x[1])))
    h = Decimal("1e-12")
    for beta in (0.2, 3.0):
        found = np.asarray(hessian(jnp.float32([zeta, beta])))
        exact = lambda z, b: exact_cdf("exponential", z, logit, b)
        b = Decimal(float(np.float32(beta)))
        z = Decimal(float(zeta))
        both = (
            exact(z + h, b + h) - exact(z - h, b + h) - exact(z + h, b - h) + exact(z - h, b - h)
        ) / (4 * h * h)
        by_b = (exact(z, b + h) - 2 * exact(z, b) + exact(z, b - h)) / (h * h)
        np.testing.assert_allclose(found[0, 1], float(both), rtol=1e-4)
        np.testing.assert_allclose(found[1, 1], float(by_b), rtol=1e-3)
