"""`estimators.reinforce` and `reinforce_loo`: exactly unbiased, with less variance by baselines."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import distributions, estimators

LOGITS = np.float32([0.4, -1.1])
THETA = np.float32([0.3, -0.7])


def value_of(z, logits, theta):
    """f closes over the logits too, as an ELBO's log q does."""
    return 3 + (z @ theta) ** 2 - distributions.bernoulli.log_prob(z, logits).sum(-1)


def exact_gradient():
    def expectation(logits, theta):
        return estimators.exact(lambda z: value_of(z, logits, theta), logits)

    return jax.jit(jax.value_and_grad(expectation, (0, 1)))(LOGITS, THETA)


def expected_gradient(surrogate, num_samples):
    """Enumerates every tuple of samples: the estimator's expectation without sampling."""
    states = np.asarray(distributions.bernoulli.support(LOGITS))
    tuples = np.array(list(itertools.product(range(4), repeat=num_samples))).T  # [K, T]

    def total(logits, theta):
        log_q = distributions.bernoulli.log_prob(states, logits).sum(-1)[tuples]
        mass = jax.lax.stop_gradient(jnp.exp(log_q.sum(0)))
        return jnp.sum(mass * surrogate(value_of(states, logits, theta)[tuples], log_q))

    return jax.jit(jax.value_and_grad(total, (0, 1)))(LOGITS, THETA)


@pytest.mark.thorough
@pytest.mark.parametrize("baseline", [0.0, 3.7])
def test_reinforce_is_exactly_unbiased(baseline):
    def surrogate(values, log_q):
        return estimators.reinforce_surrogate(values[0], log_q[0], baseline).surrogate

    actual = jax.tree.leaves(expected_gradient(surrogate, 1))
    for ours, oracle in zip(actual, jax.tree.leaves(exact_gradient()), strict=True):
        np.testing.assert_allclose(ours, oracle, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_samples", [2, 3])
def test_reinforce_loo_is_exactly_unbiased(num_samples):
    def surrogate(values, log_q):
        return estimators.reinforce_loo_surrogate(values, log_q).surrogate

    actual = jax.tree.leaves(expected_gradient(surrogate, num_samples))
    for ours, oracle in zip(actual, jax.tree.leaves(exact_gradient()), strict=True):
        np.testing.assert_allclose(ours, oracle, rtol=1e-5, atol=1e-5)


def test_leave_one_out_signals():
    values = np.float32([[1.0, 7000.5], [4.0, 7000.0], [-2.0, 7002.5]])

    def total(values, log_q):
        return estimators.reinforce_loo_surrogate(values, log_q).surrogate.sum()

    by_value, by_log_q = jax.jit(jax.grad(total, (0, 1)))(values, np.zeros_like(values))
    others = (values.sum(0) - values) / 2
    # An ulp of 7,000 is 5e-4, whichever way the compiler adds.
    np.testing.assert_allclose(by_log_q, (values - others) / 3, rtol=1e-5, atol=3e-4)
    np.testing.assert_allclose(by_value, np.full((3, 2), 1 / 3), rtol=1e-6)


def test_baseline_receives_no_gradient():
    def total(baseline):
        log_q = jnp.float32([-1.0, -2.0])
        return estimators.reinforce_surrogate(log_q, log_q, baseline).surrogate.sum()

    np.testing.assert_array_equal(jax.jit(jax.grad(total))(np.float32([0.5, 2.0])), 0)


WRAPPERS = {
    "reinforce": lambda key, f, x, **kw: estimators.reinforce(key, f, x, baseline=3.0, **kw),
    "reinforce_loo": lambda key, f, x, **kw: estimators.reinforce_loo(
        key, f, x, num_samples=3, **kw
    ),
}


@pytest.mark.many_cases
@pytest.mark.parametrize("estimator", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
def test_sampled_gradients_are_unbiased(estimator, family):
    family = getattr(distributions, family)
    shape = (3,) if family is distributions.bernoulli else (2, 3)
    rng = np.random.default_rng(7)
    logits, theta = (np.float32(rng.normal(size=shape)) for _ in range(2))
    axes = tuple(range(-len(shape), 0))
    num_draws = 20_000

    def f(z, logits, theta):
        score = jnp.sum(jnp.broadcast_to(theta, z.shape) * z, axis=axes)
        return 3 + score**2 - family.log_prob(z, logits).sum(-1)

    def total(logits, theta):  # one row each, so that the gradient lists single estimates
        estimate = estimator(
            jax.random.key(8), lambda z: f(z, logits, theta), logits, family=family
        )
        return estimate.surrogate.sum()

    rows = [np.broadcast_to(x, (num_draws, *shape)) for x in (logits, theta)]
    draws = jax.jit(jax.grad(total, (0, 1)))(*rows)
    exact = jax.jit(
        jax.grad(
            lambda x, theta: estimators.exact(lambda z: f(z, x, theta), x, family=family), (0, 1)
        )
    )(logits, theta)
    for ours, oracle in zip(draws, exact, strict=True):
        ours = np.asarray(ours, np.float64)
        error = np.abs(ours.mean(0) - oracle)
        assert np.all(error < 5 * ours.std(0) / np.sqrt(num_draws))


def test_one_sample_cannot_be_left_out():
    with pytest.raises(ValueError, match=r"at least 2 for reinforce_loo .*, got 1"):
        estimators.reinforce_loo(
            jax.random.key(0), lambda z: z.sum(-1), jnp.zeros(3), num_samples=1
        )


def test_f_must_reduce_the_units():
    with pytest.raises(ValueError, match=r"reinforce needs one value .* z \(5, 3\) to \(5,\).*got"):
        estimators.reinforce(jax.random.key(0), lambda z: z, jnp.zeros((5, 3)))
