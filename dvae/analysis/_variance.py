"""Figure of gradient estimators: squared bias against variance."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dvae.analysis._drawing import (
    INK,
    legend_columns,
    new_figure,
    require,
    styled,
    tidy_logarithms,
)

_LOOKS = [
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#000000", "X"),
    ("#8C564B", "<"),
    ("#7F7F7F", ">"),
    ("#B8A800", "h"),
    ("#6A3D9A", "*"),
    ("#005F56", "p"),
]
_SIZES = (5.0, 8.0)  # of the first and the last marker of a path


class GradientError(NamedTuple):
    """Squared bias and variance of an estimator, in the same unit."""

    bias: float  # an unbiased estimate of the squared bias, of either sign
    bias_error: float  # its standard error
    variance: float  # positive

    @property
    def biased(self) -> bool:
        """Tells whether the bias is significant: positive by three standard errors or more."""
        return self.bias > 0 and self.bias >= 3 * self.bias_error


@styled
def bias_and_variance(
    stages: Mapping[str, Mapping[str, Sequence[GradientError]]], *, unit: str
) -> Figure:
    """Draws squared bias against variance, both logarithmic, one column a stage.

    Below it, a row for each estimator whose bias is consistent with zero, at its variance. A label
    "NAME, variant" has the color and marker of NAME, and is hollow.

    Args:
        stages: title of a column -> label -> errors along a path, such as from soft to sharp, whose
            markers grow; mostly just one.
        unit: of both axes, written behind their names.

    Returns:
        A figure with two sets of axes a stage: all upper ones, then all lower ones. In the upper
        ones the path of a label is the line with that label.

    Raises:
        ValueError: if there are no stages, a stage has no labels, or a variance is not positive.
    """
    require(stages, "stages")
    biased: dict[str, None] = {}
    unbiased: dict[str, float] = {}  # label -> its highest variance
    lowest = math.inf
    for title, estimators in stages.items():
        require(estimators, f"stages[{title!r}]")
        for label, errors in estimators.items():
            for error in errors:
                if not error.variance > 0:
                    raise ValueError(
                        f"the variance of {label!r} in stages[{title!r}] must be positive, got "
                        f"{error.variance}"
                    )
                if error.biased:
                    biased[label] = None
                else:
                    unbiased[label] = max(error.variance, unbiased.get(label, 0.0))
                    lowest = min(error.variance, lowest)
    names = list(dict.fromkeys(label.split(",")[0] for label in biased))
    looks = {name: _LOOKS[i % len(_LOOKS)] for i, name in enumerate(names)}
    rows = sorted(unbiased, key=lambda label: unbiased[label])
    low = 0.22 * max(len(rows), 2) + 0.3
    width = 1.5 + 3.4 * len(stages)
    columns = legend_columns(biased, width)
    figure = new_figure(width, 4.7 + low + 0.22 * math.ceil(len(biased) / columns))
    grid: Any = figure.subplots(2, len(stages), squeeze=False, height_ratios=(4.3, low))
    for column, (title, estimators) in enumerate(stages.items()):
        upper, lower = grid[:, column]
        upper.set(title=title, xscale="log", yscale="log")
        for label, errors in estimators.items():
            name, _, variant = label.partition(",")
            color, marker = looks.get(name, (INK, "o"))
            look: dict[str, Any] = {"color": color, "marker": marker}
            look["markerfacecolor"] = "white" if variant else color
            seen = [error for error in errors if error.biased]
            x, y = [error.variance for error in seen], [error.bias for error in seen]
            if seen:
                upper.plot(x, y, color=color, label=label, **_stroke(label))
            for error, size in zip(errors, _sizes(len(errors)), strict=True):
                axes, height = (upper, error.bias) if error.biased else (lower, rows.index(label))
                axes.plot(error.variance, height, markersize=size, **look)
        lower.set_xscale("log")
        if rows:
            lower.set_xlim(0.5 * lowest, 2 * unbiased[rows[-1]])
        lower.set_yticks(range(len(rows)), rows if column == 0 else [""] * len(rows))
        lower.set_ylim(-0.7, len(rows) - 0.3)
        for axes in (upper, lower):
            axes.set_xlabel(f"variance {unit}")
            tidy_logarithms(axes)
    grid[0, 0].set_ylabel(f"squared bias {unit}")
    figure.align_ylabels(grid[:, 0])
    grid[1, 0].set_ylabel("no bias seen")
    figure.legend(handles=_key(biased, looks), loc="outside lower center", ncols=columns)
    return figure


def _sizes(count: int) -> list[float]:
    """Returns growing sizes of markers; a lone one is of middle size."""
    return [sum(_SIZES) / 2] if count == 1 else np.linspace(*_SIZES, count).tolist()


def _stroke(label: str) -> dict[str, Any]:
    """Returns the line of a path."""
    return {"linewidth": 1.0, "linestyle": ":" if "," in label else "-"}


def _key(labels: Iterable[str], looks: Mapping[str, tuple[str, str]]) -> list[Line2D]:
    """Makes the entries of the legend: one a label, alike to its path."""
    entries = []
    for label in labels:
        name, _, variant = label.partition(",")
        color, marker = looks[name]
        look: dict[str, Any] = {"color": color, "marker": marker, **_stroke(label)}
        face = "white" if variant else color
        entries.append(Line2D([], [], markerfacecolor=face, label=label, **look))
    return entries
