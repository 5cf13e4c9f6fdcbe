"""Own images in files: every layout, without TensorFlow and TFDS, and every mistake in one line."""

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
    assert data.load(str(path), image_size=4).test.shape == (5, 4, 4, 3)


def test_an_archive_without_a_test_split_gives_a_share(tmp_path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, train=GRAY[..., 0], validation=GRAY[:3, ..., 0])
    dataset = data.load(str(path), test_share=0.25)
    np.testing.assert_array_equal(dataset.train, GRAY[:15])
    np.testing.assert_array_equal(dataset.test, GRAY[15:])
    with pytest.raises(ValueError, match=r"own.npz has no test split; .*--test_share"):
        data.load(str(path))


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
    assert data.load("tfds:stamps", str(tmp_path), image_size=4).test.shape == (3, 4, 4, 3)
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


def cmyk(path):
    Image.new("CMYK", (8, 6)).save(path.with_suffix(".jpg"))
    return path.with_suffix(".jpg")


def cut(path):
    Image.fromarray(pixels(1, 60, 80, 3)[0]).resize((8, 6)).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    return path


def animated(path):
    frames = [Image.fromarray(image) for image in COLOR[:2]]
    frames[0].save(path.with_suffix(".webp"), save_all=True, append_images=frames[1:])
    return path.with_suffix(".webp")


def saved(picture, name="zz.png"):
    def write(path):
        picture.save(path.with_name(name))
        return path.with_name(name)

    return write


def text(name):
    def write(path):
        path.with_name(name).write_text("not an image")
        return path.with_name(name)

    return write


def folder(path):
    path.with_name("more").mkdir()
    return path.with_name("00.png")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (saved(Image.new("RGB", (9, 6))), "has 6x9 pixels in color and .*00.png .*--image_size=S"),
        (saved(Image.new("L", (8, 6))), "is in gray and .*00.png is not"),
        (saved(Image.new("I;16", (8, 6))), "has 16 bits a channel or more"),
        (saved(Image.new("RGBA", (8, 6))), "has transparent pixels"),
        (cmyk, "has CMYK pixels; convert it to gray or RGB"),
        (animated, "has 2 frames"),
        (cut, "cannot be read .*the file is damaged"),
        (text("zz.png"), "is no PNG, JPEG or WebP image"),
        (text("notes.txt"), "is no image file"),
        (folder, "lies beside folders"),
    ],
)
def test_a_bad_file_among_images_is_named(tmp_path, write, message) -> None:
    write_images(tmp_path, COLOR)
    path = write(tmp_path / "zz.png")
    with pytest.raises((ValueError, data.DataUnavailableError), match=message) as error:
        data.load(str(tmp_path), test_share=0.2)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_mistakes_with_folders_name_them(tmp_path) -> None:
    write_images(tmp_path / "train" / "cat", COLOR)
    write_images(tmp_path / "test" / "dog", COLOR)
    with pytest.raises(ValueError, match=r"test/dog is a class that .*train lacks"):
        data.load(str(tmp_path))
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="other lies beside the folders of the splits"):
        data.load(str(tmp_path))
    with pytest.raises(ValueError, match="other holds no images"):
        data.load(str(tmp_path / "other"), test_share=0.1)
    with pytest.raises(ValueError, match="cat has no test split"):
        data.load(str(tmp_path / "train" / "cat"))
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"test_share={share} must be above 0 and below 1"):
            data.load(str(tmp_path / "train" / "cat"), test_share=share)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": COLOR}, "has no array train, but images; it takes train, validation, test"),
        ({"train": COLOR, "tset": COLOR}, "has an array tset"),
        ({"train": np.array([None, {}])}, "train of .* is an array of Python objects"),
        ({"train": COLOR, "test": COLOR / 127}, r"test must hold floats in \[0, 1\]"),
        ({"train": COLOR, "test": COLOR[:0]}, "test holds no images"),
        ({"train": COLOR, "test": COLOR, "test_labels": np.zeros(2)}, "labels of test"),
    ],
)
def test_mistakes_in_an_archive_name_it(tmp_path, arrays, message) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as error:
        data.load(str(path))
    assert str(path) in str(error.value)


def test_damaged_arrays_are_named(tmp_path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, train=COLOR, test=COLOR)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(data.DataUnavailableError, match=r"own\.npz cannot be read"):
        data.load(str(path))
    path.write_text("text")
    with pytest.raises((ValueError, data.DataUnavailableError), match=r"own\.npz cannot be read"):
        data.load(str(path))
    np.save(tmp_path / "train.npy", COLOR)
    (tmp_path / "own.npz").unlink()
    np.save(tmp_path / "test.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"test\.npy is an array of Python objects"):
        data.load(str(tmp_path))
    np.save(tmp_path / "test.npy", COLOR / 255)
    with pytest.raises(ValueError, match=r"test\.npy holds float64, .* must be uint8"):
        data.load(str(tmp_path))
    folder = tmp_path / "idx"
    folder.mkdir()
    file = folder / "train-images-idx3-ubyte"
    write_idx(file, GRAY[..., 0])
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(data.DataUnavailableError, match=r"idx3-ubyte cannot be read .*959 b"):
        data.load(str(folder))
    file.write_text("text")
    with pytest.raises(ValueError, match="idx3-ubyte is no IDX file"):
        data.load(str(folder))


def test_unknown_places_and_idle_shares(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"'digit' \(did you mean digits\?\).*folder of images"):
        data.load("digit")
    with pytest.raises(ValueError, match=r"nowhere\.npz does not exist; own images are an .npz"):
        data.load(str(tmp_path / "nowhere.npz"))
    with pytest.raises(ValueError, match="is an address"):
        data.load("gs://bucket/images")
    with pytest.raises(ValueError, match=r"digits has a test split, .* test_share=0\.1"):
        data.load("digits", test_share=0.1)
    with pytest.raises(ValueError, match="mnist_static"):
        data.settled("mnist_statik")
    assert data.settled("digits") == "digits"
    assert data.settled(os.path.relpath(tmp_path)) == str(tmp_path)


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
