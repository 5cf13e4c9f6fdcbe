"""Sets that are not there, and what is said of them."""

import sys

import pytest
import requests
import tensorflow_datasets as tfds

from dvae import data
from dvae.data import _tfds
from dvae.data._dataset import DamagedFileError


def test_a_damaged_binarization_is_not_replaced_by_another(fake_tfds, monkeypatch):
    read = _tfds.read

    def damaged(name, split, data_dir, **rest):
        if name == "binarized_mnist":
            raise DamagedFileError("some file is damaged")
        return read(name, split, data_dir, **rest)

    monkeypatch.setattr(_tfds, "read", damaged)
    with pytest.raises(DamagedFileError, match="some file is damaged"):
        data.load("mnist_static")


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
    for part in (*parts, "no files (--dataset): patches (color), or digits"):
        assert part in message


@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist", "omniglot", "mnist_static"])
def test_a_missing_set_without_tensorflow_says_what_to_do(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # makes the import fail
    with pytest.raises(data.DataUnavailableError) as error:
        data.load(name, str(tmp_path))
    assert isinstance(error.value.__cause__, ModuleNotFoundError)
    assert_helpful(str(error.value), str(tmp_path), "pip install '.[prepare]'", "tensorflow")
    if name != "mnist_static":  # which is sampled of another set
        assert "as data_dir (--data_dir)" in str(error.value)
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


def test_a_missing_caltech_file_is_named(tmp_path):
    with pytest.raises(data.DataUnavailableError) as error:
        data.load("caltech101_silhouettes", str(tmp_path))
    assert_helpful(str(error.value), str(tmp_path), "caltech101_silhouettes_28_split1.mat")
