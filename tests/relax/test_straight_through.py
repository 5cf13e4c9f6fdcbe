"""`relax.straight_through`: hard values forward, the mean's gradient backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import distributions
from dvae.relax import straight_through

PAIRS = pytest.mark.parametrize(
    ("estimator", "mean", "family"),
    [
        (straight_through.bernoulli, jax.nn.sigmoid, distributions.bernoulli),
        (straight_through.categorical, jax.nn.softmax, distributions.categorical),
    ],
    ids=["bernoulli", "categorical"],
)
DTYPES = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])


@pytest.mark.many_cases
@PAIRS
@DTYPES
def test_forward_is_the_hard_sample_and_backward_the_gradient_of_the_mean(
    estimator, mean, family, dtype
):
    rng = np.random.default_rng(0)
    logits, weight = (np.asarray(rng.normal(size=(20, 7)), dtype) for _ in range(2))

    @jax.jit
    def both(logits):
        z, pullback = jax.vjp(lambda x: estimator(jax.random.key(1), x), logits)
        _, mean_pullback = jax.vjp(lambda x: mean(x.astype(jnp.float32)).astype(dtype), logits)
        return z, pullback(weight)[0], mean_pullback(weight)[0]

    z, gradient, expected = both(logits)
    sample = jax.jit(family.sample)(jax.random.key(1), logits)
    assert z.dtype == gradient.dtype == dtype
    np.testing.assert_array_equal(np.float32(z), np.float32(sample))  # exactly 0 or 1
    np.testing.assert_allclose(np.float32(gradient), np.float32(expected), rtol=1e-6)


@pytest.mark.thorough
@PAIRS
def test_gradient_is_exact_in_expectation_for_a_linear_function(estimator, mean, family):
    # E[w . z] = w . p, whose gradient is what every single draw returns.
    logits, weight = np.float32([0.3, -1.0, 2.0]), np.float32([1.0, -2.0, 0.5])
    ours = jax.jit(jax.grad(lambda x: jnp.sum(weight * estimator(jax.random.key(2), x))))(logits)
    support = family.support(logits if family is distributions.bernoulli else logits[None])
    states = np.asarray(support).reshape(-1, 3)

    def expectation(x):
        log_q = family.log_prob(states, x)
        log_q = log_q.sum(-1) if family is distributions.bernoulli else log_q
        return jnp.sum(jnp.exp(log_q) * (states @ weight))

    np.testing.assert_allclose(ours, jax.jit(jax.grad(expectation))(logits), rtol=1e-5, atol=1e-7)
