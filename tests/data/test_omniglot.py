import numpy as np
import pytest
import scipy.io

from dvae import data
from dvae.data import _tfds, omniglot


@pytest.mark.parametrize(("size_in", "size_out"), [(105, 28), (6, 3), (3, 6), (5, 5), (7, 3)])
def test_area_weights_average_exact_boxes(size_in, size_out):
    """Oracle: the integral of the piecewise constant signal over each box."""
    weights = omniglot.area_weights(size_in, size_out)
    signal = np.random.default_rng(0).normal(size=size_in)
    cumulative = np.concatenate([[0], np.cumsum(signal)])
    edges = np.interp(
        np.arange(size_out + 1) * size_in / size_out, np.arange(size_in + 1), cumulative
    )
    expected = np.diff(edges) * size_out / size_in
    total = weights.sum(axis=1)
    np.testing.assert_array_equal(total, total[0])
    np.testing.assert_array_equal(weights, np.rint(weights))
    np.testing.assert_allclose(weights @ signal / total, expected, atol=1e-6)


def fake_drawings(split):
    """Drawings [N, 28, 28, 1] each of which spells its number in two pixels."""
    first, count = {"train": (0, 19_280), "test": (19_280, 13_180)}[split]
    images = np.zeros((count, 28, 28, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.divmod(first + np.arange(count), 256)
    images[:, 2:20] = 255
    return images


@pytest.fixture
def pooled(monkeypatch, tmp_path):
    def read(name, split, data_dir, *, shape, transform):
        assert (name, data_dir, shape) == ("omniglot", str(tmp_path), (105, 105, 3))
        return fake_drawings(split), None

    monkeypatch.setattr(_tfds, "read", read)
    return str(tmp_path)


def test_own_split_has_the_published_sizes_and_no_image_twice(pooled):
    dataset = data.load_grey("omniglot", pooled)
    assert dataset.name == "omniglot (own split)"
    assert len(dataset.train) + len(dataset.validation) == 24_345
    assert len(dataset.validation) == 1_345
    assert len(dataset.test) == 8_070
    numbers = [
        images[:, 0, 0, 0] * 256 + images[:, 0, 1, 0].astype(int)
        for images in (part.astype(int) for part in dataset[1:4])
    ]
    assert len(np.unique(np.concatenate(numbers))) == 24_345 + 8_070
    # Both TFDS splits are spread over all three.
    for split in numbers:
        share = np.mean(split < 19_280)
        assert abs(share - 19_280 / 32_460) < 5 * np.sqrt(0.25 / len(split))


def test_evaluation_splits_are_sampled_once(pooled):
    first, second = data.load("omniglot", pooled), data.load("omniglot", pooled)
    assert first.binarization == "dynamic"
    assert first.train.max() == 255
    assert set(np.unique(first.validation)) == set(np.unique(first.test)) == {0, 1}
    assert first.test[:, 2:20].all()
    np.testing.assert_array_equal(first.test, second.test)
    np.testing.assert_array_equal(first.train, second.train)


def test_drawings_shrink_to_positive_ink():
    images = np.full((3, 105, 105, 3), 255, np.uint8)
    images[0, :15, 30:45] = 0  # exactly boxes 0..3 down, 8..11 across
    images[1, 4, 4] = 0  # one pixel, within one box of 3.75 x 3.75 = 14.06 pixels
    shrunk = omniglot._shrink(images)
    assert shrunk.shape == (3, 28, 28, 1)
    assert shrunk.dtype == np.uint8
    expected = np.zeros((28, 28), np.uint8)
    expected[:4, 8:12] = 255
    np.testing.assert_array_equal(shrunk[0, ..., 0], expected)
    assert shrunk[1, 1, 1, 0] == round(255 / 3.75**2)
    assert shrunk[1].sum() == shrunk[1, 1, 1, 0]
    assert not shrunk[2].any()


def write_chardata(tmp_path, **arrays):
    folder = tmp_path / "omniglot"
    folder.mkdir()
    scipy.io.savemat(folder / "chardata.mat", arrays)
    return str(tmp_path)


def test_published_split_is_used_where_its_file_is(tmp_path):
    upright = np.zeros((28, 28))
    upright[3, 10] = 1.0
    upright[5, 6] = 0.5
    train = np.zeros((784, 24_345), np.float32)
    train[:, 7] = upright.ravel(order="F")
    dataset = data.load(
        "omniglot", write_chardata(tmp_path, data=train, testdata=np.ones((784, 8_070), np.uint8))
    )
    assert dataset.name == "omniglot"
    assert dataset.train.shape == (23_000, 28, 28, 1)
    assert dataset.validation.shape == (1_345, 28, 28, 1)
    np.testing.assert_array_equal(dataset.train[7, ..., 0], np.rint(255 * upright))
    assert dataset.test.shape == (8_070, 28, 28, 1)
    assert (dataset.test == 1).all()


def test_a_published_file_of_another_shape_is_refused(tmp_path):
    folder = write_chardata(tmp_path, data=np.zeros((784, 5)), testdata=np.zeros((784, 8_070)))
    with pytest.raises(
        ValueError, match=r"omniglot: expected data of shape \(784, 24345\).*784, 5"
    ):
        data.load("omniglot", folder)
