"""`estimators.pathwise` against closed forms, and the samplers that it takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import distributions, estimators, relax

LOGITS = jnp.asarray([[0.3, -1.2, 2.0], [-0.4, 0.0, 1.1]])
WEIGHTS = jnp.asarray([1.0, -2.0, 0.5])


def key():
    """One that each use has of its own."""
    return jax.random.key(3)


def test_straight_through_samples_of_a_linear_f_have_the_exact_gradient() -> None:
    f = lambda z: z @ WEIGHTS
    estimate = lambda x: estimators.pathwise(key(), f, x, sample=relax.straight_through.bernoulli)
    value, surrogate = estimate(LOGITS)
    bits = relax.straight_through.bernoulli(key(), LOGITS)
    np.testing.assert_allclose(value, f(bits), rtol=1e-6)
    np.testing.assert_array_equal(value, surrogate)
    gradient = jax.grad(lambda x: estimate(x).surrogate.sum())(LOGITS)
    exact = jax.grad(lambda x: estimators.exact(f, x).sum())(LOGITS)
    np.testing.assert_allclose(gradient, exact, rtol=1e-5)


@pytest.mark.parametrize("name", ["binary_concrete", "exponential", "power"])
def test_relaxed_samples(name) -> None:
    """The derivative of a square by the chain rule, from the sampler's own slope."""
    draw = lambda k, x: getattr(relax, name).sample(k, x, 0.5 if name[0] == "b" else 8.0)
    f = lambda z: jnp.square(z @ WEIGHTS)
    found = jax.grad(lambda x: estimators.pathwise(key(), f, x, sample=draw).surrogate.sum())(
        LOGITS
    )
    zeta, slope = jax.jvp(lambda x: draw(key(), x), (LOGITS,), (jnp.ones_like(LOGITS),))
    np.testing.assert_allclose(
        found, 2 * (zeta @ WEIGHTS)[:, None] * WEIGHTS[None] * slope, rtol=1e-4
    )


def test_categorical_samples_and_closures() -> None:
    logits = jnp.stack([LOGITS, -LOGITS])  # [2, n = 2, C = 3]
    draw = lambda k, x: relax.gumbel_softmax.sample(k, x, 0.7)
    f = lambda z, w=1.0: w * jnp.square(z @ WEIGHTS).sum(-1)
    call = lambda w: estimators.pathwise(
        key(), lambda z: f(z, w), logits, sample=draw, family=distributions.categorical
    )
    assert call(1.0).value.shape == (2,)
    by_weight = jax.grad(lambda w: call(w).surrogate.sum())(2.0)
    np.testing.assert_allclose(by_weight, call(1.0).value.sum(), rtol=1e-6)


def test_what_it_does_not_take() -> None:
    hard = relax.straight_through.bernoulli
    with pytest.raises(ValueError, match="must return floats, got int32"):
        estimators.pathwise(key(), lambda z: (z > 0).sum(-1), LOGITS, sample=hard)
    with pytest.raises(ValueError, match="one value for each example"):
        estimators.pathwise(key(), lambda z: z, LOGITS, sample=hard)
    with pytest.raises(ValueError, match=r"samples of the logits' shape \(2, 3\), got \(4, 2, 3\)"):
        estimators.pathwise(
            key(), lambda z: z.sum(-1), LOGITS, sample=lambda k, x: jnp.zeros((4, *x.shape))
        )
