"""The figure of errors against effort."""

import pytest

from dvae.analysis import figures

ROWS = {
    "error of a": {
        "small": {"gibbs": ([1, 10], [0.5, 0.1]), "ais": ([1, 10], [0.2, 0.02])},
        "large": {"gibbs": ([1, 10], [0.9, 0.8])},
    },
    "error of b": {"small": {"ais": ([1, 10], [3.0, 1.0])}},
}


def test_rows_are_quantities_and_columns_problems() -> None:
    figure = figures.convergence(ROWS, xlabel="sweeps")
    upper_small, upper_large, lower_small, lower_large = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["small", "large", "", ""]
    assert (upper_small.get_ylabel(), lower_small.get_ylabel()) == ("error of a", "error of b")
    assert [len(axes.lines) for axes in figure.axes] == [2, 1, 1, 0]
    assert upper_large.lines[0].get_color() == upper_small.lines[0].get_color()
    assert upper_small.lines[1].get_color() == lower_small.lines[0].get_color()
    assert [text.get_text() for text in figure.legends[0].texts] == ["gibbs", "ais"]
    assert lower_large.get_xlabel() == "sweeps"
    assert upper_small.get_yscale() == "log"


def test_long_titles_are_wrapped() -> None:
    name = "100x100, a machine of a long name"
    (axes,) = figures.convergence({"error": {name: {"ais": ([1], [1.0])}}}, xlabel="sweeps").axes
    assert axes.get_title().split("\n") == ["100x100, a machine of a", "long name"]


def test_numbers_of_narrow_axes_stay_apart() -> None:
    sweeps = [10, 30, 100, 300, 1000]
    (axes,) = figures.convergence({"e": {"m": {"ais": (sweeps, sweeps)}}}, xlabel="sweeps").axes
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == sweeps


def test_what_cannot_be_drawn_is_named() -> None:
    with pytest.raises(ValueError, match="rows"):
        figures.convergence({}, xlabel="sweeps")
    zero = {"error": {"small": {"ais": ([1, 2], [0.0, 1.0])}}}
    with pytest.raises(ValueError, match="error of ais on small must be positive"):
        figures.convergence(zero, xlabel="sweeps")
