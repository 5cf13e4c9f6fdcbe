"""Figure of gradient estimators: squared bias against variance."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dvae.analysis._drawing import INK, new_figure, require, styled

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
        """Whether the bias is significant: positive by three standard errors or more."""
        return self.bias > 0 and self.bias >= 3 * self.bias_error


@styled
def bias_and_variance(
    stages: Mapping[str, Mapping[str, Sequence[GradientError]]], *, unit: str
) -> Figure:
    """Draws squared bias against variance, both logarithmic, one column a stage.

    Below it, on the same axis of the variance, a row for each estimator whose bias is consistent
    with zero. A label "NAME, variant" has the color and marker of NAME, and is hollow.

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
    unbiased: dict[str, float] = {}
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
    names = list(dict.fromkeys(label.split(",")[0] for label in biased))
    looks = {name: _LOOKS[i % len(_LOOKS)] for i, name in enumerate(names)}
    rows = sorted(unbiased, key=lambda label: unbiased[label])
    low = 0.22 * max(len(rows), 2) + 0.3
    figure = new_figure(2.0 + 4.4 * len(stages), 4.6 + low)
    grid: Any = figure.subplots(
        2, len(stages), squeeze=False, sharex=True, sharey="row", height_ratios=(4.0, low)
    )
    for column, (title, estimators) in enumerate(stages.items()):
        upper, lower = grid[:, column]
        upper.set(title=title, xscale="log", yscale="log")
        for label, errors in estimators.items():
            name, _, variant = label.partition(",")
            points = [(e.variance, e.bias, i) for i, e in enumerate(errors) if e.biased]
            if points:
                _draw_path(upper, label, points, len(errors), looks[name], hollow=bool(variant))
            heights = [rows.index(label)] * len(errors) if label in rows else []
            for error, height in zip(errors, heights, strict=False):
                if not error.biased:
                    lower.plot(error.variance, height, marker="o", color=INK, markersize=5)
        lower.set_yticks(range(len(rows)), rows)
        lower.set_ylim(-0.7, len(rows) - 0.3)
        lower.set_xlabel(f"variance {unit}")
    grid[0, 0].set_ylabel(f"squared bias {unit}")
    figure.align_ylabels(grid[:, 0])
    grid[1, 0].set_ylabel("no bias seen")
    figure.legend(handles=_key(biased, looks), loc="outside right upper")
    return figure


def _draw_path(
    axes: Axes,
    label: str,
    points: Sequence[tuple[float, float, int]],
    length: int,
    look: tuple[str, str],
    *,
    hollow: bool,
) -> None:
    """Draws the points (x, y, place on the path) of one label."""
    color, marker = look
    x, y = [left for left, _, _ in points], [height for _, height, _ in points]
    axes.plot(x, y, color=color, linewidth=1.0, linestyle=":" if hollow else "-", label=label)
    for left, height, place in points:
        size = _SIZES[1] if length == 1 else np.interp(place, (0, length - 1), _SIZES)
        axes.plot(
            left,
            height,
            color=color,
            marker=marker,
            markersize=size,
            markerfacecolor="white" if hollow else color,
        )


def _key(labels: Mapping[str, object], looks: Mapping[str, tuple[str, str]]) -> list[Line2D]:
    """Makes the entries of the legend: one a label, alike to its path."""
    entries = []
    for label in labels:
        name, _, variant = label.partition(",")
        color, marker = looks[name]
        entries.append(
            Line2D(
                [],
                [],
                color=color,
                marker=marker,
                linewidth=1.0,
                linestyle=":" if variant else "-",
                markerfacecolor="white" if variant else color,
                label=label,
            )
        )
    return entries
