"""Arrays of images in files: .npz archives, folders of .npy files, IDX files as MNIST's are."""

import gzip
import math
import os
import re
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from dvae.data._arrays import Parts
from dvae.data._dataset import SPLITS, DamagedFileError, DataUnavailableError
from dvae.data._pixels import checked

_LABELS = tuple(f"{split}_labels" for split in SPLITS)
_IDX = re.compile(
    r"(?P<prefix>.*?)(?P<split>train|t10k|test|validation)-"
    r"(?P<kind>images[-.]idx3|labels[-.]idx1)-ubyte(?P<zip>\.gz)?"
)
_IDX_SPLITS = {"t10k": "test"}


def read_npz(path: str) -> Parts:
    """Reads an archive of the arrays train, test, validation and *_labels.

    Raises:
        DamagedFileError: it cannot be read.
        ValueError: arrays are missing, unknown, of Python objects, or no images.
    """
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError(
                    f"{path} holds a single array; save it by np.savez(train=..., ...)"
                )
            _check_names(path, archive.files)
            for name in archive.files:
                arrays[name] = _member(path, archive, name)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, error) from error
    except ValueError as error:
        if path in str(error):
            raise
        raise damaged(path, error) from error  # of NumPy, about what is no array
    return _parts(path, arrays)


def _member(path: str, archive: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    try:
        return archive[name]
    except ValueError as error:
        _refuse_objects(f"{name} of {path}", error)
        raise


def _refuse_objects(what: str, error: ValueError) -> None:
    if "allow_pickle" in str(error) or "Python objects" in str(error):
        raise ValueError(
            f"{what} is an array of Python objects, which could run code and is never loaded; "
            "save it as uint8"
        ) from error


def has_arrays(folder: str) -> bool:
    """Tells whether a folder holds the arrays of a data set as .npy files."""
    return os.path.isfile(os.path.join(folder, "train.npy"))


def read_npy_folder(folder: str) -> Parts:
    """Maps train.npy, test.npy, validation.npy and *_labels.npy into memory; reads no images.

    Raises:
        DamagedFileError: a file cannot be read.
        ValueError: a file is unknown, of Python objects, or holds no uint8 images.
    """
    arrays = {}
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    for name in names:
        if not name.endswith(".npy"):
            raise ValueError(f"{folder} holds {name} beside its .npy files; move it elsewhere")
    _check_names(folder, [name.removesuffix(".npy") for name in names])
    for name in names:
        path, stem = os.path.join(folder, name), name.removesuffix(".npy")
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, EOFError, ValueError) as error:
            if isinstance(error, ValueError):
                _refuse_objects(path, error)
            raise damaged(path, error) from error
        if stem in SPLITS and array.dtype != np.uint8:
            raise ValueError(
                f"{path} holds {array.dtype}, and images that stay in their files must be uint8; "
                "scale them to 0..255, then .astype(np.uint8)"
            )
        arrays[stem] = array
    return _parts(folder, arrays)


def _check_names(where: str, names: list[str]) -> None:
    allowed = (*SPLITS, *_LABELS)
    if "train" not in names:
        listed = ", ".join(names[:5]) or "nothing"
        raise ValueError(f"{where} has no array train, but {listed}; it takes {', '.join(allowed)}")
    if unknown := [name for name in names if name not in allowed]:
        raise ValueError(f"{where} has an array {unknown[0]}; it takes {', '.join(allowed)}")


def _parts(path: str, arrays: Mapping[str, np.ndarray]) -> Parts:
    images = {split: arrays[split] for split in SPLITS if split in arrays}
    labels = {s: arrays[f"{s}_labels"] for s in SPLITS if f"{s}_labels" in arrays}
    return Parts(base_name(path), path, checked(path, images), labels)


def base_name(path: str) -> str:
    """Returns the last part of a path."""
    return os.path.basename(os.path.abspath(path))


def damaged(path: str, error: Exception) -> DataUnavailableError:
    """Returns the error of a file that cannot be read."""
    if isinstance(error, PermissionError | FileNotFoundError | IsADirectoryError):
        return DataUnavailableError(f"{path} cannot be read: {error.strerror}")
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return DamagedFileError(f"{path} cannot be read ({reason}); the file is damaged: get it again")


def idx_prefixes(path: str) -> list[str]:
    """Returns the prefixes of a folder's IDX files, or those that begin with a path."""
    folder, start = (path, "") if os.path.isdir(path) else os.path.split(path)
    if not os.path.isdir(folder or "."):
        return []
    names = sorted(name for name in os.listdir(folder or ".") if name.startswith(start))
    found = (match["prefix"] for name in names if (match := _IDX.fullmatch(name)))
    return sorted({os.path.join(folder, prefix) for prefix in found})


def read_idx(path: str) -> Parts:
    """Reads IDX files, gzipped or not, named as MNIST's are (train-images-idx3-ubyte, ...).

    Args:
        path: their folder, or what their paths begin with.

    Raises:
        DamagedFileError: a file cannot be read.
        ValueError: files of several sets are there, or one is no IDX file of bytes.
    """
    prefixes = idx_prefixes(path)
    if len(prefixes) > 1:
        raise ValueError(f"{path} holds several sets of IDX files; name one: {', '.join(prefixes)}")
    folder, start = os.path.split(prefixes[0])
    arrays: dict[str, dict[str, np.ndarray]] = {"images": {}, "labels": {}}
    for name in sorted(os.listdir(folder or ".")):
        match = _IDX.fullmatch(name)
        if match is None or match["prefix"] != start:
            continue
        kind = match["kind"].split("-")[0].split(".")[0]
        split = _IDX_SPLITS.get(match["split"], match["split"])
        # Plain and gzipped copies of one file may lie side by side; the plain one comes first.
        if split not in arrays[kind]:
            file = os.path.join(folder, name)
            arrays[kind][split] = read_idx_file(file, 3 if kind == "images" else 1)
    images = {split: arrays["images"][split] for split in SPLITS if split in arrays["images"]}
    if "train" not in images:
        raise ValueError(f"{path} has no file train-images-idx3-ubyte, with or without .gz; add it")
    name = base_name(start or folder).strip("-_.")
    return Parts(name, path, checked(path, images), arrays["labels"])


def read_idx_file(path: str, ndim: int) -> np.ndarray:
    """Reads one IDX file of unsigned bytes with `ndim` axes.

    Raises:
        DamagedFileError: it cannot be read, or is shorter or longer than it says.
        ValueError: it holds something else.
    """
    try:
        opener = gzip.open if path.endswith(".gz") else open
        with opener(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, error) from error
    head = 4 + 4 * ndim
    if content[:4] != bytes([0, 0, 8, ndim]) or len(content) < head:
        raise ValueError(
            f"{path} is no IDX file of unsigned bytes with {ndim} axes: it begins with "
            f"{content[:4].hex(' ') or 'nothing'}, not 00 00 08 0{ndim}"
        )
    shape = tuple(int(n) for n in np.frombuffer(content[4:head], ">u4"))
    if len(content) - head != math.prod(shape):
        found = f"{len(content) - head} bytes of the {math.prod(shape)} for {shape}"
        raise damaged(path, EOFError(found))
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)
