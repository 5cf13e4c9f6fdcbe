"""`distributions.discretized_logistic` against float64 NumPy, sums over levels and its sampler."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.distributions import discretized_logistic as dl

PAIRS = [(1, 0), (2, 0), (2, 1)]
log_prob = jax.jit(dl.log_prob)
gradient = jax.jit(jax.grad(lambda params, pixels: dl.log_prob(pixels, params).sum()))


def pack(logits, means, log_scales, coupling=()):
    """The documented layout, from parts [..., M] and lists of one such part a channel or pair."""
    return np.float32(np.concatenate([logits, *means, *log_scales, *coupling], axis=-1))


def log_sigmoid(x):
    return -np.logaddexp(0, -x)


def oracle(pixels, params):
    """log p in float64, [...]; a bin above its center is mirrored, then log(e^a - e^b) is taken."""
    num_channels = pixels.shape[-1]
    unit = {1: 3, 2: 6, 3: 10}[num_channels]
    parts = np.moveaxis(params.astype(np.float64).reshape(*params.shape[:-1], unit, -1), -2, 0)
    means, log_scales = parts[1 : 1 + num_channels], parts[1 + num_channels : 1 + 2 * num_channels]
    coupling = dict(zip(PAIRS, np.tanh(parts[1 + 2 * num_channels :]), strict=False))
    x = pixels.astype(np.float64)[..., None]
    log_p = parts[0] - np.logaddexp.reduce(parts[0], axis=-1, keepdims=True)
    for c in range(num_channels):
        level = x[..., c, :]
        center = 127.5 * (1 + means[c])
        for j in range(c):
            center = center + coupling[c, j] * (x[..., j, :] - 127.5)
        scale = 127.5 * np.exp(np.maximum(log_scales[c], -7))
        upper = np.where(level == 255, np.inf, (level + 0.5 - center) / scale)
        lower = np.where(level == 0, -np.inf, (level - 0.5 - center) / scale)
        mirror = upper + lower > 0
        upper, lower = np.where(mirror, -lower, upper), np.where(mirror, -upper, lower)
        high, low = log_sigmoid(upper), log_sigmoid(lower)
        log_p = log_p + high + np.log1p(-np.exp(low - high))
    return np.logaddexp.reduce(log_p, axis=-1)


def random_case(num_channels, num_rows, scales, seed=0):
    """Pixels [rows, C], the end levels among them, and parameters of two components [rows, P]."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (num_rows, num_channels), dtype=np.int32)
    pixels[rng.random(pixels.shape) < 0.2] = 0
    pixels[rng.random(pixels.shape) < 0.2] = 255
    part = lambda low, high: rng.uniform(low, high, (num_rows, 2))
    params = pack(
        part(-2, 2),
        [part(-1.5, 1.5) for _ in range(num_channels)],
        [part(*scales) for _ in range(num_channels)],
        [part(-2, 2) for _ in range(num_channels * (num_channels - 1) // 2)],
    )
    return pixels, params


def extreme_grays():
    """One component a row, [rows, 3]: every mean and log scale that training is allowed."""
    rows = np.array(list(itertools.product([-10, -1, 0, 0.3, 1, 10], [-15, -7, -4, 0, 5])))
    return pack(np.zeros((len(rows), 1)), [rows[:, :1]], [rows[:, 1:]])


@pytest.mark.parametrize("num_channels", [1, 2, 3])
def test_log_prob_matches_the_oracle(num_channels):
    # A center near 255 is rounded by up to 1e-5 levels, of which the narrowest scale has 0.12.
    pixels, params = random_case(num_channels, 300, scales=(-9, 3))
    actual = log_prob(pixels, params)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, oracle(pixels, params), rtol=1e-5, atol=1e-4)


def test_log_prob_is_accurate_at_the_extremes():
    # Levels up to 1400 from centers of scale 0.12: log masses of -12000, where the sigmoids of both
    # ends are equal in float32; scales of 19000 levels, where they differ by less than rounding.
    pixels = np.array([0, 1, 128, 254, 255], np.int32)[:, None, None]
    params = extreme_grays()
    expected = oracle(pixels, params[None])
    assert expected.min() < -12000
    np.testing.assert_allclose(log_prob(pixels, params), expected, rtol=1e-5, atol=1e-4)


def test_masses_of_one_channel_sum_to_one():
    levels = np.arange(256, dtype=np.int32)[:, None, None]
    _, mixtures = random_case(1, 30, scales=(-9, 3))
    for params in (extreme_grays(), mixtures):
        masses = np.exp(np.asarray(log_prob(levels, params), np.float64))
        np.testing.assert_allclose(masses.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("red", [0, 140])
def test_masses_of_coupled_channels_sum_to_the_mass_of_the_first(red):
    # Over 256^2 greens and blues; the first channel alone is a gray mixture.
    params = pack(
        np.array([0.3, -0.4]),
        np.array([[-0.7, 0.2], [0.1, -1.2], [0.9, 0.0]]),
        np.array([[-1.5, -3.0], [-6.0, -1.0], [-8.0, 0.5]]),
        np.array([[0.4, -2.0], [-1.0, 0.1], [3.0, -0.7]]),
    )
    gray = params[[0, 1, 2, 3, 8, 9]]
    green, blue = np.meshgrid(np.arange(256), np.arange(256))
    pixels = np.stack([np.full_like(green, red), green, blue], -1).astype(np.uint8)
    masses = np.exp(np.asarray(log_prob(pixels, params), np.float64))
    expected = np.exp(oracle(np.array([red]), gray))
    np.testing.assert_allclose(masses.sum(), expected, rtol=1e-5)


def test_gradient_matches_differences_of_the_oracle():
    pixels, params = random_case(3, 60, scales=(-4, 1), seed=1)
    wide, step = params.astype(np.float64), 1e-6
    expected = np.empty_like(wide)
    for i in range(wide.shape[-1]):
        shift = step * np.eye(wide.shape[-1])[i]
        difference = oracle(pixels, wide + shift) - oracle(pixels, wide - shift)
        expected[:, i] = difference / (2 * step)
    np.testing.assert_allclose(gradient(params, pixels), expected, rtol=1e-4, atol=2e-3)


def test_gradients_are_finite_and_far_means_are_pulled_back():
    levels = np.array([0, 1, 128, 254, 255], np.int32)
    corners = itertools.product([-1e4, 10], [-15, -7, 5, 80], [-30, 30], levels, levels)
    mean, log_scale, coupling, first, second = np.array(list(corners)).T[..., None]
    params = pack(0 * mean, [mean] * 3, [log_scale] * 3, [coupling] * 3)
    pixels = np.concatenate([first, second, first], -1).astype(np.int32)
    assert np.isfinite(log_prob(pixels, params)).all()
    assert np.isfinite(gradient(params, pixels)).all()
    # d log P / d mean is -+1 / scale in the tails, where a clipped mass would have no gradient.
    grays = np.array([[0, -10, -7], [0, 10, -7], [0, 10, -2]], np.float32)
    pulls = gradient(grays, np.full((3, 1), 128, np.int32))[:, 1]
    np.testing.assert_allclose(pulls, np.exp([7, 7, 2]) * [1, -1, -1], rtol=1e-4)


def test_log_scales_stop_at_the_floor():
    grays = np.array([[0, 0.1, -7], [0, 0.1, -15], [0, 0.1, -6.9]], np.float32)
    pixels = np.full((3, 1), 141, np.int32)
    at_floor, below, above = log_prob(pixels, grays)
    assert at_floor == below != above
    by_log_scale = gradient(grays, pixels)[:, 2]
    assert by_log_scale[1] == 0 != by_log_scale[2]


def assert_frequencies(counts, masses, num_samples):
    """Counts of cells agree with their masses within 5 SE, where at least 25 are expected."""
    counts, expected = np.ravel(counts), num_samples * np.ravel(masses)
    seen = expected >= 25
    error = np.sqrt(expected * (1 - np.ravel(masses)))
    assert seen.sum() > 10
    assert (np.abs(counts - expected) < 5 * error)[seen].all()


def draw(seed, params, num_samples, num_channels):
    draws = jax.jit(dl.sample, static_argnames=("shape", "num_channels"))(
        jax.random.key(seed), params, shape=(num_samples,), num_channels=num_channels
    )
    assert draws.shape == (num_samples, *params.shape[:-1], num_channels)
    assert draws.dtype == jnp.uint8
    return np.asarray(draws)


def test_gray_samples_follow_the_masses():
    num_samples = 100_000
    narrow_and_wide = pack([0.0, 1.0], [np.array([0.3, -0.9])], [np.array([-3.0, -1.0])])
    below_the_ends = pack([0.0, 0.0], [np.array([-10.0, 1.0])], [np.array([-9.0, -2.0])])
    params = np.stack([narrow_and_wide, below_the_ends])
    draws = draw(0, params, num_samples, num_channels=1)
    levels = np.arange(256)[:, None, None]
    masses = np.exp(oracle(levels, params[None]))
    for row in range(2):
        counts = np.bincount(draws[:, row, 0], minlength=256)
        assert_frequencies(counts, masses[:, row], num_samples)


def test_color_samples_follow_the_joint_masses():
    # Two narrow components at corners of the cube, so that 24^3 triples hold nearly all the mass
    # and clipped levels take part in the coupling.
    num_samples = 200_000
    coupling = np.array([[0.5, -0.3], [-0.2, 0.4], [0.7, 0.2]])
    centers = np.array([[5.0, 1.0], [8.0, 14.0], [245.0, 252.0]]) - 127.5
    means = centers.copy()
    for (c, j), raw in zip(PAIRS, coupling, strict=True):
        means[c] -= np.tanh(raw) * centers[j]
    params = pack([0.2, -0.2], means / 127.5, np.full((3, 2), -4.6), coupling)
    draws = draw(1, params, num_samples, num_channels=3).astype(np.int64)

    offsets = np.array([0, 0, 232])
    triples = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"), -1) + offsets
    masses = np.exp(oracle(triples, params))
    assert masses.sum() > 0.999
    places = draws - offsets
    inside = places[((places >= 0) & (places < 24)).all(-1)]
    counts = np.bincount(np.ravel_multi_index(inside.T, (24, 24, 24)), minlength=24**3)
    counts = counts.reshape(24, 24, 24)
    assert_frequencies(counts, masses, num_samples)
    for pair in itertools.combinations(range(3), 2):  # marginals: fewer, larger cells
        assert_frequencies(counts.sum(pair), masses.sum(pair), num_samples)


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_parameters_give_float32(dtype):
    pixels, params = random_case(3, 20, scales=(-6, 2))
    params = jnp.asarray(params, dtype)
    actual = log_prob(pixels, params)
    assert actual.dtype == jnp.float32
    np.testing.assert_array_equal(actual, log_prob(pixels, params.astype(jnp.float32)))
    assert gradient(params, pixels).dtype == dtype


def test_num_parameters():
    assert [dl.num_parameters(10, c) for c in (1, 2, 3)] == [30, 60, 100]
    with pytest.raises(ValueError, match="at least 1, got 0 and 3"):
        dl.num_parameters(0)


@pytest.mark.parametrize("size", [0, 15, 99])
def test_parameters_that_do_not_fit_are_refused(size):
    with pytest.raises(ValueError, match=rf"multiple of 10.*3 channels.*\(4, {size}\)"):
        dl.log_prob(np.zeros((4, 3), np.uint8), jnp.zeros((4, size)))


def test_scaled_images_are_refused():
    with pytest.raises(ValueError, match=r"integers in 0\.\.255, got float32"):
        dl.log_prob(jnp.zeros((4, 3)), jnp.zeros((4, 10)))


def test_the_fourth_channel_follows_the_first_by_the_fourth_coupling():
    """A coupling of 1/2 moves the center as a mean does."""
    coupled = np.zeros(15, np.float32)  # one logit, four means, four log-scales, six couplings
    coupled[5:9], coupled[12] = -4, np.arctanh(0.5)
    moved = coupled.copy()
    moved[12], moved[4] = 0, 0.5 * (200 - 127.5) / 127.5
    pixels = np.int32([[200, 120, 130, 160]])
    ours, expected = (log_prob(pixels, x[None]) for x in (coupled, moved))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
