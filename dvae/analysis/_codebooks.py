"""Figures of codebooks: where the codes lie, and how few dimensions they span."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from dvae.analysis import pca
from dvae.analysis._drawing import (
    beside_or_inside,
    frame_cube,
    looks,
    new_figure,
    require,
    styled,
    wrapped,
)

_ROW_LABEL = 18  # characters of a row's label in one line


@styled
def codebook_pca(codebooks: Mapping[str, ArrayLike], *, max_columns: int = 8) -> Figure:
    """Draws codebooks in their first three principal components (Sønderby et al. 2017, fig. 2).

    Rows are methods, columns latent variables, points codes, colors their norms from the smallest
    to the largest of the row. Within a panel the three axes have one scale, so that a flat or thin
    codebook looks flat or thin; panels have different scales.

    Args:
        codebooks: label -> [n, C, D], one codebook for each latent variable.
        max_columns: latent variables shown, from the first.

    Returns:
        A figure with a 3-D panel for each codebook and, last, the axes of the common color bar.

    Raises:
        ValueError: if there are no codebooks, or one is not [n, C, D].
    """
    stacks = _checked_codebooks(codebooks)
    num_columns = min(max_columns, max(len(stack) for stack in stacks.values()))
    shown = {label: stack[:num_columns] for label, stack in stacks.items()}
    norms = {label: np.linalg.norm(stack, axis=-1) for label, stack in shown.items()}
    names = {label: wrapped(label, _ROW_LABEL) for label in shown}
    num_lines = max(name.count("\n") + 1 for name in names.values())
    left, bottom, cell, right = 0.25 + 0.15 * num_lines, 0.1, 1.35, 0.95  # inches
    width = left + num_columns * cell + right
    height = bottom + len(shown) * cell + 0.35
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    for row, (label, stack) in enumerate(shown.items()):
        y = bottom + (len(shown) - 1 - row) * cell
        figure.text(
            left / 2 / width,
            (y + cell / 2) / height,
            names[label],
            rotation=90,
            ha="center",
            va="center",
            fontsize=11 if num_lines == 1 else 7.5,
        )
        for column, codebook in enumerate(stack):
            x = left + column * cell
            box = (x / width, y / height, cell / width, cell / height)
            panel: Any = figure.add_axes(box, projection="3d")
            coordinates = pca.project(codebook, 3)
            panel.scatter(
                *coordinates.T,
                c=norms[label][column],
                norm=Normalize(norms[label].min(), norms[label].max()),
                cmap="viridis",
                s=10,
                linewidths=0,
                depthshade=False,
            )
            frame_cube(panel, coordinates)
            if row == 0:
                figure.text(
                    (x + cell / 2) / width,
                    1 - 0.2 / height,
                    f"latent {column + 1}",
                    ha="center",
                    va="center",
                )
    bar_height = min(len(shown) * cell * 0.6, 3.0)
    bar_x, bar_y = width - right + 0.15, bottom + (len(shown) * cell - bar_height) / 2
    bar_box = (bar_x / width, bar_y / height, 0.13 / width, bar_height / height)
    scale = ScalarMappable(Normalize(0, 1), "viridis")
    bar = figure.colorbar(scale, cax=figure.add_axes(bar_box), ticks=[0, 1])
    bar.ax.set_yticklabels(["min", "max"])
    bar.outline.set_visible(False)
    title_y = (bar_y + bar_height + 0.12) / height
    figure.text(bar_x / width, title_y, "norm of a\ncode, by row", fontsize=8, va="bottom")
    return figure


@styled
def explained_variance(codebooks: Mapping[str, ArrayLike], *, max_components: int = 16) -> Figure:
    """Draws how few dimensions the codes span (Sønderby et al. 2017, fig. 1b).

    The line is the mean over latent variables of the variance explained by the first components
    together, the band its range. Codebooks whose codes are all equal have no variance to explain:
    the legend counts them.

    Args:
        codebooks: label -> [n, C, D], one codebook for each latent variable.
        max_components: where the horizontal axis ends, if the codebooks have that many.

    Returns:
        A figure with one set of axes, with a line for each label.

    Raises:
        ValueError: if there are no codebooks, or one is not [n, C, D].
    """
    stacks = _checked_codebooks(codebooks)
    figure = new_figure(5.6, 4.0)
    axes = figure.add_subplot()
    for (label, stack), (color, marker) in zip(stacks.items(), looks(stacks).values(), strict=True):
        ratios = np.stack([pca.explained_variance(codebook) for codebook in stack])
        spread_out = ratios[ratios.sum(axis=1) > 0, :max_components]
        num_collapsed = len(ratios) - len(spread_out)
        name = f"{label} ({num_collapsed} of {len(ratios)} collapsed)" if num_collapsed else label
        name = wrapped(name)
        fractions = np.cumsum(spread_out, axis=1)
        components = np.arange(1, fractions.shape[1] + 1)
        if len(fractions) == 0:
            axes.plot([], [], color=color, marker=marker, label=name)
            continue
        axes.fill_between(
            components, fractions.min(axis=0), fractions.max(axis=0), color=color, alpha=0.15, lw=0
        )
        axes.plot(
            components, fractions.mean(axis=0), color=color, marker=marker, markersize=5, label=name
        )
    axes.set_xlabel("number of principal components")
    axes.set_ylabel("explained variance")
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(left=0.7)
    axes.set_ylim(0.0, 1.03)
    beside_or_inside(figure, axes, loc="lower right", title="mean and range over latents")
    return figure


def _checked_codebooks(codebooks: Mapping[str, ArrayLike]) -> dict[str, NDArray[np.float64]]:
    """Returns the codebooks as arrays, or says which has the wrong shape."""
    require(codebooks, "codebooks")
    stacks = {label: np.asarray(stack, np.float64) for label, stack in codebooks.items()}
    for label, stack in stacks.items():
        if stack.ndim != 3 or stack.size == 0:
            raise ValueError(f"codebooks[{label!r}] must be [n, C, D], got shape {stack.shape}")
    return stacks
