import sys

import numpy as np
import pytest
import requests
import scipy.io
import tensorflow_datasets as tfds
from prepared_sets import random_images, write_prepared

from dvae import data
from dvae.data import _tfds
from dvae.data._dataset import DamagedFileError


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


def test_a_damaged_binarization_is_not_replaced_by_another(fake_tfds, monkeypatch):
    read = _tfds.read

    def damaged(name, split, data_dir, **rest):
        if name == "binarized_mnist":
            raise DamagedFileError("some file is damaged")
        return read(name, split, data_dir, **rest)

    monkeypatch.setattr(_tfds, "read", damaged)
    with pytest.raises(DamagedFileError, match="some file is damaged"):
        data.load("mnist_static")


@pytest.fixture
def fake_tfds(monkeypatch):
    """Stands in for TFDS: every split is a run of numbered images; `missing` names absent sets."""
    missing = set()

    def size(name, split, data_dir):
        if name in missing:
            raise data.DataUnavailableError(f"{name} is missing")
        counts = {"cifar10": 50_000, "binarized_mnist": 50_000}
        return counts.get(name, 60_000) if split == "train" else 10_000

    def read(name, split, data_dir, *, shape, transform=None, rows=None):
        count = size(name, split, data_dir)
        labels = None if name == "binarized_mnist" else np.arange(count, dtype=np.int32)
        # A pixel is enough to follow the splits; the real shape would cost memory.
        level = 1 if name == "binarized_mnist" else 255
        images = np.where(np.arange(count) % 2, level, 0).astype(np.uint8)[:, None, None, None]
        chosen = slice(None) if rows is None else rows
        return images[chosen], None if labels is None else labels[chosen]

    monkeypatch.setattr(_tfds, "read", read)
    monkeypatch.setattr(_tfds, "count", size)
    return missing


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


def test_data_dir_defaults_to_the_environment(monkeypatch):
    folders = []

    def count(name, split, data_dir):
        folders.append(data_dir)
        raise data.DataUnavailableError

    monkeypatch.setattr(_tfds, "count", count)
    monkeypatch.setenv("TFDS_DATA_DIR", "/from/environment")
    for data_dir in ("/given", None):
        with pytest.raises(data.DataUnavailableError):
            data.load("cifar10", data_dir)
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", "/home/reader")
    with pytest.raises(data.DataUnavailableError):
        data.load("cifar10")
    assert folders == ["/given", "/from/environment", "/home/reader/tensorflow_datasets"]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown data set 'mnits'") as error:
        data.load("mnits")
    for name in data.NAMES:
        assert name in str(error.value)


def assert_helpful(message, *parts):
    assert "\n" not in message
    for part in (*parts, "--dataset=patches", "digits"):
        assert part in message


@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist", "omniglot", "mnist_static"])
def test_a_missing_set_without_tensorflow_says_what_to_do(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # makes the import fail
    with pytest.raises(data.DataUnavailableError) as error:
        data.load(name, str(tmp_path))
    assert isinstance(error.value.__cause__, ModuleNotFoundError)
    assert_helpful(str(error.value), str(tmp_path), "pip install '.[prepare]'", "tensorflow")
    assert "does not exist" not in str(error.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["cifar10", "omniglot", "mnist_static", "caltech101_silhouettes"])
def test_a_data_folder_that_does_not_exist_is_said_not_to(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(data.DataUnavailableError) as error:
        data.load(name, str(tmp_path / "typo"))
    assert_helpful(str(error.value), f"{tmp_path / 'typo'}, a folder that does not exist")
    assert not (tmp_path / "typo").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(data.DataUnavailableError) as error:
        data.load(name, str(tmp_path / "file"))
    assert_helpful(str(error.value), f"{tmp_path / 'file'}, which is no folder")


def test_a_missing_set_without_network_fails_before_any_download(tmp_path, monkeypatch):
    def refuse(url, **_):
        raise requests.ConnectionError(f"cannot reach {url}\nat all")

    monkeypatch.setattr(_tfds, "_require_tensorflow", lambda: None)
    monkeypatch.setattr(requests, "head", refuse)
    # Should a download start all the same, fail at once instead of retrying for minutes.
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", pytest.fail)
    with pytest.raises(data.DataUnavailableError) as error:
        data.load("cifar10", str(tmp_path))
    assert isinstance(error.value.__cause__, requests.ConnectionError)
    assert_helpful(str(error.value), "cannot reach", "cifar-10", str(tmp_path))


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


def test_a_missing_caltech_file_is_named(tmp_path):
    with pytest.raises(data.DataUnavailableError) as error:
        data.load("caltech101_silhouettes", str(tmp_path))
    assert_helpful(str(error.value), str(tmp_path), "caltech101_silhouettes_28_split1.mat")


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
