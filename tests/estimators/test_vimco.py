"""`estimators.vimco`: the leave-one-out bounds, exact unbiasedness, and the sampled wrapper."""

import itertools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import distributions, estimators


def naive_vimco(log_weights):
    """L, its learning signals and the weights, with a K x K matrix in float64."""
    wide = np.float64(log_weights)
    num = len(wide)
    bound = np.logaddexp.reduce(wide, axis=0) - np.log(num)
    replaced = np.broadcast_to(wide[None], (num, *wide.shape)).copy()  # [k, j, ...]
    for k in range(num):
        replaced[k, k] = np.delete(wide, k, axis=0).mean(0)
    leave_one_out = np.logaddexp.reduce(replaced, axis=1) - np.log(num)
    return bound, bound[None] - leave_one_out, np.exp(wide - np.logaddexp.reduce(wide, axis=0))


@jax.jit
def bound_and_gradients(log_weights, log_q):
    """The bound and the surrogate's gradient in each log weight and each log q."""

    def total(log_weights, log_q):
        estimate = estimators.vimco_surrogate(log_weights, log_q)
        return estimate.surrogate.sum(), estimate

    (by_weight, by_log_q), estimate = jax.grad(total, (0, 1), has_aux=True)(log_weights, log_q)
    return estimate, by_weight, by_log_q


def weights(kind):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 6))
    if kind == "dominated":
        values[np.arange(5), np.arange(5)] += 80.0
    elif kind == "hopeless":
        values[np.arange(5), np.arange(5)] -= 80.0
    elif kind == "far":
        values = 0.25 * np.round(4 * values) - 5000.0  # whole images, exact in float32
    elif kind == "equal":
        values = np.full((5, 6), -3.0)
    elif kind == "wide":
        values *= 1000.0
    return np.float32(values)


@pytest.mark.parametrize("kind", ["plain", "dominated", "hopeless", "far", "equal", "wide"])
def test_surrogate_equals_the_naive_form(kind):
    log_weights = weights(kind)
    estimate, by_weight, by_log_q = bound_and_gradients(log_weights, np.full((5, 6), -40.0))
    bound, signals, normalized = naive_vimco(log_weights)
    np.testing.assert_allclose(estimate.value, bound, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(estimate.surrogate, estimate.value)
    np.testing.assert_allclose(by_log_q, signals, rtol=1e-5, atol=2e-6)
    # float32 weights of l = -5000 are off by the rounding of logsumexp itself, 5e-4.
    np.testing.assert_allclose(by_weight, normalized, rtol=1e-5, atol=1e-6)


def test_two_samples():
    log_weights = np.float32([[0.0], [3.0]])  # L_{-k} is the other sample's weight
    _, _, by_log_q = bound_and_gradients(log_weights, np.zeros((2, 1), np.float32))
    bound = np.logaddexp(0, 3) - np.log(2)
    np.testing.assert_allclose(by_log_q, [[bound - 3], [bound - 0]], rtol=1e-5)


@pytest.mark.many_cases
@pytest.mark.parametrize("num_samples", [2, 3])
@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
def test_expected_gradient_is_the_gradient_of_the_expected_bound(family, num_samples):
    """Enumerates every K-tuple of states, so that both sides are exact."""
    family = getattr(distributions, family)
    rng = np.random.default_rng(num_samples)
    shape = (2,) if family is distributions.bernoulli else (1, 3)
    logits = np.float32(rng.normal(size=shape))
    states = np.asarray(family.support(logits))  # [S, *shape]
    theta = np.float32(rng.normal(size=len(states)))  # log p(x, z), one parameter a state
    tuples = np.array(list(itertools.product(range(len(states)), repeat=num_samples))).T  # [K, T]

    def tuple_terms(logits, theta):
        log_q = family.log_prob(states, logits).sum(-1)
        log_weights = 2 * theta - log_q
        return log_weights[tuples], log_q[tuples]

    def expected_bound(logits, theta):
        log_weights, log_q = tuple_terms(logits, theta)
        bound = jax.nn.logsumexp(log_weights, axis=0) - jnp.log(num_samples)
        return jnp.sum(jnp.exp(log_q.sum(0)) * bound)

    def expected_surrogate(logits, theta):
        log_weights, log_q = tuple_terms(logits, theta)
        mass = jax.lax.stop_gradient(jnp.exp(log_q.sum(0)))
        return jnp.sum(mass * estimators.vimco_surrogate(log_weights, log_q).surrogate)

    value, gradients = jax.jit(jax.value_and_grad(expected_surrogate, (0, 1)))(logits, theta)
    expected, exact = jax.jit(jax.value_and_grad(expected_bound, (0, 1)))(logits, theta)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for ours, oracle in zip(gradients, exact, strict=True):
        np.testing.assert_allclose(ours, oracle, atol=1e-5)


def test_memory_grows_linearly_with_the_number_of_samples():
    x = jnp.zeros((64, 3))
    jaxpr = jax.make_jaxpr(bound_and_gradients)(x, x)

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (out.aval.size for out in equation.outvars)
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                yield from sizes(inner)

    assert max(sizes(jaxpr.jaxpr)) == x.size  # K numbers for each of 3 examples, at most


@pytest.mark.thorough
@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
def test_sampled_gradient_is_unbiased(family):
    family = getattr(distributions, family)
    shape = (3,) if family is distributions.bernoulli else (2, 3)
    rng = np.random.default_rng(5)
    logits = np.float32(rng.normal(size=shape))
    slope = np.float32(rng.normal(size=shape))
    axes = tuple(range(-len(shape), 0))
    num_draws, num_samples = 20_000, 2

    def log_weight(z, logits, slope):
        log_q = family.log_prob(z, logits).sum(-1)
        return jnp.sum(jnp.broadcast_to(slope, z.shape) * z, axis=axes) ** 2 - log_q

    def total(logits, slope):  # one row each, so that the gradient lists single estimates
        estimate = estimators.vimco(
            jax.random.key(6),
            lambda z: log_weight(z, logits, slope),
            logits,
            num_samples=num_samples,
            family=family,
        )
        return estimate.surrogate.sum()

    rows = [np.broadcast_to(x, (num_draws, *shape)) for x in (logits, slope)]
    draws = jax.jit(jax.grad(total, (0, 1)))(*rows)

    def bound(logits, slope):  # both samples enumerated: E over z_1 and z_2
        states = family.support(logits)
        log_q = family.log_prob(states, logits).sum(-1)
        values = log_weight(states, logits, slope)
        pair = jnp.logaddexp(values[:, None], values[None, :]) - jnp.log(2.0)
        return jnp.sum(jnp.exp(log_q[:, None] + log_q[None, :]) * pair)

    exact = jax.jit(jax.grad(bound, (0, 1)))(logits, slope)
    for ours, oracle in zip(draws, exact, strict=True):
        ours = np.asarray(ours, np.float64)
        error = np.abs(ours.mean(0) - oracle)
        assert np.all(error < 5 * ours.std(0) / np.sqrt(num_draws))


def test_one_sample_is_refused():
    with pytest.raises(ValueError, match=r"num_samples must be at least 2 for vimco .*, got 1"):
        estimators.vimco(jax.random.key(0), lambda z: z.sum(-1), jnp.zeros(3), num_samples=1)


def test_unsummed_log_q_is_refused():
    with pytest.raises(ValueError, match=r"values have shape \(4, 2\), log q\(z\) has \(4, 2, 3\)"):
        estimators.vimco_surrogate(jnp.zeros((4, 2)), jnp.zeros((4, 2, 3)))


def test_a_weight_of_zero_is_legal_beside_two_others():
    log_weights = np.float32([[0.0, 0.5], [-np.inf, 2.0], [1.0, -np.inf], [-2.0, 1.0]])
    estimate, by_weight, by_log_q = bound_and_gradients(log_weights, np.zeros((4, 2), np.float32))
    bound, signals, normalized = naive_vimco(log_weights)
    np.testing.assert_allclose(estimate.surrogate, bound, rtol=1e-5)
    np.testing.assert_allclose(by_log_q, signals, rtol=1e-5)
    np.testing.assert_allclose(by_weight, normalized, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bad", [-np.inf, np.nan])
def test_what_has_no_leave_one_out_bound_is_visible(bad):
    log_weights = np.float32([[1.0, 1.0], [bad, 2.0]])
    estimate = jax.jit(estimators.vimco_surrogate)(log_weights, np.zeros((2, 2), np.float32))
    np.testing.assert_array_equal(np.isnan(estimate.surrogate), [True, False])
