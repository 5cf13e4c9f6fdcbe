"""Sets of prepared files: order, rows, chunks, shapes."""

import sys

import numpy as np
import pytest
import requests
import scipy.io
import tensorflow_datasets as tfds
from prepared_sets import random_images, write_prepared

from dvae import data
from dvae.data import _tfds


def test_prepared_images_are_read_in_order_without_tensorflow(tmp_path):
    images = {split: random_images(i, 12, 32, 32, 3) for i, split in enumerate(("train", "test"))}
    labels = np.arange(12) % 10
    write_prepared(tmp_path, "cifar10", "3.0.2", {k: (v, labels) for k, v in images.items()})
    for split, expected in images.items():
        found, found_labels = _tfds.read("cifar10", split, str(tmp_path), shape=(32, 32, 3))
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(found_labels, labels)
        assert found_labels.dtype == np.int32
    assert "tensorflow" not in sys.modules


def test_rows_of_a_split_are_read_alone(tmp_path):
    images, labels = random_images(0, 12, 32, 32, 3), np.arange(12) % 10
    write_prepared(tmp_path, "cifar10", "3.0.2", {"train": (images, labels)})
    for rows in (slice(3, 7), slice(9, None), slice(12, 12)):
        found = _tfds.read("cifar10", "train", str(tmp_path), shape=(32, 32, 3), rows=rows)
        np.testing.assert_array_equal(found[0], images[rows])
        assert found[1] is None if rows.start == 12 else np.array_equal(found[1], labels[rows])


def test_chunks_are_transformed_and_put_together(tmp_path, monkeypatch):
    images = random_images(0, 12, 28, 28, 1)
    write_prepared(tmp_path, "binarized_mnist", "1.0.0", {"train": (images, None)})
    monkeypatch.setattr(_tfds, "_CHUNK", 5)
    found, labels = _tfds.read(
        "binarized_mnist", "train", str(tmp_path), shape=(28, 28, 1), transform=lambda x: x[:, ::2]
    )
    np.testing.assert_array_equal(found, images[:, ::2])
    assert labels is None


def test_an_image_of_another_shape_is_refused(tmp_path):
    write_prepared(
        tmp_path, "cifar10", "3.0.2", {"train": (random_images(0, 2, 28, 28, 1), np.zeros(2))}
    )
    expected = (
        r"cifar10: expected images of shape \(32, 32, 3\) .*uint8.*found \(28, 28, 1\) and uint8"
    )
    with pytest.raises(ValueError, match=expected):
        _tfds.read("cifar10", "train", str(tmp_path), shape=(32, 32, 3))
    with pytest.raises(ValueError, match=r"cifar10: expected more than 5000 .*, found 2; is anoth"):
        data.load("cifar10", str(tmp_path))


def test_a_set_that_can_be_prepared_is_prepared_and_read(tmp_path, monkeypatch):
    images = random_images(0, 3, 32, 32, 3)

    def prepare(builder):
        assert builder.info.file_format.value == "array_record"
        write_prepared(tmp_path, "cifar10", "3.0.2", {"train": (images, np.zeros(3))})

    monkeypatch.setattr(_tfds, "_require_tensorflow", lambda: None)
    monkeypatch.setattr(requests, "head", lambda url, **_: None)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", prepare)
    found, _ = _tfds.read("cifar10", "train", str(tmp_path), shape=(32, 32, 3))
    np.testing.assert_array_equal(found, images)


def test_caltech_is_turned_upright_with_the_object_as_one(tmp_path):
    upright = np.ones((28, 28), np.uint8)
    upright[3, 10] = 0  # the object
    counts = {"train": 4_100, "val": 2_264, "test": 2_307}
    arrays = {
        f"{key}_data": np.tile(upright.ravel(order="F"), (count, 1))
        for key, count in counts.items()
    }
    folder = tmp_path / "caltech101_silhouettes"
    folder.mkdir()
    path = folder / "caltech101_silhouettes_28_split1.mat"
    scipy.io.savemat(path, arrays)
    dataset = data.load("caltech101_silhouettes", str(tmp_path))
    assert dataset.binarization == "static"
    assert [len(images) for images in dataset[1:4]] == list(counts.values())
    for images in dataset[1:4]:
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images[0, ..., 0], 1 - upright)

    scipy.io.savemat(path, arrays | {"val_data": arrays["val_data"][:, :100]})
    with pytest.raises(ValueError, match=r"expected val_data of shape \(2264, 784\).*2264, 100"):
        data.load("caltech101_silhouettes", str(tmp_path))
