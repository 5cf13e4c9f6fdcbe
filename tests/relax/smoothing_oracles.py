"""Slow float64 definitions of the smoothings, and the points where they are compared."""

import numpy as np
import pytest
from scipy.special import ndtr

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
