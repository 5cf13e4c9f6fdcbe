"""Figures of latent variables."""

import numpy as np
import pytest

from dvae.analysis import figures


def shades(*values, size=16, channels=1):
    column = np.array(values, np.uint8)[:, None, None, None]
    return np.broadcast_to(column, (len(values), size, size, channels))


def labels(axis):
    return [tick.get_text() for tick in axis]


def test_traversals_have_a_row_a_variable_and_a_column_a_value():
    figure = figures.traversals(
        [
            ("continuous", ["5 %", "95 %"], {"h1": shades(10, 20), "h2": shades(30, 40)}),
            ("none of these", ["a"], {}),
            ("discrete", ["0", "1", "2"], {"c1": shades(50, 60, 70)}),
        ]
    )
    first, second = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["continuous", "discrete"]
    assert labels(first.get_yticklabels()) == ["h1", "h2"]
    assert labels(first.get_xticklabels()) == ["5 %", "95 %"]
    assert labels(second.get_xticklabels()) == ["0", "1", "2"]
    for axes, expected in ((first, [[10, 20], [30, 40]]), (second, [[50, 60, 70]])):
        canvas = np.asarray(axes.images[0].get_array())
        rows, columns = axes.get_yticks().astype(int), axes.get_xticks().astype(int)
        np.testing.assert_array_equal(canvas[rows][:, columns, 0], expected)
        assert canvas.shape == (17 * len(rows) - 1, 17 * len(columns) - 1, 3)


def test_traversals_of_colors_keep_them():
    red = np.zeros((1, 8, 8, 3), np.uint8)
    red[..., 0] = 200
    figure = figures.traversals([("t", ["0"], {"c1": red})])
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array()[4, 4], [200, 0, 0])


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([("t", ["a"], {})], "at least one latent variable"),
        ([("t", ["a", "b"], {"h1": shades(1)})], "row 'h1' must have 2 images"),
        ([("t", ["a"], {"h1": shades(1), "h2": shades(1)[:, :, :8]})], "row 'h2' .* size"),
        ([("t", ["a"], {"h1": shades(1) / 255.0})], "uint8"),
    ],
)
def test_traversals_that_cannot_be_drawn(blocks, message):
    with pytest.raises(ValueError, match=message):
        figures.traversals(blocks)


def test_confusion_is_drawn_in_shares_of_each_code():
    counts = {"one": [[3, 0, 0], [1, 2, 0]], "two": [[5], [5]]}
    figure = figures.confusion_matrices(counts)
    one, two = figure.axes
    np.testing.assert_allclose(one.images[0].get_array(), [[0.75, 0, 0], [0.25, 1, 0]])
    assert {t.get_text() for t in one.texts} == {"75", "25", "100"}
    assert labels(one.get_xticklabels()) == ["0\n4", "1\n2", "2\n0"]
    assert one.get_title() == "one"
    np.testing.assert_allclose(two.images[0].get_array(), [[0.5], [0.5]])
    with pytest.raises(ValueError, match="at least one label"):
        figures.confusion_matrices({})


def test_kl_of_every_dimension():
    steps = [10, 20]
    figure = figures.kl_per_dimension(
        {"h1": (steps, [0.1, 0.5]), "h2": (steps, [0.2, 0.3])}, {"c1": (steps, [1.0, 2.0])}
    )
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_array_equal(lines["c1"].get_ydata(), [1.0, 2.0])
    assert lines["c1"].get_linestyle() == "--"
    assert lines["h1"].get_color() != lines["h2"].get_color()
    assert {text.get_text() for text in axes.texts} == {"h1", "h2", "c1"}
    assert axes.get_xlim()[1] == 20.0  # where the lines to the names begin
    with pytest.raises(ValueError, match="continuous and discrete"):
        figures.kl_per_dimension({}, {})
