"""Errors against effort, on logarithmic axes."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from dvae.analysis._drawing import (
    legend_columns,
    looks,
    new_figure,
    require,
    styled,
    tidy_logarithms,
    wrapped,
)

_TITLE_WIDTH = 26  # characters of a panel's title in one line
_PANEL = {1: 4.4, 2: 3.4, 3: 2.8}  # inches of a panel's width, by their number; of more, 2.1
Curves = Mapping[str, tuple[ArrayLike, ArrayLike]]


@styled
def convergence(rows: Mapping[str, Mapping[str, Curves]], *, xlabel: str) -> Figure:
    """Draws how errors fall with effort: one row a quantity, one column a problem.

    Args:
        rows: quantity -> problem -> method -> (effort [T], error [T]), all positive.
        xlabel: what the effort is.

    Returns:
        A figure with one set of axes for each quantity and problem; a column shares its efforts.

    Raises:
        ValueError: if there is nothing to draw, or a number is not positive.
    """
    require(rows, "rows")
    problems = list(dict.fromkeys(name for row in rows.values() for name in row))
    methods = dict.fromkeys(m for row in rows.values() for curves in row.values() for m in curves)
    require(methods, "rows")
    look = looks(methods)
    width = 0.4 + _PANEL.get(len(problems), 2.1) * len(problems)
    columns = legend_columns(methods, width)
    lines = math.ceil(len(methods) / columns)
    figure = new_figure(width, 0.6 + 0.22 * lines + 2.6 * len(rows))
    grid = figure.subplots(len(rows), len(problems), squeeze=False, sharex="col")
    for i, (quantity, row) in enumerate(rows.items()):
        for j, problem in enumerate(problems):
            axes = grid[i, j]
            title = wrapped(problem, _TITLE_WIDTH) if i == 0 else ""
            axes.set(xscale="log", yscale="log", title=title)
            for method, (x, y) in row.get(problem, {}).items():
                x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
                if not (np.all(x > 0) and np.all(y > 0)):
                    raise ValueError(
                        f"{quantity} of {method} on {problem} must be positive on logarithmic axes"
                    )
                color, marker = look[method]
                axes.plot(x, y, color=color, marker=marker, label=method)
            tidy_logarithms(axes)
            if i == len(rows) - 1:
                axes.set_xlabel(xlabel)
        grid[i, 0].set_ylabel(quantity)
    handles = {
        label: handle
        for axes in grid.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)
    return figure
