"""What every source returns, the error they share, and sampling done once."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from dvae import _extras

# Ends every message, so that someone without a network has a next step.
EMBEDDED_HINT = "sets that need no files (--dataset): patches (color), or digits (binary)"

THRESHOLD = 127  # the highest level that `thresholded` makes a 0 of
SPLITS = ("train", "validation", "test")
# What a caller may ask for.
Binarization = Literal["none", "static", "dynamic", "once", "threshold"]


class Dataset(NamedTuple):
    """One image data set, split, in host memory."""

    name: str  # the label to print beside results, e.g. "omniglot (own split)"
    train: np.ndarray  # uint8 [N, H, W, C]
    validation: np.ndarray  # uint8 [N', H, W, C]
    test: np.ndarray  # uint8 [N'', H, W, C]
    # How pixels are to be read. "none": 256 levels, 0..255, in every split. "static": 0 or 1 in
    # every split. "dynamic": train is gray, 0..255, to be Bernoulli-sampled each time it is seen
    # (batches.binarize); validation and test are 0 or 1, sampled once with a fixed seed.
    binarization: Literal["none", "static", "dynamic"]
    # int32 [N] where the source has classes, or float32 [N, C] where it has real vectors.
    train_labels: np.ndarray | None = None
    validation_labels: np.ndarray | None = None  # of N' images, and of the same kind
    test_labels: np.ndarray | None = None
    # Training images of all processes together, where this one has loaded some of them only.
    num_train_of_all: int | None = None
    # H, W of the images, or of the first such one, whose square in the middle was taken.
    cropped_from: tuple[int, int] | None = None

    @property
    def num_train(self) -> int:
        """Returns the number of training images, those of other processes included."""
        return len(self.train) if self.num_train_of_all is None else self.num_train_of_all

    @property
    def has_classes(self) -> bool:
        """Returns whether the training images have labels, and these are integers."""
        return self.train_labels is not None and self.train_labels.ndim == 1


def check_binarization(binarization: str) -> None:
    """Raises ValueError for a name that is none of `Binarization`."""
    if binarization not in get_args(Binarization):
        raise ValueError(
            f"binarization must be one of {', '.join(get_args(Binarization))}, got {binarization!r}"
        )


KeepRows = Callable[[int], slice]  # of how many training images there are -> those to load


def whole(num_rows: int) -> slice:
    """Keeps all training images."""
    return slice(0, num_rows)


def keep_rows(dataset: Dataset, keep: KeepRows) -> Dataset:
    """Drops the training images that another process keeps, of a set that was loaded whole."""
    rows = keep(len(dataset.train))
    labels = dataset.train_labels
    return dataset._replace(
        train=dataset.train[rows],
        train_labels=None if labels is None else labels[rows],
        num_train_of_all=len(dataset.train),
    )


def joined(dataset: Dataset, keep: KeepRows = whole) -> Dataset:
    """Moves the validation images behind the training images, and leaves none for validation.

    Args:
        dataset: loaded whole, of levels, or of binary pixels in every split.
        keep: which of all these images to keep.

    Returns:
        Dataset with N + M training and no validation images.

    Raises:
        ValueError: training images are left in files, or sampled where the others were sampled
            once ("dynamic").
    """
    if type(dataset.train) is not np.ndarray:
        raise ValueError(f"{dataset.name} leaves its images in files, which no others can join")
    if dataset.binarization == "dynamic":
        raise ValueError(
            f"{dataset.name} has gray training images and binary validation images; join them "
            "first (data.load_grey), and sample them afterwards (data.binarized)"
        )
    labels, more = dataset.train_labels, dataset.validation_labels
    none = slice(0, 0)
    together = dataset._replace(
        train=np.concatenate([dataset.train, dataset.validation]),
        train_labels=None if labels is None or more is None else np.concatenate([labels, more]),
        validation=dataset.validation[none],
        validation_labels=None if more is None else more[none],
    )
    return keep_rows(together, keep)


class DataUnavailableError(RuntimeError):
    """A data set is not in the data folder and could not be prepared there (one line says why)."""


class DamagedFileError(DataUnavailableError):
    """A file of a data set is there and cannot be read."""


def missing_folder(path: str) -> str:
    """Describes a data folder that is none, for a message, behind its name."""
    from etils import epath

    folder = epath.Path(path)
    if folder.is_dir():
        return ""
    return ", which is no folder" if folder.exists() else ", a folder that does not exist"


def read_mat(path: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads arrays of a MATLAB file; DamagedFileError if that fails."""
    from scipy.io import loadmat

    try:
        return loadmat(path, variable_names=list(names))
    except Exception as error:  # of SciPy's reader, zlib and NumPy
        reason = " ".join(str(error).split())[:200]
        raise DamagedFileError(
            f"{path} cannot be read ({type(error).__name__}: {reason}); the file is damaged: get "
            f"it again; {EMBEDDED_HINT}"
        ) from error


def sample_once(images: np.ndarray, seed: int) -> np.ndarray:
    """Draws Bernoulli(images / 255) once, the same at every call.

    Args:
        images: uint8 [...] levels 0..255.
        seed: of the draw.

    Returns:
        uint8 [...] of 0 and 1.
    """
    # u uniform on {0, ..., 254} gives P(u < v) = v / 255 with no rounding, 0 and 1 included.
    uniform = np.random.default_rng(seed).integers(0, 255, size=images.shape, dtype=np.uint8)
    return (uniform < images).astype(np.uint8)


def resized(dataset: Dataset, size: int) -> Dataset:
    """Resizes gray or color images to size x size, by Pillow's antialiased bilinear filter.

    Of images that are not square, the square in the middle is taken.

    Args:
        dataset: of gray or color levels.
        size: height and width, at least 1.

    Returns:
        Dataset with uint8 [N, size, size, C] in every split.

    Raises:
        ValueError: size is less than 1, or pixels are binary and would not stay so.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if dataset.binarization != "none":
        raise ValueError(
            f"{dataset.name} has binary pixels ({dataset.binarization}), and a filter makes gray "
            "ones of them; read its levels by data.load_grey "
            "(--binarization=threshold)"
        )
    height, width = dataset.train.shape[1:3]
    return dataset._replace(
        train=_resize(dataset.train, size),
        validation=_resize(dataset.validation, size),
        test=_resize(dataset.test, size),
        cropped_from=dataset.cropped_from if height == width else (height, width),
    )


def _resize(images: np.ndarray, size: int) -> np.ndarray:
    """Resizes uint8 [N, H, W, C] to [N, size, size, C]."""
    _extras.require("dvae.data.resized", "data", "PIL")
    from PIL import Image

    if images.shape[1:3] == (size, size):
        return images
    out = np.empty((len(images), size, size, images.shape[-1]), np.uint8)
    for i, image in enumerate(images):
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        out[i] = np.asarray(fitted(picture, size)).reshape(out.shape[1:])
    return out


def fitted(picture: Any, size: int) -> Any:
    """Resizes the square in the middle of a Pillow image to size x size."""
    from PIL import Image

    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = picture if width == height else picture.crop((left, top, left + side, top + side))
    return square.resize((size, size), Image.Resampling.BILINEAR)


def binarized(dataset: Dataset) -> Dataset:
    """Reads the gray levels of a data set as probabilities of binary pixels.

    Training images stay gray, to be sampled each time they are seen (`batches.binarize`);
    validation and test images are sampled once, with fixed seeds.

    Args:
        dataset: of levels, `binarization` "none".

    Returns:
        Dataset with `binarization` "dynamic".

    Raises:
        ValueError: the data set is not one of gray levels.
    """
    if dataset.binarization != "none":
        raise ValueError(f"{dataset.name} is binary already ({dataset.binarization})")
    return dataset._replace(
        validation=sample_once(dataset.validation, seed=1),
        test=sample_once(dataset.test, seed=2),
        binarization="dynamic",
    )


def binarized_once(dataset: Dataset) -> Dataset:
    """Reads gray levels as probabilities of binary pixels, sampled once in every split.

    Validation and test images are those of `binarized`.

    Args:
        dataset: of levels, `binarization` "none", in memory, with all training images.

    Returns:
        Dataset of uint8 0 and 1, with `binarization` "static".

    Raises:
        ValueError: the data set is not one of gray levels, or leaves its images in files.
    """
    sampled = binarized(dataset)
    _check_in_memory(dataset)
    return sampled._replace(train=sample_once(dataset.train, seed=0), binarization="static")


def as_levels(dataset: Dataset) -> Dataset:
    """Makes levels 0 and 255 of pixels that are 0 or 1 in every split."""
    levels = {split: 255 * getattr(dataset, split) for split in SPLITS}
    return dataset._replace(**levels, binarization="none")


def thresholded(dataset: Dataset) -> Dataset:
    """Makes binary pixels of gray levels, in every split: 1 above level 127, else 0.

    Args:
        dataset: of levels, `binarization` "none", in memory.

    Returns:
        Dataset of uint8 0 and 1, with `binarization` "static".

    Raises:
        ValueError: the data set is not one of gray levels, or leaves its images in files.
    """
    if dataset.binarization != "none":
        raise ValueError(f"{dataset.name} is binary already ({dataset.binarization})")
    _check_in_memory(dataset)
    bits = {split: (getattr(dataset, split) > THRESHOLD).astype(np.uint8) for split in SPLITS}
    return dataset._replace(**bits, binarization="static")


# Requests for bits, and what makes them of levels.
CHANGES: dict[str, Callable[[Dataset], Dataset]] = {
    "dynamic": binarized,
    "once": binarized_once,
    "threshold": thresholded,
}


def _check_in_memory(dataset: Dataset) -> None:
    """Raises ValueError if training images are in files, where a change can't reach them."""
    if not isinstance(dataset.train, np.ndarray):
        raise ValueError(
            f"{dataset.name} leaves its training images in files, where their pixels stay levels; "
            "load it without lazy=True"
        )
