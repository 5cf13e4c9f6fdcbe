"""Figures of relaxed bits: their densities, their inverse CDFs and what they cost."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from dvae.analysis._drawing import FAINT, INK, new_figure, require, styled, tidy_logarithms

ZERO, ONE = "#0072B2", "#D55E00"
_FIXED = {
    "exponential": "#0072B2",
    "power": "#D55E00",
    "spike-and-exp": "#CC79A7",
    "binary Concrete": "#009E73",
}
_DASHES: list[Any] = ["-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5))]
_ZETA = "relaxed bit ζ"
_MU = "μ = q(z = 1|x)"
_INVERSE = "ζ = F$^{-1}$($\\rho$ = 1/2)"
_LOGIT = "logit $\\ell$"
_NOISE = "E min(ζ, 1 $-$ ζ)"
_SLOPE = "E[(dζ/d$\\ell$)²] / E[dζ/d$\\ell$]²"


class RelaxedBit(NamedTuple):
    """What `relaxed_bits` draws of one relaxation."""

    inverse_cdf: ArrayLike  # [M], F^-1(1/2) at the M values of mu
    densities: ArrayLike  # [D, Z], f(zeta) at D logits
    noise: ArrayLike  # [L], E min(zeta, 1 - zeta) at L logits
    slope: ArrayLike  # [L], E[(dzeta/dl)^2] / E[dzeta/dl]^2, at least 1
    # [D, S] each: noise and slope at the D logits of the densities, for S sharpnesses.
    path_noise: ArrayLike
    path_slope: ArrayLike


@styled
def smoothing_densities(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike | None, ArrayLike]], *, top: float, title: str
) -> Figure:
    """Draws r(zeta|z=0) and r(zeta|z=1) of smoothings, one panel each.

    Args:
        curves: label -> (zeta, r_0, r_1), arrays [Z]; r_0 is None for a unit mass at zero, which
            is drawn as an arrow.
        top: densities above it are cut off (that of the power family is unbounded).
        title: of the figure, such as the inverse temperature.

    Returns:
        A figure with a panel for each label, at most three to a row.

    Raises:
        ValueError: if there are no curves.
    """
    require(curves, "curves")
    figure, panels = _panels(curves)
    for axes, (label, (zeta, r_0, r_1)) in zip(panels, curves.items(), strict=True):
        heights = [np.asarray(r) for r in (r_0, r_1) if r is not None]
        _frame(axes, zeta, heights, top)
        if r_0 is None:
            _draw_spike(axes, "δ(ζ)", ZERO)
        else:
            axes.plot(zeta, r_0, color=ZERO)
        axes.plot(zeta, r_1, color=ONE, linestyle=_DASHES[1])
        axes.set_title(label)
    _label_outer(panels, _ZETA, "density r(ζ|z)")
    panels[0].plot([], [], color=ZERO, label="z = 0")
    panels[0].plot([], [], color=ONE, linestyle=_DASHES[1], label="z = 1")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2, title=title)
    return figure


@styled
def mixture_densities(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike, float]], *, top: float, title: str
) -> Figure:
    """Draws the density q(zeta) = (1 - mu) r(zeta|0) + mu r(zeta|1), one panel a smoothing.

    Args:
        curves: label -> (zeta, density, mass), two arrays [Z] and the probability of exactly
            zero, drawn as an arrow with its value if it is positive.
        top: densities above it are cut off.
        title: of the figure, such as mu and the inverse temperature.

    Returns:
        A figure with a panel for each label, at most three to a row.

    Raises:
        ValueError: if there are no curves.
    """
    require(curves, "curves")
    figure, panels = _panels(curves)
    for axes, (label, (zeta, density, mass)) in zip(panels, curves.items(), strict=True):
        _frame(axes, zeta, [np.asarray(density)], top)
        axes.fill_between(np.asarray(zeta), np.asarray(density), color=INK, alpha=0.08, lw=0)
        axes.plot(zeta, density, color=INK)
        if mass > 0:
            _draw_spike(axes, f"{mass:g} δ(ζ)", INK)
        axes.set_title(label)
    _label_outer(panels, _ZETA, "density q(ζ)")
    figure.suptitle(title, fontsize=10)
    return figure


@styled
def inverse_cdfs(mu: ArrayLike, curves: Mapping[str, Mapping[str, ArrayLike]]) -> Figure:
    """Draws zeta = F^-1(1/2) against mu, with the step that the smoothings approximate.

    The map that turns a fixed noise rho = 1/2 into a relaxed bit, Vahdat et al. (2018), DVAE++,
    fig. 1(b).

    Args:
        mu: [M], the probabilities q(z=1|x), in (0, 1).
        curves: title of a panel -> label of a line -> [M]. Panels of the same lines share a
            legend.

    Returns:
        A figure with a panel for each title, at most three to a row.

    Raises:
        ValueError: if there are no panels.
    """
    require(curves, "curves")
    figure, panels = _panels(curves)
    for axes, (title, lines) in zip(panels, curves.items(), strict=True):
        _draw_step(axes)
        for (label, values), color, dashes in zip(
            lines.items(), _colors(lines), _DASHES * len(lines), strict=False
        ):
            axes.plot(mu, values, color=color, linestyle=dashes, label=label)
        axes.set_title(title)
    _label_outer(panels, _MU, _INVERSE)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return figure


@styled
def relaxed_bits(
    mu: ArrayLike,
    zeta: ArrayLike,
    logits: ArrayLike,
    chosen: Sequence[float],
    relaxations: Mapping[str, RelaxedBit],
) -> Figure:
    """Compares relaxations of one bit: law, noise that they leave and noise of their gradient.

    Top: inverse CDF at rho = 1/2, and the densities at the two chosen logits. Bottom: the noise
    E min(zeta, 1 - zeta), the mean distance to the nearest bit; E[(dzeta/dl)^2] / E[dzeta/dl]^2,
    the second moment of a one-sample gradient in units of its squared mean; and one against the
    other over sharpness, with a dot at the setting of the other panels.

    Args:
        mu: [M] in (0, 1), of the inverse CDFs.
        zeta: [Z] in (0, 1), of the densities.
        logits: [L], of noise and slope.
        chosen: the D = 2 logits of the densities and of the paths; both must be among `logits`.
        relaxations: label, with its setting after a comma -> its `RelaxedBit`.

    Returns:
        A figure with six panels.

    Raises:
        ValueError: if there are no relaxations, or a chosen logit is not among `logits`.
    """
    require(relaxations, "relaxations")
    logits = np.asarray(logits)
    missing = [logit for logit in chosen if logit not in logits]
    if missing:
        raise ValueError(f"chosen logits must be among those of the noise, {missing} are not")
    at = [int(np.flatnonzero(logits == logit)[0]) for logit in chosen]
    figure = new_figure(10.2, 6.4)
    (icdf, *laws), (noise, slope, path) = figure.subplots(2, 3)
    _draw_step(icdf)
    looks = zip(relaxations.items(), _colors(relaxations), _DASHES, strict=False)
    for (label, bit), color, dashes in looks:
        look: dict[str, Any] = {"color": color, "linestyle": dashes}
        icdf.plot(mu, bit.inverse_cdf, label=label, **look)
        for axes, density in zip(laws, np.asarray(bit.densities), strict=True):
            axes.plot(zeta, density, **look)
        noise.plot(logits, bit.noise, **look)
        slope.plot(logits, bit.slope, **look)
        paths = zip(np.asarray(bit.path_noise), np.asarray(bit.path_slope), at, strict=True)
        for i, (x, y, index) in enumerate(paths):
            path.plot(x, y, linewidth=1.8 - 0.8 * i, **look)
            dot = (np.asarray(bit.noise)[index], np.asarray(bit.slope)[index])
            path.plot(*dot, color=color, marker="o", markerfacecolor="white" if i else color)
    icdf.set(xlabel=_MU, ylabel=_INVERSE, title="inverse CDF")
    for axes, logit in zip(laws, chosen, strict=True):
        name = f"density at $\\ell$ = {logit:g} (μ = {1 / (1 + math.exp(-logit)):.3g})"
        axes.set(xlabel=_ZETA, ylabel="density f(ζ)", title=name, yscale="log")
    noise.set(xlabel=_LOGIT, ylabel=_NOISE, title="noise: mean distance to the nearest bit")
    noise.set_ylim(bottom=0)
    slope.set(xlabel=_LOGIT, ylabel=_SLOPE, title="relative second moment of the slope")
    slope.set_yscale("log")
    path.set(xlabel=_NOISE, ylabel=_SLOPE, title="slope against noise, by sharpness")
    path.set(xscale="log", yscale="log")
    path.set_ylim(0.8, min(1e4, path.get_ylim()[1]))  # the exponential's cliff has no end
    for i, logit in enumerate(chosen):
        face = "white" if i else INK
        look = {"marker": "o", "markerfacecolor": face, "linewidth": 1.8 - 0.8 * i}
        path.plot([], [], color=INK, label=f"$\\ell$ = {logit:g}", **look)
    path.legend()
    for axes in (*laws, slope, path):
        tidy_logarithms(axes)
    figure.legend(*icdf.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _panels(titles: Mapping[str, object]) -> tuple[Figure, list[Axes]]:
    """Makes a figure with one panel a title, at most three to a row."""
    columns = _num_columns(len(titles))
    rows = math.ceil(len(titles) / columns)
    figure = new_figure(0.5 + 2.9 * columns, 0.6 + 2.2 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in panels[len(titles) :]:
        spare.remove()
    return figure, list(panels[: len(titles)])


def _num_columns(num_panels: int) -> int:
    return 2 if num_panels == 4 else min(3, num_panels)


def _label_outer(panels: list[Axes], x: str, y: str) -> None:
    """Names the axes of the first column, and of the panels with none below."""
    columns = _num_columns(len(panels))
    for i, axes in enumerate(panels):
        if i % columns == 0:
            axes.set_ylabel(y)
        if i + columns >= len(panels):
            axes.set_xlabel(x)


def _frame(axes: Axes, zeta: ArrayLike, heights: list[NDArray[Any]], top: float) -> None:
    """Fixes the view: all of zeta, and heights up to `top`."""
    zeta = np.asarray(zeta)
    margin = 0.03 * (zeta.max() - zeta.min())
    axes.set_xlim(zeta.min() - margin, zeta.max() + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 5]))
    axes.set_ylim(0, 1.08 * min(top, max(values.max() for values in heights)))


def _draw_spike(axes: Axes, name: str, color: str) -> None:
    """Draws an arrow at zero, for a mass without a density."""
    height = 0.8 * axes.get_ylim()[1]
    look = {"arrowstyle": "-|>", "color": color, "linewidth": 1.8, "mutation_scale": 12}
    axes.annotate("", (0, height), (0, 0), arrowprops={**look, "shrinkA": 0, "shrinkB": 0})
    axes.annotate(name, (0, height), (7, -4), textcoords="offset points", color=color, va="top")


def _draw_step(axes: Axes) -> None:
    """Draws 1[mu >= 1/2], the map of the bits themselves."""
    look: dict[str, Any] = {"color": FAINT, "linewidth": 3.5, "zorder": 1, "label": "step"}
    axes.plot([0, 0.5, 0.5, 1], [0, 0, 1, 1], **look)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))


def _colors(labels: Iterable[str]) -> list[str]:
    """Gives families, named before the comma, their own colors, and other labels a sequence."""
    names = [label.split(",")[0] for label in labels]
    if all(name in _FIXED for name in names):
        return [_FIXED[name] for name in names]
    return [to_hex(c) for c in colormaps["viridis_r"](np.linspace(0.15, 1.0, len(names)))]
