"""Figures of latent variables: traversals, codes against classes, KL of every dimension."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from dvae.analysis._drawing import INK, label_beside, new_figure, require, styled
from dvae.analysis._images import checked_images

_INCHES = 0.5  # of an image


@styled
def traversals(
    blocks: Sequence[tuple[str, Sequence[str], Mapping[str, ArrayLike]]],
) -> Figure:
    """Draws what a decoder makes of one latent variable after the other, all others held.

    Args:
        blocks: a set of axes each, of latent variables with the same values: title, what is
            written above each column, and label of a row -> [columns, H, W, C] uint8, C = 1 or 3.

    Returns:
        A figure with one set of axes a block, its rows labeled at the left.

    Raises:
        ValueError: if there is nothing to draw, or a row has another number of images than there
            are columns, or images of another size.
    """
    blocks = [block for block in blocks if block[2]]
    if not blocks:
        raise ValueError("blocks must have at least one latent variable, got none")
    sizes = [(len(rows), len(columns)) for _, columns, rows in blocks]
    heights = [num_rows * _INCHES + 0.55 for num_rows, _ in sizes]
    wide = max(num_columns for _, num_columns in sizes) * _INCHES + 1.4
    figure = new_figure(max(wide, 4.0), sum(heights))
    rows_of = [num_rows for num_rows, _ in sizes]
    grid: Any = figure.subplots(len(blocks), 1, squeeze=False, height_ratios=rows_of)
    for axes, (title, columns, rows) in zip(grid[:, 0], blocks, strict=True):
        canvas, (down, across), (height, width) = _rows(rows, len(columns))
        axes.imshow(canvas, interpolation="nearest")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_yticks(np.arange(len(rows)) * down + (height - 1) / 2, list(rows))
        axes.set_xticks(np.arange(len(columns)) * across + (width - 1) / 2, list(columns))
        axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
        axes.set_title(title, loc="left")
        axes.set_anchor("W")
    # The same width and heights in proportion: images of all blocks have one size.
    right = max(axes.get_xlim()[1] for axes in grid[:, 0])
    for axes in grid[:, 0]:
        axes.set_xlim(-0.5, right)
    return figure


def _rows(
    rows: Mapping[str, ArrayLike], num_columns: int
) -> tuple[NDArray[np.uint8], tuple[int, int], tuple[int, int]]:
    """Puts one row of images under the other: the pixels, and their spacings and sides (y, x)."""
    arrays: list[np.ndarray] = []
    for label, row in rows.items():
        array = checked_images(row, num_columns)
        if len(array) != num_columns or (arrays and array.shape[1:3] != arrays[0].shape[1:3]):
            raise ValueError(
                f"row {label!r} must have {num_columns} images, one a column, of the size of the "
                f"others, got shape {array.shape}"
            )
        arrays.append(np.broadcast_to(array, (*array.shape[:3], 3)))
    stacked = np.stack(arrays)  # [rows, columns, H, W, 3]
    height, width = stacked.shape[2:4]
    gutter = max(1, height // 16)
    down, right = height + gutter, width + gutter
    canvas = np.full((len(arrays) * down, num_columns * right, 3), 255, np.uint8)
    for r, c in np.ndindex(*stacked.shape[:2]):
        canvas[r * down : r * down + height, c * right : c * right + width] = stacked[r, c]
    return canvas[:-gutter, :-gutter], (down, right), (height, width)


@styled
def confusion_matrices(counts: Mapping[str, ArrayLike]) -> Figure:
    """Draws how the images of each code divide into classes, one panel a discrete variable.

    Args:
        counts: title -> [num_classes, num_codes], from `codes.confusion`. A column is drawn in
            shares of its code's images, its number of images below it; an unused code is empty.

    Returns:
        A figure with one set of axes a variable.

    Raises:
        ValueError: if there are no variables.
    """
    require(counts, "counts")
    tables = {title: np.asarray(values) for title, values in counts.items()}
    widths = [1.0 + 0.42 * table.shape[1] for table in tables.values()]
    tallest = max(table.shape[0] for table in tables.values())
    figure = new_figure(max(sum(widths), 3.0), 1.3 + 0.42 * tallest)
    grid: Any = figure.subplots(1, len(tables), squeeze=False, width_ratios=widths)
    for axes, (title, table) in zip(grid[0], tables.items(), strict=True):
        used = table.sum(0)
        shares = table / np.maximum(used, 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.grid(False)
        for row, column in zip(*np.nonzero(shares >= 0.005), strict=True):
            share = shares[row, column]
            color = "white" if share > 0.6 else INK
            text = f"{100 * share:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
        axes.set_yticks(range(len(table)))
        axes.set_xticks(range(len(used)), [f"{i}\n{n:,}" for i, n in enumerate(used)], fontsize=7)
        axes.set(title=title, xlabel="code, and its images")
    grid[0, 0].set_ylabel("class; % of the code's images")
    return figure


@styled
def kl_per_dimension(
    continuous: Mapping[str, tuple[ArrayLike, ArrayLike]],
    discrete: Mapping[str, tuple[ArrayLike, ArrayLike]],
) -> Figure:
    """Draws the KL of every latent variable against the step.

    Args:
        continuous: label -> (steps, KL in nats), arrays [T]; thin lines.
        discrete: the same of discrete variables; thick dashed lines.

    Returns:
        A figure with one set of axes, each line with its label, which also stands at its end.

    Raises:
        ValueError: if there are no variables.
    """
    require({**continuous, **discrete}, "continuous and discrete")
    figure = new_figure(7.2, 4.2)
    axes = figure.add_subplot()
    colors = iter(_colors(len(continuous)))
    for label, (steps, kl) in continuous.items():
        axes.plot(steps, kl, color=next(colors), linewidth=1.2, label=label)
    for label, (steps, kl) in discrete.items():
        axes.plot(steps, kl, color=INK, linewidth=2.2, linestyle="--", label=label)
    axes.set_xlabel("step")
    axes.xaxis.set_major_formatter("{x:,.6g}")
    axes.set_ylabel("KL to the prior, nats")
    axes.set_ylim(bottom=0)
    curves = {**continuous, **discrete}
    last = max(float(np.asarray(steps)[-1]) for steps, _ in curves.values())
    axes.set_xlim(right=last)  # so that the names' lines begin where the curves end
    label_beside(axes, {label: float(np.asarray(kl)[-1]) for label, (_, kl) in curves.items()})
    return figure


def _colors(count: int) -> list[tuple[float, ...]]:
    """Returns colors from blue to orange, as many as asked for."""
    return [tuple(color) for color in matplotlib.colormaps["turbo"](np.linspace(0.08, 0.85, count))]
