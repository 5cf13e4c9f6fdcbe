"""`double_cv`, `rodeo` and `arms`: unbiased by enumeration of every tuple of samples."""

import functools
import importlib
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import distributions, estimators
from dvae._numerics import uniform_from_bits
from dvae.estimators import _expansion

LOGITS = np.float32([0.4, -1.1])
WEIGHTS = np.float32([[0.7, -0.3, 1.2], [-1.1, 0.4, 0.5]])
STATES = np.float32(list(itertools.product((0, 1), repeat=2)))


def new_key():
    return jax.random.key(0)


def network(values, slopes):
    return jnp.tanh(values * slopes) + slopes**2, jnp.sin(slopes) - 0.3 * values


ESTIMATORS = {
    "double_cv": functools.partial(estimators.double_cv, scale=0.8),
    "double_cv at 1": estimators.double_cv,
    "rodeo": functools.partial(estimators.rodeo, surrogates=network),
    "rodeo linear": estimators.rodeo,
}


def value_of(z, logits, weights):
    """f closes over the logits too, as an ELBO's log q does."""
    log_q = distributions.bernoulli.log_prob(z, logits).sum(-1)
    return 2 + jnp.tanh(z @ weights).sum(-1) ** 3 - log_q


def exact_gradients():
    def exact(logits, weights):
        return estimators.exact(lambda z: value_of(z, logits, weights), logits)

    return jax.jit(jax.value_and_grad(exact, (0, 1)))(LOGITS, WEIGHTS)


def assert_exact(mean):
    """Compares value and gradients of mean(logits, weights) with the enumerated ones."""
    value, ours = jax.jit(jax.value_and_grad(mean, (0, 1)))(LOGITS, WEIGHTS)
    expected, oracle = exact_gradients()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for actual, exact in zip(ours, oracle, strict=True):
        np.testing.assert_allclose(actual, exact, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("num_samples", [2, 3])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_mean_over_all_tuples_of_samples_is_the_exact_gradient(monkeypatch, name, num_samples):
    tuples = np.stack(list(itertools.product(STATES, repeat=num_samples)), axis=1)  # [K, 4^K, 2]
    draw = lambda key, logits, shape: jnp.asarray(tuples)
    monkeypatch.setattr(_expansion.bernoulli, "sample", draw)
    weight = np.exp(np.asarray(distributions.bernoulli.log_prob(tuples, LOGITS)).sum((0, 2)))

    def mean(logits, weights):
        rows = jnp.broadcast_to(logits, tuples.shape[1:])
        f = lambda z: value_of(z, rows, weights)
        return weight @ ESTIMATORS[name](new_key(), f, rows, num_samples=num_samples).surrogate

    assert_exact(mean)


@pytest.mark.parametrize("num_samples", [2, 5])
def test_a_linear_f_leaves_double_cv_without_variance(num_samples):
    slopes = np.float32([0.5, -2.0])

    def gradient(key):
        f = lambda z: 3 + z @ slopes
        estimate = lambda x: estimators.double_cv(key, f, x, num_samples=num_samples)
        return jax.grad(lambda x: estimate(x).surrogate)(LOGITS)

    draws = jax.jit(jax.vmap(gradient))(jax.random.split(new_key(), 50))
    mean = 1 / (1 + np.exp(-LOGITS))
    np.testing.assert_allclose(draws, np.tile(slopes * mean * (1 - mean), (50, 1)), rtol=1e-5)


def test_a_linear_f_leaves_two_samples_of_rodeo_without_variance_at_even_odds():
    slopes = np.float32([0.5, -2.0])

    def gradient(key):
        f = lambda z: 3 + z @ slopes
        estimate = lambda x: estimators.rodeo(key, f, x, num_samples=2)
        return jax.grad(lambda x: estimate(x).surrogate)(jnp.zeros(2))

    draws = jax.jit(jax.vmap(gradient))(jax.random.split(new_key(), 50))
    np.testing.assert_allclose(draws, np.tile(slopes / 4, (50, 1)), rtol=1e-5, atol=1e-6)


@pytest.mark.thorough
def test_no_scale_leaves_the_leave_one_out_estimate():
    f = lambda z: (z @ WEIGHTS).sum(-1) ** 2
    ours = lambda x: estimators.double_cv(new_key(), f, x, num_samples=4, scale=0.0).surrogate
    plain = lambda x: estimators.reinforce_loo(new_key(), f, x, num_samples=4).surrogate
    np.testing.assert_allclose(jax.grad(ours)(LOGITS), jax.grad(plain)(LOGITS), rtol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["double_cv", "rodeo"])
def test_descending_the_variance_lowers_it(name):
    f = lambda z: value_of(z, LOGITS, WEIGHTS)
    start = jnp.float32([0.0, 0.0])

    def arguments(knobs):
        if name == "double_cv":
            return {"scale": knobs[0]}
        return {"surrogates": lambda values, slopes: (knobs[0] * slopes, knobs[1] * slopes)}

    def variance(knobs, seed):
        keys = jax.random.split(jax.random.key(seed), 2_000)
        one = lambda key: getattr(estimators, f"{name}_variance")(
            key, f, LOGITS, num_samples=2, **arguments(knobs)
        )
        return jax.vmap(one)(keys).mean()

    step = jax.jit(lambda knobs, seed: knobs - 0.2 * jax.grad(variance)(knobs, seed))
    knobs = start
    for seed in range(30):
        knobs = step(knobs, seed)
    measured = jax.jit(variance)
    assert measured(knobs, 99) < 0.8 * measured(start, 99)


def rarer_pattern_probabilities(share, num_samples):
    """P(exactly the first m samples take the rarer value), m = 0..K, by inclusion-exclusion."""
    edge = 1 - share ** (1 / (num_samples - 1))
    all_of = [max(0.0, 1 - m * edge) ** (num_samples - 1) for m in range(num_samples + 1)]
    return [
        sum(
            (-1) ** extra * math.comb(num_samples - m, extra) * all_of[m + extra]
            for extra in range(num_samples - m + 1)
        )
        for m in range(num_samples + 1)
    ]


def unit_law(logit, num_samples):
    """Bits of one unit in all samples [2^K, K], and their probabilities."""
    share = 1 / (1 + math.exp(abs(logit)))
    by_count = rarer_pattern_probabilities(share, num_samples)
    patterns = np.float32(list(itertools.product((0, 1), repeat=num_samples)))
    probabilities = np.array([by_count[int(row.sum())] for row in patterns])
    return (1 - patterns if logit > 0 else patterns), probabilities


@pytest.mark.parametrize("num_samples", [2, 3, 4])
def test_arms_averages_to_the_exact_gradient_under_its_law(monkeypatch, num_samples):
    (first, p), (second, q) = (unit_law(float(x), num_samples) for x in LOGITS)
    pairs = list(itertools.product(range(len(p)), range(len(q))))
    z = np.stack([np.stack([first[i], second[j]], -1) for i, j in pairs], axis=1)
    weight = np.float32([p[i] * q[j] for i, j in pairs])
    module = importlib.import_module("dvae.estimators.arms")
    monkeypatch.setattr(module, "_antithetic", lambda *_: jnp.asarray(z))

    def mean(logits, weights):
        rows = jnp.broadcast_to(logits, z.shape[1:])
        f = lambda z: value_of(z, rows, weights)
        return weight @ estimators.arms(new_key(), f, rows, num_samples=num_samples).surrogate

    assert_exact(mean)


@pytest.mark.parametrize("num_samples", [2, 3, 5])
def test_arms_draws_by_that_law(num_samples):
    count = 40_000
    places = 2.0 ** np.arange(num_samples)
    module = importlib.import_module("dvae.estimators.arms")
    rows = np.tile(np.float32([2.0, -0.3, 0.0]), (count, 1))
    z = np.asarray(jax.jit(module._antithetic, static_argnums=2)(new_key(), rows, num_samples))
    for unit, logit in enumerate(rows[0]):
        patterns, law = unit_law(float(logit), num_samples)
        seen = np.bincount((places @ z[..., unit]).astype(int), minlength=2**num_samples)
        expected = np.zeros(2**num_samples)
        expected[(patterns @ places).astype(int)] = law
        error = np.abs(seen / count - expected)
        assert np.all(error <= 5 * np.sqrt(np.maximum(expected, 0) / count) + 1e-9)


@pytest.mark.parametrize("logit", [-12.0, -16.0, -19.0, 16.0, 19.0])
def test_arms_draws_rare_values_with_their_probability(monkeypatch, logit):
    """Counts the 32-bit words that give a rare value: -log u gave none below 6e-8.

    Given the first length L, the second is short enough if it is less than L s / (1 - s).
    """
    module = importlib.import_module("dvae.estimators.arms")
    words = np.r_[0 : 2**16, 2**32 - 2**16 : 2**32].astype(np.uint32)  # fewer than these are rare
    second = uniform_from_bits(jnp.asarray(words))
    pair = jnp.stack([jnp.full_like(second, 0.5), second])[..., None]
    monkeypatch.setattr(module, "open_uniform", lambda key, shape: pair)
    logits = jnp.full((len(words), 1), logit)
    z = np.asarray(module._antithetic(new_key(), logits, 2))
    rare = z[0, :, 0] == (logit < 0)
    share = 1 / (1 + math.exp(abs(logit)))
    expected = 2.0**32 * -math.expm1(-math.log(2) * share / (1 - share))
    assert expected > 10
    assert abs(rare.sum() - expected) <= 1


def test_arms_of_two_is_disarm():
    f = lambda z: (z @ WEIGHTS).sum(-1) ** 2

    def moments(estimate):
        def one(key):
            return jax.grad(lambda x: estimate(key, x).surrogate)(LOGITS)

        draws = np.float64(jax.jit(jax.vmap(one))(jax.random.split(new_key(), 20_000)))
        return draws.mean(0), draws.var(0)

    pair = moments(lambda key, x: estimators.disarm(key, f, x))
    ours = moments(lambda key, x: estimators.arms(key, f, x, num_samples=2))
    for actual, expected in zip(ours, pair, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0.05)


def test_arms_counts_integers_like_floats():
    count = lambda z: (z[..., 0] > z[..., 1]).astype(jnp.int32)

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(f):
        return jax.grad(lambda x: estimators.arms(new_key(), f, x, num_samples=3).surrogate)(LOGITS)

    seen = gradient(count)
    np.testing.assert_array_equal(seen, gradient(lambda z: count(z).astype(jnp.float32)))


def test_bad_input_is_one_line():
    f = lambda z: z.sum(-1)
    for name in ("double_cv", "rodeo", "arms"):
        with pytest.raises(ValueError, match=f"num_samples must be at least 2 for {name}"):
            getattr(estimators, name)(new_key(), f, LOGITS, num_samples=1)
    for name in ("double_cv", "rodeo"):
        counts = lambda z: (z > 0).sum(-1)
        with pytest.raises(
            ValueError, match=r"must return floats, got int32; .* take disarm, arms"
        ):
            getattr(estimators, name)(new_key(), counts, LOGITS, num_samples=2)
    with pytest.raises(ValueError, match=r"scalar scale, got shape \(2,\)"):
        estimators.double_cv(new_key(), f, LOGITS, num_samples=2, scale=jnp.ones(2))
    surrogates = lambda values, slopes: (slopes[..., None, None], slopes)
    with pytest.raises(ValueError, match=r"surrogates of the shape of their arguments"):
        estimators.rodeo(new_key(), f, LOGITS, num_samples=2, surrogates=surrogates)


def test_the_variance_gives_logits_no_gradient():
    def total(logits):
        f = lambda z: (jnp.broadcast_to(logits, z.shape) * z).sum(-1) ** 2  # f has them, too
        options = dict(num_samples=2, surrogates=network)
        return estimators.rodeo_variance(new_key(), f, logits, **options).sum()

    np.testing.assert_array_equal(jax.jit(jax.grad(total))(LOGITS), 0)
