"""What the figures share: quiet axes, a color and marker per estimator, and the finer strokes."""

import functools
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

P = ParamSpec("P")
T = TypeVar("T")

INK = "#333333"
FAINT = "#c4c4c4"

RC: Any = {
    "figure.dpi": 150,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "legend.frameon": False,
}

# The palette of Okabe and Ito, safe for color-blind readers. Markers repeat the distinction.
_FIXED = {
    "gs_soft": ("#0072B2", "o"),
    "gs_hard": ("#56B4E9", "s"),
    "vimco": ("#D55E00", "^"),
    "vq": ("#009E73", "D"),
    "vq_ema": ("#E69F00", "v"),
}
_SPARE_COLORS = ("#CC79A7", "#000000", "#7F7F7F", "#8C564B", "#B8A800", "#6A3D9A", "#005F56")
_SPARE_MARKERS = ("P", "X", "h", "<", ">", "*", "p", "d")  # one more: pairs repeat after 56
_MOST_TICKS = 6  # numbers of a horizontal axis that stay apart in a small panel
LEGEND_WIDTH = 44  # characters of a legend's entry in one line


def looks(labels: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Gives each label its color and marker: an estimator's own, or the next spare pair."""
    chosen: dict[str, tuple[str, str]] = {}
    num_spares = 0
    for label in labels:
        if label in _FIXED:
            chosen[label] = _FIXED[label]
        else:
            color = _SPARE_COLORS[num_spares % len(_SPARE_COLORS)]
            chosen[label] = color, _SPARE_MARKERS[num_spares % len(_SPARE_MARKERS)]
            num_spares += 1
    return chosen


def wrapped(label: str, width: int = LEGEND_WIDTH) -> str:
    """Breaks a long label into lines."""
    return textwrap.fill(label, width, break_long_words=False, break_on_hyphens=False)


def legend_columns(labels: Iterable[str], width: float) -> int:
    """Returns how many columns of a legend below a figure fit into its width in inches."""
    names = list(labels)
    entry = 0.55 + 0.074 * max(map(len, names), default=0)
    return max(1, min(len(names), int(width / entry)))


def beside_or_inside(figure: Figure, axes: Axes, *, loc: Any = "best", title: str = "") -> None:
    """Adds the legend of the only axes: inside them, or above if it is too large for that."""
    handles, labels = axes.get_legend_handles_labels()
    lines = sum(label.count("\n") + 1 for label in labels)
    longest = max((len(line) for label in labels for line in label.split("\n")), default=0)
    if lines > 8 or longest > 28:
        columns = 1 if longest > 28 else 2
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height + 0.2 * lines / columns)
        figure.legend(
            handles, labels, loc="outside upper center", ncols=columns, title=title or None
        )
    else:
        axes.legend(loc=loc, title=title or None)


def tidy_logarithms(axes: Axes) -> None:
    """Labels logarithmic axes at powers of ten and, where few are seen, between them."""
    for axis, scale, limits in (
        (axes.xaxis, axes.get_xscale(), axes.get_xlim()),
        (axes.yaxis, axes.get_yscale(), axes.get_ylim()),
    ):
        if scale != "log":
            continue
        axis.set_minor_formatter(NullFormatter())
        low, high = sorted(limits)
        if high / low > 200:
            axis.set_major_locator(LogLocator(numticks=7))
            continue
        seen = lambda subs, low=low, high=high: sum(
            low <= s * 10.0**e <= high for s in subs for e in range(-12, 13)
        )
        subs = (1, 2, 5) if seen((1, 2, 5)) > 1 else tuple(range(1, 10))
        if axis is axes.xaxis and seen(subs) > _MOST_TICKS:
            subs = (1, 3)
        axis.set_major_locator(LogLocator(subs=subs, numticks=20))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Runs a figure function under the common style, leaving the caller's settings alone."""

    @functools.wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with matplotlib.rc_context(RC):
            return draw(*args, **kwargs)

    return wrapped


def new_figure(width: float, height: float) -> Figure:
    """Makes an empty figure of this size in inches, with an Agg canvas and no pyplot."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_arrows(axes: Axes, x: NDArray[Any], y: NDArray[Any], color: str) -> None:
    """Draws two arrow heads along a path, a third and two thirds of its length on the page."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    steps = np.hypot(np.diff(x) / (right - left), np.diff(y) / (top - bottom))
    length = np.concatenate([[0.0], np.cumsum(steps)])
    if length[-1] < 0.1:  # too short to carry an arrow
        return
    for fraction in (1 / 3, 2 / 3):
        ends = length[-1] * fraction + np.array([-0.02, 0.02])
        (x0, x1), (y0, y1) = np.interp(ends, length, x), np.interp(ends, length, y)
        arrow = {"arrowstyle": "-|>", "color": color, "mutation_scale": 16, "linewidth": 0}
        axes.annotate("", (x1, y1), (x0, y0), arrowprops={**arrow, "shrinkA": 0, "shrinkB": 0})


def draw_bits_per_dim(axes: Axes, num_dims: int) -> None:
    """Draws the lines x + y = bits/dim * num_dims * ln 2 and labels them where they leave."""
    nats_per_bit = num_dims * math.log(2.0)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    levels = MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]).tick_values(
        (left + bottom) / nats_per_bit, (right + top) / nats_per_bit
    )
    text: dict[str, Any] = {"color": "#7f7f7f", "fontsize": 8.5}
    for level in levels:
        nats = level * nats_per_bit
        if not left + bottom < nats < right + top:
            continue
        axes.axline((left, nats - left), slope=-1, color=FAINT, linewidth=0.8, zorder=0.5)
        name = f"{level:g} bits/dim"
        at_right, at_bottom = nats - right, nats - bottom
        if bottom < at_right < top:
            axes.annotate(
                name, (right, at_right), (4, 0), textcoords="offset points", va="center", **text
            )
        elif left + 0.1 * (right - left) < at_bottom < right:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            axes.annotate(
                name,
                (min(at_bottom, right - 0.1 * (right - left)), bottom),
                (0, 6),
                textcoords="offset points",
                ha="center",
                bbox=box,
                zorder=0.6,
                **text,
            )


def label_beside(axes: Axes, names: Mapping[str, float]) -> None:
    """Writes each name to the right of its height, moving apart those that would touch."""
    bottom, top = axes.get_ylim()
    gap = 0.055 * (top - bottom)
    labels = sorted(names, key=lambda name: names[name])
    heights = np.array([names[label] for label in labels])
    places = np.maximum(heights, bottom)
    for _ in range(100):
        overlap = np.maximum(gap - np.diff(places), 0.0) / 2
        if overlap.max(initial=0.0) < 1e-3 * gap:
            break
        places[:-1] -= overlap
        places[1:] += overlap
    # Not below the axes, where the numbers of the other axis stand.
    steps = gap * np.arange(len(places))
    places = np.maximum.accumulate(np.maximum(places - steps, bottom)) + steps
    for label, height, place in zip(labels, heights, places, strict=True):
        axes.annotate(
            label,
            (1.0, height),
            (1.06, place),
            xycoords=axes.get_yaxis_transform(),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=9,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0, 0.5),
                "color": INK,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 0,
            },
        )


def frame_cube(panel: Any, coordinates: NDArray[np.float64]) -> None:
    """Gives a 3-D panel one scale on its three axes, faint walls and no numbers."""
    lowest, highest = coordinates.min(axis=0), coordinates.max(axis=0)
    half_width = 0.52 * (highest - lowest).max() or 1.0
    panel.set_box_aspect((1, 1, 1), zoom=1.05)
    for name, center in zip("xyz", (lowest + highest) / 2, strict=True):
        panel.set(**{f"{name}lim": (center - half_width, center + half_width)})
        axis = getattr(panel, f"{name}axis")
        axis.set_ticks(center + half_width * np.array([-0.5, 0.0, 0.5]), labels=[])
        axis.set_tick_params(color="none")
        axis.set_pane_color((0.97, 0.97, 0.97, 1.0))
        axis.line.set_color(FAINT)


def require(mapping: Mapping[str, object], name: str) -> None:
    """Raises if there is nothing to draw."""
    if not mapping:
        raise ValueError(f"{name} must have at least one label, got none")
