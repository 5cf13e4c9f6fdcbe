"""OMNIGLOT at 28x28: the published split where its file is at hand, else one made from TFDS."""

import math
import os

import numpy as np

from dvae.data import _tfds
from dvae.data._dataset import Dataset, read_mat

__all__ = ["area_weights", "omniglot"]

NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 23_000, 1_345, 8_070


def omniglot(data_dir: str) -> Dataset:
    """Loads OMNIGLOT in gray: 23,000 training, 1,345 validation and 8,070 test drawings.

    `omniglot/chardata.mat` in `data_dir` is the split of Burda et al., "Importance Weighted
    Autoencoders" (ICLR 2016), 24,345 / 8,070. Without it, all 32,460 drawings of TFDS `omniglot`
    are area-averaged from 105x105 to 28x28, permuted once by a fixed seed and cut to the same
    sizes; results on that are named "omniglot (own split)", for they compare with published ones
    only roughly. Either way the last 1,345 training images are for validation.

    Returns:
        A "none" data set of uint8 [N, 28, 28, 1]; background 0, ink 255.
    """
    published = os.path.join(data_dir, "omniglot", "chardata.mat")
    if os.path.isfile(published):
        name, train, test = "omniglot", *_read_published(published)
    else:
        parts = [
            _tfds.read("omniglot", split, data_dir, shape=(105, 105, 3), transform=_shrink)[0]
            for split in ("train", "test")
        ]
        pool = np.concatenate(parts)
        pool = pool[np.random.default_rng(0).permutation(len(pool))]
        name = "omniglot (own split)"
        train, test, _ = np.split(
            pool, [NUM_TRAIN + NUM_VALIDATION, NUM_TRAIN + NUM_VALIDATION + NUM_TEST]
        )
    return Dataset(name, train[:NUM_TRAIN], train[NUM_TRAIN:], test, "none")


def _read_published(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads chardata.mat: one image a column, its pixels column by column, 0..1, ink positive."""
    arrays = []
    file = read_mat(path, ["data", "testdata"])
    for key, count in (("data", NUM_TRAIN + NUM_VALIDATION), ("testdata", NUM_TEST)):
        if key not in file or file[key].shape != (784, count):
            found = file[key].shape if key in file else "nothing"
            raise ValueError(
                f"omniglot: expected {key} of shape (784, {count}) in {path}, found {found}"
            )
        upright = file[key].T.reshape(-1, 28, 28).transpose(0, 2, 1)[..., None]
        arrays.append(np.rint(255.0 * upright).astype(np.uint8))
    return arrays[0], arrays[1]


def _shrink(images: np.ndarray) -> np.ndarray:
    """Area-averages black ink on white [B, 105, 105, 3] to ink-positive uint8 [B, 28, 28, 1]."""
    weights = area_weights(105, 28)
    ink = np.float32(255) - images[..., 0]
    # Integers below 2^24 throughout, so float32 is exact and every machine gets the same pixels.
    total = weights @ ink @ weights.T
    scale = weights.sum(axis=1)[0] ** 2
    return np.rint(total / scale).astype(np.uint8)[..., None]


def area_weights(size_in: int, size_out: int) -> np.ndarray:
    """Returns how much of each input pixel lies in each output box, in units that make it whole.

    With g = gcd(size_in, size_out), a pixel is size_out / g units long and a box size_in / g:
    weights[i, j] is the length of the overlap of box i and pixel j. Divide by the row sum
    size_in / g for the mean.

    Returns:
        float32 [size_out, size_in], whole numbers.
    """
    divisor = math.gcd(size_in, size_out)
    pixel, box = size_out // divisor, size_in // divisor
    box_start = box * np.arange(size_out)[:, None]
    pixel_start = pixel * np.arange(size_in)[None, :]
    stop = np.minimum(box_start + box, pixel_start + pixel)
    return np.maximum(stop - np.maximum(box_start, pixel_start), 0).astype(np.float32)
