"""Files of data sets that are there and cannot be read."""

import sys

import numpy as np
import pytest
from prepared_sets import png, random_images, write_prepared

from dvae import data
from dvae.data import _tfds


@pytest.mark.parametrize("damage", ["cut off", "overwritten", "no image"])
def test_a_damaged_file_is_named(tmp_path, damage):
    images, labels = random_images(0, 12, 32, 32, 3), np.zeros(12)
    encode = bytes if damage == "no image" else png
    write_prepared(tmp_path, "cifar10", "3.0.2", {"train": (images, labels)}, encode=encode)
    [file] = tmp_path.rglob("*.array_record-*")
    content, middle = file.read_bytes(), file.stat().st_size // 2
    if damage == "cut off":
        file.write_bytes(content[:middle])
    elif damage == "overwritten":
        file.write_bytes(content[:middle] + bytes(2000) + content[middle + 2000 :])
    with pytest.raises(data.DataUnavailableError, match=r"the file is damaged") as error:
        _tfds.read("cifar10", "train", str(tmp_path), shape=(32, 32, 3))
    assert str(file) in str(error.value)


def test_a_set_that_is_there_and_does_not_open_is_not_called_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # so that it cannot be prepared anew
    images, labels = random_images(0, 12, 32, 32, 3), np.zeros(12)
    write_prepared(tmp_path, "cifar10", "3.0.2", {"train": (images, labels)})
    [info] = tmp_path.rglob("dataset_info.json")
    info.write_text(info.read_text()[:40])
    with pytest.raises(data.DataUnavailableError) as error:
        _tfds.read("cifar10", "train", str(tmp_path), shape=(32, 32, 3))
    assert f"cifar10 in {tmp_path / 'cifar10'} cannot be opened" in str(error.value)
    assert "is not prepared" not in str(error.value)
    assert "ParseError" in str(error.value)


def test_a_damaged_mat_file_is_named(tmp_path):
    path = tmp_path / "caltech101_silhouettes" / "caltech101_silhouettes_28_split1.mat"
    path.parent.mkdir()
    path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(300))
    with pytest.raises(data.DataUnavailableError, match="cannot be read") as error:
        data.load("caltech101_silhouettes", str(tmp_path))
    assert str(path) in str(error.value)
