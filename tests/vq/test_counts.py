"""Usage, perplexity and dead codes against slow NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import vq

perplexity = jax.jit(vq.perplexity)
gradient = jax.jit(jax.grad(vq.perplexity))


def exact(counts):
    p = np.asarray(counts, np.float64) / np.sum(counts, dtype=np.float64)
    return np.exp(-np.sum(p[p > 0] * np.log(p[p > 0])))


def test_usage_perplexity_and_dead_codes():
    counts = vq.usage(jnp.array([[0, 2], [2, 2], [0, 4]]), 5)
    assert counts.dtype == jnp.int32
    np.testing.assert_array_equal(counts, [2, 0, 3, 0, 1])
    assert vq.num_dead(counts) == 2
    np.testing.assert_allclose(perplexity(counts), exact(counts), rtol=1e-6)
    table = jnp.array([[4.0, 4, 4, 4], [0, 9, 0, 0], [0, 0, 0, 0], [0.5, 0.5, 0, 0]])
    np.testing.assert_array_equal(perplexity(table), [4, 1, 1, 2])
    np.testing.assert_array_equal(vq.num_dead(table), [0, 3, 4, 4])
    np.testing.assert_array_equal(vq.num_dead(table, threshold=0.5), [0, 3, 4, 2])


@pytest.mark.parametrize(
    "counts",
    [
        [3, 0, 5, 1],
        [1e38, 1e38, 2e38, 0],  # the sum is no float32
        [3e-38, 3e-38, 6e-38, 0],
        [2**31 - 1, 2**31 - 1, 5],
        [1e30, 1e-30, 0],
        np.random.default_rng(0).gamma(0.1, size=4096),
    ],
)
def test_perplexity_at_every_scale(counts):
    counts = np.asarray(counts)
    np.testing.assert_allclose(perplexity(counts), exact(counts), rtol=2e-6)


def test_the_gradient_of_perplexity_is_exact_and_0_for_codes_without_counts():
    counts = np.array([3.0, 0.0, 5.0, 1.0, 0.0], np.float32)
    p, used = counts / 9.0, counts > 0
    entropy = np.log(exact(counts))
    want = exact(counts) * np.where(used, -np.log(np.where(used, p, 1)) - entropy, 0) / 9
    np.testing.assert_allclose(gradient(counts), want, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(gradient(0 * counts), 0)


@pytest.mark.thorough
def test_zero_counts_make_no_nan_on_the_way():
    with jax.debug_nans(True):
        for counts in ([2.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 4.0, 0.0]):
            counts = jnp.array(counts)
            for function in (vq.perplexity, jax.grad(vq.perplexity), perplexity, gradient):
                assert jnp.all(jnp.isfinite(function(counts)))
            along = jax.jvp(jax.grad(vq.perplexity), (counts,), (jnp.ones(3),))[1]
            assert jnp.all(jnp.isfinite(along))
            assert vq.num_dead(counts) >= 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_bad_counts_stay_visible(bad):
    counts = jnp.array([[bad, 1.0, 2.0], [1.0, 1.0, 0.0]])
    np.testing.assert_array_equal(jnp.isnan(perplexity(counts)), [True, False])
    np.testing.assert_array_equal(vq.num_dead(counts), [0 if bad == np.inf else 1, 1])


def test_counts_of_no_code_are_refused():
    for counts in (np.zeros((3, 0)), np.float32(1)):
        for function in (vq.perplexity, vq.num_dead):
            with pytest.raises(ValueError, match=r"counts must be \[..., C\] of at least one code"):
                function(counts)
    with pytest.raises(ValueError, match=r"threshold must be a scalar, got shape \(3,\)"):
        vq.num_dead(np.ones(3), threshold=np.ones(3))
