"""Caltech-101 silhouettes, from the file of their authors."""

import os

import numpy as np

from dvae.data._dataset import (
    EMBEDDED_HINT,
    Dataset,
    DataUnavailableError,
    missing_folder,
    read_mat,
)

_CALTECH_FILE = "caltech101_silhouettes_28_split1.mat"
_CALTECH_SPLITS = (
    ("train", "train_data", 4_100),
    ("validation", "val_data", 2_264),
    ("test", "test_data", 2_307),
)


def caltech101_silhouettes(data_dir: str) -> Dataset:
    """Loads Caltech-101 silhouettes (Marlin et al., 2010), object = 1."""
    path = os.path.join(data_dir, "caltech101_silhouettes", _CALTECH_FILE)
    if not os.path.isfile(path):
        name = os.path.join("caltech101_silhouettes", _CALTECH_FILE)
        raise DataUnavailableError(
            f"caltech101_silhouettes: no file {name} in {data_dir}{missing_folder(data_dir)}; get "
            f"it from https://people.cs.umass.edu/~marlin/data/{_CALTECH_FILE}; {EMBEDDED_HINT}"
        )
    file = read_mat(path, [key for _, key, _ in _CALTECH_SPLITS])
    splits = {}
    for split, key, count in _CALTECH_SPLITS:
        array = file.get(key, np.zeros(0))
        if array.shape != (count, 784) or array.dtype != np.uint8:
            raise ValueError(
                f"caltech101_silhouettes: expected {key} of shape ({count}, 784) and dtype uint8 "
                f"in {path}, found {array.shape} and {array.dtype}"
            )
        # In the file, pixels run column by column and the object is 0.
        splits[split] = 1 - array.reshape(-1, 28, 28).transpose(0, 2, 1)[..., None]
    train, validation, test = splits.values()
    return Dataset("caltech101_silhouettes", train, validation, test, "static")
