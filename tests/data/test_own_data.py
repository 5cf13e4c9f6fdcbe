"""Own images in files: every layout, without TensorFlow and TFDS."""

import os
import subprocess
import sys

import numpy as np
import pytest
from own_files import pixels, write_idx, write_images
from PIL import Image
from prepared_sets import write_prepared

from dvae import data

COLOR, GRAY = pixels(20, 6, 8, 3), pixels(20, 6, 8, 1)


def as_set(images):
    """Images without their order."""
    return {image.tobytes() for image in np.asarray(images)}


def whole(dataset):
    return np.concatenate([dataset.train, dataset.validation, dataset.test])


@pytest.mark.parametrize("floats", [False, True])
def test_an_archive(tmp_path, floats) -> None:
    path, labels = tmp_path / "own.npz", np.arange(20) % 3
    stored = COLOR / 255 if floats else COLOR
    np.savez(path, train=stored, test=stored[:5], train_labels=labels)
    dataset = data.load(str(path))
    np.testing.assert_array_equal(dataset.train, COLOR[:18])
    np.testing.assert_array_equal(dataset.validation_labels, labels[18:])
    part = data.load(str(path), keep=lambda n: slice(3, n))
    assert part.num_train == 18
    np.testing.assert_array_equal(part.train, COLOR[3:18])
    small = data.load(str(path), image_size=4)
    assert (small.test.shape, small.cropped_from) == ((5, 4, 4, 3), (6, 8))
    assert dataset.cropped_from is None
    assert data.resized(small, 2).cropped_from == (6, 8)
    np.testing.assert_array_equal(data.load(path, data_dir=tmp_path).train, dataset.train)
    np.testing.assert_array_equal(data.load_grey(path).train, dataset.train)
    assert data.settled(path) == str(path)


def test_an_archive_without_a_test_split_gives_a_share(tmp_path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, train=GRAY[..., 0], validation=GRAY[:3, ..., 0])
    dataset = data.load(str(path), test_share=0.25)
    np.testing.assert_array_equal(dataset.train, GRAY[:15])
    np.testing.assert_array_equal(dataset.test, GRAY[15:])
    with pytest.raises(ValueError, match=r"own.npz has no test split; .*--test_share"):
        data.load(str(path))


def test_a_share_has_all_of_its_images(tmp_path) -> None:
    """Also where its product is a little less in binary: 0.29 * 100."""
    path, images = tmp_path / "own.npz", np.zeros((100, 4, 4), np.uint8)
    np.savez(path, train=images, validation=images[:3])
    assert len(data.load(str(path), test_share=0.29).test) == 29


def test_pixels_of_zeros_and_ones_are_bits(tmp_path) -> None:
    path, bits = tmp_path / "bits.npz", (GRAY > 127).astype(np.uint8)
    np.savez(path, train=bits, test=bits)
    dataset = data.load(str(path))
    assert dataset.binarization == "static"
    np.testing.assert_array_equal(data.load_grey(str(path)).test, 255 * bits)
    with pytest.raises(ValueError, match="binary pixels"):
        data.load(str(path), image_size=4)
    assert data.load_grey(str(path), image_size=4).test.shape == (20, 4, 4, 1)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files(tmp_path, ending) -> None:
    labels = np.arange(20, dtype=np.uint8) % 3
    for prefix in ("", "other-"):
        write_idx(tmp_path / f"{prefix}train-images-idx3-ubyte{ending}", GRAY[..., 0])
        write_idx(tmp_path / f"{prefix}train-labels-idx1-ubyte{ending}", labels)
        write_idx(tmp_path / f"{prefix}t10k-images-idx3-ubyte{ending}", GRAY[:5, ..., 0])
        if not prefix:
            dataset = data.load(str(tmp_path))
            np.testing.assert_array_equal(dataset.train, GRAY[:18])
            np.testing.assert_array_equal(dataset.test, GRAY[:5])
            np.testing.assert_array_equal(dataset.train_labels, labels[:18])
    assert data.load(str(tmp_path / "other-")).name == "other"
    with pytest.raises(ValueError, match=r"several sets of IDX files; name one: .*other-"):
        data.load(str(tmp_path))


def test_folders_of_splits_and_classes(tmp_path) -> None:
    for split, rows in (("train", COLOR), ("test", COLOR[:4])):
        write_images(tmp_path / split / "cat", rows[::2])
        write_images(tmp_path / split / "dog", rows[1::2])
    dataset = data.load(str(tmp_path))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (18, 2, 4)
    kinds = {0: as_set(COLOR[::2]), 1: as_set(COLOR[1::2])}
    labels = np.concatenate([dataset.train_labels, dataset.validation_labels, dataset.test_labels])
    for image, label in zip(whole(dataset), labels, strict=True):
        assert image.tobytes() in kinds[int(label)]
    assert as_set(np.concatenate([dataset.train, dataset.validation])) == as_set(COLOR)
    assert set(dataset.train_labels[:9]) == {0, 1}, "classes are mixed"


@pytest.mark.parametrize("ending", ["png", "webp", "jpg"])
def test_one_folder_is_split_by_a_share_of_names(tmp_path, ending) -> None:
    write_images(tmp_path, GRAY, ending)
    dataset = data.load(str(tmp_path), test_share=0.2)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (15, 1, 4)
    assert dataset.test.shape[1:] == ((6, 8, 3) if ending == "webp" else (6, 8, 1))
    if ending == "png":
        assert as_set(whole(dataset)) == as_set(GRAY)
    again = data.load(str(tmp_path), test_share=0.2, keep=lambda n: slice(5, 9))
    np.testing.assert_array_equal(again.train, dataset.train[5:9])
    np.testing.assert_array_equal(again.test, dataset.test)


def test_images_that_stay_in_their_files_are_those_that_are_loaded(tmp_path) -> None:
    write_images(tmp_path / "a", COLOR)
    options = dict(test_share=0.2, image_size=4)
    loaded = data.load(str(tmp_path / "a"), **options)
    stored = data.load(str(tmp_path / "a"), **options, lazy=True)
    assert stored.train.shape == loaded.train.shape == (15, 4, 4, 3)
    assert stored.cropped_from == loaded.cropped_from == (6, 8)
    assert data.load(str(tmp_path / "a"), test_share=0.2).cropped_from is None
    rows = np.array([[3, 1], [0, 14]])
    np.testing.assert_array_equal(stored.train[rows], loaded.train[rows])
    np.testing.assert_array_equal(stored.train[2:5][0], loaded.train[2])
    np.testing.assert_array_equal(np.asarray(stored.train), loaded.train)
    grain = pytest.importorskip("grain")
    source = grain.MapDataset.source(stored.train)
    assert len(source) == 15
    np.testing.assert_array_equal(source[3], loaded.train[3])


def test_real_vectors_are_read_from_an_archive_and_from_npy_files(tmp_path) -> None:
    vectors = np.random.default_rng(2).normal(size=(20, 3))
    arrays = {"train": COLOR, "test": COLOR[:3], "train_labels": vectors}
    arrays["test_labels"] = vectors[:3]
    np.savez(tmp_path / "own.npz", **arrays)
    (tmp_path / "mapped").mkdir()
    for name, array in arrays.items():
        np.save(tmp_path / "mapped" / f"{name}.npy", array)
    for place in ("own.npz", "mapped"):
        dataset = data.load(str(tmp_path / place))
        assert type(dataset.train_labels) is np.ndarray
        np.testing.assert_array_equal(dataset.train_labels, vectors[:18].astype(np.float32))
        np.testing.assert_array_equal(dataset.validation_labels, vectors[18:].astype(np.float32))
        np.testing.assert_array_equal(dataset.test_labels, vectors[:3].astype(np.float32))
    np.save(tmp_path / "mapped" / "test_labels.npy", vectors[:3, :2])
    with pytest.raises(ValueError, match="mapped: labels of train are vectors of 3 numbers and"):
        data.load(str(tmp_path / "mapped"))


def test_arrays_in_npy_files_are_mapped(tmp_path) -> None:
    for name, array in (("train", COLOR), ("test", COLOR[:3]), ("train_labels", np.arange(20) % 7)):
        np.save(tmp_path / f"{name}.npy", array)
    dataset = data.load(str(tmp_path))
    assert isinstance(dataset.train, np.memmap)
    np.testing.assert_array_equal(dataset.train, COLOR[:18])
    np.testing.assert_array_equal(dataset.validation_labels, np.arange(18, 20) % 7)


def test_a_prepared_tfds_set(tmp_path) -> None:
    splits = {"train": (COLOR, np.arange(20) % 10), "test": (COLOR[:3], np.zeros(3))}
    write_prepared(tmp_path, "stamps", "1.0.0", splits)
    dataset = data.load("tfds:stamps", str(tmp_path))
    assert dataset.name == "tfds:stamps"
    np.testing.assert_array_equal(dataset.train, COLOR[:18])
    np.testing.assert_array_equal(dataset.validation_labels, [8, 9])
    np.testing.assert_array_equal(dataset.test, COLOR[:3])
    small = data.load("tfds:stamps", str(tmp_path), image_size=4)
    assert (small.test.shape, small.cropped_from) == ((3, 4, 4, 3), (6, 8))
    assert dataset.cropped_from is None
    with pytest.raises(data.DataUnavailableError, match="stamp "):
        data.load("tfds:stamp", str(tmp_path))


@pytest.mark.parametrize("kind", ["tfds", "pictures"])
def test_encoded_pixels_of_zeros_and_ones_are_bits(tmp_path, kind) -> None:
    """As levels they would be black, and sampled or cut nearly or wholly blank."""
    bits = (GRAY > 127).astype(np.uint8)
    if kind == "tfds":
        write_prepared(
            tmp_path,
            "bits",
            "1.0.0",
            {"train": (bits, np.zeros(20)), "test": (bits[:3], np.zeros(3))},
        )
        spec = "tfds:bits", str(tmp_path)
    else:
        write_images(tmp_path / "train", bits)
        write_images(tmp_path / "test", bits[:3])
        spec = (str(tmp_path),)
    dataset = data.load(*spec)
    assert dataset.binarization == "static"
    assert set(np.unique(dataset.train)) == {0, 1}
    cut = data.load(*spec, binarization="threshold")
    np.testing.assert_array_equal(cut.test, dataset.test)
    with pytest.raises(ValueError, match="static"):
        data.load(*spec, binarization="dynamic")
    assert data.load_grey(*spec).train.max() == 255
    with pytest.raises(
        ValueError, match="0 and 1, which would be taken as levels; load it without"
    ):
        data.load(*spec, lazy=True)
    with pytest.raises(ValueError, match="0 and 1, which would be taken as levels; leave its size"):
        data.load(*spec, image_size=4)
    with pytest.raises(ValueError, match='0 and 1, no levels; give binarization="static"'):
        data.from_arrays(bits, bits[:3], binarization="dynamic")


def test_an_upright_photograph(tmp_path) -> None:
    write_images(tmp_path, COLOR)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter clockwise
    turned = np.rot90(COLOR[0], axes=(0, 1))
    Image.fromarray(turned).save(tmp_path / "00.png", exif=exif)
    assert as_set(whole(data.load(str(tmp_path), test_share=0.2))) == as_set(COLOR)


def test_files_need_neither_tensorflow_nor_tfds(tmp_path) -> None:
    write_images(tmp_path / "a", COLOR)
    np.savez(tmp_path / "own.npz", train=COLOR, test=COLOR)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('tensorflow', 'tensorflow_datasets', "
        "'array_record', 'etils')))\n"
        "from dvae import data\n"
        "assert len(data.load('a', test_share=0.2).test) == 4\n"
        "assert len(data.load('own.npz').test) == 20\n"
        "try: data.load('tfds:mnist')\n"
        "except ImportError as error: print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "pip install '.[data]' in a checkout" in done.stdout
