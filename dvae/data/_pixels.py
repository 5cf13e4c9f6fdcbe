"""Pixels of own images: arrays become uint8 [N, H, W, C], or their mistakes are named."""

from collections.abc import Iterator, Mapping

import numpy as np

__all__ = ["checked", "describe", "is_binary"]

_CHUNK_BYTES = 2**26  # of floats at a time, while they are checked and rounded


def checked(
    where: str, arrays: Mapping[str, np.ndarray], *, bits: bool = False
) -> dict[str, np.ndarray]:
    """Returns arrays as uint8 [N, H, W, C], all of one H, W, C.

    Args:
        where: they come from, for messages.
        arrays: split -> [N, H, W, C] or [N, H, W], in the order of messages.
        bits: whether pixels are 0 or 1 rather than levels.

    Raises:
        ValueError: see `from_arrays`.
    """
    shaped = {split: _shaped(where, split, array) for split, array in arrays.items()}
    first, *others = shaped
    for split in others:
        if shaped[split].shape[1:] != shaped[first].shape[1:]:
            raise ValueError(
                f"{where}: {first} holds images of {describe(shaped[first].shape[1:])} and "
                f"{split} of {describe(shaped[split].shape[1:])}; all must be alike"
            )
    return {split: _levels(where, split, array, bits) for split, array in shaped.items()}


def describe(shape: tuple[int, ...]) -> str:
    """Writes the shape of an image."""
    height, width, channels = shape
    return f"{height}x{width} pixels in {'gray' if channels == 1 else 'color'}"


def _shaped(where: str, split: str, array: np.ndarray) -> np.ndarray:
    one_color = array.ndim == 3 and array.shape[-1] == 3 < min(array.shape[:2])
    if array.ndim == 3 and not one_color:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or 0 in array.shape[1:]:
        remedy = "; a single color image needs images[None]" if one_color else ""
        if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[-1] not in (1, 3):
            remedy = "; channels first: images.transpose(0, 2, 3, 1)"
        raise ValueError(
            f"{where}: {split} must have the shape [N, H, W, C] with 1 or 3 channels C, or "
            f"[N, H, W], got {array.shape}{remedy}"
        )
    if not len(array):
        raise ValueError(f"{where}: {split} holds no images; add some")
    return array


def _levels(where: str, split: str, array: np.ndarray, bits: bool) -> np.ndarray:
    """Converts images to uint8 levels, or bits."""
    top = 1 if bits else 255
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(top)
    if array.dtype == np.uint8:
        if bits and not is_binary([array]):
            raise ValueError(
                f"{where}: {split} must have pixels 0 or 1, got levels up to {array.max()}; "
                "threshold or sample them"
            )
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f"{where}: {split} must hold uint8 levels 0..255 or floats in [0, 1], got "
            f"{array.dtype}; scale them to 0..255, then .astype(np.uint8)"
        )
    out = np.empty(array.shape, np.uint8)
    for rows in _chunks(array):
        chunk = array[rows]
        good = (chunk >= 0) & (chunk <= 1)  # a NaN fails both
        if bits:
            good &= (chunk == 0) | (chunk == 1)
        if not good.all():
            allowed = "0 or 1" if bits else "floats in [0, 1], or uint8 levels 0..255"
            raise ValueError(
                f"{where}: {split} must hold {allowed}, got {array.dtype} with a pixel of "
                f"{_remedy(chunk, good, rows.start, bits)}"
            )
        out[rows] = np.rint(chunk * array.dtype.type(top))
    return out


def _remedy(chunk: np.ndarray, good: np.ndarray, start: int, bits: bool) -> str:
    """Names a pixel that is not allowed, and what its kind asks for: a cast would garble most.

    Args:
        chunk: float images, of which the first has the number `start`.
        good: whether pixels are allowed.
        start: see `chunk`.
        bits: whether pixels are to be 0 or 1.
    """
    if not (finite := np.isfinite(chunk)).all():
        image = np.nonzero(~finite)[0][0]
        return f"{chunk[~finite][0]:g} in image {start + image}; repair such images, or remove them"
    wrong = chunk[~good]
    if (below := wrong[wrong < 0]).size:
        return f"{below[0]:g}; scale them: (x + 1) / 2 for [-1, 1]"
    remedy = "threshold or sample them" if bits else "levels 0..255 are .astype(np.uint8)"
    return f"{wrong[0]:g}; {remedy}"


def is_binary(arrays: list[np.ndarray]) -> bool:
    """Tells whether no uint8 level exceeds 1; reads no further than the first that does."""
    return all(array[rows].max() <= 1 for array in arrays for rows in _chunks(array))


def _chunks(array: np.ndarray) -> Iterator[slice]:
    """Cuts the rows of an array into pieces of bounded size."""
    size = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
    return (slice(start, start + size) for start in range(0, len(array), size))
