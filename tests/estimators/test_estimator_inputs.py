"""What the estimators do with integers, with shapes that don't fit, and with NaN."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimator_cases import ALL, ESTIMATORS, SURROGATES, smooth

from dvae import distributions, estimators

PROBS = np.array([3, 7]) / 8
LOGITS = np.float32(np.log(PROBS / (1 - PROBS)))
STATES = np.float32(list(itertools.product((0, 1), repeat=2)))
PAIRS = np.array(list(itertools.product(range(4), repeat=2))).T  # [K, 16] indices of states
# Midpoints of eighths: each unit is on for exactly the right share of them.
GRID = np.float32(list(itertools.product((np.arange(8) + 0.5) / 8, repeat=2)))
SEVERAL = ("reinforce_loo", "vimco")
EXPANSIONS = ("double_cv", "double_cv_variance", "rodeo", "rodeo_variance")
PAIRWISE = (*SEVERAL, *EXPANSIONS, "arms", "local_disarm")  # two samples in these cases
OF_FAMILIES = ("reinforce", "reinforce_loo", "vimco", "nvil", "exact")


def count(z):
    return (5 * z[..., 0] * z[..., 1] + 2 * z[..., 1]).astype(jnp.int32)


def differs(z):
    return z[..., 0] != z[..., 1]


def enumerate_draws(name, monkeypatch):
    """Makes the estimator draw everything at once; returns the probability of each draw."""
    q = np.prod(np.where(STATES, PROBS, 1 - PROBS), axis=-1)
    if name in ("disarm", "relax"):
        home = {"disarm": "disarm", "relax": "_relaxed"}[name]
        module = importlib.import_module(f"dvae.estimators.{home}")
        monkeypatch.setattr(module, "open_uniform", lambda key, shape: jnp.asarray(GRID))
        return np.full(64, 1 / 64)
    samples = STATES[PAIRS] if name in SEVERAL else STATES
    monkeypatch.setattr(distributions.bernoulli, "sample", lambda *args: jnp.asarray(samples))
    return q[PAIRS].prod(0) if name in SEVERAL else q


@pytest.mark.many_cases
@pytest.mark.parametrize("f", [count, differs])
@pytest.mark.parametrize(
    "name",
    [name for name in ESTIMATORS if name not in ("rebar", "arms", "local_disarm", *EXPANSIONS)],
)
def test_a_black_box_of_integers_has_the_exact_gradient(name, f, monkeypatch):
    q = np.prod(np.where(STATES, PROBS, 1 - PROBS), axis=-1)
    values = np.float64(f(jnp.asarray(STATES)))
    if name == "vimco":
        mass, bound = q[PAIRS].prod(0), np.logaddexp.reduce(values[PAIRS]) - np.log(2)
        expected, score = mass @ bound, (STATES[PAIRS] - PROBS).sum(0)
        oracle = (mass * bound) @ score
    else:
        expected, oracle = q @ values, (q * values) @ (STATES - PROBS)

    weights = enumerate_draws(name, monkeypatch)
    # Means over the grid are exact where no relaxed sample has a part in them.
    relax = lambda *args: estimators.relax(*args, control_variate=lambda z: 0 * smooth(z))
    estimator = relax if name == "relax" else ESTIMATORS[name]

    def total(rows):
        estimate = estimator(jax.random.key(0), f, rows)
        return estimate.surrogate.sum(), estimate

    rows = np.broadcast_to(LOGITS, (len(weights), 2))
    gradients, estimate = jax.jit(jax.grad(total, has_aux=True))(rows)
    assert estimate.value.dtype == estimate.surrogate.dtype == jnp.float32
    np.testing.assert_array_equal(estimate.surrogate, estimate.value)
    np.testing.assert_allclose(weights @ estimate.value, expected, rtol=1e-5)
    np.testing.assert_allclose(weights @ gradients, oracle, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("f", [count, differs])
def test_exact_does_not_truncate_the_mean_of_integers(f):
    q = np.prod(np.where(STATES, PROBS, 1 - PROBS), axis=-1)
    values = np.float64(f(jnp.asarray(STATES)))
    value, gradient = jax.jit(jax.value_and_grad(lambda x: estimators.exact(f, x)))(LOGITS)
    np.testing.assert_allclose(value, q @ values, rtol=1e-5)
    np.testing.assert_allclose(gradient, (q * values) @ (STATES - PROBS), rtol=1e-4)


@pytest.mark.many_cases
@pytest.mark.parametrize("dtype", [np.int32, np.int8, np.bool_])
@pytest.mark.parametrize("name", SURROGATES)
def test_surrogates_of_integers_are_those_of_floats(name, dtype):
    values = np.array([[3, 0], [1, 2], [0, 1]]).astype(dtype)

    @jax.jit
    @jax.grad
    def gradient(log_q, values):
        return SURROGATES[name](values, log_q).surrogate.sum()

    log_q = np.full((3, 2), -1.5, np.float32)
    ours, expected = gradient(log_q, values), gradient(log_q, np.float32(values))
    assert np.any(np.asarray(ours) != 0)
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.many_cases
@pytest.mark.parametrize("name", ALL)
def test_integer_logits_count_as_floats(name):
    dtypes = []

    def f(z):
        dtypes.append(z.dtype)
        return smooth(z)

    logits = np.array([[1, -2, 0], [0, 3, 1]])
    ours = jax.jit(lambda: ALL[name](jax.random.key(0), f, logits))()
    expected = jax.jit(lambda: ALL[name](jax.random.key(0), smooth, np.float32(logits)))()
    assert set(dtypes) == {jnp.dtype(jnp.float32)}
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_array_equal(a, b)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["rebar", "rebar_variance"])
def test_rebar_refuses_integers_which_have_no_derivative(name):
    with pytest.raises(ValueError, match=rf"{name} differentiates f .*got int32; .* take disarm"):
        ALL[name](jax.random.key(0), count, jnp.zeros((3, 2)))


@pytest.mark.parametrize("function", [estimators.relax, estimators.relax_variance])
def test_a_control_variate_of_integers_is_refused(function):
    with pytest.raises(ValueError, match=r"differentiates control_variate .*got bool"):
        function(jax.random.key(0), count, jnp.zeros((3, 2)), control_variate=differs)


def test_signals_of_half_precision_values_keep_their_digits():
    values = jnp.array([256.0, 255.0], jnp.bfloat16)

    def total(log_q):
        return estimators.reinforce_surrogate(values, log_q, 255.75).surrogate.sum()

    np.testing.assert_array_equal(jax.grad(total)(jnp.zeros(2)), [0.25, -0.75])


def test_means_over_half_precision_samples_do_not_overflow():
    values = jnp.full((512, 2), 300.0, jnp.float16)
    estimate = estimators.reinforce_loo_surrogate(values, jnp.zeros((512, 2)))
    assert estimate.value.dtype == jnp.float16
    np.testing.assert_array_equal(estimate.value, 300)


WRONG = {
    "the units": lambda z: z,
    "an axis of one": lambda z: z.sum(-1, keepdims=True),
    "a sum over the batch": lambda z: z.sum(),
    "no batch": lambda z: jnp.zeros(()),
}


@pytest.mark.thorough
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", ALL)
def test_one_value_for_each_example_is_needed(name, wrong):
    several = {"exact": (8, 5, 3), **dict.fromkeys(PAIRWISE, (2, 5, 3))}
    shape = several.get(name, (5, 3))
    expected = rf"must map z {shape} to {shape[:-1]} ".replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=expected):
        jax.eval_shape(lambda x: ALL[name](jax.random.key(0), WRONG[wrong], x), jnp.zeros((5, 3)))


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("name", ALL)
def test_a_pair_of_outputs_is_refused(name):
    with pytest.raises(TypeError, match="returned a tuple"):
        ALL[name](jax.random.key(0), lambda z: (smooth(z), z), jnp.zeros((5, 3)))


@pytest.mark.parametrize("name", ALL)
def test_logits_without_units_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name} needs logits .*got shape \(\)"):
        ALL[name](jax.random.key(0), lambda z: z, jnp.zeros(()))


@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize("name", OF_FAMILIES)
def test_categorical_logits_need_an_axis_of_units(name, shape):
    with pytest.raises(ValueError, match=rf"\[\.\.\., n, C\] .*got shape \({str(shape)[1:-1]}\)"):
        ALL[name](
            jax.random.key(0), lambda z: z, jnp.zeros(shape), family=distributions.categorical
        )


@pytest.mark.parametrize("shape", [(5, 1), (1,), (2,), (1, 5)])
@pytest.mark.parametrize("name", ["reinforce", "nvil", "muprop"])
def test_a_baseline_that_would_broadcast_is_refused(name, shape):
    baseline = jnp.zeros(shape)
    with pytest.raises(ValueError, match=rf"{name} needs a scalar baseline .*shape \(5,\), .* has"):
        ALL[name](jax.random.key(0), smooth, jnp.zeros((5, 3)), baseline=baseline)


WITH_BASELINE = {
    "reinforce_surrogate": lambda v, b, state: estimators.reinforce_surrogate(v, v, b),
    "nvil_surrogate": lambda v, b, state: estimators.nvil_surrogate(v, v, state, baseline=b),
    "nvil_baseline_loss": lambda v, b, state: estimators.nvil_baseline_loss(v, b, state),
    "nvil_update": lambda v, b, state: estimators.nvil_update(v, state, baseline=b),
}


@pytest.mark.parametrize("name", WITH_BASELINE)
def test_functions_of_values_refuse_it_too(name):
    with pytest.raises(ValueError, match=r"shape \(5,\), the baseline has \(5, 1\)"):
        WITH_BASELINE[name](jnp.zeros(5), jnp.zeros((5, 1)), estimators.nvil_init())


@pytest.mark.parametrize("num_samples", [1, 0, -3, 2.5, None])
@pytest.mark.parametrize("name", ["reinforce_loo", "vimco"])
def test_too_few_samples_are_refused(name, num_samples):
    with pytest.raises(ValueError, match=rf"at least 2 for {name} .*integer, got {num_samples}"):
        getattr(estimators, name)(
            jax.random.key(0), smooth, jnp.zeros((5, 3)), num_samples=num_samples
        )


@pytest.mark.parametrize("name", ["reinforce_loo", "vimco"])
def test_surrogates_need_an_axis_of_samples(name):
    with pytest.raises(ValueError, match=r"\[K, \.\.\.\] of K samples, got shape \(\)"):
        SURROGATES[name](jnp.zeros(()), jnp.zeros(()))
    with pytest.raises(ValueError, match=rf"at least 2 for {name} .*got 1"):
        SURROGATES[name](jnp.zeros((1, 4)), jnp.zeros((1, 4)))


@pytest.mark.many_cases
@pytest.mark.parametrize("name", ALL)
def test_nan_values_stay_visible_and_apart(name):
    f = lambda z: smooth(z) + jnp.broadcast_to(jnp.array([0.0, jnp.nan]), z.shape[:-1])
    result = jax.jit(lambda x: ALL[name](jax.random.key(1), f, x))(jnp.zeros((2, 3)))
    for leaf in jax.tree.leaves(result):
        np.testing.assert_array_equal(np.isnan(leaf), [False, True])


@pytest.mark.many_cases
@pytest.mark.parametrize("name", ALL)
def test_nan_logits_stay_visible(name):
    logits = jnp.array([[0.0, 1.0], [jnp.nan, 1.0]])
    result = jax.jit(lambda x: ALL[name](jax.random.key(1), smooth, x))(logits)
    np.testing.assert_array_equal(np.isnan(jax.tree.leaves(result)[-1]), [False, True])
    if name in ("disarm", "rebar", "relax"):  # which draw by themselves
        np.testing.assert_array_equal(np.isnan(result.value), [False, True])


@pytest.mark.many_cases
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0,)])
def test_no_examples_and_no_units(name, shape):
    def run(logits):
        result = ALL[name](jax.random.key(0), smooth, logits)
        leaf = jax.tree.leaves(result)[-1]
        return leaf.sum(), leaf

    gradient, value = jax.jit(jax.grad(run, has_aux=True))(jnp.zeros(shape))
    np.testing.assert_array_equal(value, np.zeros(shape[:-1]))
    assert gradient.shape == shape
