"""Arrays as data sets: values, splits, labels, and mistakes in one sentence."""

import numpy as np
import pytest
from own_files import pixels

from dvae import data

TRAIN, TEST = pixels(20, 4, 6, 3), pixels(5, 4, 6, 3, seed=1)


def with_pixel(value, index):
    """The images of the test in [0, 1], one pixel excepted."""
    images = TEST / 255
    images[index, 1, 2, 0] = value
    return images


def test_arrays_are_taken_as_they_are() -> None:
    labels = np.arange(20) % 3
    dataset = data.from_arrays(TRAIN, TEST, train_labels=labels, name="stamps")
    assert (dataset.name, dataset.binarization) == ("stamps", "none")
    np.testing.assert_array_equal(dataset.train, TRAIN[:18])
    np.testing.assert_array_equal(dataset.validation, TRAIN[18:])
    np.testing.assert_array_equal(dataset.test, TEST)
    np.testing.assert_array_equal(dataset.train_labels, labels[:18])
    np.testing.assert_array_equal(dataset.validation_labels, labels[18:])
    assert dataset.train_labels.dtype == np.int32
    assert dataset.test_labels is None
    whole = data.from_arrays(TRAIN, TEST, TEST[:2])
    np.testing.assert_array_equal(whole.train, TRAIN)
    np.testing.assert_array_equal(whole.validation, TEST[:2])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_real_vectors_are_labels_as_they_are(dtype) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 3)).astype(dtype)
    dataset = data.from_arrays(TRAIN, TEST, train_labels=vectors, test_labels=vectors[:5])
    for labels, rows in (
        (dataset.train_labels, vectors[:18]),
        (dataset.validation_labels, vectors[18:]),
        (dataset.test_labels, vectors[:5]),
    ):
        assert labels.dtype == np.float32
        np.testing.assert_array_equal(labels, rows.astype(np.float32))
    assert not dataset.has_classes
    assert data.from_arrays(TRAIN, TEST, train_labels=np.arange(20) % 3).has_classes
    assert not data.from_arrays(TRAIN, TEST).has_classes
    joined = data.joined(dataset)
    np.testing.assert_array_equal(joined.train_labels, vectors.astype(np.float32))
    kept = data.joined(dataset, lambda num_rows: slice(num_rows - 3, num_rows))
    np.testing.assert_array_equal(kept.train_labels, vectors[17:].astype(np.float32))
    # One constant number is no order, and one number is a vector, too.
    constant = data.from_arrays(TRAIN, TEST, train_labels=np.ones((20, 1), dtype))
    assert constant.train_labels.shape == (18, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_become_the_nearest_level(dtype) -> None:
    levels = np.arange(256).reshape(1, 16, 16)
    images = np.repeat((levels / 255).astype(dtype), 2, 0)
    dataset = data.from_arrays(images, images)
    np.testing.assert_array_equal(dataset.test[..., 0], np.repeat(levels, 2, 0))
    assert dataset.test.dtype == np.uint8
    between = data.from_arrays(np.full((2, 1, 1), 0.3, dtype), images[:, :1, :1])
    assert int(between.train[0, 0, 0, 0]) == 76  # 76.5 to the even one, or just below


def test_pixels_are_made_binary_as_asked() -> None:
    dynamic = data.from_arrays(TRAIN, TEST, binarization="dynamic")
    assert dynamic.binarization == "dynamic"
    np.testing.assert_array_equal(dynamic.train, TRAIN[:18])
    assert set(np.unique(dynamic.test)) == {0, 1}
    cut = data.from_arrays(TRAIN, TEST, binarization="threshold")
    assert cut.binarization == "static"
    np.testing.assert_array_equal(cut.train, TRAIN[:18] > 127)
    bits = (TRAIN > 127).astype(np.uint8)
    for images in (bits, bits.astype(bool), bits.astype(float)):
        static = data.from_arrays(images, images, binarization="static")
        assert static.binarization == "static"
        np.testing.assert_array_equal(static.test, bits)
    np.testing.assert_array_equal(data.from_arrays(bits > 0, bits > 0).test, 255 * bits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": TRAIN / 128}, r"own: train must hold floats in \[0, 1\].*pixel of 1\.\d+"),
        ({"train": TRAIN / 128}, r"levels 0\.\.255 are \.astype\(np\.uint8\)$"),
        ({"train": TRAIN / 128 - 1}, r"pixel of -.*; scale them: \(x \+ 1\) / 2 for \[-1, 1\]$"),
        ({"test": np.full((2, 4, 6, 3), np.nan)}, r"own: test must hold floats .*pixel of nan"),
        ({"test": with_pixel(np.nan, 3)}, r"pixel of nan in image 3; repair .*, or remove them$"),
        ({"test": with_pixel(np.inf, 4)}, r"pixel of inf in image 4; repair .*, or remove them$"),
        (
            {"train": TRAIN / 255, "binarization": "static"},
            "must hold 0 or 1, .*; threshold or sample them$",
        ),
        (
            {"train": TRAIN.transpose(0, 3, 1, 2)},
            r"channels first: images\.transpose\(0, 2, 3, 1\)$",
        ),
        ({"test": TEST[:, None, :, :, 0]}, r"channels first: images\.transpose\(0, 2, 3, 1\)$"),
        ({"test": TEST.astype(np.uint16)}, "own: test must hold uint8 levels .*got uint16"),
        ({"test": np.full((2, 4, 6, 3), None)}, "own: test must hold uint8 levels .*got object"),
        ({"test": TEST[:, :2]}, "own: train holds images of 4x6 .* in color and test of 2x6"),
        ({"test": TEST[..., :1]}, "own: train holds .* in color and test of 4x6 pixels in gray"),
        ({"test": TEST[..., :2]}, r"own: test must have the shape .*got \(5, 4, 6, 2\)"),
        (
            {"train": TRAIN[0]},
            r"train .*got \(4, 6, 3\); a single color image needs images\[None\]",
        ),
        ({"test": TEST[:0]}, "own: test holds no images"),
        ({"train": TRAIN[:1]}, "own: 1 training image leave none to train on"),
        ({"train_labels": np.zeros(3, int)}, r"labels of train .*each of the 20 .*int64 \(3,\)"),
        ({"train_labels": np.zeros(20)}, r"float64 \(20,\); classes are labels.astype\(int\)"),
        ({"train_labels": np.zeros((20, 2), int)}, r"floats \[N, C\] .* got int64 \(20, 2\)"),
        ({"train_labels": np.zeros((20, 0))}, r"C at least 1.* got float64 \(20, 0\)"),
        ({"train_labels": np.zeros((20, 2, 1))}, r"got float64 \(20, 2, 1\)"),
        ({"train_labels": np.zeros((19, 2))}, r"each of the 20 images, got float64 \(19, 2\)"),
        ({"train_labels": np.full(20, "a")}, "labels of train must be integers .* got <U1"),
        ({"test_labels": np.eye(5) * np.nan}, "labels of test must be finite .* got nan at row 0"),
        ({"test_labels": np.eye(5) * 1e39}, r"finite in float32, got 1e\+39 at row 0"),
        (
            {"train_labels": np.ones((20, 3)), "test_labels": np.ones((5, 2))},
            "labels of train are vectors of 3 numbers and those of test vectors of 2 numbers",
        ),
        (
            {"train_labels": np.ones((20, 3)), "test_labels": np.arange(5)},
            "labels of train are vectors of 3 numbers and those of test integers; all must",
        ),
        (
            {"train_labels": np.stack([np.arange(20.0) % 3, np.arange(20.0)], 1)},
            "own: train is sorted by its labels",
        ),
        ({"test_labels": np.full(5, -1)}, "labels of test must be numbers of classes from 0 on"),
        ({"train_labels": np.arange(20) // 10}, "own: train is sorted by its labels"),
        ({"validation_labels": np.zeros(2, int)}, "labels of validation and no images"),
        ({"binarization": "static"}, "own: train must have pixels 0 or 1, got levels up to 255"),
        ({"binarization": "grey"}, "binarization must be one of none, .*got 'grey'"),
    ],
)
def test_mistakes_name_set_and_split(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        data.from_arrays(**{"train": TRAIN, "test": TEST, "name": "own", **change})


def test_images_that_are_not_square_are_cropped_in_the_middle() -> None:
    dataset = data.from_arrays(TRAIN, TEST)
    np.testing.assert_array_equal(data.resized(dataset, 4).test, TEST[:, :, 1:5])


def test_validation_images_join_those_for_training() -> None:
    labels = np.arange(20) % 3
    dataset = data.from_arrays(TRAIN, TEST, train_labels=labels)
    joined = data.joined(dataset)
    np.testing.assert_array_equal(joined.train, TRAIN)
    np.testing.assert_array_equal(joined.train_labels, labels)
    assert (joined.num_train, len(joined.validation), len(joined.validation_labels)) == (20, 0, 0)
    part = data.joined(dataset, lambda num_rows: slice(num_rows - 3, num_rows))
    np.testing.assert_array_equal(part.train, TRAIN[17:])
    assert part.num_train == 20
    with pytest.raises(ValueError, match="gray training images and binary validation images"):
        data.joined(data.binarized(dataset))


def test_the_image_that_is_not_finite_is_counted_over_all_chunks(monkeypatch) -> None:
    monkeypatch.setattr("dvae.data._pixels._CHUNK_BYTES", 2 * TEST[0].size * 8)
    with pytest.raises(ValueError, match="pixel of nan in image 3;"):
        data.from_arrays(TRAIN, with_pixel(np.nan, 3))
