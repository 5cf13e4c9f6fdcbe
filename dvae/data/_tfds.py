"""Reading TFDS splits as arrays without TensorFlow, and preparing them where it is installed."""

import importlib
import io
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from dvae import _extras
from dvae.data._arrays import Parts
from dvae.data._dataset import (
    EMBEDDED_HINT,
    SPLITS,
    DamagedFileError,
    DataUnavailableError,
    missing_folder,
)
from dvae.data._pictures import Pictures, read_picture, reader, shape_of, start_pillow

_CHUNK = 1000  # records decoded at a time: bounds the memory held beside the result


def read(
    name: str,
    split: str,
    data_dir: str,
    *,
    shape: tuple[int, int, int],
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
    rows: slice | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads one split in file order, preparing the data set first if it is not in `data_dir`.

    Args:
        name: TFDS name, such as "cifar10".
        split: TFDS split, such as "train".
        data_dir: the TFDS folder, a path or a gs:// address.
        shape: (H, W, C) that every stored image must have.
        transform: maps uint8 [B, H, W, C] to [B, ...], applied before chunks are put together.
        rows: which records to decode; None: all.

    Returns:
        images uint8 [N, H, W, C] (or what `transform` makes of them), labels int32 [N] or None.

    Raises:
        DataUnavailableError: the set is not prepared and cannot be.
        DamagedFileError: a file of it cannot be read.
        ValueError: an image has another shape or dtype.
    """
    source = _open(name, split, data_dir)
    images: list[np.ndarray] = []
    labels: list[int] = []
    wanted = range(len(source))[slice(None) if rows is None else rows]
    for start in range(0, len(wanted), _CHUNK):
        indices = wanted[start : start + _CHUNK]
        try:
            records = source.__getitems__(indices)
            decoded = [_decode(record["image"]) for record in records]
        except Exception as error:  # of the record reader and of the PNG decoder, none in common
            raise _damaged(name, split, source, indices, error) from error
        chunk = np.stack([_checked(name, image, shape) for image in decoded])
        images.append(chunk if transform is None else transform(chunk))
        labels += [record["label"] for record in records if "label" in record]
    if not images:  # a process may be left without rows
        nothing = np.zeros((0, *shape), np.uint8)
        images.append(nothing if transform is None else transform(nothing))
    return np.concatenate(images), np.asarray(labels, np.int32) if labels else None


def count(name: str, split: str, data_dir: str) -> int:
    """Returns the number of records of a split; DataUnavailableError as for `read`."""
    return len(_open(name, split, data_dir))


def read_any(name: str, data_dir: str, image_size: int) -> Parts:
    """Opens any set with an image in each record; images are decoded when they are read.

    Args:
        name: TFDS name, with a configuration and version or without.
        data_dir: the TFDS folder.
        image_size: side that images are cropped and resized to; 0: they are not.

    Raises:
        DataUnavailableError: it is not prepared and cannot be.
        ValueError: its records have no image, or several.
    """
    where = f"tfds:{name}"
    _extras.require(f"reading {where}", "data", "tensorflow_datasets")
    start_pillow()
    import tensorflow_datasets as tfds

    info = _open(name, "train", data_dir, key=None).dataset_info
    kinds = info.features.items()
    images = [key for key, feature in kinds if type(feature) is tfds.features.Image]
    classes = [key for key, feature in kinds if isinstance(feature, tfds.features.ClassLabel)]
    if len(images) != 1:
        listed = ", ".join(info.features)
        found = f"several ({', '.join(images)})" if images else f"none among {listed}"
        raise ValueError(f"{where}: records must have one image, and have {found}")
    pictures: dict[str, Any] = {}
    labels = {}
    shape: tuple[int, int, int] | None = None
    cropped_from = None
    for split in SPLITS:
        if split not in info.splits or not info.splits[split].num_examples:
            continue
        source = _open(name, split, data_dir, key=images[0])

        def open_one(i: int, source: Any = source, split: str = split) -> tuple[BinaryIO, str]:
            return io.BytesIO(source[i][images[0]]), f"record {i} of {split} of {where}"

        if shape is None:
            shape = read_picture(*open_one(0), image_size).shape
            height, width, _ = shape_of(*open_one(0))
            cropped_from = (height, width) if image_size and height != width else None
        pictures[split] = Pictures(reader(open_one, shape, image_size), range(len(source)), shape)
        if len(classes) == 1:
            labels[split] = _labels(source, classes[0])
    return Parts(where, where, pictures, labels, cropped_from)


def _labels(source: Any, key: str) -> np.ndarray:
    """Reads the classes of all records."""
    chunks = (range(i, min(i + _CHUNK, len(source))) for i in range(0, len(source), _CHUNK))
    return np.array([r[key] for chunk in chunks for r in source.__getitems__(chunk)], np.int32)


def _decode(encoded: bytes) -> np.ndarray:
    """Decodes one PNG to [H, W, C]."""
    from PIL import Image

    image = np.asarray(Image.open(io.BytesIO(encoded)))
    return image[..., None] if image.ndim == 2 else image


def _damaged(
    name: str, split: str, source: Any, indices: range, error: Exception
) -> DamagedFileError:
    """Names the file that holds the first record of a chunk that cannot be read."""
    for index in indices:
        try:
            _decode(source[index]["image"])
        except Exception:
            stored = source.dataset_info.splits[split]
            shard = np.searchsorted(np.cumsum(stored.shard_lengths), index, side="right")
            where = f"record {index} of {split} in {stored.filepaths[shard]}"
            break
    else:
        where = f"records {indices.start} to {indices.stop - 1} of {split}"
    return DamagedFileError(
        f"{name}: {where} cannot be read ({_reason(error)}); the file is damaged: "
        f"delete its folder and prepare or copy the data set again; {EMBEDDED_HINT}"
    )


def _checked(name: str, image: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Returns the image; ValueError unless it is uint8 of this shape."""
    if image.shape != shape or image.dtype != np.uint8:
        raise ValueError(
            f"{name}: expected images of shape {shape} and dtype uint8, "
            f"found {image.shape} and {image.dtype}; is another data set in its folder?"
        )
    return image


def _open(name: str, split: str, data_dir: str, *, key: str | None = "image") -> Any:
    """Opens a split for random access, preparing the data set at the first failure.

    The feature `key` is left encoded.
    """
    _extras.require(f"the data set {name}", "data", "tensorflow_datasets", "PIL")
    import tensorflow_datasets as tfds

    def data_source() -> Any:
        # PNGs stay encoded: decoding them here skips TFDS's per-feature overhead.
        return tfds.data_source(
            name,
            data_dir=data_dir,
            split=split,
            download=False,
            decoders={key: tfds.decode.SkipDecoding()} if key else None,
        )

    try:
        return data_source()
    except Exception as error:  # TFDS has no one exception for "not prepared"
        from etils import epath

        found = f"is not prepared (as array_record) in {data_dir}{missing_folder(data_dir)}"
        folder = epath.Path(data_dir) / name
        if folder.exists():
            found = f"in {folder} cannot be opened as array_record ({_reason(error)})"
    try:
        _prepare(name, data_dir)
        return data_source()
    except Exception as error:
        raise DataUnavailableError(
            f"{name} {found}, and preparing it failed: {_reason(error)}; with a network, pip "
            "install '.[prepare]' in the checkout (TensorFlow) and run again, or give a prepared "
            f"TFDS folder as data_dir (--data_dir); {EMBEDDED_HINT}"
        ) from error


def _reason(error: Exception) -> str:
    """Describes an error in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _prepare(name: str, data_dir: str) -> None:
    """Downloads and prepares a data set through TFDS, failing fast where that is hopeless."""
    import requests
    import tensorflow_datasets as tfds

    _require_tensorflow()
    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    # TFDS itself retries ten times with growing pauses: minutes, and a page of warnings.
    for url in list(builder.url_infos)[:1]:
        requests.head(url, timeout=10)
    builder.download_and_prepare()


def _require_tensorflow() -> None:
    """Imports TensorFlow and hides the accelerators from it, whose memory it would take."""
    tensorflow = importlib.import_module("tensorflow")
    tensorflow.config.set_visible_devices([], "GPU")
