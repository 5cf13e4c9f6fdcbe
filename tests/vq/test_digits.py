"""Codes as integers and as digits against NumPy's mixed radices; usage digit by digit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import vq

RADICES = [(2,), (1,), (8, 6, 5), (7, 5, 5, 5, 5), (2,) * 10, (1, 3, 1, 4), (46340, 46340)]


@pytest.mark.thorough
@pytest.mark.parametrize("radices", RADICES)
def test_integers_and_digits_are_one_to_one(radices):
    size = int(np.prod(radices))
    codes = np.unique(np.linspace(0, size - 1, 5000).astype(np.int64))
    want = np.stack(np.unravel_index(codes, radices, order="F"), axis=-1)
    digits = jax.jit(lambda c: vq.unpack_codes(c, radices))(codes)
    assert digits.dtype == jnp.int32
    np.testing.assert_array_equal(digits, want)
    packed = jax.jit(lambda d: vq.pack_digits(d, radices))(digits)
    assert packed.dtype == jnp.int32
    np.testing.assert_array_equal(packed, codes)


def test_the_first_component_varies_fastest():
    np.testing.assert_array_equal(vq.unpack_codes(np.arange(4), (2, 3))[:, 0], [0, 1, 0, 1])


def test_what_is_out_of_range_stays_so():
    bad = np.array([-1, 30, 31, -(2**31), 2**31 - 1])
    digits = vq.unpack_codes(bad, (2, 3, 5))
    np.testing.assert_array_equal(digits, [[2, 3, 5]] * 5)
    np.testing.assert_array_equal(vq.pack_digits(digits, (2, 3, 5)), [30] * 5)
    digits = np.array([[2, 0, 0], [0, 3, 0], [0, 0, 5], [0, -1, 0], [1, 2, 4], [2**31 - 1] * 3])
    np.testing.assert_array_equal(vq.pack_digits(digits, (2, 3, 5)), [30, 30, 30, 30, 29, 30])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_integers_of_any_width(dtype):
    np.testing.assert_array_equal(
        vq.unpack_codes(np.array([7, 29], dtype), (2, 15)), [[1, 3], [1, 14]]
    )
    if np.iinfo(dtype).bits > 32:
        # 2^32 + 7 would wrap to the code 7.
        np.testing.assert_array_equal(
            vq.unpack_codes(np.array([2**32 + 7], dtype), (2, 15)), [[2, 15]]
        )


def test_sixty_four_bit_codes_do_not_wrap():
    with jax.enable_x64(True):
        codes = jnp.array([7, 2**32 + 7, -(2**32) + 7])
        assert codes.dtype == jnp.int64
        found = vq.unpack_codes(codes, (2, 15))
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, [[1, 3], [2, 15], [2, 15]])


def test_usage_of_every_digit():
    radices = (2, 3, 7)
    rng = np.random.default_rng(0)
    digits = np.stack([rng.integers(0, size, (20, 4)) for size in radices], axis=-1)
    mask = rng.random((20, 4)) < 0.6
    counts = jax.jit(lambda d: vq.digit_usage(d, radices))(digits)
    masked = jax.jit(lambda d, m: vq.digit_usage(d, radices, mask=m))(digits, mask)
    for i, size in enumerate(radices):
        assert counts[i].dtype == jnp.int32
        np.testing.assert_array_equal(
            counts[i], np.bincount(digits[..., i].ravel(), minlength=size)
        )
        np.testing.assert_array_equal(masked[i], np.bincount(digits[mask][:, i], minlength=size))
    np.testing.assert_array_equal(vq.digit_usage(np.array([[2, -1, 6]]), radices)[0], [0, 0])
    np.testing.assert_array_equal(vq.digit_usage(np.array([[2, -1, 6]]), radices)[2][6], 1)


@pytest.mark.thorough
def test_masked_codes_count_nowhere():
    codes = np.array([[0, 2, 2], [1, 0, 2]])
    mask = np.array([[True, True, False], [False, False, True]])
    masked = vq.mask_codes(codes, mask)
    np.testing.assert_array_equal(vq.usage(masked, 3), [1, 0, 2])
    vectors = jnp.where(mask[..., None], np.float32(1.0), np.float32(100.0)) * jnp.ones((2, 3, 2))
    state = vq.ema_update(vq.ema_init(jnp.zeros((3, 2))), vectors, masked, decay=0.0)
    np.testing.assert_array_equal(state.counts, [1, 0, 2])
    np.testing.assert_array_equal(state.sums, [[1, 1], [0, 0], [2, 2]])


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"fewer than 2\^31 .*keep the digits.* got 2147483648"):
        vq.pack_digits(np.zeros((2, 31), int), (2,) * 31)
    with pytest.raises(ValueError, match=r"fewer than 2\^31 .*4294967296 of 4 components"):
        vq.unpack_codes(0, (256,) * 4)
    with pytest.raises(ValueError, match=r"one entry for each of the 3 components, got \(2, 2\)"):
        vq.pack_digits(np.zeros((4, 3), int), (2, 2))
    with pytest.raises(ValueError, match=r"one entry for each of the 3 components, got \(2, 2\)"):
        vq.digit_usage(np.zeros((4, 3), int), (2, 2))
    for radices in ((), (2, 0), (2.5,), 2):
        with pytest.raises(ValueError, match=r"one or more integers, each >= 1, got"):
            vq.unpack_codes(0, radices)
    for function in (vq.pack_digits, vq.digit_usage):
        with pytest.raises(ValueError, match=r"digits must be \[\.\.\., d\], got \(\)"):
            function(np.array(3), (2,))
    with pytest.raises(TypeError, match="must be integers, got float32"):
        vq.unpack_codes(jnp.ones(3), (2,))
    for mask in (np.ones(4, bool), np.ones(3), np.ones((3, 1), bool)):
        with pytest.raises(ValueError, match=r"mask must be boolean \(3,\).*compare it with 0"):
            vq.mask_codes(np.zeros(3, int), mask)
        with pytest.raises(ValueError, match=r"mask must be boolean \(3,\)"):
            vq.digit_usage(np.zeros((3, 2), int), (2, 2), mask=mask)
