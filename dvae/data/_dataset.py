"""What every source returns, the error they share, and sampling done once."""

from typing import Literal, NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """One image data set, split, in host memory."""

    name: str  # the label to print beside results, e.g. "omniglot (own split)"
    train: np.ndarray  # uint8 [N, H, W, C]
    validation: np.ndarray  # uint8 [N', H, W, C]
    test: np.ndarray  # uint8 [N'', H, W, C]
    # How pixels are to be read. "none": 256 levels, 0..255, in every split. "static": 0 or 1 in
    # every split. "dynamic": train is grey, 0..255, to be Bernoulli-sampled each time it is seen
    # (batches.binarize); validation and test are 0 or 1, sampled once with a fixed seed.
    binarization: Literal["none", "static", "dynamic"]
    train_labels: np.ndarray | None = None  # int32 [N], where the source has classes
    validation_labels: np.ndarray | None = None  # int32 [N']
    test_labels: np.ndarray | None = None  # int32 [N'']


class DataUnavailableError(RuntimeError):
    """A data set is not in the data folder and could not be prepared there (one line says why)."""


# Ends every message, so that someone without a network has a next step.
EMBEDDED_HINT = "sets that need no files: --dataset=patches (color), or digits (binary)"


def sample_once(images: np.ndarray, seed: int) -> np.ndarray:
    """Draws Bernoulli(images / 255) once, the same at every call; uint8 0 or 1, same shape."""
    # u uniform on {0, ..., 254} gives P(u < v) = v / 255 with no rounding, 0 and 1 included.
    uniform = np.random.default_rng(seed).integers(0, 255, size=images.shape, dtype=np.uint8)
    return (uniform < images).astype(np.uint8)


def binarized(dataset: Dataset) -> Dataset:
    """Reads the grey levels of a data set as probabilities of binary pixels.

    Training images stay grey, to be sampled each time they are seen (`batches.binarize`);
    validation and test images are sampled once, with fixed seeds.

    Raises:
      ValueError: the data set is not one of grey levels.
    """
    if dataset.binarization != "none":
        raise ValueError(f"{dataset.name} is binary already ({dataset.binarization})")
    return dataset._replace(
        validation=sample_once(dataset.validation, seed=1),
        test=sample_once(dataset.test, seed=2),
        binarization="dynamic",
    )
