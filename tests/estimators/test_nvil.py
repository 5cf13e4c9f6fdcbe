"""`estimators.nvil`: the signal, the running statistics, and what the baseline receives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import estimators

VALUES = np.float32([-100.0, -104.0, -98.0, -102.5])
BASELINE = np.float32([0.5, -1.0, 2.0, 0.0])


def state_of(mean, variance, step=3):
    return estimators.NvilState(jnp.float32(mean), jnp.float32(variance), jnp.int32(step))


def signals(values, baseline, state):
    """The learning signals, read off the gradient in log q."""

    def total(log_q):
        return estimators.nvil_surrogate(values, log_q, state, baseline=baseline)[0].surrogate.sum()

    return jax.jit(jax.grad(total))(np.zeros_like(values))


@pytest.mark.parametrize("variance", [0.0, 0.81, 1.0, 6.25])
def test_signal_is_centered_and_divided_by_a_spread_above_one(variance):
    ours = signals(VALUES, BASELINE, state_of(-101.0, variance))
    np.testing.assert_allclose(
        ours, (VALUES - BASELINE + 101) / max(1, np.sqrt(variance)), rtol=1e-5
    )


def test_statistics_follow_the_batches():
    """Against a weighted mean and variance over every signal seen, in float64."""
    rng = np.random.default_rng(0)
    batches = np.float32(rng.normal(-200, 7, size=(9, 5)))
    batches[:, 0] += 50
    decay, state = 0.7, estimators.nvil_init()
    update = jax.jit(
        lambda values, state: estimators.nvil_surrogate(
            values, values, state, baseline=2.0, decay=decay
        )[1]
    )
    weights = np.zeros((0,))
    for i, values in enumerate(batches):
        state = update(values, state)
        past = min(decay, i / (i + 1))
        weights = np.append(weights * past, 1 - past)
        seen = np.float64(batches[: i + 1]) - 2
        mean = weights @ seen.mean(1)
        variance = weights @ ((seen - mean) ** 2).mean(1)
        np.testing.assert_allclose(state.mean, mean, rtol=1e-5)
        np.testing.assert_allclose(state.variance, variance, rtol=1e-4)
        assert state.step == i + 1
    assert [x.dtype for x in state] == [jnp.float32, jnp.float32, jnp.int32]


def test_the_batch_is_centered_by_earlier_batches_only():
    state = state_of(-101.0, 4.0)
    moved = VALUES + np.float32([0, 0, 0, 30])
    np.testing.assert_array_equal(
        signals(VALUES, BASELINE, state)[:3], signals(moved, BASELINE, state)[:3]
    )


def test_gradients_go_where_they_belong():
    def total(values, log_q, baseline, mean):
        state = state_of(0.0, 1.0)._replace(mean=mean)
        estimate, new_state = estimators.nvil_surrogate(values, log_q, state, baseline=baseline)
        error = estimators.nvil_baseline_loss(estimate.value, baseline, state)
        return estimate.surrogate.sum(), error.sum(), new_state.mean

    grads = jax.jit(jax.jacrev(total, (0, 1, 2, 3)))
    by_surrogate, by_error, by_state = grads(VALUES, 0 * VALUES, BASELINE, np.float32(-101.0))
    np.testing.assert_array_equal(by_surrogate[0], 1)
    assert np.all(np.asarray(by_surrogate[1]) != 0)
    np.testing.assert_array_equal(by_surrogate[2], 0)
    residual = VALUES - BASELINE + 101
    np.testing.assert_array_equal(by_error[0], 0)
    np.testing.assert_allclose(by_error[2], -2 * residual, rtol=1e-5)
    for tree in (by_surrogate[3], by_error[3], by_state):
        for leaf in jax.tree.leaves(tree):
            np.testing.assert_array_equal(leaf, 0)


def test_baseline_learns_the_mean_of_f_and_lowers_the_variance():
    """An example-dependent level of f, learned through the loss alone."""
    level = np.float32([100.0, -50.0, 30.0, 0.0])
    logits = np.zeros((4, 3), np.float32)

    def f(z):
        return level + z.sum(-1)

    def loss(baseline, key, state):
        estimate, new_state = estimators.nvil(key, f, logits, state, baseline=baseline)
        error = estimators.nvil_baseline_loss(estimate.value, baseline, state)
        return error.sum(), new_state

    def step(carry, key):
        baseline, state = carry
        gradient, state = jax.grad(loss, has_aux=True)(baseline, key, state)
        return (baseline - 0.05 * gradient, state), None

    keys = jax.random.split(jax.random.key(0), 500)
    start = jnp.zeros(4), estimators.nvil_init()
    (baseline, state), _ = jax.jit(lambda keys: jax.lax.scan(step, start, keys)[0:2])(keys)
    np.testing.assert_allclose(baseline + state.mean, level + 1.5, atol=1.0)
    assert state.variance < 2  # of f given x alone it is 3/4

    @jax.jit
    def variance(baseline, state):
        def gradient(key):
            def total(x):
                return estimators.nvil(key, f, x, state, baseline=baseline)[0].surrogate.sum()

            return jax.grad(total)(logits)

        keys = jax.random.split(jax.random.key(1), 2000)
        return jax.vmap(gradient)(keys).var(0).sum()

    # Not the scale: that is 1 before, and at least 1 after.
    unscaled = state._replace(variance=jnp.float32(1))
    assert variance(baseline, unscaled) < 0.01 * variance(jnp.zeros(4), state_of(0.0, 1.0))


def test_half_precision_values_keep_statistics_in_float32():
    values = jnp.asarray([300.0, 340.0], jnp.float16)  # squares overflow float16
    estimate, state = estimators.nvil_surrogate(values, values, estimators.nvil_init())
    assert estimate.surrogate.dtype == jnp.float16
    error = estimators.nvil_baseline_loss(values, 0.0, estimators.nvil_init())
    np.testing.assert_allclose(state.variance, 400.0)
    np.testing.assert_allclose(error, [9e4, 340.0**2])


def test_initial_state_can_be_donated():
    step = jax.jit(
        lambda state: estimators.nvil_surrogate(VALUES, VALUES, state)[1], donate_argnums=0
    )
    assert step(estimators.nvil_init()).step == 1


def test_misuse_is_refused():
    state = estimators.nvil_init()
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\] .*, got 1.5"):
        estimators.nvil_surrogate(VALUES, VALUES, state, decay=1.5)
    with pytest.raises(ValueError, match=r"shape \(4,\), the baseline has \(4, 1\)"):
        estimators.nvil_surrogate(VALUES, VALUES, state, baseline=BASELINE[:, None])
    with pytest.raises(ValueError, match=r"values have shape \(4,\), log q\(z\) has \(4, 3\)"):
        estimators.nvil_surrogate(VALUES, np.zeros((4, 3), np.float32), state)


def test_update_alone_keeps_the_same_statistics():
    values, log_q = jnp.float32([1.0, 4.0, -2.0]), jnp.zeros(3)
    state = estimators.NvilState(jnp.float32(0.5), jnp.float32(2.0), jnp.int32(7))
    baseline = jnp.float32([0.1, 0.2, 0.3])
    _, expected = estimators.nvil_surrogate(values, log_q, state, baseline=baseline)
    found = estimators.nvil_update(values, state, baseline=baseline)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 1e30])
def test_a_batch_that_is_not_finite_does_not_stay_in_the_statistics(bad):
    # 1e30 is finite, its variance is not.
    state = state_of(-101.0, 4.0)
    values = VALUES + np.float32([0, bad, 0, 0])
    estimate, after = jax.jit(estimators.nvil_surrogate)(values, 0 * VALUES, state)
    np.testing.assert_array_equal(estimate.value, values)
    assert not np.isfinite(estimate.surrogate[1]) or bad == 1e30
    for a, b in zip(after, state, strict=True):
        np.testing.assert_array_equal(a, b)
    _, recovered = jax.jit(estimators.nvil_surrogate)(VALUES, 0 * VALUES, after)
    assert recovered.step == state.step + 1
    assert all(np.isfinite(x) for x in recovered)


def test_an_empty_batch_leaves_the_statistics_alone():
    state = state_of(-101.0, 4.0)
    estimate, after = estimators.nvil_surrogate(jnp.zeros(0), jnp.zeros(0), state)
    assert estimate.surrogate.shape == (0,)
    assert tuple(map(float, after)) == (-101, 4, 3)


def test_integer_signals_count_as_floats():
    state = estimators.nvil_update(np.array([1, 2, 4, 6]), estimators.nvil_init())
    np.testing.assert_allclose(state.mean, 3.25)
    error = estimators.nvil_baseline_loss(np.array([1, 2]), 0.5, estimators.nvil_init())
    np.testing.assert_allclose(error, [0.25, 2.25])


@pytest.mark.parametrize("decay", [-0.1, 1.5, np.nan])
def test_the_update_alone_checks_its_decay(decay):
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\]"):
        estimators.nvil_update(VALUES, estimators.nvil_init(), decay=decay)


def test_the_decay_may_be_traced():
    update = lambda decay: estimators.nvil_update(VALUES, state_of(-3.0, 2.0), decay=decay)
    found = jax.vmap(update)(jnp.float32([0.3, 0.8]))
    for i, decay in enumerate((0.3, 0.8)):
        expected = update(decay)
        np.testing.assert_allclose(found.mean[i], expected.mean, rtol=1e-6)
        np.testing.assert_allclose(found.variance[i], expected.variance, rtol=1e-6)
