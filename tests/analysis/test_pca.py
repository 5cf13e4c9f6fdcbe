import numpy as np
import pytest
from sklearn.decomposition import PCA

from dvae.analysis import pca


def codebook(num_codes, num_dims, rank=None, seed=0, dtype=np.float32):
    """Random codes of this rank around a common offset."""
    rng = np.random.default_rng(seed)
    rank = rank or num_dims
    scales = 2.0 ** -np.arange(rank)
    codes = (rng.normal(size=(num_codes, rank)) * scales) @ rng.normal(size=(rank, num_dims))
    return (codes + 3.0).astype(dtype)


@pytest.mark.parametrize(("num_codes", "num_dims"), [(64, 16), (8, 32), (20, 20)])
def test_matches_scikit_learn(num_codes, num_dims):
    codes = codebook(num_codes, num_dims, rank=5)
    oracle = PCA(svd_solver="full").fit(codes.astype(np.float64))
    ratios = pca.explained_variance(codes)
    assert ratios.shape == (min(num_codes, num_dims),)
    np.testing.assert_allclose(ratios, oracle.explained_variance_ratio_, atol=1e-10)
    expected = oracle.transform(codes.astype(np.float64))[:, :3]
    projected = pca.project(codes)
    np.testing.assert_allclose(np.abs(projected), np.abs(expected), atol=1e-6)


def test_ratios_descend_and_sum_to_one():
    ratios = pca.explained_variance(codebook(30, 10))
    assert (np.diff(ratios) <= 0).all()
    np.testing.assert_allclose(ratios.sum(), 1.0)


def test_a_known_plane():
    # A grid of 2 x 2 codes with sides 6 and 2: variances in the ratio 9 to 1.
    corners = np.array([[-3.0, -1.0], [-3.0, 1.0], [3.0, -1.0], [3.0, 1.0]])
    axes = np.array([[0.6, 0.8, 0.0, 0.0], [0.0, 0.0, 0.8, -0.6]])
    codes = corners @ axes + 7.0
    np.testing.assert_allclose(pca.explained_variance(codes), [0.9, 0.1, 0.0, 0.0], atol=1e-12)
    # The largest entries, both 0.8, are positive: the axes come out as written.
    np.testing.assert_allclose(pca.project(codes, 2), corners, atol=1e-12)
    np.testing.assert_allclose(pca.project(codes, 3)[:, 2], 0.0, atol=1e-12)


def test_distances_survive_when_the_rank_fits():
    codes = codebook(12, 40, rank=3, dtype=np.float64)
    projected = pca.project(codes, 3)
    before = np.linalg.norm(codes[:, None] - codes[None, :], axis=-1)
    after = np.linalg.norm(projected[:, None] - projected[None, :], axis=-1)
    np.testing.assert_allclose(after, before, atol=1e-10)


def test_the_sign_does_not_depend_on_the_order_of_the_codes():
    codes = codebook(20, 6)
    order = np.random.default_rng(1).permutation(20)
    np.testing.assert_allclose(pca.project(codes[order]), pca.project(codes)[order], atol=1e-5)


def test_largest_entry_of_each_component_is_positive():
    codes = codebook(50, 7)
    centered = codes - codes.astype(np.float64).mean(0)
    components = np.linalg.pinv(pca.project(codes, 7)) @ centered
    largest = components[np.arange(7), np.abs(components).argmax(1)]
    assert (largest > 0).all()


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 / 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_codes_give_zeros(value, dtype):
    codes = np.full((300, 8), value, dtype) * np.arange(1, 9, dtype=dtype)
    np.testing.assert_array_equal(pca.explained_variance(codes), np.zeros(8))
    np.testing.assert_array_equal(pca.project(codes), np.zeros((300, 3)))


def test_a_small_spread_around_a_large_offset_is_not_lost():
    codes = np.ones((40, 2)) + 1e-6 * np.stack([np.arange(40), np.zeros(40)], axis=1)
    np.testing.assert_allclose(pca.explained_variance(codes), [1.0, 0.0], atol=1e-9)


@pytest.mark.parametrize(("num_codes", "num_dims"), [(1, 5), (2, 5), (5, 2)])
def test_missing_components_are_zero(num_codes, num_dims):
    projected = pca.project(codebook(num_codes, num_dims), 4)
    assert projected.shape == (num_codes, 4)
    rank = min(num_codes - 1, num_dims)
    np.testing.assert_array_equal(projected[:, rank:], 0.0)
    assert (np.abs(projected[:, :rank]).max(0, initial=0.0) > 0).all()


def test_misuse():
    with pytest.raises(ValueError, match=r"\[C, D\].*\(3,\)"):
        pca.explained_variance(np.zeros(3))
    with pytest.raises(ValueError, match=r"\[C, D\].*\(0, 4\)"):
        pca.explained_variance(np.zeros((0, 4)))
    with pytest.raises(ValueError, match="finite"):
        pca.project(np.array([[1.0, np.nan]]))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        pca.project(np.zeros((3, 3)), 0)
