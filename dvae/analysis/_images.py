"""Figures of images: grids, and originals above their reconstructions."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from dvae.analysis._drawing import require, styled


@styled
def image_grid(images: ArrayLike, *, num_columns: int, title: str | None = None) -> Figure:
    """Draws images side by side, row after row.

    Args:
        images: [N, H, W, C] uint8, C = 1 (gray) or 3 (color).
        num_columns: images in a row; the last row is filled up with white.
        title: text above the grid.

    Returns:
        A figure with one set of axes.

    Raises:
        ValueError: if `images` has another shape or dtype, or is empty, or `num_columns` < 1.
    """
    images = checked_images(images, num_columns)
    return _mosaic(images, min(num_columns, len(images)), title=title)


def reconstructions(
    originals: ArrayLike, reconstructions: ArrayLike, *, num_columns: int = 8
) -> Figure:
    """Draws each reconstruction under its original; rows alternate and are labeled.

    Args:
        originals: [N, H, W, C] uint8, C = 1 (gray) or 3 (color).
        reconstructions: [N, H, W, C] uint8, in the same order.
        num_columns: pairs in a row.

    Returns:
        A figure with one set of axes; the labels are ticks of its vertical axis.

    Raises:
        ValueError: if the shapes differ or are no [N, H, W, C], the dtype is another, or
            `num_columns` < 1.
    """
    rows = {"original": originals, "reconstruction": reconstructions}
    return image_rows(rows, num_columns=num_columns)


@styled
def image_rows(rows: Mapping[str, ArrayLike], *, num_columns: int = 8) -> Figure:
    """Draws what belongs to an image under it; rows alternate and are labeled.

    Args:
        rows: label -> [N, H, W, C] uint8, C = 1 (gray) or 3 (color), in the same order.
        num_columns: images in a row.

    Returns:
        A figure with one set of axes; the labels are ticks of its vertical axis.

    Raises:
        ValueError: if there are no rows, the shapes differ or are no [N, H, W, C], the dtype is
            another, or `num_columns` < 1.
    """
    require(rows, "rows")
    checked = [checked_images(images, num_columns) for images in rows.values()]
    shape = checked[0].shape
    if any(images.shape != shape for images in checked):
        shapes = " and ".join(str(images.shape) for images in checked)
        raise ValueError(f"{' and '.join(rows)} must have the same shape, got {shapes}")
    num_columns = min(num_columns, len(checked[0]))
    num_missing = -len(checked[0]) % num_columns
    pad = ((0, num_missing), (0, 0), (0, 0), (0, 0))
    padded = [
        np.pad(images, pad, constant_values=255).reshape(-1, num_columns, *shape[1:])
        for images in checked
    ]
    alternating = np.stack(padded, axis=1).reshape(-1, *shape[1:])
    return _mosaic(alternating, num_columns, row_labels=tuple(rows))


def samples(images: ArrayLike, *, num_columns: int = 8) -> Figure:
    """Draws images sampled from the model: an `image_grid` that says so.

    Args:
        images: [N, H, W, C] uint8, C = 1 (gray) or 3 (color).
        num_columns: images in a row.

    Returns:
        A figure with one set of axes.

    Raises:
        ValueError: if `images` has another shape or dtype, or is empty, or `num_columns` < 1.
    """
    return image_grid(images, num_columns=num_columns, title="Samples from the model")


def _mosaic(
    images: NDArray[np.uint8],
    num_columns: int,
    *,
    row_labels: Sequence[str] = (),
    title: str | None = None,
) -> Figure:
    """Draws images row after row; `row_labels`, repeated over the rows, also groups them."""
    num_rows = math.ceil(len(images) / num_columns)
    height, width = images.shape[1:3]
    gutter = max(1, height // 16)
    group = max(1, len(row_labels))
    # One image and its gutter a row, and a wider gap between groups of rows.
    tops = np.arange(num_rows) * (height + gutter)
    if group > 1:
        tops += np.arange(num_rows) // group * 4 * gutter
    lefts = np.arange(num_columns) * (width + gutter)
    canvas = np.full((tops[-1] + height, lefts[-1] + width, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = tops[index // num_columns], lefts[index % num_columns]
        canvas[top : top + height, left : left + width] = image

    # An inch or so an image, and at least an inch for 160 pixels, so that photographs stay sharp.
    inches = max(min(max(8.0 / num_columns, 0.4), 1.1), width / 160) / width  # per pixel
    margin, label_width, title_height = 0.1, 1.25, 0.35
    left_margin = label_width if row_labels else margin
    top_margin = title_height if title else margin
    inner = (canvas.shape[1] * inches, canvas.shape[0] * inches)
    size = (max(left_margin + inner[0] + margin, 2.4), margin + inner[1] + top_margin)
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    axes = figure.add_axes(
        (left_margin / size[0], margin / size[1], inner[0] / size[0], inner[1] / size[1])
    )
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if row_labels:
        axes.set_yticks(tops + height / 2, [row_labels[row % group] for row in range(num_rows)])
        axes.tick_params(length=0)
    if title is not None:
        axes.set_title(title, loc="left")
    return figure


def checked_images(images: ArrayLike, num_columns: int) -> NDArray[np.uint8]:
    """Returns the images as an array, or says what is wrong with them."""
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or array.size == 0:
        raise ValueError(f"images must be [N, H, W, C] with C = 1 or 3, got shape {array.shape}")
    if array.dtype != np.uint8:
        raise ValueError(f"images must be uint8 in 0..255, got {array.dtype}: round and cast them")
    if num_columns < 1:
        raise ValueError(f"num_columns must be at least 1, got {num_columns}")
    return array
