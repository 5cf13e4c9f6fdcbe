"""Data sets that come with scikit-learn: nothing to fetch, the same arrays at every call."""

import numpy as np

from dvae import _extras
from dvae.data._dataset import Dataset

__all__ = [
    "BLOCK_SIZE",
    "PATCH_COUNTS",
    "PATCH_SIZE",
    "PHOTOGRAPHS",
    "PHOTO_SHAPE",
    "block_splits",
    "digits",
    "patches",
    "photographs",
    "seen_in_training",
]

PATCH_SIZE = 32
PHOTOGRAPHS = ("china.jpg", "flower.jpg")
PHOTO_SHAPE = (427, 640)  # of both

# The photographs are cut into blocks of 48x48 pixels. Those of every fifth diagonal are held out,
# in turn for validation and for the test. Of the five such choices this one has the splits that
# are most alike in colors and roughness.
BLOCK_SIZE = 48
PATCH_COUNTS = {"train": 20_000, "validation": 1_000, "test": 2_000}  # split -> crops


def digits() -> Dataset:
    """Loads scikit-learn's 1,797 handwritten 8x8 digits, in gray.

    The 17 gray levels v are scaled to round(255 v / 16); one fixed permutation cuts the set into
    1,297 / 250 / 250. Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI).

    Returns:
        A "none" data set of uint8 [N, 8, 8, 1] with labels 0..9.
    """
    _extras.require("the data set digits", "data", "sklearn")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.images))
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[order, :, :, None]
    labels = bunch.target.astype(np.int32)[order]
    train, validation, test = np.split(images, [1297, 1547])
    return Dataset(
        "digits",
        train,
        validation,
        test,
        "none",
        labels[:1297],
        labels[1297:1547],
        labels[1547:],
    )


def photographs() -> np.ndarray:
    """Loads scikit-learn's two sample photographs, uint8 [2, 427, 640, 3]."""
    _extras.require("the data set patches", "data", "sklearn", "PIL")
    from sklearn.datasets import load_sample_image

    return np.stack([load_sample_image(name) for name in PHOTOGRAPHS])


def patches() -> Dataset:
    """Loads 32x32 color crops of scikit-learn's two sample photographs.

    Both photographs are cut into blocks of 48x48 pixels (the lowest have 43 rows, and the last 16
    columns of pixels are left out), which go to the splits as `block_splits` says. Every crop lies
    within one block. Crops overlap, so a random split of crops would put nearly every test pixel
    into the training set, and a model could score by remembering it; blocks share no pixel.
    Positions are drawn without repetition by a fixed seed, as many from either photograph, and the
    two alternate, so that every prefix is balanced.

    Returns:
        A "none" data set of uint8 [N, 32, 32, 3] with N = 20,000 / 1,000 / 2,000.
    """
    rng = np.random.default_rng(0)
    owners = block_splits()
    splits = {
        split: np.stack(
            [_crops(rng, photo, owners == split, count // 2) for photo in photographs()], axis=1
        ).reshape(count, PATCH_SIZE, PATCH_SIZE, 3)
        for split, count in PATCH_COUNTS.items()
    }
    train, validation, test = (splits[split] for split in ("train", "validation", "test"))
    return Dataset("patches", train, validation, test, "none")


def block_splits() -> np.ndarray:
    """Returns the split of every block of a photograph: text [9, 14], from the upper left."""
    rows, columns = np.mgrid[tuple(slice(-(-length // BLOCK_SIZE)) for length in PHOTO_SHAPE)]
    held_out = np.where(rows % 2 == 0, "validation", "test")
    splits = np.where((rows + columns) % 5 == 1, held_out, "train")
    return np.where(columns * BLOCK_SIZE + PATCH_SIZE > PHOTO_SHAPE[1], "unused", splits)


def seen_in_training() -> np.ndarray:
    """Returns which pixels of a photograph lie in training blocks, bool [427, 640]."""
    blocks = block_splits() == "train"
    pixels = blocks.repeat(BLOCK_SIZE, axis=0).repeat(BLOCK_SIZE, axis=1)
    return pixels[: PHOTO_SHAPE[0], : PHOTO_SHAPE[1]]


def _crops(
    rng: np.random.Generator, photo: np.ndarray, blocks: np.ndarray, count: int
) -> np.ndarray:
    """Cuts `count` crops at distinct random positions out of the marked blocks of [H, W, C]."""
    windows = np.lib.stride_tricks.sliding_window_view(photo, (PATCH_SIZE, PATCH_SIZE), axis=(0, 1))
    y, x = np.mgrid[: windows.shape[0], : windows.shape[1]]
    fits = np.maximum(y % BLOCK_SIZE, x % BLOCK_SIZE) <= BLOCK_SIZE - PATCH_SIZE
    rows, columns = np.nonzero(fits & blocks[y // BLOCK_SIZE, x // BLOCK_SIZE])
    chosen = rng.permutation(len(rows))[:count]
    return windows[rows[chosen], columns[chosen]].transpose(0, 2, 3, 1)
