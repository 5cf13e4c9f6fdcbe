"""The figure of squared bias against variance."""

import numpy as np
import pytest

from dvae.analysis import figures
from dvae.analysis.figures import GradientError

STAGES = {
    "before": {
        "reinforce": [GradientError(-0.1, 0.2, 50.0)],
        "power": [GradientError(0.3, 0.01, 0.5), GradientError(0.1, 0.01, 2.0)],
        "power, marginal": [GradientError(0.2, 0.01, 0.6), GradientError(0.05, 0.1, 30.0)],
    },
    "after": {
        "reinforce": [GradientError(0.0, 0.2, 500.0)],
        "power": [GradientError(0.4, 0.01, 0.7)],
    },
}


def draw(stages=STAGES):
    return figures.bias_and_variance(stages, unit="/ 1")


def paths(axes):
    return {line.get_label(): line for line in axes.lines if line.get_label()[0] != "_"}


def test_significance_takes_three_standard_errors() -> None:
    assert GradientError(0.31, 0.1, 1.0).biased
    assert not GradientError(0.29, 0.1, 1.0).biased
    assert not GradientError(-0.9, 0.1, 1.0).biased
    assert not GradientError(0.0, 0.0, 1.0).biased


def test_biased_estimators_are_paths_in_order_of_their_settings() -> None:
    before, after = draw().axes[:2]
    assert (before.get_title(), after.get_title()) == ("before", "after")
    assert set(paths(before)) == {"power", "power, marginal"}
    np.testing.assert_array_equal(paths(before)["power"].get_xydata(), [[0.5, 0.3], [2.0, 0.1]])
    # The second point shows no bias.
    np.testing.assert_array_equal(paths(before)["power, marginal"].get_xydata(), [[0.6, 0.2]])
    assert (before.get_xscale(), before.get_yscale()) == ("log", "log")


def test_estimators_without_bias_are_rows_by_variance() -> None:
    before, after = draw().axes[2:]
    assert [text.get_text() for text in before.get_yticklabels()] == [
        "power, marginal",
        "reinforce",
    ]
    points = {tuple(line.get_xydata()[0]) for line in before.lines}
    assert points == {(50.0, 1.0), (30.0, 0.0)}
    assert [tuple(line.get_xydata()[0]) for line in after.lines] == [(500.0, 1.0)]


def test_a_variant_shares_the_color_and_is_hollow() -> None:
    figure = draw()
    lines = paths(figure.axes[0])
    assert lines["power"].get_color() == lines["power, marginal"].get_color()
    (legend,) = figure.legends
    faces = [handle.get_markerfacecolor() for handle in legend.legend_handles]
    assert faces == [lines["power"].get_color(), "white"]
    markers = {tuple(x.get_xydata()[0]): x.get_markersize() for x in figure.axes[0].lines[1:3]}
    assert markers[0.5, 0.3] < markers[2.0, 0.1]


def test_only_unbiased_estimators_can_be_drawn() -> None:
    figure = draw({"now": {"reinforce": [GradientError(0.0, 1.0, 2.0)]}})
    assert not figure.axes[0].lines
    assert len(figure.axes[1].lines) == 1


@pytest.mark.parametrize(
    ("stages", "text"),
    [
        ({}, "stages must have"),
        ({"now": {}}, r"stages\['now'\] must have"),
        ({"now": {"disarm": [GradientError(0.1, 0.0, 0.0)]}}, "'disarm' .* must be positive"),
    ],
)
def test_what_cannot_be_drawn_is_refused(stages, text) -> None:
    with pytest.raises(ValueError, match=text):
        draw(stages)
