"""What every distribution promises: jit, vmap, dtypes, extremes, reproducible keys."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.distributions import bernoulli, categorical

BOTH = [bernoulli, categorical]
FAMILIES = pytest.mark.parametrize("family", BOTH, ids=["bernoulli", "categorical"])
DTYPES = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])


def outputs(family, key, logits, other):
    """Everything a family computes from a pair of logits [..., C]."""
    z = family.sample(key, logits)
    return {
        "sample": z,
        "log_prob": family.log_prob(z, other),
        "entropy": family.entropy(logits),
        "kl": family.kl(logits, other),
    }


jitted = jax.jit(outputs, static_argnums=0)


def inputs(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return tuple(np.asarray(2 * rng.normal(size=(3, 4, 5)), dtype) for _ in range(2))


def assert_same(actual, expected, rtol=1e-5, atol=1e-6):
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=rtol, atol=atol, err_msg=name)


@pytest.mark.thorough
@pytest.mark.many_cases
@FAMILIES
def test_jit_equals_eager(family):
    logits, other = map(jnp.asarray, inputs())
    eager = outputs(family, jax.random.key(1), logits, other)
    assert_same(jitted(family, jax.random.key(1), logits, other), eager)


@pytest.mark.thorough
@FAMILIES
def test_vmap_equals_loop(family):
    logits, other = inputs()
    seeds = np.arange(3, dtype=np.uint32)
    one = jax.jit(lambda seed, *xs: outputs(family, jax.random.key(seed), *xs))
    mapped = jax.jit(jax.vmap(one))(seeds, logits, other)
    for i, seed in enumerate(seeds):
        assert_same({k: v[i] for k, v in mapped.items()}, one(seed, logits[i], other[i]))


@pytest.mark.thorough
@FAMILIES
@DTYPES
def test_dtype_is_kept_and_rounded_once(family, dtype):
    logits, other = inputs(dtype)
    low = jitted(family, jax.random.key(3), logits, other)
    high = jitted(family, jax.random.key(3), np.float32(logits), np.float32(other))
    assert {value.dtype for value in low.values()} == {jnp.dtype(dtype)}
    # atol: float16 is subnormal below 6e-5.
    assert_same({k: np.float32(v) for k, v in low.items()}, high, float(jnp.finfo(dtype).eps), 1e-7)


@pytest.mark.many_cases
@FAMILIES
@DTYPES
def test_values_and_gradients_are_finite_at_extremes(family, dtype):
    logits = np.asarray([[-1e4, 1e4, 0.0], [80.0, -80.0, 1e4]], dtype)

    def total(logits, other):
        out = outputs(family, jax.random.key(4), logits, other)
        return sum(out[name].astype(jnp.float32).sum() for name in ("log_prob", "entropy", "kl"))

    value, gradients = jax.jit(jax.value_and_grad(total, (0, 1)))(logits, logits[::-1])
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(np.float32(g))) for g in gradients)


@FAMILIES
def test_samples_are_bits_repeat_with_their_key_and_carry_no_gradient(family):
    logits, _ = inputs()
    draw = jax.jit(partial(family.sample, shape=(2,)))
    first, again, other = (np.asarray(draw(jax.random.key(k), logits)) for k in (8, 8, 9))
    assert first.shape == (2, 3, 4, 5)
    assert set(np.unique(first)) == {0.0, 1.0}
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    assert np.any(first[0] != first[1])
    gradient = jax.jit(jax.grad(lambda x: family.sample(jax.random.key(8), x).sum()))(logits)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize(("family", "shape"), [(bernoulli, (4,)), (categorical, (3, 5))])
def test_probabilities_of_the_support_sum_to_one(family, shape):
    logits = np.float32(np.random.default_rng(1).normal(size=shape))
    log_q = jax.jit(lambda x: family.log_prob(family.support(x), x).sum(-1))(logits)
    np.testing.assert_allclose(np.exp(log_q).sum(), 1, rtol=1e-6)
