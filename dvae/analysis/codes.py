"""What discrete codes say of the classes of images: counts, majority classes and accuracy.

counts = codes.confusion(train_codes, train_labels, num_codes=10, num_classes=10)
classes = codes.majority_classes(counts)                       # of each code
accuracy = codes.accuracy(classes, test_codes, test_labels)
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["accuracy", "confusion", "majority_classes"]


def confusion(
    codes: ArrayLike, labels: ArrayLike, *, num_codes: int, num_classes: int
) -> NDArray[np.int64]:
    """Counts the images of every class and code.

    Args:
        codes: int [N], 0 to num_codes - 1.
        labels: int [N], 0 to num_classes - 1.
        num_codes: how many codes there are.
        num_classes: how many classes there are.

    Returns:
        [num_classes, num_codes].

    Raises:
        ValueError: if the shapes differ, or a code or label is no integer or out of range.
    """
    codes, labels = np.asarray(codes), np.asarray(labels)
    _check_integers(codes, labels)
    if codes.ndim != 1 or codes.shape != labels.shape:
        raise ValueError(
            f"codes and labels must be [N] alike, got shapes {codes.shape} and {labels.shape}"
        )
    _check_range("codes", codes, num_codes)
    _check_range("labels", labels, num_classes)
    # Labels of few bits would wrap around in the product.
    cells = labels.astype(np.int64) * num_codes + codes.astype(np.int64)
    counts = np.bincount(cells, minlength=num_classes * num_codes)
    return counts.reshape(num_classes, num_codes)


def majority_classes(counts: ArrayLike) -> NDArray[np.int64]:
    """Returns the commonest class of every code; an unused code gets the commonest of all.

    Args:
        counts: [num_classes, num_codes], of the images that classes are read off.

    Returns:
        int [num_codes].
    """
    counts = np.asarray(counts)
    return np.where(counts.sum(0) > 0, counts.argmax(0), counts.sum(1).argmax())


def accuracy(classes: ArrayLike, codes: ArrayLike, labels: ArrayLike) -> float:
    """Returns the share of images whose code has their class.

    Args:
        classes: int [num_codes], from `majority_classes` of other images.
        codes: int [N], 0 to num_codes - 1.
        labels: int [N].

    Raises:
        ValueError: if there are no images, the shapes differ, a code is out of range, or labels
            are no integers.
    """
    codes, labels = np.asarray(codes), np.asarray(labels)
    _check_integers(codes, labels)
    if not len(codes) or codes.shape != labels.shape:
        raise ValueError(
            f"codes and labels must be [N] alike with N at least 1, got shapes {codes.shape} and "
            f"{labels.shape}"
        )
    classes = np.asarray(classes)
    _check_range("codes", codes, len(classes))  # -1 would be the last code
    return float((classes[codes] == labels).mean())


def _check_range(name: str, values: NDArray[Any], size: int) -> None:
    if len(values) and not 0 <= values.min() <= values.max() < size:
        raise ValueError(
            f"{name} must be 0 to {size - 1}, got {values.min()} to {values.max()}; leave out what "
            "has none"
        )


def _check_integers(codes: NDArray[Any], labels: NDArray[Any]) -> None:
    for name, values in (("codes", codes), ("labels", labels)):
        if values.size and values.dtype.kind not in "iub":
            raise ValueError(
                f"{name} must be integers [N], got {values.dtype} {values.shape}; real labels have "
                "no classes, so bin them first"
            )
