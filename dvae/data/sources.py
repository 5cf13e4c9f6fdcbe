"""Data sets by name.

| name | images | splits | labels | binarization |
|---|---|---|---|---|
| mnist | 28x28x1 | 50,000 / 10,000 / 10,000 | yes | none |
| mnist_static | 28x28x1 | 50,000 / 10,000 / 10,000 | own binarization only | static |
| mnist_dynamic | 28x28x1 | 50,000 / 10,000 / 10,000 | yes | dynamic |
| omniglot | 28x28x1 | 23,000 / 1,345 / 8,070 | no | dynamic |
| caltech101_silhouettes | 28x28x1 | 4,100 / 2,264 / 2,307 | no | static |
| cifar10 | 32x32x3 | 45,000 / 5,000 / 10,000 | yes | none |
| fashion_mnist | 28x28x1 | 50,000 / 10,000 / 10,000 | yes | none |
| digits | 8x8x1 | 1,297 / 250 / 250 | yes | dynamic |
| patches | 32x32x3 | 20,000 / 1,000 / 2,000 | no | none |

Validation images are the last of the training split as stored; order is the order of the files.
`load_grey` gives the levels of all splits where `load` samples them. Other names are places of own
images, see `load`.
"""

import difflib
import os
from collections.abc import Callable
from typing import Any

from dvae.data import _tfds, embedded
from dvae.data._caltech import caltech101_silhouettes
from dvae.data._dataset import (
    Binarization,
    DamagedFileError,
    Dataset,
    DataUnavailableError,
    KeepRows,
    as_levels,
    binarized,
    binarized_once,
    check_binarization,
    keep_rows,
    resized,
    thresholded,
    whole,
)
from dvae.data._own import KINDS, absolute, is_there, load_own, looks_like_path
from dvae.data.omniglot import omniglot

__all__ = ["NAMES", "OWN", "load", "load_grey", "settled"]

OWN = KINDS


def load(
    name: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    keep: KeepRows = whole,
    image_size: int = 0,
    test_share: float = 0.0,
    lazy: bool = False,
    binarization: Binarization | None = None,
) -> Dataset:
    """Loads a data set into host memory.

    Args:
        name: one of `NAMES`, or own images: the path of an .npz file (arrays train, test, and if
            you like validation and train_labels, ...), of a folder of images, of .npy files (which
            are memory-mapped) or of IDX files, or tfds:NAME. See docs/guides/data.md.
        data_dir: a TFDS folder, where .mat files are looked for too; None: the environment variable
            TFDS_DATA_DIR, else ~/tensorflow_datasets. Paths and embedded sets ignore it.
        keep: maps the number N of training images to the rows of them that are loaded (of the other
            splits all are), such as `lambda n: train.sharding.local_rows(mesh, n)`.
        image_size: side in pixels that the square in the middle of each image is resized to; 0:
            images stay as they are.
        test_share: share of own images that is set apart for the test, where they have no test
            split; above 0, below 1. Named sets have one.
        lazy: leave own training images in their files if they are encoded there: `train` then is
            no array, and decodes what it is indexed by.
        binarization: None: pixels as the set has them. "none": levels, see `load_grey`. "static":
            as None, and refused unless pixels are 0 or 1. "dynamic": levels are means of binary
            pixels, see `binarized`; "once": sampled now, see `binarized_once`. "threshold": see
            `thresholded`.

    Returns:
        A `Dataset`; its `name` says which variant was found ("omniglot (own split)"). Own images
        are "none" (levels 0..255), or "static" where arrays hold nothing but 0 and 1.

    Raises:
        ValueError: unknown name; images of another shape, dtype or kind than expected; an empty
            split; binary images that were to be resized or sampled, levels that were to be
            "static". The message names the file.
        DataUnavailableError: the set is not in `data_dir` and cannot be downloaded and prepared, or
            a file cannot be read.
    """
    name = os.fspath(name)
    options: dict[str, Any] = dict(image_size=image_size, test_share=test_share, lazy=lazy)
    if binarization is not None:
        return _with_pixels(name, data_dir, binarization, keep=keep, **options)
    if name not in _LOADERS:
        _check_own(name)
        return load_own(name, _folder(data_dir), keep, **options)
    _refuse_share(name, test_share)
    if not image_size:
        return _LOADERS[name](_folder(data_dir), keep)
    if name not in _GREY:
        return resized(_LOADERS[name](_folder(data_dir), keep), image_size)
    gray = load_grey(name, data_dir, keep=keep, image_size=image_size)
    return binarized(gray)._replace(name=name if name == "mnist_dynamic" else gray.name)


def _with_pixels(
    name: str, data_dir: str | os.PathLike[str] | None, binarization: Binarization, **options: Any
) -> Dataset:
    """Loads a data set with the pixels that were asked for."""
    check_binarization(binarization)
    if binarization in ("none", "threshold"):
        levels = load_grey(name, data_dir, **options)
        return levels if binarization == "none" else thresholded(levels)
    if binarization == "once":  # rows of a draw that every process makes alike
        keep = options.pop("keep")
        return keep_rows(binarized_once(load_grey(name, data_dir, **options)), keep)
    found = load(name, data_dir, **options)
    if binarization == "dynamic":
        return found if found.binarization == "dynamic" else binarized(found)
    if found.binarization != "static":
        raise ValueError(
            f"{found.name} must have pixels 0 or 1 in every split to be static; make them by "
            'binarization="threshold", or sample them by binarization="dynamic"'
        )
    return found


def load_grey(
    name: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    keep: KeepRows = whole,
    image_size: int = 0,
    test_share: float = 0.0,
    lazy: bool = False,
) -> Dataset:
    """Loads a data set with levels 0..255 in every split, whatever `load` makes of them.

    Sets that `load` samples ("dynamic") come unsampled; binary pixels ("static") become 0 and 255.

    Args:
        name: as for `load`.
        data_dir: as for `load`.
        keep: which training images to load, of how many there are.
        image_size: side that images are resized to; 0: they stay as they are.
        test_share: as for `load`.
        lazy: as for `load`.

    Returns:
        A "none" data set.

    Raises:
        ValueError: as for `load`.
        DataUnavailableError: as for `load`.
    """
    name = os.fspath(name)
    if name in _LOADERS:
        _refuse_share(name, test_share)
        found = _GREY.get(name, _LOADERS[name])(_folder(data_dir), keep)
    else:
        _check_own(name)
        options: dict[str, Any] = dict(image_size=image_size, test_share=test_share, lazy=lazy)
        return load_own(name, _folder(data_dir), keep, **options, levels=True)
    if found.binarization == "static":
        found = as_levels(found)
    return resized(found, image_size) if image_size else found


def settled(name: str | os.PathLike[str]) -> str:
    """Returns the name of a data set as records keep it: paths are absolute.

    Args:
        name: as for `load`.

    Raises:
        ValueError: it is neither a name nor a path, nor tfds:NAME.
    """
    name = os.fspath(name)
    if name in _LOADERS:
        return name
    place = absolute(name)
    _check_own(place)
    return place


def _check_own(name: str) -> None:
    """Raises ValueError for what is neither a name nor a place where data may be."""
    if looks_like_path(name) or is_there(name):
        return
    if "://" in name:
        raise ValueError(f"{name} is an address; mount the bucket or share, and give its path")
    alike = difflib.get_close_matches(name, NAMES, n=2)
    meant = f" (did you mean {' or '.join(alike)}?)" if alike else ""
    raise ValueError(
        f"unknown data set {name!r}{meant}; choose one of: {', '.join(NAMES)}; or give a path that "
        f"exists: {KINDS}"
    )


def _refuse_share(name: str, test_share: float) -> None:
    if test_share:
        raise ValueError(
            f"{name} has a test split, beside which test_share={test_share:g} does nothing; leave "
            "it out"
        )


def _folder(data_dir: str | os.PathLike[str] | None) -> str:
    return os.path.expanduser(
        data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    )


def _mnist(data_dir: str, keep: KeepRows) -> Dataset:
    """Loads MNIST (LeCun et al., 1998), in gray."""
    return _tfds_splits("mnist", data_dir, keep, shape=(28, 28, 1), num_validation=10_000)


def _mnist_static(data_dir: str, keep: KeepRows) -> Dataset:
    """Loads the published binarization (Larochelle and Murray, 2011), else MNIST sampled once."""
    try:
        num_train = _tfds.count("binarized_mnist", "train", data_dir)
        train, validation, test = (
            _tfds.read("binarized_mnist", split, data_dir, shape=(28, 28, 1), rows=rows)[0]
            for split, rows in (("train", keep(num_train)), ("validation", None), ("test", None))
        )
    except DamagedFileError:
        raise
    except DataUnavailableError:
        sampled = binarized_once(_mnist(data_dir, whole))
        return keep_rows(sampled._replace(name="mnist_static (own binarization)"), keep)
    splits = (train, validation, test)
    return Dataset("mnist_static", *splits, "static", num_train_of_all=num_train)


def _mnist_dynamic(data_dir: str, keep: KeepRows) -> Dataset:
    """Loads MNIST whose training pixels are sampled each time they are seen."""
    return binarized(_mnist(data_dir, keep))._replace(name="mnist_dynamic")


def _cifar10(data_dir: str, keep: KeepRows) -> Dataset:
    """Loads CIFAR-10 (Krizhevsky, 2009)."""
    return _tfds_splits("cifar10", data_dir, keep, shape=(32, 32, 3), num_validation=5_000)


def _fashion_mnist(data_dir: str, keep: KeepRows) -> Dataset:
    """Loads Fashion-MNIST (Xiao et al., 2017)."""
    return _tfds_splits("fashion_mnist", data_dir, keep, shape=(28, 28, 1), num_validation=10_000)


def _tfds_splits(
    name: str,
    data_dir: str,
    keep: KeepRows,
    *,
    shape: tuple[int, int, int],
    num_validation: int,
) -> Dataset:
    """Reads a TFDS set of train and test, the last `num_validation` of train set apart."""
    stored = _tfds.count(name, "train", data_dir)
    num_train = stored - num_validation
    if num_train < 1:
        raise ValueError(
            f"{name}: expected more than {num_validation} training images, found {stored}; is "
            "another data set in its folder?"
        )
    read = lambda split, rows: _tfds.read(name, split, data_dir, shape=shape, rows=rows)
    train, train_labels = read("train", keep(num_train))
    validation, validation_labels = read("train", slice(num_train, None))
    test, test_labels = read("test", None)
    return Dataset(
        name=name,
        train=train,
        validation=validation,
        test=test,
        binarization="none",
        train_labels=train_labels,
        validation_labels=validation_labels,
        test_labels=test_labels,
        num_train_of_all=num_train,
    )


def _kept(load_whole: Callable[[str], Dataset]) -> "_Loader":
    """Gives a loader of whole files the rows to keep."""
    return lambda data_dir, keep: keep_rows(load_whole(data_dir), keep)


_Loader = Callable[[str, KeepRows], Dataset]
_GREY: dict[str, _Loader] = {
    "mnist_dynamic": _mnist,
    "omniglot": _kept(omniglot),
    "digits": _kept(lambda _: embedded.digits()),
}
_LOADERS: dict[str, _Loader] = {
    "mnist": _mnist,
    "mnist_static": _mnist_static,
    "mnist_dynamic": _mnist_dynamic,
    "omniglot": _kept(lambda data_dir: binarized(omniglot(data_dir))),
    "caltech101_silhouettes": _kept(caltech101_silhouettes),
    "cifar10": _cifar10,
    "fashion_mnist": _fashion_mnist,
    "digits": _kept(lambda _: binarized(embedded.digits())),
    "patches": _kept(lambda _: embedded.patches()),
}
NAMES: tuple[str, ...] = tuple(_LOADERS)
