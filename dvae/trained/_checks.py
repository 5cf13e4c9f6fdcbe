"""What the settings of every kind of model are checked for."""

from collections.abc import Sequence

__all__ = ["check_shape"]


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
