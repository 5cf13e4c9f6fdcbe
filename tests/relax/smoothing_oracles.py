"""Slow float64 definitions of the smoothings, and the points and compiled functions to compare."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, ndtr

from dvae import relax

DENSE = ["exponential", "logistic", "power", "gaussian", "uniform_exp"]  # have a density
BOUNDED = ["spike_exp", "exponential", "power", "uniform_exp"]
EACH = pytest.mark.parametrize("name", relax.SMOOTHINGS)
EACH_DENSE = pytest.mark.parametrize("name", DENSE)
SIZE = 4000  # of all arrays, so that each function is compiled once a family


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x, np.float64)))


def conditional_cdfs(name, zeta, beta):
    """R_0 and R_1 in float64, written as in the definitions."""
    if name == "logistic":
        return sigmoid(beta * zeta), sigmoid(beta * (zeta - 1))
    if name == "gaussian":
        return ndtr(np.sqrt(beta) * zeta), ndtr(np.sqrt(beta) * (zeta - 1))
    if name == "power":
        return zeta ** (1 / beta), 1 - (1 - zeta) ** (1 / beta)
    r0 = (1 - np.exp(-beta * zeta)) / (1 - np.exp(-beta))
    r1 = (np.exp(beta * zeta) - 1) / (np.exp(beta) - 1)
    if name == "spike_exp":
        return np.ones_like(r0), r1
    share = 0.05 if name == "uniform_exp" else 0
    return (1 - share) * r0 + share * zeta, (1 - share) * r1 + share * zeta


def oracle_cdf(name, zeta, logits, beta):
    r0, r1 = conditional_cdfs(name, zeta, beta)
    return sigmoid(-logits) * r0 + sigmoid(logits) * r1


def oracle_icdf(name, rho, logits, beta):
    """Bisection on the float64 CDF."""
    low, high = np.full(rho.shape, -30.0), np.full(rho.shape, 31.0)
    if name in BOUNDED:
        low, high = np.zeros(rho.shape), np.ones(rho.shape)
    for _ in range(70):
        middle = 0.5 * (low + high)
        below = oracle_cdf(name, middle, logits, beta) < rho
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return 0.5 * (low + high)


def density_by_difference(name, zeta, logits, beta):
    step = 1e-6
    low, high = zeta - step, zeta + step
    if name in BOUNDED:
        low, high = np.maximum(low, 0), np.minimum(high, 1)
    ends = [oracle_cdf(name, x, logits, beta) for x in (low, high)]
    return (ends[1] - ends[0]) / (high - low)


def points(seed=0, size=SIZE):
    """Points from float32: rho to 1e-7 of the ends, logits to +-80, beta in [0.5, 100]."""
    rng = np.random.default_rng(seed)
    rho = rng.uniform(1e-7, 1 - 1e-7, size)
    rho[: size // 6] = 10 ** rng.uniform(-7, 0, size // 6)
    rho[size // 6 : size // 3] = 1 - 10 ** rng.uniform(-6.5, 0, size // 3 - size // 6)
    logits = np.where(rng.random(size) < 0.8, 4 * rng.normal(size=size), rng.uniform(-80, 80, size))
    beta = 10 ** rng.uniform(np.log10(0.5), 2, size)
    return np.float32(np.clip(rho, 1e-7, 1 - 1e-7)), np.float32(logits), np.float32(beta)


def both_tails(name, w, beta):
    """R_0, 1 - R_0, R_1, 1 - R_1, r_0 and r_1 in float64, each with its digits."""
    if name == "logistic":
        y, v = beta * w, beta * (w - 1)
        densities = beta * expit(y) * expit(-y), beta * expit(v) * expit(-v)
        return expit(y), expit(-y), expit(v), expit(-v), *densities
    if name == "gaussian":
        scale = np.sqrt(beta)
        y, v = scale * w, scale * (w - 1)
        densities = [scale * np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi) for x in (y, v)]
        return ndtr(y), ndtr(-y), ndtr(v), ndtr(-v), *densities
    if name == "power":
        x, y = np.log(w), np.log1p(-w)
        tails = np.exp(x / beta), -np.expm1(x / beta), -np.expm1(y / beta), np.exp(y / beta)
        return *tails, np.exp((1 / beta - 1) * x) / beta, np.exp((1 / beta - 1) * y) / beta
    mass, m, n = -np.expm1(-beta), np.exp(-beta * w), np.exp(-beta * (1 - w))
    x, y = -np.expm1(-beta * w) / mass, -np.expm1(-beta * (1 - w)) / mass
    share = 0.05 if name == "uniform_exp" else 0
    values = (x, m * y, n * x, y, beta * m / mass, beta * n / mass)
    floors = (w, 1 - w, w, 1 - w, 1, 1)
    return tuple((1 - share) * a + share * b for a, b in zip(values, floors, strict=True))


def exact_icdf(name, rho, logits, beta):
    """zeta, dzeta/dl and f(zeta) in float64, by bisection on the smaller tail.

    Agrees with 60 digits to 1e-14 of that tail, all that float32 rho, logits and beta give.
    """
    rho, logits, beta = (np.asarray(x, np.float64) for x in (rho, logits, beta))

    def is_below(w, rho, logits):
        p, q = expit(-logits), expit(logits)
        r0, s0, r1, s1, _, _ = both_tails(name, w, beta)
        return np.where(rho <= 0.5, p * r0 + q * r1 < rho, p * s0 + q * s1 > 1 - rho)

    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        # Mirrored to w <= 1/2, where float64 keeps the digits of a w near 0.
        mirrored = is_below(np.full_like(rho, 0.5), rho, logits)
        of_w = np.where(mirrored, 1 - rho, rho), np.where(mirrored, -logits, logits)
        position = np.exp if name in BOUNDED else np.asarray
        low = np.full_like(rho, -2000.0)
        high = np.full_like(rho, np.log(0.5) if name in BOUNDED else 0.5)
        for _ in range(75):
            middle = 0.5 * (low + high)
            below = is_below(position(middle), *of_w)
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        w = position(0.5 * (low + high))
        r0, s0, r1, s1, d0, d1 = both_tails(name, w, beta)
        density = expit(-of_w[1]) * d0 + expit(of_w[1]) * d1
        gap = np.where((r0 > 0.5) & (r1 > 0.5), s1 - s0, r0 - r1)
        slope = expit(logits) * expit(-logits) * gap / density
    return np.where(mirrored, 1 - w, w), slope, density


def extreme_points(size, seed=0):
    """All that samplers draw: rho to 2^-33 and 1 - 2^-24, also around the cliff at 1 - q."""
    rng = np.random.default_rng(seed)
    logits = np.where(rng.random(size) < 0.5, 4 * rng.normal(size=size), rng.uniform(-80, 80, size))
    logits = np.float32(logits)
    rho, part = rng.uniform(size=size), size // 4
    rho[:part] = 2.0 ** rng.uniform(-33, 0, part)
    rho[part : 2 * part] = 1 - 2.0 ** rng.uniform(-24, 0, part)
    near = 1 + rng.normal(size=part) * 10 ** rng.uniform(-7, -1, part)
    rho[2 * part : 3 * part] = expit(-np.float64(logits[2 * part : 3 * part])) * near
    rho = np.clip(np.float32(rho), np.float32(2.0**-33), np.float32(1 - 2.0**-24))
    return rho, logits, np.float32(10 ** rng.uniform(-1, np.log10(200), size))


@cache
def icdf_with_gradients(name):
    """Returns a jitted (rho, logits, beta) -> zeta and its three derivatives, elementwise."""

    def both(*args):
        zeta, pullback = jax.vjp(relax.SMOOTHINGS[name].icdf, *args)
        return zeta, pullback(jnp.ones_like(zeta))

    return jax.jit(both)


@cache
def jitted_cdf(name):
    return jax.jit(relax.SMOOTHINGS[name].cdf)
