"""Data sets that come with scikit-learn: nothing to fetch, the same arrays at every call."""

import numpy as np

from dvae.data._dataset import Dataset

PATCH_SIZE = 32
PHOTOGRAPHS = ("china.jpg", "flower.jpg")  # both 427 x 640

# The photographs are cut into ten strips of 64 columns, every other one for training: the halves
# share no pixel but look alike. (strips, crops taken from them)
STRIP_WIDTH = 64
PATCH_SPLITS = {
    "train": ((0, 2, 4, 6, 8), 20_000),
    "validation": ((5,), 1_000),
    "test": ((1, 3, 7, 9), 2_000),
}


def digits() -> Dataset:
    """Loads scikit-learn's 1,797 handwritten 8x8 digits, in grey.

    The 17 grey levels v are scaled to round(255 v / 16); one fixed permutation cuts the set into
    1,297 / 250 / 250. Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI).

    Returns:
      A "none" data set of uint8 [N, 8, 8, 1] with labels 0..9.
    """
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
    from sklearn.datasets import load_sample_image

    return np.stack([load_sample_image(name) for name in PHOTOGRAPHS])


def patches() -> Dataset:
    """Loads 32x32 colour crops of scikit-learn's two sample photographs.

    Both photographs are cut into ten strips of 64 columns. Every crop lies within one strip: of an
    even one for training, of the sixth for validation, of another odd one for the test. Crops
    overlap, so a random split of crops would put nearly every test pixel into the training set and
    a model could score by remembering it; disjoint strips share no pixel. Left and right halves
    would share none either, but hold different colors. Positions are drawn without repetition by a
    fixed seed, as many from either photograph, and the two alternate, so that every prefix is
    balanced.

    Returns:
      A "none" data set of uint8 [N, 32, 32, 3] with N = 20,000 / 1,000 / 2,000.
    """
    rng = np.random.default_rng(0)
    splits = {
        split: np.stack(
            [_crops(rng, photo, strips, count // 2) for photo in photographs()], axis=1
        ).reshape(count, PATCH_SIZE, PATCH_SIZE, 3)
        for split, (strips, count) in PATCH_SPLITS.items()
    }
    train, validation, test = (splits[split] for split in ("train", "validation", "test"))
    return Dataset("patches", train, validation, test, "none")


def _crops(
    rng: np.random.Generator, photo: np.ndarray, strips: tuple[int, ...], count: int
) -> np.ndarray:
    """Cuts `count` crops at distinct random positions out of strips of a photograph [H, W, C]."""
    windows = np.lib.stride_tricks.sliding_window_view(photo, (PATCH_SIZE, PATCH_SIZE), axis=(0, 1))
    offsets = np.arange(STRIP_WIDTH - PATCH_SIZE + 1)
    columns = (np.array(strips)[:, None] * STRIP_WIDTH + offsets).ravel()
    y, i = np.divmod(rng.permutation(windows.shape[0] * len(columns))[:count], len(columns))
    return windows[y, columns[i]].transpose(0, 2, 3, 1)
