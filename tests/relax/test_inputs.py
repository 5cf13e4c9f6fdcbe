"""What the relaxations take: numbers, lists, integers, NaN, keys; and what they refuse."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from smoothing_oracles import DENSE, EACH, EACH_DENSE

from dvae import distributions, relax

ROOT = Path(__file__).parents[2]
OF_BITS = {
    **{name: partial(module.sample, beta=4.0) for name, module in relax.SMOOTHINGS.items()},
    **{
        f"{name}, ancestral": partial(relax.SMOOTHINGS[name].ancestral_sample, beta=4.0)
        for name in DENSE
    },
    "step": relax.step.sample,
    "binary_concrete": partial(relax.binary_concrete.sample, temperature=0.5),
    "binary_concrete, logit": partial(relax.binary_concrete.sample_logit, temperature=0.5),
    "straight_through": relax.straight_through.bernoulli,
    "reinmax": relax.reinmax.bernoulli,
    "gumbel_rao": partial(relax.gumbel_rao.bernoulli, temperature=0.5, num_samples=2),
    "bernoulli": distributions.bernoulli.sample,
}
OF_CLASSES = {
    "gumbel_softmax": partial(relax.gumbel_softmax.sample, temperature=0.5),
    "gumbel_softmax, hard": partial(relax.gumbel_softmax.sample, temperature=0.5, hard=True),
    "straight_through": relax.straight_through.categorical,
    "reinmax": relax.reinmax.categorical,
    "gumbel_rao": partial(relax.gumbel_rao.categorical, temperature=0.5, num_samples=2),
    "categorical": distributions.categorical.sample,
}
BITS = pytest.mark.parametrize("sample", OF_BITS.values(), ids=OF_BITS)
CLASSES = pytest.mark.parametrize("sample", OF_CLASSES.values(), ids=OF_CLASSES)
EVERY = pytest.mark.parametrize(
    "sample", [*OF_BITS.values(), *OF_CLASSES.values()], ids=[*OF_BITS, *OF_CLASSES]
)


@pytest.mark.many_cases
@BITS
def test_a_nan_logit_gives_a_nan_sample(sample):
    logits = np.float32([np.nan, 0.5, np.nan, -2.0])
    for dtype in (np.float32, jnp.bfloat16):
        for draw in (sample, jax.jit(sample)):
            z = draw(jax.random.key(0), jnp.asarray(logits, dtype))
            np.testing.assert_array_equal(np.isnan(np.float32(z)), np.isnan(logits))


@pytest.mark.many_cases
@CLASSES
def test_a_nan_among_the_logits_of_the_classes_gives_nan(sample):
    logits = np.float32([[0, np.nan, 1], [0, 1, 2], [-np.inf, 0, np.nan], [-np.inf, 0, 3]])
    for draw in (sample, jax.jit(sample)):
        z = draw(jax.random.key(0), logits)
        np.testing.assert_array_equal(np.isnan(z).all(-1), [True, False, True, False])
        np.testing.assert_array_equal(np.isnan(z).any(-1), [True, False, True, False])


@pytest.mark.thorough
@pytest.mark.many_cases
@EACH
def test_nan_stays_visible_in_inverse_cdfs_and_densities(name):
    module = relax.SMOOTHINGS[name]
    nan = np.float32([np.nan, 0.3])
    for rho, logits, beta in ((nan, 0.2, 3.0), (0.2, nan, 3.0), (0.2, 0.2, jnp.asarray(nan))):
        np.testing.assert_array_equal(np.isnan(module.icdf(rho, logits, beta)), [True, False])
    outside = np.isnan(module.icdf(np.float32([-0.1, 0.5, 1.5]), 0.2, 3.0))
    np.testing.assert_array_equal(outside, [True, False, True])
    functions = [module.cdf]
    if name in DENSE:
        functions += [module.log_prob, module.posterior_logits]
    for function in functions:
        np.testing.assert_array_equal(np.isnan(function(nan, 0.2, 3.0)), [True, False])
        np.testing.assert_array_equal(np.isnan(function(0.4, nan, 3.0)), [True, False])


@pytest.mark.many_cases
@EACH
def test_nan_stays_visible_at_both_ends_of_the_noise(name):
    icdf, nan = relax.SMOOTHINGS[name].icdf, np.float32([np.nan, 0.3])
    for rho in (0.0, 1.0):
        np.testing.assert_array_equal(np.isnan(icdf(rho, nan, 3.0)), [True, False])
        np.testing.assert_array_equal(np.isnan(icdf(rho, 0.2, jnp.asarray(nan))), [True, False])


def test_nan_stays_visible_in_the_step_and_concrete_densities():
    nan = np.float32([np.nan, 0.3])
    concrete, softmax = relax.binary_concrete, relax.gumbel_softmax
    for function in (concrete.icdf, concrete.icdf_logit, concrete.cdf, concrete.log_prob):
        np.testing.assert_array_equal(np.isnan(function(nan, 0.2, 0.5)), [True, False])
    for rho, logits in ((nan, 0.2), (0.2, nan)):
        np.testing.assert_array_equal(np.isnan(relax.step.icdf(rho, logits)), [True, False])
    y = np.float32([[np.nan, 0.5, 0.5], [0.2, 0.3, 0.5]])
    log_p = softmax.log_prob(y, np.zeros((2, 3), np.float32), 0.5)
    np.testing.assert_array_equal(np.isnan(log_p), [True, False])


@pytest.mark.thorough
@pytest.mark.many_cases
@BITS
def test_logits_may_be_numbers_and_lists(sample):
    assert sample(jax.random.key(0), 0.3).shape == ()
    assert sample(jax.random.key(0), 0.3).dtype == jnp.float32
    of_list = sample(jax.random.key(0), [0, 1, -2])
    of_array = sample(jax.random.key(0), np.float32([0, 1, -2]))
    np.testing.assert_array_equal(of_list, of_array)


@pytest.mark.many_cases
@CLASSES
def test_logits_of_classes_may_be_lists_but_not_numbers(sample):
    of_list = sample(jax.random.key(0), [[0, 1, -2]])
    of_array = sample(jax.random.key(0), np.float32([[0, 1, -2]]))
    np.testing.assert_array_equal(of_list, of_array)
    with pytest.raises(ValueError, match=r"expected \[..., C\]"):
        sample(jax.random.key(0), 0.3)


@EVERY
def test_an_array_of_keys_is_refused(sample):
    with pytest.raises(ValueError, match=r"single key.*vmap"):
        sample(jax.random.split(jax.random.key(0)), np.zeros((3, 2), np.float32))


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("shape", [5, (5,), [5], np.int64(5)])
def test_sample_shapes_may_be_integers(shape):
    bits, keys = np.zeros(2, np.float32), jax.random.split(jax.random.key(0), 5)
    assert distributions.bernoulli.sample(keys[0], bits, shape).shape == (5, 2)
    assert distributions.categorical.sample(keys[1], bits, shape).shape == (5, 2)
    assert distributions.categorical.sample_codes(keys[2], bits, shape).shape == (5,)
    assert distributions.normal.sample(keys[3], bits, 0.0, shape).shape == (5, 2)
    params = np.zeros(3, np.float32)
    pixels = distributions.discretized_logistic.sample(keys[4], params, shape, num_channels=1)
    assert pixels.shape == (5, 1)


@pytest.mark.thorough
def test_numbers_and_lists_of_integers_count_as_floats():
    y = relax.logistic.log_ratio([0, 1], 4)
    np.testing.assert_allclose(y, [-2.6500055, 2.6500055], rtol=1e-6)
    np.testing.assert_allclose(distributions.bernoulli.kl([2], [0]), [0.32781339], rtol=1e-5)
    log_0 = relax.exponential.log_prob_0(0, 2)
    np.testing.assert_allclose(log_0, np.log(2 / -np.expm1(-2)), rtol=1e-6)
    y = relax.gumbel_softmax.transform([0, 0, 0], [1, 2, 3], 2)
    np.testing.assert_allclose(y, jax.nn.softmax(jnp.float32([0.5, 1, 1.5])), rtol=1e-6)
    assert distributions.bernoulli.support(np.zeros(2, np.int32)).dtype == jnp.float32
    assert distributions.categorical.support(np.zeros((1, 2), np.int32)).dtype == jnp.float32


@EACH
def test_an_infinite_inverse_temperature_is_refused(name):
    for call in (
        lambda: relax.SMOOTHINGS[name].icdf(0.5, 0.0, np.inf),
        lambda: relax.SMOOTHINGS[name].sample(jax.random.key(0), 0.0, float("inf")),
        lambda: relax.SMOOTHINGS[name].cdf(0.5, 0.0, np.float32(np.inf)),
    ):
        with pytest.raises(ValueError, match="beta must be positive and finite, got inf"):
            call()


@pytest.mark.thorough
@pytest.mark.many_cases
@EACH_DENSE
def test_beta_broadcasts_with_the_logits_of_a_sample(name):
    module = relax.SMOOTHINGS[name]
    logits, beta = np.zeros((1, 2, 1), np.float32), np.ones((3, 1, 4), np.float32)
    for draw in (module.sample, module.ancestral_sample):
        assert draw(jax.random.key(0), logits, beta).shape == (3, 2, 4)


@pytest.mark.parametrize(
    "call",
    [
        distributions.categorical.kl,
        distributions.categorical.log_prob,
        lambda x, y: relax.gumbel_softmax.transform(x, y, 0.5),
        lambda x, y: relax.gumbel_softmax.log_prob(x, y, 0.5),
        lambda x, y: relax.gumbel_softmax.log_prob_of_log(x, y, 0.5),
    ],
)
def test_numbers_of_classes_that_differ_are_refused(call):
    one, three = np.full((2, 1), 0.5, np.float32), np.full((2, 3), 0.5, np.float32)
    for first, second in ((one, three), (three, one)):
        with pytest.raises(
            ValueError, match=r"one number of classes C.*\(2, [13]\) and \(2, [13]\)"
        ):
            call(first, second)


def test_codes_must_be_integers():
    with pytest.raises(ValueError, match="codes must be integers, got float32"):
        distributions.categorical.log_prob_of_codes(np.zeros(2, np.float32), np.zeros((2, 3)))


@pytest.mark.thorough
def test_slopes_do_not_vanish_on_one_side():
    logits = np.float32([-25, -18, 18, 25])
    gradient = jax.grad(lambda x: relax.straight_through.bernoulli(jax.random.key(0), x).sum())
    np.testing.assert_allclose(gradient(logits), np.exp(-np.abs(logits)), rtol=1e-5)
    slope = jax.vmap(jax.grad(relax.binary_concrete.icdf, 1), (None, 0, None))(0.5, logits, 1.0)
    np.testing.assert_allclose(slope, np.exp(-np.abs(logits)), rtol=1e-5)


@pytest.mark.slow
def test_a_type_checker_knows_the_arguments_of_a_smoothing(tmp_path):
    def errors(call):
        file = tmp_path / "snippet.py"
        file.write_text(f"from dvae import relax\n{call}\n")
        command = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", file]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False).stdout

    for smoothing in ("relax.SMOOTHINGS['power']", "relax.uniform_exp", "relax.exponential"):
        assert "Success" in errors(f"{smoothing}.icdf(0.5, logits=0.0, beta=2.0)")
        output = errors(f"{smoothing}.icdf(0.5, logit=0.0, beta=2.0)")
        assert 'Unexpected keyword argument "logit"' in output
