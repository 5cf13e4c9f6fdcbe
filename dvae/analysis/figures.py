"""Figures: images, rate against distortion, codebooks, latents, relaxations and results.

Every function takes NumPy arrays and returns a `matplotlib.figure.Figure`, drawn without pyplot and
so without global state or a display; `save` writes it. An estimator has the same color in every
figure: `gs_soft`, `gs_hard`, `vimco`, `vq` and `vq_ema` their own, other labels the next spare one.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from dvae import _extras
from dvae._replacing import replacing

with _extras.needed(__name__, "plots"):
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

from dvae.analysis._codebooks import codebook_pca, explained_variance
from dvae.analysis._convergence import convergence
from dvae.analysis._drawing import (
    INK,
    beside_or_inside,
    label_beside,
    looks,
    new_figure,
    require,
    styled,
    wrapped,
)
from dvae.analysis._images import image_grid, image_rows, reconstructions, samples
from dvae.analysis._latents import confusion_matrices, kl_per_dimension, traversals
from dvae.analysis._rate_distortion import rate_distortion, rate_distortion_path
from dvae.analysis._relaxations import (
    RelaxedBit,
    inverse_cdfs,
    mixture_densities,
    relaxed_bits,
    smoothing_densities,
)
from dvae.analysis._variance import GradientError, bias_and_variance

__all__ = [
    "GradientError",
    "RelaxedBit",
    "active_units",
    "bias_and_variance",
    "bits_per_dim_by_codebook_size",
    "codebook_pca",
    "confusion_matrices",
    "convergence",
    "explained_variance",
    "image_grid",
    "image_rows",
    "inverse_cdfs",
    "kl_per_dimension",
    "learning_curve",
    "mixture_densities",
    "rate_distortion",
    "rate_distortion_path",
    "reconstructions",
    "relaxed_bits",
    "samples",
    "save",
    "smoothing_densities",
    "traversals",
]


def save(figure: Figure, path: str | os.PathLike[str], *, dpi: int = 150) -> None:
    """Writes a PNG file, whole or not at all.

    The image goes to a hidden file beside `path` that then takes its place, so a reader never sees
    half a figure. Missing folders are made. The same figure gives the same bytes.

    Args:
        figure: what a function of this module returned.
        path: where to write; must end in ".png".
        dpi: pixels per inch.

    Raises:
        ValueError: if `path` does not end in ".png".
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"path must end in .png, got {str(path)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        # No version stamp in the file.
        figure.savefig(part, format="png", dpi=dpi, metadata={"Software": None})


@styled
def bits_per_dim_by_codebook_size(
    results: Mapping[str, Sequence[tuple[int, float]]],
    *,
    references: Mapping[str, float] | None = None,
) -> Figure:
    """Draws bits/dim against the size of the codebook (Sønderby et al. 2017, fig. 1a).

    Args:
        results: label -> pairs (C, bits/dim), in any order.
        references: label -> bits/dim of a published result, drawn as a dashed line.

    Returns:
        A figure with one set of axes, with a line for each label of `results`.

    Raises:
        ValueError: if there are no results.
    """
    require(results, "results")
    figure = new_figure(7.0 if references else 5.6, 4.0)
    axes = figure.add_subplot()
    sizes = sorted({size for pairs in results.values() for size, _ in pairs})
    for (label, pairs), (color, marker) in zip(
        results.items(), looks(results).values(), strict=True
    ):
        codes, bits = zip(*sorted(pairs), strict=True)
        axes.plot(codes, bits, color=color, marker=marker, label=wrapped(label))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([str(size) for size in sizes])
    axes.set_xlabel("codebook size C")
    axes.set_ylabel("bits/dim (lower is better)")
    axes.margins(y=0.1)
    if references:
        for value in references.values():
            axes.axhline(value, color=INK, linestyle="--", linewidth=0.9, zorder=1)
        names = {f"{label}: {value:.2f}": value for label, value in references.items()}
        label_beside(axes, names)
    beside_or_inside(figure, axes)
    return figure


@styled
def learning_curve(
    train: Mapping[str, tuple[ArrayLike, ArrayLike]],
    validation: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    *,
    unit: str = "bits/dim",
) -> Figure:
    """Draws a bound against the step: training as a thin line, validation as a marked one.

    Args:
        train: label -> (steps, values), arrays [T].
        validation: the same for held-out images; a label has one color in both.
        unit: what the values are, written at their axis.

    Returns:
        A figure with one set of axes, with lines labeled "LABEL, train" and "LABEL, validation".

    Raises:
        ValueError: if there are no curves.
    """
    validation = validation or {}
    require({**train, **validation}, "train")
    figure = new_figure(6.4, 4.0)
    axes = figure.add_subplot()
    for label, (color, marker) in looks({**train, **validation}).items():
        if label in train:
            name = wrapped(f"{label}, train")
            axes.plot(*train[label], color=color, linewidth=1.0, alpha=0.6, label=name)
        if label in validation:
            axes.plot(
                *validation[label],
                color=color,
                marker=marker,
                markersize=5,
                label=wrapped(f"{label}, validation"),
            )
    axes.set_xlabel("step")
    axes.xaxis.set_major_formatter("{x:,.6g}")
    axes.set_ylabel(unit)
    beside_or_inside(figure, axes)
    return figure


@styled
def active_units(variances: Mapping[str, ArrayLike], *, threshold: float = 0.01) -> Figure:
    """Draws the variance over images of each unit's posterior mean, largest first.

    A unit whose mean hardly depends on the image carries no information (Burda, Grosse and
    Salakhutdinov 2016, sec. 5.1, count those above 0.01 as active).

    Args:
        variances: label -> [n], Var_x(E[z_i|x]).
        threshold: drawn as a line; the legend counts the units above it.

    Returns:
        A figure with one set of axes.

    Raises:
        ValueError: if there is nothing to draw.
    """
    require(variances, "variances")
    figure = new_figure(6.4, 4.0)
    axes = figure.add_subplot()
    for label, (color, _) in looks(variances).items():
        ordered = np.sort(np.asarray(variances[label], np.float64))[::-1]
        count = int((ordered > threshold).sum())
        text = wrapped(f"{label}: {count} of {len(ordered)} active")
        axes.step(np.arange(1, len(ordered) + 1), ordered, where="mid", color=color, label=text)
    axes.axhline(threshold, color="0.6", linewidth=0.8, linestyle="--")
    axes.set_xlabel("unit, by variance")
    axes.set_ylabel("variance of the posterior mean over images")
    axes.set_ylim(bottom=0)
    beside_or_inside(figure, axes)
    return figure
