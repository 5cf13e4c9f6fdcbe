"""Pixels that a caller of `data.load` asks for: bits of levels, or as they are stored."""

import numpy as np
import pytest
from PIL import Image

from dvae import data
from dvae.data._dataset import sample_once


def test_pixels_that_are_asked_for_are_those_of_the_functions(tmp_path):
    """Of own levels, own bits and a set that is sampled: as a caller makes them."""
    levels = np.random.default_rng(0).integers(0, 256, (12, 4, 4), np.uint8)
    path, bits = str(tmp_path / "gray.npz"), str(tmp_path / "bits.npz")
    np.savez(path, train=levels[:9], test=levels[9:])
    np.savez(bits, train=levels[:9] // 128, test=levels[9:] // 128)
    loaded, grey = data.load(path), data.load_grey("digits")
    expected = {
        (path, None): loaded,
        (path, "none"): loaded,
        (path, "dynamic"): data.binarized(loaded),
        (path, "once"): data.binarized_once(loaded),
        (path, "threshold"): data.thresholded(loaded),
        (bits, "static"): data.load(bits),
        (bits, "none"): data.load_grey(bits),
        (bits, "threshold"): data.load(bits),
        ("digits", "none"): grey,
        ("digits", "dynamic"): data.load("digits"),
        ("digits", "once"): data.binarized_once(grey),
        (bits, "once"): data.load(bits),
        ("digits", "threshold"): data.thresholded(grey),
    }
    for (name, binarization), dataset in expected.items():
        ours = data.load(name, binarization=binarization)
        assert ours.binarization == dataset.binarization
        for split in ("train", "validation", "test"):
            np.testing.assert_array_equal(getattr(ours, split), getattr(dataset, split))
    assert data.load(bits).binarization == "static"
    for name, binarization, message in (
        (bits, "dynamic", "binary already"),
        (path, "static", r'pixels 0 or 1 .* binarization="threshold"'),
        ("digits", "static", r'digits must .* binarization="threshold"'),
        (path, "bits", "one of none, static, dynamic, once, threshold, got 'bits'"),
    ):
        with pytest.raises(ValueError, match=message):
            data.load(name, binarization=binarization)


def test_pixels_that_are_sampled_once() -> None:
    """Bits of the levels' probabilities; test images those of sampling at every sight."""
    levels = np.full((400, 8, 8, 1), 51, np.uint8)  # a fifth of 255
    images = data.from_arrays(levels, levels)
    once = data.binarized_once(images)
    assert once.binarization == "static"
    for split in ("train", "validation", "test"):
        bits = getattr(once, split)
        assert set(np.unique(bits)) == {0, 1}
        deviation = (0.2 * 0.8 / bits.size) ** 0.5
        assert abs(bits.mean() - 0.2) < 5 * deviation
    np.testing.assert_array_equal(once.test, data.binarized(images).test)
    np.testing.assert_array_equal(once.train, data.binarized_once(images).train)
    np.testing.assert_array_equal(
        once.train, data.from_arrays(levels, levels, binarization="once").train
    )


def test_splits_are_sampled_with_seeds_of_their_own() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), np.uint8)
    images = data.Dataset("gray", levels, levels, levels, "none")
    once, dynamic = data.binarized_once(images), data.binarized(images)
    np.testing.assert_array_equal(dynamic.train, levels)
    np.testing.assert_array_equal(once.train, sample_once(levels, 0))
    for found in (once, dynamic):
        np.testing.assert_array_equal(found.validation, sample_once(levels, 1))
        np.testing.assert_array_equal(found.test, sample_once(levels, 2))
    for split in (once.train, once.validation):
        assert (split != once.test).any()
    assert (once.train != once.validation).any()


# Of levels 0, 17, ..., 255. Other bits would be other test images, and results that no earlier one
# compares with.
SAMPLED_ONCE = {0: "0000001010010111", 1: "0010001010101111", 2: "0000010111011011"}


@pytest.mark.parametrize("seed", SAMPLED_ONCE)
def test_bits_that_are_sampled_once_stay_the_same(seed) -> None:
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    assert "".join(map(str, sample_once(levels, seed))) == SAMPLED_ONCE[seed]


def test_processes_have_rows_of_one_draw() -> None:
    whole = data.load("digits", binarization="once")
    some = data.load("digits", binarization="once", keep=lambda n: slice(n // 2, n))
    np.testing.assert_array_equal(some.train, whole.train[whole.num_train // 2 :])
    assert some.num_train == whole.num_train


def test_images_in_files_are_not_thresholded(tmp_path):
    for split in ("train", "test"):
        for i in range(4):
            (tmp_path / split).mkdir(exist_ok=True)
            picture = Image.fromarray(np.full((4, 4), 60 * i, np.uint8))
            picture.save(tmp_path / split / f"{i}.png")
    lazy = data.load(str(tmp_path), lazy=True, binarization="dynamic")
    assert lazy.test.max() <= 1
    with pytest.raises(ValueError, match=r"in files, .*without lazy=True"):
        data.load(str(tmp_path), lazy=True, binarization="threshold")
    with pytest.raises(ValueError, match=r"in files, .*without lazy=True"):
        data.load(str(tmp_path), lazy=True, binarization="once")
