"""Own images as a `Dataset`: checks, labels, splits that are set apart, pixels made binary.

    dataset = data.from_arrays(train, test, train_labels=labels, name="stamps")

Images are uint8 levels 0..255 or floats in [0, 1], which are rounded to 256 levels: [N, H, W, C]
with one or three channels, or gray [N, H, W]. Where no validation images come along, the last tenth
of the training images is set apart. Labels are numbers of classes, int [N], or real vectors, float
[N, C]: dtype and rank decide, and all splits have the same kind.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dvae.data._dataset import (
    CHANGES,
    SPLITS,
    Binarization,
    Dataset,
    KeepRows,
    check_binarization,
    keep_rows,
    whole,
)
from dvae.data._pixels import checked, is_binary

__all__ = ["VALIDATION_SHARE", "from_arrays"]

VALIDATION_SHARE = 0.1  # of training images, set apart where there is no validation split


def from_arrays(
    train: ArrayLike,
    test: ArrayLike,
    validation: ArrayLike | None = None,
    *,
    train_labels: ArrayLike | None = None,
    validation_labels: ArrayLike | None = None,
    test_labels: ArrayLike | None = None,
    name: str = "own images",
    binarization: Binarization = "none",
) -> Dataset:
    """Makes a data set of arrays.

    uint8 arrays are taken as they are, memory-mapped ones without being read. Floats in [0, 1]
    become the nearest of 256 levels, round(255 x); booleans become 0 and 255.

    Args:
        train: uint8 [N, H, W, C] in 0..255, float in [0, 1] or bool; C is 1 or 3, or [N, H, W].
        test: likewise [N'', ...].
        validation: likewise [N', ...]; None: the last tenth of `train`, at least one image.
        train_labels: int [N], 0 or more; or finite float [N, C], C at least 1.
        validation_labels: likewise of N' images; None where `validation` is, and cut off
            `train_labels`.
        test_labels: likewise of N'' images.
        name: the label to print beside results and in messages.
        binarization: "none": levels. "static": pixels are 0 or 1 already. "dynamic": levels are
            means of binary pixels, see `binarized`; "once": sampled now, see `binarized_once`.
            "threshold": see `thresholded`.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: an array has another dtype, shape or value, a split is empty, shapes of splits
            differ, or labels do not fit; the message names the data set and the split.
    """
    check_binarization(binarization)
    given = {"train": train, "validation": validation, "test": test}
    images = {split: np.asanyarray(x) for split, x in given.items() if x is not None}
    labels = {"train": train_labels, "validation": validation_labels, "test": test_labels}
    arrays = {split: np.asarray(x) for split, x in labels.items() if x is not None}
    static = binarization == "static"
    dataset = assemble(Parts(name, name, checked(name, images, bits=static), arrays))
    if static:
        return dataset._replace(binarization="static")
    change = CHANGES.get(binarization)
    if change and is_binary([dataset.test, dataset.validation, dataset.train]):
        raise ValueError(f'{name} has pixels 0 and 1, no levels; give binarization="static"')
    return change(dataset) if change else dataset


class Parts(NamedTuple):
    """Images of the splits that a source has, with a first axis to cut, and their labels."""

    name: str  # of the data set
    where: str  # the file or folder, for messages
    images: Mapping[str, np.ndarray]  # split -> [N, H, W, C]; "train" is there
    labels: Mapping[str, np.ndarray]  # split -> int [N] or float [N, C]
    cropped_from: tuple[int, int] | None = None  # see `Dataset`
    mixed: bool = False  # the order is that of a hash, so that every part holds all kinds


def assemble(parts: Parts, *, keep: KeepRows = whole, test_share: float = 0.0) -> Dataset:
    """Sets splits apart that a source lacks, and checks labels.

    Args:
        parts: what the source has.
        keep: which training images are loaded, of how many there are.
        test_share: share of the training images for the test, where there is no test split; they
            are the last ones, and those for validation come before them.

    Raises:
        ValueError: a split is empty, or test_share is missing, idle or out of range.
    """
    where, images, labels = parts.where, dict(parts.images), _checked_labels(parts)
    for split in images:
        if not len(images[split]):
            raise ValueError(f"{where}: {split} holds no images; add some")
    if "test" in images and test_share:
        raise ValueError(
            f"{where} has a test split, beside which test_share={test_share:g} does nothing; leave "
            "it out"
        )
    if "test" not in images:
        if not test_share:
            raise ValueError(
                f"{where} has no test split; add one, or set a share of the images apart by "
                "--test_share=0.1"
            )
        check_share(test_share)
        _set_apart(parts, images, labels, "test", test_share)
    if "validation" not in images:
        _set_apart(parts, images, labels, "validation", VALIDATION_SHARE)
    dataset = Dataset(
        parts.name,
        images["train"],
        images["validation"],
        images["test"],
        "none",
        labels.get("train"),
        labels.get("validation"),
        labels.get("test"),
        cropped_from=parts.cropped_from,
    )
    return keep_rows(dataset, keep)


def check_share(test_share: float) -> None:
    """Raises ValueError unless a share leaves images on either side."""
    if not 0 < test_share < 1:
        raise ValueError(f"test_share={test_share} must be above 0 and below 1, such as 0.1")


def _set_apart(
    parts: Parts,
    images: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    split: str,
    share: float,
) -> None:
    """Moves the last images of train to another split."""
    total = len(images["train"])
    # Rounded first: 0.29 * 100 is a little less than 29.
    count = max(1, math.floor(round(share * total, 6)))
    if count >= total:
        raise ValueError(
            f"{parts.where}: {total} training image{'s' if total > 1 else ''} leave none to train "
            f"on, once {count} {'is' if count == 1 else 'are'} set apart for {split}; add images"
        )
    if (known := labels.get("train")) is not None:
        rising = (known[0] != known[-1]) & (np.diff(known, axis=0) >= 0).all(0)
        if not parts.mixed and rising.any():  # in a number of a vector, or in the class
            raise ValueError(
                f"{parts.where}: train is sorted by its labels, so that its last images, set apart "
                f"for {split}, would be of one kind; shuffle it, or add a {split} split"
            )
        labels["train"], labels[split] = known[:-count], known[-count:]
    images["train"], images[split] = images["train"][:-count], images["train"][-count:]


def _checked_labels(parts: Parts) -> dict[str, np.ndarray]:
    """Returns labels as int32 [N] or float32 [N, C], of one kind in all splits."""
    labels: dict[str, np.ndarray] = {}
    for split, array in parts.labels.items():
        if split not in parts.images:
            raise ValueError(f"{parts.where} has labels of {split} and no images of it; add them")
        count, what = len(parts.images[split]), f"{parts.where}: labels of {split}"
        real = np.issubdtype(array.dtype, np.floating)
        if real and array.shape == (count,):
            raise ValueError(
                f"{what} must be integers [N], or real vectors [N, C], got {array.dtype} "
                f"{array.shape}; classes are labels.astype(int), vectors of one number "
                "labels[:, None]"
            )
        fits = real or np.issubdtype(array.dtype, np.integer)
        if not fits or len(array.shape) != 1 + real or len(array) != count or 0 in array.shape[1:]:
            raise ValueError(
                f"{what} must be integers [N], or floats [N, C] with C at least 1, one for each of "
                f"the {count} images, got {array.dtype} {array.shape}"
            )
        labels[split] = (_vectors if real else _classes)(what, array)
    kinds = {split: array.shape[1:] for split, array in labels.items()}
    for split, kind in kinds.items():
        if kind != (first := next(iter(kinds.values()))):
            raise ValueError(
                f"{parts.where}: labels of {next(iter(kinds))} are {_kind(first)} and those of "
                f"{split} {_kind(kind)}; all must be alike"
            )
    return labels


def _classes(what: str, array: np.ndarray) -> np.ndarray:
    if array.size and not 0 <= array.min() <= array.max() < 2**31:
        raise ValueError(
            f"{what} must be numbers of classes from 0 on, got {array.min()} to {array.max()}"
        )
    return array.astype(np.int32)


def _vectors(what: str, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # an infinity, which is refused
        vectors = array.astype(np.float32)
    if not (good := np.isfinite(vectors)).all():
        raise ValueError(
            f"{what} must be finite in float32, got {array[~good][0]:g} at row "
            f"{np.nonzero(~good)[0][0]}; leave such images out"
        )
    return vectors


def _kind(shape: tuple[int, ...]) -> str:
    return f"vectors of {shape[0]} numbers" if shape else "integers"


def as_static(dataset: Dataset) -> Dataset:
    """Marks a data set of levels as one of binary pixels, if no level exceeds 1."""
    images = [getattr(dataset, split) for split in reversed(SPLITS)]
    return dataset._replace(binarization="static") if is_binary(images) else dataset
