"""Images from files, as 8-bit RGB, and in words what had to be changed for that."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB")
_OTHER_COLORS = ("CMYK", "YCbCr", "HSV", "LAB")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # gray; "I" may hold more


class Loaded(NamedTuple):
    """An image, and what it is no longer."""

    pixels: np.ndarray  # [H, W, 3], uint8
    notes: list[str]  # clauses


def load(path: str) -> Loaded:
    """Reads an image file, its first frame upright as its EXIF orientation says.

    Transparent pixels are laid on white, channels of 16 bits rounded to 8.

    Raises:
        ValueError: the file cannot be read, or is no image, or of more than 16 bits a channel.
    """
    try:
        with Image.open(path) as opened:
            return _convert(path, opened)
    except UnidentifiedImageError:
        raise ValueError(f"{path} is no image that Pillow can read; try a PNG or JPEG") from None
    except (OSError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot read {path}: {reason}; name an image file") from None


def _convert(path: str, opened: Image.Image) -> Loaded:
    notes = []
    if (frames := getattr(opened, "n_frames", 1)) > 1:
        notes.append(f"the first of {frames} frames is taken")
    # Pillow itself drops the lower bytes of colors of 16 bits as it decodes; the tiles tell.
    if opened.mode in _SIXTEEN_BIT or ";16" in str(getattr(opened, "tile", "")):
        notes.append("16 bits a channel are reduced to 8")
    mode, upright = opened.mode, ImageOps.exif_transpose(opened)
    if mode in _SIXTEEN_BIT:
        levels = np.asarray(upright).astype(np.int64)
        if levels.min() < 0 or levels.max() > 0xFFFF:
            raise ValueError(
                f"{path} has levels from {levels.min()} to {levels.max()}, beyond 16 bits; scale "
                "them to 8 or 16 bits first"
            )
        upright = Image.fromarray(np.rint(levels / 257).astype(np.uint8))
    elif mode not in _EIGHT_BIT:
        raise ValueError(
            f"{path} has pixels of mode {mode}, not 8 or 16 bits a channel; convert it first"
        )
    if mode in _OTHER_COLORS:
        notes.append(f"{mode} is converted to RGB")
    rgba = upright.convert("RGBA")
    if np.asarray(rgba)[..., 3].min() < 255:
        notes.append("transparent pixels are laid on white")
    white = Image.new("RGBA", rgba.size, "white")
    return Loaded(np.asarray(Image.alpha_composite(white, rgba).convert("RGB")), notes)
