"""A function of bits for the tests of `estimators.rebar`, with its draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.estimators import _relaxed

RNG = np.random.default_rng(0)
LOGITS, WEIGHTS, OUTPUT = (np.float32(RNG.normal(size=s)) for s in [(3, 5), (5, 4), (4,)])
THETA = (WEIGHTS, OUTPUT)
TOWARD_MEAN = pytest.mark.parametrize("toward_mean", [False, True])
draw_relaxed = jax.jit(_relaxed.draw_relaxed)


def objective(theta):
    weights, output = theta

    def f(z):
        hidden = jnp.tanh(z @ weights)
        return hidden @ output + 2 * hidden.sum(-1) ** 2

    return f
