import numpy as np
import pytest
from matplotlib.figure import Figure

from dvae.analysis import figures

ZETA = np.linspace(0.01, 0.99, 99)
MU = np.linspace(0.1, 0.9, 9)
LOGITS = np.linspace(0.0, 8.0, 9)


def labels(axes):
    return [line.get_label() for line in axes.lines if line.get_label()[0] != "_"]


def legend_texts(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def arrows(axes):
    return [text for text in axes.texts if text.arrow_patch is not None]


def relaxed_bit(scale=1.0):
    path = scale * np.ones((2, 5))
    return figures.RelaxedBit(
        MU, np.ones((2, 99)), 0.1 * scale * np.ones(9), 1 + scale * LOGITS, path, 1 + path
    )


def test_conditional_densities_are_a_panel_a_smoothing():
    curves = {"one": (ZETA, 1 - ZETA, ZETA), "two": (ZETA, None, 50 * ZETA)}
    figure = figures.smoothing_densities(curves, top=10.0, title="β = 3")
    assert isinstance(figure, Figure)
    one, two = figure.axes
    assert [one.get_title(), two.get_title()] == ["one", "two"]
    np.testing.assert_array_equal(one.lines[0].get_ydata(), 1 - ZETA)
    np.testing.assert_array_equal(one.lines[1].get_ydata(), ZETA)
    assert not arrows(one)
    # The mass is an arrow and not a line, and high densities are cut.
    assert len(two.lines) == 1
    (arrow,) = arrows(two)
    assert arrow.xy[0] == 0
    assert 10.0 < two.get_ylim()[1] < 11.0
    assert one.get_ylim()[1] < 1.1
    assert legend_texts(figure) == ["z = 0", "z = 1"]
    assert figure.legends[0].get_title().get_text() == "β = 3"


def test_mixtures_show_their_mass_at_zero():
    curves = {"one": (ZETA, ZETA, 0.0), "two": (ZETA, ZETA, 0.25)}
    one, two = figures.mixture_densities(curves, top=10.0, title="μ").axes
    assert not arrows(one)
    assert len(arrows(two)) == 1
    assert "0.25 δ(ζ)" in [text.get_text() for text in two.texts]


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 2), (6, 2, 3)])
def test_inverse_cdfs_are_drawn_over_the_step(count, rows, columns):
    panels = {f"p{i}": {"β = 1": MU, "β = 2": MU**2} for i in range(count)}
    figure = figures.inverse_cdfs(MU, panels)
    assert len(figure.axes) == count
    grid = figure.axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == (rows, columns)
    for axes in figure.axes:
        assert labels(axes) == ["step", "β = 1", "β = 2"]
        np.testing.assert_array_equal(axes.lines[2].get_ydata(), MU**2)
        colors = [line.get_color() for line in axes.lines]
        assert len(set(colors)) == 3
    assert legend_texts(figure) == ["step", "β = 1", "β = 2"]
    # Only the outer panels name their axes.
    named = [bool(axes.get_xlabel()) for axes in figure.axes]
    assert named == [i + columns >= count for i in range(count)]


def test_a_family_keeps_its_color():
    lines = {"exponential": MU, "spike-and-exp": MU}
    alone = figures.inverse_cdfs(MU, {"p": {"exponential": MU}}).axes[0].lines[1]
    beside = figures.inverse_cdfs(MU, {"p": lines}).axes[0].lines[1]
    bits = {"power, β = 2": relaxed_bit(), "exponential, β = 1": relaxed_bit()}
    compared = figures.relaxed_bits(MU, ZETA, LOGITS, (0.0, 4.0), bits).axes[0].lines[2]
    assert alone.get_color() == beside.get_color() == compared.get_color()


def test_relaxed_bits_marks_the_setting_on_its_path():
    bits = {"power, β = 2": relaxed_bit(), "binary Concrete, τ = 0.5": relaxed_bit(2.0)}
    figure = figures.relaxed_bits(MU, ZETA, LOGITS, (0.0, 4.0), bits)
    assert len(figure.axes) == 6
    assert legend_texts(figure) == ["step", *bits]
    dots = [line.get_xydata() for line in figure.axes[5].lines if len(line.get_xdata()) == 1]
    np.testing.assert_allclose(np.concatenate(dots), [[0.1, 1], [0.1, 5], [0.2, 1], [0.2, 9]])
    assert "0.982" in figure.axes[2].get_title()


def test_a_chosen_logit_that_was_not_computed_is_refused():
    with pytest.raises(ValueError, match=r"\[0.3\] are not"):
        figures.relaxed_bits(MU, ZETA, LOGITS, (0.0, 0.3), {"power": relaxed_bit()})


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.smoothing_densities({}, top=1.0, title=""),
        lambda: figures.mixture_densities({}, top=1.0, title=""),
        lambda: figures.inverse_cdfs(MU, {}),
        lambda: figures.relaxed_bits(MU, ZETA, LOGITS, (0.0, 4.0), {}),
    ],
)
def test_nothing_to_draw_is_refused(draw):
    with pytest.raises(ValueError, match="at least one label"):
        draw()


def test_the_same_curves_give_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        curves = {"one": (ZETA, None, ZETA)}
        figures.save(
            figures.smoothing_densities(curves, top=9.0, title="t"), tmp_path / name, dpi=50
        )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
