from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.bounds import balancing

KLS = np.float32([4.0, 1.0, 0.5, 2.5])
SIZES = (16, 1568, 1568, 32)
VALUE_AND_GRADIENT = {
    power: jax.jit(
        jax.value_and_grad(
            lambda kls, weight, power=power: balancing.balanced_kl(
                kls, SIZES, kl_weight=weight, size_power=power
            )
        )
    )
    for power in (1.0, 0.0, -1.0)
}


def coefficients(kls, power):
    scores = np.asarray(kls, np.float64) * np.array(SIZES, np.float64) ** power
    return scores / scores.mean()


@pytest.mark.parametrize("power", [1.0, 0.0, -1.0])
def test_coefficients_are_the_share_of_each_group(power):
    gamma = balancing.balancing_coefficients(jnp.asarray(KLS), SIZES, size_power=power)
    np.testing.assert_allclose(gamma, coefficients(KLS, power), rtol=1e-5)
    np.testing.assert_allclose(np.mean(gamma), 1, rtol=1e-6)


@pytest.mark.parametrize("power", [1.0, 0.0, -1.0])
def test_during_warm_up_the_coefficients_are_constants(power):
    value, gradient = VALUE_AND_GRADIENT[power](KLS, 0.25)
    gamma = coefficients(KLS, power)
    np.testing.assert_allclose(value, 0.25 * np.sum(gamma * KLS), rtol=1e-5)
    np.testing.assert_allclose(gradient, 0.25 * gamma, rtol=1e-5)


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_after_warm_up_the_total_is_the_plain_weighted_sum(weight):
    value, gradient = VALUE_AND_GRADIENT[1.0](KLS, weight)
    assert value == weight * KLS.sum()
    np.testing.assert_array_equal(gradient, np.full(4, weight))


@pytest.mark.parametrize("kls", [[0, 0, 0, 0], [-1, 0, -0.5, 0]])
def test_groups_without_any_kl_have_equal_weights(kls):
    # The normalizer is zero: the plain ratio would be NaN.
    value, gradient = VALUE_AND_GRADIENT[1.0](np.float32(kls), 0.5)
    assert value == 0.5 * sum(kls)
    np.testing.assert_array_equal(gradient, np.full(4, 0.5))


def test_a_negative_estimate_is_not_rewarded_for_growing():
    kls = np.float32([3.0, -2.9, 0.0, 1.0])
    _, gradient = VALUE_AND_GRADIENT[0.0](kls, 0.5)
    np.testing.assert_allclose(gradient, 0.5 * np.array([3.0, 0.0, 0.0, 1.0]), rtol=1e-6)


@pytest.mark.parametrize("kl", [1e-30, 1e30])
def test_extreme_kls_and_sizes_stay_finite(kl):
    # The products 1e30 * 1e12 and their sum would overflow.
    kls = jnp.array([kl, kl / 2], jnp.float32)
    gamma = balancing.balancing_coefficients(kls, (10**12, 10**12))
    np.testing.assert_allclose(gamma, [4 / 3, 2 / 3], rtol=1e-6)


def test_sizes_far_apart_stay_finite_beside_large_kls():
    gamma = balancing.balancing_coefficients(jnp.full(2, 1e30, jnp.float32), (1, 10**12))
    np.testing.assert_allclose(gamma, [2e-12, 2], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_dtype_is_kept(dtype):
    kls = jnp.asarray(KLS, dtype)
    weight = jnp.float32(0.5)
    total = balancing.balanced_kl(kls, SIZES, kl_weight=weight)
    expected = 0.5 * np.sum(coefficients(KLS, 1.0) * KLS)
    np.testing.assert_allclose(np.float32(total), expected, rtol=2e-2)
    assert total.dtype == dtype
    assert balancing.balancing_coefficients(kls, SIZES).dtype == dtype
    assert balancing.free_bits(kls, min_nats=1.0).dtype == dtype


@pytest.mark.parametrize(
    ("shape", "sizes"), [((3,), (1, 2)), ((2, 3), (1, 2, 3)), ((), ()), ((0,), ())]
)
def test_mismatched_sizes_are_refused(shape, sizes):
    with pytest.raises(ValueError, match=rf"as long, got shapes \({str(shape)[1:-1]}\)"):
        balancing.balanced_kl(jnp.zeros(shape), sizes, kl_weight=0.5)


@pytest.mark.parametrize("sizes", [(1, 0), (-3, 2)])
def test_empty_groups_are_refused(sizes):
    with pytest.raises(ValueError, match=rf"positive, got \({sizes[0]}, {sizes[1]}\)"):
        balancing.balancing_coefficients(jnp.ones(2), sizes)


@pytest.mark.parametrize("min_nats", [1.0, np.float32([1.0, 0.25, 3.0, 0.0])])
def test_free_bits_charges_the_allowance_and_frees_the_gradient(min_nats):
    kls = np.float32([4.0, 1.5, 0.5, 2.5])
    fn = jax.jit(jax.value_and_grad(partial(balancing.free_bits, min_nats=min_nats)))
    value, gradient = fn(kls)
    np.testing.assert_allclose(value, np.maximum(kls, min_nats).sum(), rtol=1e-6)
    np.testing.assert_array_equal(gradient, kls > min_nats)


def test_free_bits_refuses_what_it_cannot_mean():
    with pytest.raises(ValueError, match=r"batch mean a group, got shape \(8, 4\)"):
        balancing.free_bits(jnp.ones((8, 4)), min_nats=0.1)
    with pytest.raises(ValueError, match=r"at least 0.*got -0\.5"):
        balancing.free_bits(jnp.ones(4), min_nats=-0.5)
