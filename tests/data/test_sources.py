"""Named sets: splits, parts, binarizations, sizes."""

import numpy as np
import pytest

from dvae import data


@pytest.mark.parametrize(
    ("name", "num_train", "num_validation", "binarization", "label"),
    [
        ("mnist", 50_000, 10_000, "none", "mnist"),
        ("mnist_static", 50_000, 10_000, "static", "mnist_static"),
        ("mnist_dynamic", 50_000, 10_000, "dynamic", "mnist_dynamic"),
        ("fashion_mnist", 50_000, 10_000, "none", "fashion_mnist"),
        ("cifar10", 45_000, 5_000, "none", "cifar10"),
    ],
)
def test_splits_and_markers(fake_tfds, name, num_train, num_validation, binarization, label):
    dataset = data.load(name)
    assert dataset.name == label
    assert dataset.binarization == binarization
    assert len(dataset.train) == num_train
    assert len(dataset.validation) == num_validation
    assert len(dataset.test) == 10_000
    # Numbers as labels: validation is the end of the stored training split.
    if name == "mnist_static":
        assert dataset.train_labels is None
    else:
        np.testing.assert_array_equal(dataset.train_labels, np.arange(num_train))
        np.testing.assert_array_equal(
            dataset.validation_labels, num_train + np.arange(num_validation)
        )
    assert dataset.train.max() == (1 if binarization == "static" else 255)
    assert dataset.test.max() == (255 if binarization == "none" else 1)


@pytest.mark.parametrize("name", ["mnist", "mnist_static", "mnist_dynamic", "cifar10", "digits"])
def test_parts_of_a_training_set_make_the_whole(fake_tfds, name):
    whole = data.load(name)
    half = whole.num_train // 2
    parts = [
        data.load(name, keep=keep) for keep in (lambda n: slice(0, half), lambda n: slice(half, n))
    ]
    assert [len(part.train) for part in parts] == [half, whole.num_train - half]
    for part in parts:
        assert part.num_train == whole.num_train
        np.testing.assert_array_equal(part.validation, whole.validation)
        np.testing.assert_array_equal(part.test, whole.test)
    np.testing.assert_array_equal(np.concatenate([p.train for p in parts]), whole.train)
    if whole.train_labels is not None:
        labels = np.concatenate([part.train_labels for part in parts])
        np.testing.assert_array_equal(labels, whole.train_labels)


def test_mnist_static_falls_back_on_its_own_binarization(fake_tfds):
    fake_tfds.add("binarized_mnist")
    dataset = data.load("mnist_static")
    assert dataset.name == "mnist_static (own binarization)"
    assert dataset.binarization == "static"
    assert [len(images) for images in dataset[1:4]] == [50_000, 10_000, 10_000]
    for images in dataset[1:4]:
        assert set(np.unique(images)) == {0, 1}
    fake_tfds.add("mnist")
    with pytest.raises(data.DataUnavailableError, match="mnist is missing"):
        data.load("mnist_static")


def test_parts_of_an_own_binarization_are_parts_of_one_sample(fake_tfds):
    fake_tfds.add("binarized_mnist")
    part = data.load("mnist_static", keep=lambda n: slice(10, 20))
    np.testing.assert_array_equal(part.train, data.load("mnist_static").train[10:20])


def test_grey_levels_are_sampled_on_request():
    grey = data.load("patches")
    sampled = data.binarized(grey)
    assert sampled.binarization == "dynamic"
    np.testing.assert_array_equal(sampled.train, grey.train)
    for split in ("validation", "test"):
        assert set(np.unique(getattr(sampled, split))) == {0, 1}
    np.testing.assert_array_equal(sampled.test, data.binarized(grey).test)
    with pytest.raises(ValueError, match="is binary already"):
        data.binarized(sampled)


@pytest.mark.parametrize("name", ["mnist_static", "mnist_dynamic", "mnist", "digits", "patches"])
def test_grey_levels_of_any_set(fake_tfds, name):
    grey = data.load_grey(name)
    assert grey.binarization == "none"
    known = data.load(name)
    for split in ("train", "validation", "test"):
        levels = getattr(grey, split)
        assert levels.max() == 255
        assert levels.shape == getattr(known, split).shape
    if known.binarization == "static":
        np.testing.assert_array_equal(grey.test, 255 * known.test)
    elif known.binarization == "dynamic":
        # What load samples is drawn from these levels.
        np.testing.assert_array_equal(data.binarized(grey).test, known.test)
        np.testing.assert_array_equal(grey.train, known.train)
    with pytest.raises(ValueError, match="unknown data set"):
        data.load_grey("mnits")


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_resized(channels):
    ramp = np.arange(0, 240, 30, dtype=np.uint8)[:, None]  # rises from left to right
    images = np.broadcast_to(ramp, (2, 8, 8, channels))
    dataset = data.Dataset("ramp", images, images[:1], images[:0], "none")
    found = data.resized(dataset, 16)
    assert found.train.shape == (2, 16, 16, channels)
    assert found.test.shape == (0, 16, 16, channels)
    assert found.train.dtype == np.uint8
    # Pixel centers: output j lies at (j + 1/2) / 2 - 1/2 of the input, and stops at its ends.
    at = np.clip((np.arange(16) + 0.5) / 2 - 0.5, 0, 7)
    expected = np.broadcast_to((30 * at)[None, :, None], (16, 16, channels))
    np.testing.assert_allclose(found.train[1], expected, atol=0.51)
    assert data.resized(dataset, 8).train is images
    with pytest.raises(ValueError, match="load_grey"):
        data.resized(dataset._replace(binarization="static"), 16)
    with pytest.raises(ValueError, match="at least 1"):
        data.resized(dataset, 0)
