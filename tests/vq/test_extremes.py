"""Nearest codes and distances at any offset, scale and precision, against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import vq
from dvae.vq import _search

nearest_code = jax.jit(vq.nearest_code)


@jax.jit
def distances_and_gradients(vectors, codebook, weights):
    loss = lambda v, m: jnp.sum(weights * vq.squared_distances(v, m))
    tangent = jax.jvp(vq.squared_distances, (vectors, codebook), (codebook[:1] + vectors, codebook))
    gradients = jax.grad(loss, (0, 1))(vectors, codebook)
    return vq.squared_distances(vectors, codebook), *gradients, tangent[1]


def draw(seed, num_vectors, num_codes, dim):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num_vectors, dim)), rng.normal(size=(num_codes, dim))


def double(x):
    return np.asarray(jnp.asarray(x).astype(jnp.float32), np.float64)


def naive(vectors, codebook):
    return np.square(double(vectors)[:, None] - double(codebook)).sum(-1)


def excess(codes, vectors, codebook):
    """By how much the squared distances of the codes exceed the smallest ones."""
    distances = naive(vectors, codebook)
    return distances[np.arange(len(codes)), codes] - distances.min(-1)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("offset", [0, 3, 100, 300, 1000, 1e4])
def test_offsets_cost_no_digits(offset):
    v, m = (jnp.float32(x + offset) for x in draw(0, 1000, 256, 64))
    codes = nearest_code(v, m)
    assert np.max(excess(codes, v, m)) < 2e-4  # of distances of 60
    weights = np.random.default_rng(1).normal(size=(50, 9)).astype(np.float32)
    v, m = v[:50], m[:9]
    value, to_v, to_m, tangent = distances_and_gradients(v, m, weights)
    np.testing.assert_allclose(value, naive(v, m), rtol=1e-5)
    differences = 2 * (double(v)[:, None] - double(m))
    weighted = weights[..., None] * differences
    np.testing.assert_allclose(to_v, weighted.sum(1), rtol=1e-5, atol=2e-4)
    np.testing.assert_allclose(to_m, -weighted.sum(0), rtol=1e-5, atol=2e-4)
    # The direction itself is as long as the offset.
    want = (differences * (double(m[:1] + v)[:, None] - double(m))).sum(-1)
    np.testing.assert_allclose(tangent, want, rtol=1e-5, atol=1e-2 + 1e-4 * offset)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("offset", [0, 100, 1000])
def test_half_precision_costs_no_digits_of_its_own(dtype, offset):
    v, m = (jnp.asarray(x + offset, dtype) for x in draw(2, 1000, 64, 16))
    np.testing.assert_array_equal(nearest_code(v, m), naive(v, m).argmin(-1))
    np.testing.assert_allclose(vq.squared_distances(v, m), naive(v, m), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("exponent", [-110, -70, 40, 110])
def test_nearest_codes_do_not_depend_on_the_scale(exponent):
    for offset in (0, 50):
        v, m = (jnp.float32(x + offset) for x in draw(3, 500, 64, 8))
        scale = np.float32(2.0**exponent)  # squares of 2^110 and of 2^-110 are no float32
        np.testing.assert_array_equal(nearest_code(v * scale, m * scale), nearest_code(v, m))


def test_ties_go_to_the_lowest_index_anywhere():
    grid = np.stack(np.meshgrid([0, 2], [0, 2], [0, 2]), -1).reshape(8, 3)
    middle = grid.mean(0)
    for offset in (0, 7, 1000, 2**20):
        m = jnp.float32(grid + offset)
        assert nearest_code(jnp.float32(middle + offset), m) == 0
        assert nearest_code(m[5], jnp.concatenate([m, m])) == 5


def test_a_stray_code_disturbs_no_other():
    v, m = draw(4, 500, 64, 8)
    for offset in (0, 1000):
        for stray in (1e6, -1e12, 1e25, np.nan, np.inf):
            codebook = np.float32(m + offset)
            codebook[3] = stray
            others = np.where(np.arange(64)[:, None] == 3, 1e6, np.float32(m + offset))
            codes = nearest_code(jnp.float32(v + offset), codebook)
            assert np.max(excess(codes, np.float32(v + offset), others)) < 1e-4
    # Codes that have drifted to the origin, far from the others.
    codebook = np.float32(m + 1000)
    codebook[:20] = 0
    vectors = np.float32(v + 1000)
    assert np.max(excess(nearest_code(vectors, codebook), vectors, codebook)) < 1e-4
    # Codes of all magnitudes, the small ones near small vectors.
    levels, vectors = np.exp(np.linspace(-12, 12, 49)), np.exp(np.linspace(-12, 12, 997))
    codes = nearest_code(jnp.float32(vectors)[:, None], jnp.float32(levels)[:, None])
    distances = np.abs(np.float32(vectors)[:, None] - np.float32(levels).astype(np.float64))
    assert np.all(distances[np.arange(997), codes] <= (1 + 1e-5) * distances.min(-1))


def test_of_a_very_long_vector_the_direction_counts():
    v, m = (np.float32(x) for x in draw(5, 200, 64, 8))
    for scale in (1e12, 1e30):
        far = np.float32(scale) * v
        np.testing.assert_array_equal(nearest_code(far, m), (far.astype(float) @ m.T).argmax(-1))
    np.testing.assert_array_equal(nearest_code(v * 0, m), np.square(m).sum(-1).argmin())


@pytest.mark.thorough
def test_a_code_that_is_not_finite_is_never_the_nearest():
    v, m = (np.float32(x) for x in draw(6, 300, 16, 4))
    bad = m.copy()
    bad[2, 1], bad[0, 3], bad[15] = np.nan, -np.inf, np.inf
    usable = np.delete(np.arange(16), [0, 2, 15])
    np.testing.assert_array_equal(nearest_code(v, bad), usable[naive(v, m[usable]).argmin(-1)])
    np.testing.assert_array_equal(nearest_code(v, np.full_like(m, np.nan)), 16)
    distances = np.asarray(vq.squared_distances(v, bad))
    np.testing.assert_allclose(distances[:, usable], naive(v, m[usable]), rtol=1e-5, atol=1e-5)
    assert np.isnan(distances[:, 2]).all()


def test_a_vector_that_is_not_finite_has_no_code():
    _, m = (np.float32(x) for x in draw(7, 1, 5, 3))
    m[4] = 0  # inf * 0 is NaN, but inf * 1 is not
    for value in (np.nan, np.inf, -np.inf):
        for i in range(3):
            vectors = np.eye(3, dtype=np.float32)
            vectors[i, i] = value
            codes = nearest_code(vectors, m)
            np.testing.assert_array_equal(codes == 5, np.arange(3) == i)
            np.testing.assert_array_equal(np.isnan(vq.lookup(codes, m)).all(-1), np.arange(3) == i)


@pytest.mark.thorough
@pytest.mark.parametrize("num_codes", [1, 49, 500])
def test_scalars_have_a_code(num_codes):
    for num_vectors in (1, 997):
        v, m = (np.float32(x) for x in draw(9, num_vectors, num_codes, 1))
        assert np.max(excess(nearest_code(v, m), v, m)) < 1e-6


def test_more_codes_than_float32_can_count():
    for num_codes, dtype in ((2**24, jnp.float32), (2**24 + 1, jnp.int32)):
        codebook = jax.ShapeDtypeStruct((num_codes, 2), jnp.float32)
        assert jax.eval_shape(_search._target, codebook).numbers.dtype == dtype


@pytest.mark.slow
def test_the_last_of_more_codes_than_float32_can_count():
    codebook = jnp.zeros((2**24 + 2, 1)).at[-1].set(5.0)
    codes = nearest_code(jnp.array([[6.0], [-1.0]]), codebook)
    np.testing.assert_array_equal(codes, [2**24 + 1, 0])


@pytest.mark.thorough
def test_double_precision_is_used():
    with jax.enable_x64(True):
        v, m = (x + 1e8 for x in draw(8, 300, 64, 8))
        codes = vq.nearest_code(v, m)
        np.testing.assert_array_equal(codes, np.square(v[:, None] - m).sum(-1).argmin(-1))
        assert vq.squared_distances(v, m).dtype == jnp.float64
        assert codes.dtype == jnp.int32


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (3,)])
def test_empty_batches_and_single_vectors(shape):
    vectors, codebook = np.zeros(shape, np.float32), np.ones((4, 3), np.float32)
    codes = vq.nearest_code(vectors, codebook)
    assert codes.shape == shape[:-1]
    assert vq.squared_distances(vectors, codebook).shape == (*shape[:-1], 4)
    assert vq.lookup(codes, codebook).shape == shape
    assert vq.commitment_loss(vectors, vectors).shape == shape[:-1]
    assert vq.usage(codes, 4).sum() == codes.size


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (3,), (2, 4, 3)])
def test_a_codebook_without_codes_or_dimensions_is_refused(shape):
    codebook = np.zeros(shape, np.float32)
    vectors = np.zeros((5, shape[-1]), np.float32)
    state = vq.EMAState(codebook, np.zeros(shape[:-1], np.float32), codebook)
    codes = np.zeros(5, np.int32)
    for call in (
        lambda: vq.nearest_code(vectors, codebook),
        lambda: vq.squared_distances(vectors, codebook),
        lambda: vq.lookup(codes, codebook),
        lambda: vq.ema_init(codebook),
        lambda: vq.ema_update(state, vectors, codes, decay=0.9),
        lambda: vq.restart_dead_codes(jax.random.key(0), state, vectors, threshold=1.0),
    ):
        with pytest.raises(ValueError, match=r"codebook must be \[C, D\] with at least one code"):
            call()
