"""Own images in files: every mistake ends in one line that names it."""

import os

import numpy as np
import pytest
from own_files import pixels, write_idx, write_images
from PIL import Image

from dvae import data

COLOR, GRAY = pixels(20, 6, 8, 3), pixels(20, 6, 8, 1)


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
