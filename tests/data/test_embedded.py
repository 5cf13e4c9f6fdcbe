import numpy as np
import pytest
import sklearn.datasets

from dvae import data
from dvae.data import embedded
from dvae.data._dataset import sample_once


def test_digits_are_the_scaled_digits_with_their_labels():
    dataset = data.load("digits")
    assert dataset.name == "digits"
    assert dataset.binarization == "dynamic"
    assert dataset.train.shape == (1297, 8, 8, 1)
    assert dataset.validation.shape == dataset.test.shape == (250, 8, 8, 1)
    assert dataset.train.dtype == dataset.validation.dtype == dataset.test.dtype == np.uint8
    assert set(np.unique(dataset.validation)) == set(np.unique(dataset.test)) == {0, 1}
    assert dataset.train_labels.dtype == np.int32

    bunch = sklearn.datasets.load_digits()
    levels = {round(v * 255 / 16) for v in range(17)}
    assert set(np.unique(dataset.train)) == levels
    label_of = {}
    for image, label in zip(bunch.images, bunch.target, strict=True):
        label_of.setdefault(image.astype(int).tobytes(), []).append(label)
    for image, label in zip(dataset.train, dataset.train_labels, strict=True):
        original = np.rint(image[..., 0] * (16 / 255)).astype(int).tobytes()
        assert label in label_of[original]
    labels = np.concatenate([dataset.train_labels, dataset.validation_labels, dataset.test_labels])
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(bunch.target))


def test_patches_are_crops_of_the_photographs():
    dataset = data.load("patches")
    assert dataset.binarization == "none"
    assert dataset.train.shape == (20_000, 32, 32, 3)
    assert dataset.validation.shape == (1_000, 32, 32, 3)
    assert dataset.test.shape == (2_000, 32, 32, 3)
    assert dataset.train.dtype == np.uint8
    assert dataset.train_labels is None
    # The first image of each split is a sub-window of the first photograph, within a block.
    photo = sklearn.datasets.load_sample_image("china.jpg")
    windows = np.lib.stride_tricks.sliding_window_view(photo, (32, 32), axis=(0, 1))
    for split in ("train", "validation", "test"):
        patch = getattr(dataset, split)[0].transpose(2, 0, 1)
        owners = embedded.block_splits()
        candidates = np.argwhere((windows[..., 0, 0] == patch[:, 0, 0]).all(axis=-1))
        found = [(y, x) for y, x in candidates if (windows[y, x] == patch).all()]
        inside = [(y, x) for y, x in found if max(y % 48, x % 48) <= 16]
        assert any(owners[y // 48, x // 48] == split for y, x in inside)


@pytest.mark.thorough
def test_patch_splits_share_no_pixel(monkeypatch):
    """Photographs whose colors spell coordinates show where every crop came from."""

    def coordinates(name):
        row, column = np.meshgrid(np.arange(427), np.arange(640), indexing="ij")
        photo = embedded.PHOTOGRAPHS.index(name)
        return np.stack(
            [row // 2, column // 3, photo * 6 + row % 2 * 3 + column % 3], axis=-1
        ).astype(np.uint8)

    monkeypatch.setattr(sklearn.datasets, "load_sample_image", coordinates)
    dataset = data.load("patches")
    seen = []
    for split in ("train", "validation", "test"):
        half_row, third_column, rest = np.moveaxis(getattr(dataset, split), -1, 0)
        photo = rest // 6
        row = 2 * half_row.astype(np.int16) + rest // 3 % 2
        column = 3 * third_column.astype(np.int16) + rest % 3
        # Whole windows of one photograph, the photographs alternating, no position twice.
        corner = np.stack([photo, row, column])[:, :, 0, 0]
        assert (row == corner[1][:, None, None] + np.arange(32)[None, :, None]).all()
        assert (column == corner[2][:, None, None] + np.arange(32)[None, None, :]).all()
        np.testing.assert_array_equal(photo[:, 0, 0], np.arange(len(photo)) % 2)
        assert len(np.unique(corner, axis=1).T) == len(photo)
        pixels = np.zeros((2, 427, 640), bool)
        pixels[photo, row, column] = True
        seen.append(pixels)
        # The crops reach nearly all of their blocks, and no other.
        owners = embedded.block_splits().repeat(48, axis=0).repeat(48, axis=1)[:427, :640]
        inside = owners == split
        assert not pixels[:, ~inside].any()
        assert pixels[:, inside].mean() > 0.95
        assert (embedded.seen_in_training() == inside).all() == (split == "train")
    assert not (seen[0] & seen[1]).any()
    assert not (seen[0] & seen[2]).any()
    assert not (seen[1] & seen[2]).any()


@pytest.mark.thorough
def test_patch_splits_look_alike():
    """Neither colors nor roughness set a split apart: what training learns holds for all."""
    dataset = data.load("patches")
    counts = [np.bincount(dataset.train[..., c].ravel(), minlength=256) + 1 for c in range(3)]
    log_p = [np.log2(count / count.sum()) for count in counts]
    bits, roughness = [], []
    for split in ("train", "validation", "test"):
        images = getattr(dataset, split)
        bits.append(-np.mean([log_p[c][images[..., c]].mean() for c in range(3)]))
        roughness.append(np.abs(np.diff(images.astype(int), axis=2)).mean())
    assert max(bits) - min(bits) < 0.05
    assert max(roughness) < 1.1 * min(roughness)


@pytest.mark.parametrize("name", ["digits", "patches"])
def test_embedded_sets_are_the_same_at_every_call(name):
    for first, second in zip(data.load(name), data.load(name, data_dir="/nowhere"), strict=True):
        assert np.array_equal(first, second)


def test_sample_once_is_fixed_and_has_the_pixel_as_its_mean():
    levels = np.array([0, 1, 128, 254, 255], np.uint8)
    images = np.broadcast_to(levels, (50_000, 5))
    bits = sample_once(images, seed=3)
    assert bits.dtype == np.uint8
    np.testing.assert_array_equal(bits, sample_once(images, seed=3))
    assert (bits != sample_once(images, seed=4)).any()
    probability = levels / 255
    standard_error = np.sqrt(probability * (1 - probability) / len(images))
    assert (np.abs(bits.mean(axis=0) - probability) <= 5 * standard_error).all()
