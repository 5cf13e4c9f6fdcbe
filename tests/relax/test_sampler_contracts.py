"""What every sampler of a discrete variable's relaxation promises: jit, vmap, extremes, keys."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import relax

SAMPLERS = {
    "gumbel_softmax_hard": partial(relax.gumbel_softmax.sample, temperature=0.6, hard=True),
    "gumbel_softmax_cold": partial(relax.gumbel_softmax.sample, temperature=1e-3),
    "binary_concrete": partial(relax.binary_concrete.sample, temperature=0.5),
    "gumbel_rao_bernoulli": partial(relax.gumbel_rao.bernoulli, temperature=0.5, num_samples=3),
    "gumbel_rao_categorical": partial(relax.gumbel_rao.categorical, temperature=0.5, num_samples=3),
    "reinmax_bernoulli": relax.reinmax.bernoulli,
    "reinmax_categorical": relax.reinmax.categorical,
    "straight_through_bernoulli": relax.straight_through.bernoulli,
    "straight_through_categorical": relax.straight_through.categorical,
}
ALL = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
LOGITS = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)


@pytest.mark.many_cases
@ALL
def test_jit_equals_eager(sampler):
    eager = sampler(jax.random.key(0), jnp.asarray(LOGITS))
    jitted = jax.jit(sampler)(jax.random.key(0), LOGITS)
    np.testing.assert_allclose(jitted, eager, rtol=2e-3, atol=1e-6)  # exp((l + g) / 1e-3)


@pytest.mark.many_cases
@ALL
def test_vmap_equals_loop(sampler):
    one = jax.jit(lambda seed, logits: sampler(jax.random.key(seed), logits))
    seeds = np.arange(3, dtype=np.uint32)
    mapped = jax.jit(jax.vmap(one))(seeds, LOGITS)
    for i, seed in enumerate(seeds):
        np.testing.assert_allclose(mapped[i], one(seed, LOGITS[i]), rtol=2e-3, atol=1e-6)


@pytest.mark.many_cases
@ALL
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_values_and_gradients_are_finite_and_keep_their_dtype_at_extremes(sampler, dtype):
    logits = np.asarray([[-1e4, 1e4, 0.0], [80.0, -80.0, 80.0], [0.0, 0.0, 0.0]], dtype)

    def total(logits):
        y = sampler(jax.random.key(2), logits)
        return jnp.sum(y * y), y  # not linear: a softmax sums to one

    gradient, y = jax.jit(jax.grad(total, has_aux=True))(logits)
    assert y.dtype == gradient.dtype == dtype
    assert np.all((np.float32(y) >= 0) & (np.float32(y) <= 1))
    assert np.all(np.isfinite(np.float32(gradient)))


@pytest.mark.many_cases
@ALL
def test_a_key_fixes_the_draw(sampler):
    draw = jax.jit(lambda seed: sampler(jax.random.key(seed), LOGITS))
    np.testing.assert_array_equal(draw(3), draw(3))
    assert np.any(draw(3) != draw(4))
