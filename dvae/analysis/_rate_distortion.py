"""Figures of rate against distortion: paths of training, and results of several sizes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from dvae.analysis._drawing import (
    draw_arrows,
    draw_bits_per_dim,
    looks,
    new_figure,
    require,
    styled,
    wrapped,
)

_PATH_LABEL = 32  # characters of a legend's entry where there are several in a line


@styled
def rate_distortion_path(
    points: Mapping[str, tuple[ArrayLike, ...]], *, num_dims: int | None = None
) -> Figure:
    """Draws how rate and distortion move during training (Sønderby et al. 2017, fig. 1c).

    A path runs from its hollow marker along the arrows to the filled one. On a faint diagonal,
    rate + distortion, and so the bound in bits/dim, is constant.

    Args:
        points: label -> (rate, distortion) or (rate, distortion, step): arrays [T] in the order of
            training; rate = KL(q, p) and distortion = -log p(x|z), both in nats an image. With
            steps, the legend names the last one.
        num_dims: number of dimensions of an image, for the diagonals; None for none.

    Returns:
        A figure with one set of axes; the path of a label is the line of that label.

    Raises:
        ValueError: if there are no points, or the arrays of a label differ in length.
    """
    paths = {label: [np.asarray(values) for values in arrays] for label, arrays in points.items()}
    for label, arrays in paths.items():
        lengths = [len(values) for values in arrays]
        if len(arrays) not in (2, 3) or len(set(lengths)) != 1 or lengths[0] < 1:
            raise ValueError(
                f"points[{label!r}] must be (rate, distortion) or (rate, distortion, step), all of "
                f"one length, got lengths {lengths}"
            )
    require(paths, "points")
    figure = new_figure(6.4, 5.0)
    axes = figure.add_subplot()
    names = [
        f"{label}, {int(arrays[2][-1]):,} steps" if len(arrays) == 3 else label
        for label, arrays in paths.items()
    ]
    short = max(map(len, names)) <= _PATH_LABEL
    for name, arrays, (color, marker) in zip(
        names, paths.values(), looks(paths).values(), strict=True
    ):
        rate, distortion = arrays[:2]
        name = wrapped(name, _PATH_LABEL if short else 2 * _PATH_LABEL)
        look: dict[str, Any] = {"color": color, "marker": marker, "markersize": 8.0}
        axes.plot(rate, distortion, label=name, markevery=[len(rate) - 1], **look)
        axes.plot(rate[0], distortion[0], markerfacecolor="white", zorder=3, **look)
        axes.plot(rate[-1], distortion[-1], zorder=3, **look)  # no path covers an end
    _frame(axes, num_dims)
    for arrays, (color, _) in zip(paths.values(), looks(paths).values(), strict=True):
        draw_arrows(axes, arrays[0], arrays[1], color)
    _finish(figure, axes, "hollow: start of training, filled: end")
    return figure


@styled
def rate_distortion(
    results: Mapping[str, Sequence[tuple[float, ...]]], *, num_dims: int | None = None
) -> Figure:
    """Draws where models end between rate and distortion.

    The points of a label are joined in their order. A model whose codes have two prices, under a
    simple prior and a better one, has a hollow marker at the first and a filled one at the second.
    On a faint diagonal, rate + distortion, and so the bound in bits/dim, is constant.

    Args:
        results: label -> triples (rate, distortion, rate under the simpler prior), or pairs of
            models with one price; all in nats an image.
        num_dims: number of dimensions of an image, for the diagonals; None for none.

    Returns:
        A figure with one set of axes; the results of a label are the line of that label.

    Raises:
        ValueError: if there are no results, or one is neither a pair nor a triple.
    """
    require(results, "results")
    for label, models in results.items():
        if not models or any(len(model) not in (2, 3) for model in models):
            raise ValueError(
                f"results[{label!r}] must be pairs (rate, distortion) or triples (rate, "
                f"distortion, rate under the simpler prior), got {list(models)}"
            )
    figure = new_figure(6.4, 5.0)
    axes = figure.add_subplot()
    two_prices = False
    for (label, models), (color, marker) in zip(
        results.items(), looks(results).values(), strict=True
    ):
        for rate, distortion, *simpler in models:
            if simpler:
                two_prices = True
                axes.plot([simpler[0], rate], [distortion] * 2, color=color, linewidth=0.7)
                axes.plot(simpler, [distortion], color=color, marker=marker, fillstyle="none")
        rates, distortions = ([model[i] for model in models] for i in (0, 1))
        name = wrapped(label, _PATH_LABEL)
        axes.plot(rates, distortions, color=color, marker=marker, label=name, zorder=3)
    _frame(axes, num_dims)
    _finish(figure, axes, "hollow: simple prior, filled: learned prior" if two_prices else None)
    return figure


def _frame(axes: Axes, num_dims: int | None) -> None:
    """Names the axes, fixes the view and draws the diagonals."""
    axes.set_xlabel("rate: KL(q, p) [nats per image]")
    axes.set_ylabel("distortion: $-$log p(x|z) [nats per image]")
    axes.yaxis.set_major_formatter("{x:,.6g}")
    axes.xaxis.set_major_formatter("{x:,.6g}")
    axes.margins(0.06)
    axes.grid(False)
    axes.axis(axes.axis())  # the diagonals must not widen the view
    if num_dims is not None:
        draw_bits_per_dim(axes, num_dims)


def _finish(figure: Figure, axes: Axes, title: str | None) -> None:
    """Puts the legend above, and makes room for it."""
    texts = axes.get_legend_handles_labels()[1]
    longest = max((len(line) for text in texts for line in text.split("\n")), default=0)
    columns = max(1, min(3, 75 // (longest + 7)))
    lines = max(sum(t.count("\n") + 1 for t in texts[i::columns]) for i in range(columns))
    figure.set_size_inches(6.4, 4.6 + 0.2 * max(2, lines))
    figure.legend(loc="outside upper center", ncols=columns, title=title)
