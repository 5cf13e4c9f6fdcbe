"""What the models ask of their arguments: ValueErrors that name dtype, shape and remedy.

    check_images(images, kind=LEVELS, shape=("B", "H", "W", 3))
    check_floats("vectors", vectors, ("...", num_latents, code_dim))
    check_codes("codes", codes, ("...", num_latents), codebook_size)

Shapes and dtypes are checked of every array, traced ones too. Values are checked of NumPy arrays
alone: others would have to be waited for, or are not known yet.

A shape lists the length of each axis; a name stands for any length, the same one for each of its
occurrences, and "..." in front for any leading axes.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "BITS",
    "LEVELS",
    "UNIT",
    "Shape",
    "check_codes",
    "check_floats",
    "check_images",
    "check_multiples",
    "check_sizes",
    "describe",
]

LEVELS = "levels"  # uint8, 0..255
BITS = "bits"  # of any real dtype, 0 or 1
UNIT = "unit"  # float, in [0, 1]
_MEANING = {
    LEVELS: "uint8 levels 0..255",
    BITS: "pixels 0 or 1",
    UNIT: "floats in [0, 1]",
}
_REMEDY = {
    LEVELS: "images in [0, 1] become levels by np.round(255 * images).astype(np.uint8)",
    BITS: "threshold levels, (images > 127).astype(np.uint8), or sample them",
    UNIT: "levels become floats by images.astype(np.float32) / 255",
}
_CAST = "levels 0..255 of another dtype are cast: images.astype(np.uint8)"
Shape = Sequence[int | str]


def check_images(images: Any, *, kind: str, shape: Shape, name: str = "images") -> None:
    """Raises ValueError unless images have the pixels and the shape that their reader takes.

    Args:
        images: an array.
        kind: LEVELS, BITS or UNIT.
        shape: see the module's docstring.
        name: of the argument.
    """
    _check_shape(name, images, shape, _MEANING[kind])
    fits = {
        LEVELS: images.dtype == np.uint8,
        BITS: not jnp.issubdtype(images.dtype, jnp.complexfloating),
        UNIT: jnp.issubdtype(images.dtype, jnp.floating),
    }
    if not fits[kind]:
        remedy = _REMEDY[kind]
        if kind == LEVELS and jnp.issubdtype(images.dtype, jnp.integer):
            remedy = _CAST
        elif kind == LEVELS and _is_known(images) and jnp.issubdtype(images.dtype, jnp.floating):
            remedy = _of_no_level(name, images) or (_CAST if (images > 1).any() else remedy)
        raise ValueError(f"{name} must be {_MEANING[kind]}, got {describe(images)}; {remedy}")
    if kind == LEVELS or not _is_known(images):
        return
    # A NaN fails both comparisons.
    good = (images == 0) | (images == 1) if kind == BITS else (images >= 0) & (images <= 1)
    if not good.all():
        wrong = images[~good].ravel()[0]
        raise ValueError(
            f"{name} must be {_MEANING[kind]}, got {describe(images)} with a pixel of {wrong}; "
            f"{_of_no_level(name, images) or _REMEDY[kind]}"
        )


def _of_no_level(name: str, images: np.ndarray) -> str:
    """Names the remedy for pixels that are NaN, infinite or below 0: no cast nor quotient is one.

    Returns:
        "" where there are none.
    """
    if not (finite := np.isfinite(images)).all():
        index = np.nonzero(~finite)[0][0]
        return f"{name}[{index}] is not finite: repair such images, or remove them"
    if (images < 0).any():
        return f"scale them to [0, 1] first: ({name} + 1) / 2 for [-1, 1]"
    return ""


def check_floats(name: str, x: Any, shape: Shape) -> None:
    """Raises ValueError unless x is an array of floats of the shape."""
    _check_shape(name, x, shape, "floats")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"{name} must be floats, got {describe(x)}; cast them: {name}.astype(jnp.float32)"
        )


def check_codes(name: str, codes: Any, shape: Shape, num_codes: int) -> None:
    """Raises ValueError unless codes are integers of the shape, in 0 .. num_codes - 1."""
    meaning = f"integers in 0 .. {num_codes - 1}"
    _check_shape(name, codes, shape, meaning)
    if not jnp.issubdtype(codes.dtype, jnp.integer):
        raise ValueError(
            f"{name} must be {meaning}, got {describe(codes)}; cast them: {name}.astype(jnp.int32)"
        )
    if _is_known(codes) and (codes.min() < 0 or codes.max() >= num_codes):
        raise ValueError(
            f"{name} must be {meaning}, the codes of this codebook, got {codes.min()} to "
            f"{codes.max()}; take them from the same model"
        )


def check_multiples(name: str, x: Any, axes: Sequence[int], factor: int) -> None:
    """Raises ValueError unless the axes have lengths that are multiples of the factor."""
    if any(x.shape[axis] % factor for axis in axes):
        raise ValueError(
            f"{name} must have heights and widths that are multiples of {factor} (the model's "
            f"downsampling), got {describe(x)}; crop or pad the images"
        )


def check_sizes(**sizes: int) -> None:
    """Raises ValueError unless every size of a model is a number of at least 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


def describe(x: Any) -> str:
    """Names dtype and shape, as in "float32 (2, 28, 28, 1)"."""
    return f"{x.dtype} {tuple(x.shape)}"


def _is_known(x: Any) -> bool:
    """Tells whether the values can be read without waiting."""
    return isinstance(x, np.ndarray) and x.size > 0


def _check_shape(name: str, x: Any, shape: Shape, meaning: str) -> None:
    """Raises TypeError unless x is an array, ValueError unless it has the shape."""
    if not isinstance(x, jax.Array | np.ndarray):
        raise TypeError(f"{name} must be an array, got a {type(x).__name__}; use np.asarray")
    if not _fits(x.shape, shape):
        text = ", ".join(str(axis) for axis in shape)
        raise ValueError(
            f"{name} must be {meaning}, shape [{text}], got {describe(x)}"
            f"{_axes_remedy(name, x.shape, shape)}"
        )


def _fits(lengths: Shape, shape: Shape) -> bool:
    """Tells whether axes of these lengths are those of a shape."""
    wanted = list(shape[1:] if shape[0] == "..." else shape)
    missing = len(lengths) - len(wanted)
    if missing < 0 or (missing and shape[0] != "..."):
        return False
    named: dict[str, int | str] = {}
    return all(
        length == (named.setdefault(axis, length) if isinstance(axis, str) else axis)
        for length, axis in zip(lengths[missing:], wanted, strict=True)
    )


def _axes_remedy(name: str, lengths: Shape, shape: Shape) -> str:
    """Names the axes that are missing, if the array would fit with them."""
    one, gray = (1, *lengths), (*lengths, 1)
    if _fits(one, shape):
        return f"; a single one needs a leading axis: {name}[None]"
    if shape[-1] == 1 and _fits(gray, shape):
        return f"; a single channel needs an axis, the last: {name}[..., None]"
    if shape[-1] == 1 and _fits((*one, 1), shape):
        return f"; a single one of a single channel needs two axes: {name}[None, ..., None]"
    if len(lengths) == 4 and lengths[1] in (1, 3):
        batch, channels, *sides = lengths
        if _fits((batch, *sides, channels), shape):
            return f"; channels first: {name}.transpose(0, 2, 3, 1)"
    return ""
