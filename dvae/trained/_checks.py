"""What the settings and the labels of every kind of model are checked for."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dvae.models import checks

__all__ = ["check_labels", "check_shape"]

_TOO_MANY = 2**31  # numbers of an image


def check_shape(image_shape: Sequence[int], factor: int = 1) -> None:
    """Raises ValueError unless a shape is [H, W, C], H and W multiples of the factor."""
    if (
        len(image_shape) != 3
        or min(image_shape) < 1
        or any(side % factor for side in image_shape[:2])
    ):
        multiples = f", height and width multiples of {factor}" if factor > 1 else ""
        raise ValueError(
            f"image_shape must be height, width and channels{multiples}, got {tuple(image_shape)}"
        )
    if math.prod(image_shape) >= _TOO_MANY:
        raise ValueError(f"image_shape {tuple(image_shape)} has 2^31 numbers or more")


def check_labels(labels: Any, count: int, *, size: int, real: bool) -> None:
    """Raises ValueError unless labels are those that a model was trained with.

    Args:
        labels: of the images: int [N] below `size`, or finite numbers [N, size]; None without any.
        count: N.
        size: how many labels the model knows, or numbers of a real one; 0: it is given none.
        real: which of both.
    """
    if not size:
        if labels is not None:
            raise ValueError("this model was trained without labels; leave labels out")
        return
    known = f"real labels [N, {size}]" if real else f"labels 0 to {size - 1}"
    if labels is None:
        raise ValueError(f"this model was trained with {known}; give labels=, one an image")
    shape, dtype = jnp.shape(labels), jnp.result_type(labels)
    fits = jnp.issubdtype(dtype, jnp.integer) or (real and jnp.issubdtype(dtype, jnp.floating))
    if not fits or shape != (count, *[size] * real):
        wanted = f"real numbers [{count}, {size}]" if real else f"integers [{count}]"
        raise ValueError(f"labels must be {wanted}, got {checks.describe(labels)}")
    if isinstance(labels, jax.core.Tracer):
        return  # its values are not known yet
    if real:
        with np.errstate(over="ignore"):  # an infinity, which is refused
            finite = np.isfinite(np.asarray(labels).astype(np.float32))
        if not finite.all():
            wrong = np.asarray(labels)[~finite][0]
            raise ValueError(f"labels must be finite in float32, got {wrong}")
        return
    if not count:
        return
    low, high = int(np.min(labels)), int(np.max(labels))
    if low < 0 or high >= size:
        raise ValueError(f"this model was trained with {known}, got {low} to {high}")
