"""k-means against scikit-learn, and its guarantees."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, load_sample_image

from dvae import vq


def normal(seed, shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def inertia(points, codebook, codes):
    points, codebook = np.asarray(points, np.float64), np.asarray(codebook, np.float64)
    return np.square(points - codebook[np.asarray(codes)]).sum()


@partial(jax.jit, static_argnames=("num_codes", "num_iters", "chunk_size"))
def kmeans(key, points, **options):
    return vq.kmeans(key, points, **options)


def run(seed, points, **options):
    return kmeans(jax.random.key(seed), points, **options)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize(
    ("points", "num_codes"),
    [
        (load_sample_image("china.jpg")[::4, ::4].reshape(-1, 3).astype(np.float32), 16),
        (load_digits().data.astype(np.float32), 10),
    ],
    ids=["pixels", "digits"],
)
def test_inertia_is_that_of_scikit_learn(points, num_codes):
    ours = [
        inertia(points, *run(seed, points, num_codes=num_codes, num_iters=40)) for seed in range(4)
    ]
    theirs = [
        KMeans(num_codes, n_init=1, max_iter=40, random_state=seed).fit(points).inertia_
        for seed in range(4)
    ]
    assert min(ours) < 1.03 * min(theirs)
    assert np.mean(ours) < 1.05 * np.mean(theirs)


def test_lloyd_iterations_match_numpy_from_the_same_seeds():
    points = normal(0, (97, 3)) + 5
    codebook, codes = run(1, points, num_codes=6, num_iters=4, chunk_size=10)
    want = np.asarray(
        jax.jit(partial(vq.kmeans_plus_plus, num_codes=6, chunk_size=10))(
            jax.random.key(1), points
        ),
        np.float64,
    )
    x, inertias = np.asarray(points, np.float64), []
    for _ in range(4):
        distances = np.square(x[:, None] - want[None]).sum(-1)
        nearest = distances.argmin(1)
        inertias.append(distances.min(1).sum())
        want = np.stack([x[nearest == k].mean(0) for k in range(6)])
    np.testing.assert_allclose(codebook, want, rtol=1e-5)
    np.testing.assert_array_equal(codes, vq.nearest_code(points, codebook))
    assert inertia(points, codebook, codes) < inertias[-1] < inertias[0]


@pytest.mark.thorough
def test_an_empty_cluster_moves_to_the_farthest_point():
    from dvae.vq.kmeans import _blocks, _lloyd

    points = jnp.array([[0.0], [1.0], [2.0], [30.0], [30.0], [50.0]])
    blocks = _blocks(points, 4)
    codebook = jnp.array([[1.0], [-99.0], [-99.0]])  # the last two get nothing
    codebook = jax.jit(_lloyd)(blocks, blocks.scale * codebook) / blocks.scale
    np.testing.assert_allclose(codebook[:, 0], [113 / 6, 50, 30], rtol=1e-6)


@pytest.mark.thorough
def test_chunks_bound_the_memory():
    points = jax.ShapeDtypeStruct((273_280, 3), jnp.float32)
    compiled = kmeans.lower(jax.random.key(0), points, num_codes=256, num_iters=2).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 40e6  # all distances: 280 MB


def test_seeds_are_distinct_points_drawn_by_squared_distance():
    points = jnp.array([[0.0], [0.0], [1.0], [3.0]])
    keys = jax.random.split(jax.random.key(6), 8000)
    seeds = jax.vmap(lambda key: vq.kmeans_plus_plus(key, points, num_codes=2, chunk_size=3)[:, 0])(
        keys
    )
    first, second = np.asarray(seeds).T
    np.testing.assert_allclose(np.mean(first == 0), 0.5, atol=5 * np.sqrt(0.25 / 8000))
    for start, other, probability in ((0, 3, 9 / 10), (1, 0, 2 / 6), (3, 1, 4 / 22)):
        chosen = second[first == start]
        error = np.sqrt(probability * (1 - probability) / len(chosen))
        np.testing.assert_allclose(np.mean(chosen == other), probability, atol=5 * error)
    assert np.all(first != second)


GRID = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], [0]), -1).reshape(9, 3)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "distinct",
    [
        # No binary fractions: a plain mean of many copies would miss them by rounding.
        np.abs(normal(7, (9, 3))) + np.float32(0.1),
        # Squared norms of 1e8, whose float32 spacing of 8 would drown the clusters.
        (GRID + 1e4).astype(np.float32),
    ],
    ids=["fractions", "far"],
)
def test_enough_codes_reproduce_repeated_points_exactly(distinct):
    points = np.repeat(distinct, 200, axis=0)
    codebook, codes = run(8, points, num_codes=12, num_iters=5)  # three must stay empty
    np.testing.assert_array_equal(codebook[codes], points)
    assert len(np.unique(codes)) == 9


@pytest.mark.parametrize("exponent", [-100, -60, 60, 110])
def test_kmeans_does_not_depend_on_the_scale(exponent):
    points, scale = normal(9, (97, 3)), np.float32(2.0**exponent)
    options = {"num_codes": 6, "num_iters": 4, "chunk_size": 10}
    codebook, codes = run(0, points, **options)
    scaled, scaled_codes = run(0, scale * points, **options)
    np.testing.assert_array_equal(scaled, scale * codebook)
    np.testing.assert_array_equal(scaled_codes, codes)


@pytest.mark.many_cases
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("offset", [0, 1000])
def test_codes_are_the_nearest_and_means_are_exact(offset, dtype):
    points = jnp.asarray(normal(11, (1000, 4)) + offset, dtype)
    codebook, codes = run(0, points, num_codes=20, num_iters=8)
    double = np.asarray(points.astype(jnp.float32), np.float64)
    distances = np.square(double[:, None] - np.asarray(codebook, np.float64)).sum(-1)
    np.testing.assert_allclose(distances[np.arange(1000), codes], distances.min(-1), atol=1e-4)
    once, _ = run(0, points, num_codes=1, num_iters=1)
    np.testing.assert_allclose(once[0], double.mean(0), rtol=1e-6, atol=1e-5)


def test_points_that_are_not_finite_are_refused_where_values_are_known():
    points = normal(12, (1000, 3))
    points[[5, 77], 1] = np.nan
    points[400] = -np.inf
    message = r"points must be finite.*got 3 of 1000"
    options = {"num_codes": 8, "num_iters": 3}
    for bad in (points, jnp.asarray(points)):
        with pytest.raises(ValueError, match=message):
            vq.kmeans(jax.random.key(0), bad, **options)
        with pytest.raises(ValueError, match=message):
            vq.kmeans_plus_plus(jax.random.key(0), bad, num_codes=8)
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda key: vq.kmeans(key, points, **options))(jax.random.key(0))


@pytest.mark.thorough
def test_points_that_are_not_finite_are_left_out_under_jit():
    points = normal(12, (100, 3))
    points[0], points[[5, 77], 1], points[40] = np.nan, np.nan, -np.inf
    bad = ~np.isfinite(points).all(-1)
    codebook, codes = run(0, points, num_codes=8, num_iters=3, chunk_size=16)
    np.testing.assert_array_equal(codes == 8, bad)
    for k in range(8):
        of_code = points[np.asarray(codes) == k]
        assert np.all((of_code.min(0) <= codebook[k]) & (codebook[k] <= of_code.max(0)))
    seeds = jax.jit(partial(vq.kmeans_plus_plus, num_codes=96))(jax.random.key(1), points)
    rows = lambda x: sorted(map(tuple, np.asarray(x)))
    assert rows(seeds) == rows(points[~bad])
    # More codes than points that are left: some are drawn again.
    codebook, codes = run(2, points, num_codes=100, num_iters=2)
    assert set(rows(codebook)) == set(rows(points[~bad]))
    codebook, codes = run(3, points * np.nan, num_codes=8, num_iters=2)
    assert np.isnan(codebook).all()
    np.testing.assert_array_equal(codes, 8)


@pytest.mark.thorough
def test_one_code_and_equal_points():
    points = np.full((50, 2), 0.1, np.float32)
    codebook, codes = run(0, points, num_codes=50, num_iters=2, chunk_size=7)
    np.testing.assert_array_equal(codebook, points)
    np.testing.assert_array_equal(codes, 0)
    codebook, codes = run(0, 0 * points[:1], num_codes=1, num_iters=1)
    np.testing.assert_array_equal(codebook, [[0, 0]])


@pytest.mark.thorough
def test_kmeans_vmaps_over_latent_variables():
    points = normal(10, (3, 97, 3))
    options = {"num_codes": 6, "num_iters": 4, "chunk_size": 10}
    keys = jnp.stack([jax.random.key(seed) for seed in range(3)])
    codebooks, codes = jax.jit(jax.vmap(partial(vq.kmeans, **options)))(keys, points)
    for i in range(3):
        codebook, code = run(i, points[i], **options)
        np.testing.assert_allclose(codebooks[i], codebook, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(codes[i], code)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.uint8])
def test_codebook_is_float32(dtype):
    shape = jax.ShapeDtypeStruct((50, 2), dtype)
    codebook, codes = jax.eval_shape(
        lambda points: vq.kmeans(jax.random.key(0), points, num_codes=3, num_iters=1), shape
    )
    assert (codebook.dtype, codes.dtype) == (jnp.float32, jnp.int32)


def test_bad_settings_are_refused():
    key, points = jax.random.key(12), jnp.zeros((4, 2))
    with pytest.raises(ValueError, match=r"between 1 and the number of points, 4.*got 5"):
        vq.kmeans(key, points, num_codes=5, num_iters=1)
    with pytest.raises(ValueError, match=r"num_codes .*got 0"):
        vq.kmeans_plus_plus(key, points, num_codes=0)
    with pytest.raises(ValueError, match=r"num_iters must be at least 1.*got 0"):
        vq.kmeans(key, points, num_codes=2, num_iters=0)
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        vq.kmeans(key, points, num_codes=2, num_iters=1, chunk_size=0)
    for shape in ((2, 4, 2), (0, 2), (4, 0), (4,)):
        with pytest.raises(ValueError, match=r"points must be \[N, D\] with at least one point"):
            vq.kmeans(key, jnp.zeros(shape), num_codes=1, num_iters=1)
    with pytest.raises(TypeError):
        vq.kmeans(key, points, num_codes=2.0, num_iters=1)
    for bad in (jax.random.split(key, 2), jax.random.PRNGKey(0), 0):
        with pytest.raises((ValueError, TypeError), match=r"key must be a (single|typed) key"):
            vq.kmeans(bad, points, num_codes=2, num_iters=1)
        with pytest.raises((ValueError, TypeError), match=r"key must be a (single|typed) key"):
            vq.kmeans_plus_plus(bad, points, num_codes=2)
