"""What every sampled estimator promises: jit, vmap, dtypes, extremes, the reported value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import distributions, estimators, relax

ESTIMATORS = {
    "reinforce": estimators.reinforce,
    "reinforce_loo": lambda key, f, x, **kw: estimators.reinforce_loo(
        key, f, x, num_samples=3, **kw
    ),
    "vimco": lambda key, f, x, **kw: estimators.vimco(key, f, x, num_samples=3, **kw),
    "nvil": lambda key, f, x, **kw: estimators.nvil(key, f, x, estimators.nvil_init(), **kw)[0],
}
BITS_ONLY = {
    "muprop": estimators.muprop,
    "rebar": lambda key, f, x: estimators.rebar(key, f, x, temperature=0.3, eta=0.8),
    "relax": lambda key, f, x: estimators.relax(
        key, f, x, control_variate=lambda z: f(jax.nn.sigmoid(z)) + jnp.tanh(z).sum(-1)
    ),
    "pathwise": lambda key, f, x: estimators.pathwise(
        key, f, x, sample=relax.straight_through.bernoulli
    ),
    "disarm": estimators.disarm,
    "local_disarm": lambda key, f, x: estimators.local_disarm(key, f, x, num_samples=3),
    "arms": lambda key, f, x: estimators.arms(key, f, x, num_samples=3),
    "double_cv": lambda key, f, x: estimators.double_cv(key, f, x, num_samples=3),
    "rodeo": lambda key, f, x: estimators.rodeo(key, f, x, num_samples=3),
}
ESTIMATORS |= {
    name: lambda key, f, x, family=None, e=e: e(key, f, x) for name, e in BITS_ONLY.items()
}
FAMILIES_AND_DTYPES = [(name, "bernoulli", jnp.bfloat16) for name in ESTIMATORS] + [
    (name, "categorical", dtype)
    for name in ESTIMATORS
    if name not in BITS_ONLY
    for dtype in (jnp.float32, jnp.float16)
]
ALL = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
LOGITS = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)


def run(estimator, seed, logits, family=distributions.bernoulli):
    """One estimate and its gradient, for f(z) = (sum_i i z_i)^2 - log q(z)."""
    ramp = jnp.arange(logits.shape[-1], dtype=logits.dtype)

    def total(logits):
        def f(z):
            score = z @ ramp if family is distributions.bernoulli else (z @ ramp).sum(-1)
            return score * score - family.log_prob(z, logits).sum(-1)

        estimate = estimator(jax.random.key(seed), f, logits, family=family)
        return estimate.surrogate.astype(jnp.float32).sum(), estimate

    gradient, estimate = jax.grad(total, has_aux=True)(logits)
    return gradient, estimate


jitted = jax.jit(run, static_argnums=(0, 3))


@pytest.mark.thorough
@pytest.mark.many_cases
@ALL
def test_jit_equals_eager(estimator):
    def estimate(logits):
        return estimator(jax.random.key(1), lambda z: z.sum(-1) ** 2, logits)

    jitted_estimate, eager = jax.jit(estimate)(LOGITS), estimate(jnp.asarray(LOGITS))
    np.testing.assert_allclose(jitted_estimate.value, eager.value, rtol=1e-6)
    np.testing.assert_allclose(jitted_estimate.surrogate, eager.surrogate, rtol=1e-6)


@pytest.mark.many_cases
@ALL
def test_vmap_equals_loop(estimator):
    seeds = np.arange(3, dtype=np.uint32)
    mapped = jax.jit(jax.vmap(lambda seed, x: run(estimator, seed, x)))(seeds, LOGITS)
    for i in range(3):
        one = jax.tree.leaves(jitted(estimator, seeds[i], LOGITS[i]))
        for actual, expected in zip(jax.tree.leaves(mapped), one, strict=True):
            np.testing.assert_allclose(actual[i], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.many_cases
@pytest.mark.parametrize(("name", "family", "dtype"), FAMILIES_AND_DTYPES)
def test_dtype_shape_and_reported_value(name, family, dtype):
    family = getattr(distributions, family)
    gradient, estimate = jitted(ESTIMATORS[name], 2, LOGITS.astype(dtype), family)
    assert estimate.value.dtype == estimate.surrogate.dtype == gradient.dtype == dtype
    assert estimate.value.shape == ((3, 2) if family is distributions.bernoulli else (3,))
    np.testing.assert_array_equal(estimate.surrogate, estimate.value)
    assert np.any(np.float32(gradient) != 0)


@pytest.mark.many_cases
@ALL
def test_gradients_are_finite_at_extremes(estimator):
    logits = np.float32([[-1e4, 1e4, 0.0], [80.0, -80.0, 1e4]])
    gradient, estimate = jitted(estimator, 3, logits)
    assert np.all(np.isfinite(np.float32(estimate.surrogate)))
    assert np.all(np.isfinite(np.float32(gradient)))


@pytest.mark.thorough
@ALL
def test_mean_field_certainty_leaves_only_the_gradient_of_f(estimator):
    # At |l| = 1e4 q is a point mass: every sample, weight and signal is the same.
    logits = np.float32([[1e4, -1e4, 1e4]] * 2)
    gradient, estimate = jitted(estimator, 4, logits)
    np.testing.assert_allclose(estimate.value, [4.0, 4.0])  # (0 + 2)^2
    np.testing.assert_array_equal(gradient, 0)


@ALL
def test_bits_that_are_certain_leave_the_objective_finite(estimator):
    """Of infinite logits the term that has the gradient is no difference of two infinities."""
    gradient, estimate = jitted(estimator, 5, np.float32([[np.inf, 0.3, -np.inf]]))
    np.testing.assert_array_equal(estimate.surrogate, estimate.value)
    assert np.isfinite(estimate.value)
    np.testing.assert_array_equal(np.asarray(gradient)[:, [0, 2]], 0)
    _, estimate = jitted(estimator, 6, np.float32([[np.nan, 0.3, 0.0]]))
    assert np.isnan(estimate.surrogate), "what is no number shows"
