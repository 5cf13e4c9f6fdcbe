"""Own data sets by their place: a file, a folder, the beginning of IDX files, or tfds:NAME."""

import os

import numpy as np

from dvae.data import _files, _tfds
from dvae.data._arrays import Parts, as_static, assemble
from dvae.data._dataset import Dataset, KeepRows, as_levels, resized
from dvae.data._pictures import read_folder
from dvae.data._pixels import is_binary

TFDS = "tfds:"
KINDS = "an .npz file, a folder of images, of .npy or of IDX files, or tfds:NAME"


def is_there(spec: str) -> bool:
    """Tells whether a name is that of a place where data may be."""
    return spec.startswith(TFDS) or (
        bool(spec) and (os.path.exists(spec) or bool(_files.idx_prefixes(spec)))
    )


def absolute(spec: str) -> str:
    """Returns the absolute path of a place on this machine, and other names as they are."""
    path = os.path.expanduser(spec)
    local = not spec.startswith(TFDS) and (looks_like_path(spec) or is_there(path))
    return os.path.abspath(path) if local else spec


def looks_like_path(spec: str) -> bool:
    """Tells whether a name can only be meant as a path, be there one or not."""
    if "://" in spec:
        return False
    return os.sep in spec or spec.startswith(("~", ".")) or spec.endswith(".npz")


def load_own(
    spec: str,
    data_dir: str,
    keep: KeepRows,
    *,
    image_size: int = 0,
    test_share: float = 0.0,
    lazy: bool = False,
    levels: bool = False,
) -> Dataset:
    """Loads a data set that has no name here; see `sources.load`, for levels `load_grey`."""
    if spec.startswith(TFDS):
        parts = _tfds.read_any(spec.removeprefix(TFDS), data_dir, image_size)
    else:
        try:
            parts = _read_place(os.path.expanduser(spec), image_size)
        except OSError as error:  # of a folder
            raise _files.damaged(error.filename or spec, error) from error
    dataset = assemble(parts, keep=keep, test_share=test_share)
    if parts.mixed or spec.startswith(TFDS):  # encoded, and of that size once they are decoded
        train = dataset.train if lazy else np.asarray(dataset.train)
        validation, test = np.asarray(dataset.validation), np.asarray(dataset.test)
        dataset = dataset._replace(train=train, validation=validation, test=test)
        if lazy or image_size:
            return _checked_levels(dataset, lazy)
    dataset = as_static(dataset)
    if levels and dataset.binarization == "static":
        dataset = as_levels(dataset)
    is_resized = parts.mixed or spec.startswith(TFDS)
    return resized(dataset, image_size) if image_size and not is_resized else dataset


def _checked_levels(dataset: Dataset, lazy: bool) -> Dataset:
    """Returns a set of levels that are decoded one by one, or filtered.

    Raises:
        ValueError: no level of its held-out images exceeds 1, so they are bits.
    """
    if not is_binary([dataset.validation, dataset.test]):
        return dataset
    remedy = "load it without lazy=True (--data_on=host)" if lazy else "leave its size as it is"
    raise ValueError(f"{dataset.name} has pixels 0 and 1, which would be taken as levels; {remedy}")


def _read_place(path: str, image_size: int) -> Parts:
    if os.path.isfile(path) and path.endswith(".npz"):
        return _files.read_npz(path)
    if _files.idx_prefixes(path):
        return _files.read_idx(path)
    if os.path.isdir(path):
        has_arrays = _files.has_arrays(path)
        return _files.read_npy_folder(path) if has_arrays else read_folder(path, image_size)
    what = "is no .npz file" if os.path.exists(path) else "does not exist"
    raise ValueError(f"{path} {what}; own images are {KINDS}")
