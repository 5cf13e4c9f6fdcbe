"""Folders of image files: which files belong to which split and class, and how they are read.

    FOLDER/train/..., FOLDER/test/..., FOLDER/validation/...     splits by folders, or
    FOLDER/...                                                   one folder, split by a share

and in each, image files, or a folder of them for every class. Files come in an order that depends
on their names alone and looks random, so that shares of it hold all kinds.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from dvae._extras import needed
from dvae.data._arrays import Parts
from dvae.data._dataset import SPLITS, fitted
from dvae.data._files import base_name, damaged
from dvae.data._pixels import describe

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
_FORMATS = ("PNG", "JPEG", "WEBP")
_CHANNELS = {"1": 1, "L": 1, "LA": 1, "RGB": 3, "RGBA": 3, "P": 3, "PA": 3}
_ORIENTATION = 0x0112  # of EXIF; 5 to 8 exchange height and width
_SYSTEM = ("Thumbs.db", "desktop.ini", "__MACOSX")
_THREADS = 8  # decoding leaves Python's lock
Source = str | BinaryIO  # what Pillow opens


class Pictures:
    """Encoded images as an array [N, H, W, C] that is decoded where it is indexed."""

    def __init__(
        self, read: Callable[[int], np.ndarray], rows: Sequence[int], shape: tuple[int, int, int]
    ) -> None:
        """Remembers where images are.

        Args:
            read: number of an image in its source -> uint8 [H, W, C].
            rows: the numbers of the images in here.
            shape: H, W, C.
        """
        self._read, self._rows = read, rows
        self.shape, self.dtype, self.ndim = (len(rows), *shape), np.dtype(np.uint8), 4

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._rows)

    def __getitem__(self, rows: Any) -> Any:
        """Returns other `Pictures` for a slice, and decoded images for indices [...]."""
        if isinstance(rows, slice):
            return Pictures(self._read, self._rows[rows], self.shape[1:])
        indices = np.asarray(rows)
        images = self._decode([self._rows[i] for i in indices.ravel()])
        return images.reshape(*indices.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Decodes all images, uint8 [N, H, W, C].

        Raises:
            DamagedFileError: one cannot be read.
            ValueError: one is transparent, or not of the shape that it had at first.
        """
        del copy  # there is nothing to share
        return self._decode(self._rows).astype(dtype or np.uint8, copy=False)

    def _decode(self, numbers: Sequence[int]) -> np.ndarray:
        out = np.empty((len(numbers), *self.shape[1:]), np.uint8)

        def put(i: int) -> None:
            out[i] = self._read(numbers[i])

        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in pool.map(put, range(len(numbers))):
                pass
        return out


def reader(
    open_one: Callable[[int], tuple[Source, str]], shape: tuple[int, int, int], image_size: int
) -> Callable[[int], np.ndarray]:
    """Returns what decodes the image of a number, for `Pictures`.

    Args:
        open_one: number -> what Pillow opens, and how messages call it.
        shape: H, W, C that it must have in the end.
        image_size: see `read_picture`.
    """

    def read(number: int) -> np.ndarray:
        source, where = open_one(number)
        image = read_picture(source, where, image_size)
        if image.shape != shape:
            raise ValueError(
                f"{where} has {describe(image.shape)}, and others {describe(shape)}; images must "
                "be all gray or all in color, and --image_size=S makes all of them SxS"
            )
        return image

    return read


def start_pillow() -> None:
    """Imports what reads image files, before several threads do."""
    with needed("reading image files", "data"):
        import PIL.Image

        PIL.Image.init()


def read_folder(folder: str, image_size: int = 0) -> Parts:
    """Surveys a folder of images; its files are decoded when `Pictures` are read.

    Raises:
        DamagedFileError: the head of a file cannot be read.
        ValueError: a file is no image, or one of another kind or size; the message names it.
    """
    start_pillow()
    folders = {s: os.path.join(folder, s) for s in SPLITS if os.path.isdir(os.path.join(folder, s))}
    if "train" in folders:
        for name in _listed(folder):
            if name not in folders:
                raise ValueError(
                    f"{os.path.join(folder, name)} lies beside the folders of the splits; move it "
                    f"elsewhere, or into one of {', '.join(SPLITS)}"
                )
    elif folders:
        raise ValueError(f"{folder} has a folder {next(iter(folders))} and none of train; add one")
    else:
        folders = {"train": folder}
    files = {split: _files(path) for split, path in folders.items()}
    classes = sorted({kind for _, kind in files["train"] if kind})
    paths, labels = {}, {}
    for split, found in files.items():
        paths[split] = [path for path, _ in found]
        if unknown := {kind for _, kind in found if kind} - set(classes):
            raise ValueError(
                f"{os.path.join(folders[split], min(unknown))} is a class that {folders['train']} "
                "lacks; add its images there, or remove it"
            )
        if classes and found and not found[0][1]:
            raise ValueError(
                f"{folders['train']} has a folder for every class and {folders[split]} has none"
            )
        if classes:
            labels[split] = np.array([classes.index(kind) for _, kind in found], np.int32)
    shape, cropped_from = _survey([p for split in paths.values() for p in split], image_size)
    pictures: dict[str, Any] = {}
    for split, names in paths.items():
        open_one = lambda i, names=names: (names[i], names[i])
        read = reader(open_one, shape, image_size)
        pictures[split] = Pictures(read, range(len(names)), shape)
    return Parts(base_name(folder), folder, pictures, labels, cropped_from, mixed=True)


def _listed(folder: str) -> list[str]:
    """Returns the names in a folder, but for hidden ones and those of other systems."""
    return sorted(n for n in os.listdir(folder) if not n.startswith(".") and n not in _SYSTEM)


def _files(folder: str) -> list[tuple[str, str]]:
    """Returns (path, class or "") of the images of a split, in the order of a hash of the names."""
    names = _listed(folder)
    inside = {name: os.path.isdir(os.path.join(folder, name)) for name in names}
    if any(inside.values()) and not all(inside.values()):
        file = next(name for name in names if not inside[name])
        raise ValueError(
            f"{os.path.join(folder, file)} lies beside folders; a folder holds images, or a folder "
            "for every class"
        )
    found = []
    for kind in names if any(inside.values()) else [""]:
        place = os.path.join(folder, kind) if kind else folder
        images = _listed(place)
        if not images:
            raise ValueError(f"{place} holds no images; add some, or remove it")
        for name in images:
            path = os.path.join(place, name)
            if not name.lower().endswith(_ENDINGS) or os.path.isdir(path):
                raise ValueError(
                    f"{path} is no image file ({', '.join(_ENDINGS)}); move it elsewhere"
                )
            found.append((path, kind))
    order = lambda item: hashlib.sha256(f"{item[1]}/{os.path.basename(item[0])}".encode()).digest()
    return sorted(found, key=order)


def _survey(
    paths: Sequence[str], image_size: int
) -> tuple[tuple[int, int, int], tuple[int, int] | None]:
    """Reads the heads of all files.

    Returns:
        The one shape that their images have in the end, and H, W of the first that is cropped.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        shapes = list(pool.map(lambda path: shape_of(path, path), sorted(paths)))
    first, last = sorted(paths)[0], shapes[0]
    for path, shape in zip(sorted(paths), shapes, strict=True):
        if shape[2] != last[2]:
            kind = "gray" if shape[2] == 1 else "color"
            raise ValueError(
                f"{path} is in {kind} and {first} is not; convert one or the other, images must "
                "be all gray or all in color"
            )
        if not image_size and shape != last:
            raise ValueError(
                f"{path} has {describe(shape)} and {first} {describe(last)}; --image_size=S crops "
                "and resizes all of them to SxS"
            )
    if not image_size:
        return last, None
    cropped_from = next((shape[:2] for shape in shapes if shape[0] != shape[1]), None)
    return (image_size, image_size, last[2]), cropped_from


def shape_of(source: Source, where: str) -> tuple[int, int, int]:
    """Returns H, W, C of an image as `read_picture` returns it, without decoding it."""
    with _opened(source, where) as image:
        width, height = image.size
        if _orientation(image) in (5, 6, 7, 8):
            width, height = height, width
        return height, width, _CHANNELS[image.mode]


def read_picture(source: Source, where: str, size: int = 0) -> np.ndarray:
    """Decodes an image, upright as its EXIF orientation says: uint8 [H, W, C].

    Args:
        source: a path, or an open file.
        where: it comes from, for messages.
        size: side that it is cropped and resized to; 0: it is not.

    Raises:
        DamagedFileError: it cannot be read.
        ValueError: it is of another kind: CMYK, 16 bits, transparent, several frames.
    """
    from PIL import ImageOps

    with _opened(source, where) as image:
        turned, channels = _orientation(image) != 1, _CHANNELS[image.mode]
        try:
            image.load()
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise damaged(where, error) from error
        upright = ImageOps.exif_transpose(image) if turned else image
        if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
            _refuse_transparent(upright.convert("RGBA"), where)
        mode = "L" if channels == 1 else "RGB"
        flat = upright if upright.mode == mode else upright.convert(mode)
        pixels = np.asarray(fitted(flat, size) if size else flat)
        return pixels.reshape(*pixels.shape[:2], channels)


def _orientation(image: Any) -> int:
    """Returns how an image that is not decoded yet is to be turned."""
    # Pillow would decode a PNG to look behind its pixels.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return image.getexif().get(_ORIENTATION, 1)


def _refuse_transparent(image: Any, where: str) -> None:
    if np.asarray(image)[..., 3].min() < 255:
        raise ValueError(
            f"{where} has transparent pixels, whose color is open; lay it on a background first"
        )


@contextmanager
def _opened(source: Source, where: str) -> Iterator[Any]:
    """Opens an image of a kind that can be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(source, formats=_FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"{where} is no PNG, JPEG or WebP image; move it elsewhere") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise damaged(where, error) from error
    reason = ""
    # Pillow itself drops the lower bytes of colors of 16 bits as it decodes; the tiles tell.
    if image.mode.startswith(("I", "F")) or ";16" in str(getattr(image, "tile", "")):
        reason = "has 16 bits a channel or more; reduce it to 8"
    elif image.mode not in _CHANNELS:
        reason = f"has {image.mode} pixels; convert it to gray or RGB"
    elif image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:
        reason = f"has {frames} frames; save one of them as an image"
    with image:
        if reason:
            raise ValueError(f"{where} {reason}")
        yield image
