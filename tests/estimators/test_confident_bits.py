"""Gradients at logits whose sigmoid rounds to 1, relative to their size, q (1 - q) for f(z) = z."""

import jax
import numpy as np
import pytest

from dvae import estimators

# With f(z) = z, z = 1 and all control variates the exact ones, or none, the estimate is q (1 - q),
# or the score 1 - q, which at these logits are the same number.
ESTIMATORS = {
    "reinforce": estimators.reinforce,
    "rebar": lambda *args: estimators.rebar(*args, temperature=1.0, eta=0.0),
    "relax": lambda *args: estimators.relax(*args, control_variate=lambda z: 0 * z.sum(-1)),
    "muprop": estimators.muprop,
    "muprop, no expansion": lambda *args: estimators.muprop(*args, scales=(0.0, 0.0)),
    "double_cv": lambda *args: estimators.double_cv(*args, num_samples=2),
    "rodeo": lambda *args: estimators.rodeo(
        *args, num_samples=2, surrogates=lambda values, slopes: (slopes, slopes)
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_confident_ones_keep_their_gradient(name):
    total = lambda x: ESTIMATORS[name](jax.random.key(0), lambda z: z.sum(-1), x).surrogate.sum()
    logits = np.float32([[18.0], [20.0], [60.0]])
    exact = 1 / (1 + np.exp(np.float64(logits)))
    np.testing.assert_allclose(jax.jit(jax.grad(total))(logits), exact, rtol=1e-6)
