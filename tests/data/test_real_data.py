"""Facts about the real data sets; the slow tests load them whole."""

import numpy as np
import pytest

from dvae import data
from dvae.data import _tfds

pytestmark = pytest.mark.real_data


def test_cifar10_test_images_and_labels(data_dir):
    images, labels = _tfds.read("cifar10", "test", data_dir, shape=(32, 32, 3))
    assert images.shape == (10_000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(labels), 1_000)
    # The published channel means of the test images, in units of 255.
    np.testing.assert_allclose(
        images.mean(axis=(0, 1, 2)) / 255, [0.4942, 0.4851, 0.4504], atol=2e-4
    )


def test_binarized_mnist_is_binary_and_shuffled(data_dir):
    images, labels = _tfds.read("binarized_mnist", "test", data_dir, shape=(28, 28, 1))
    assert images.shape == (10_000, 28, 28, 1)
    assert labels is None
    assert set(np.unique(images)) == {0, 1}
    assert 0.130 < images.mean() < 0.135
    # Ordered by digit, the first images would be zeros and ones and much lighter or darker.
    assert abs(images[:1_000].mean() - images.mean()) < 0.004


def test_mnist_test_labels(data_dir):
    images, labels = _tfds.read("mnist", "test", data_dir, shape=(28, 28, 1))
    assert images.shape == (10_000, 28, 28, 1)
    assert images.max() == 255
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_array_equal(np.bincount(labels), counts)


def test_caltech_silhouettes(data_dir):
    dataset = data.load("caltech101_silhouettes", data_dir)
    assert [len(images) for images in dataset[1:4]] == [4_100, 2_264, 2_307]
    # Upright with object = 1: the center is nearly always object, the corners hardly ever.
    assert dataset.train[:, 12:16, 12:16].mean() > 0.8
    assert dataset.train[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean() < 0.2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_train", "num_validation", "num_test"),
    [
        ("mnist_static", 50_000, 10_000, 10_000),
        ("mnist_dynamic", 50_000, 10_000, 10_000),
        ("omniglot", 23_000, 1_345, 8_070),
        ("cifar10", 45_000, 5_000, 10_000),
    ],
)
def test_whole_sets(data_dir, name, num_train, num_validation, num_test):
    dataset = data.load(name, data_dir)
    sizes = [len(images) for images in dataset[1:4]]
    assert sizes == [num_train, num_validation, num_test]
    shape = (32, 32, 3) if name == "cifar10" else (28, 28, 1)
    for images in dataset[1:4]:
        assert images.shape[1:] == shape
        assert images.dtype == np.uint8
    if name == "omniglot":
        # Thin ink on an empty border.
        assert 0.05 < dataset.test.mean() < 0.12
        assert dataset.train[:, 0].mean() < 10
    elif name != "cifar10":
        assert 0.128 < dataset.test.mean() < 0.136
