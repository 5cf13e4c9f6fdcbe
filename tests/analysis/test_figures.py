import math

import numpy as np
import pytest

from dvae.analysis import figures, pca


def lines(figure):
    """The labeled lines of the only axes, by label."""
    (axes,) = figure.axes
    return {line.get_label(): line for line in axes.lines if line.get_label()[0] != "_"}


def texts(axes):
    return [text.get_text() for text in axes.texts if text.get_text()]


def colors_in_figure(figure):
    """The pixels of the only image of the figure."""
    (axes,) = figure.axes
    (image,) = axes.images
    return np.asarray(image.get_array())


def shades(num_images, height=8, width=6, channels=3):
    """Images of one shade each, darker than white: 10, 20, 30..."""
    values = 10 * np.arange(1, num_images + 1, dtype=np.uint8)
    return np.broadcast_to(values[:, None, None, None], (num_images, height, width, channels))


def stack(num_latents=3, num_codes=16, num_dims=8, seed=0):
    return np.random.default_rng(seed).normal(size=(num_latents, num_codes, num_dims))


# Images


@pytest.mark.parametrize("channels", [1, 3])
def test_image_grid_places_images_row_after_row(channels):
    figure = figures.image_grid(shades(5, channels=channels), num_columns=3, title="five")
    canvas = colors_in_figure(figure)
    # Two rows of 8 and three columns of 6 pixels, one pixel apart.
    assert canvas.shape == (8 + 1 + 8, 6 + 1 + 6 + 1 + 6, 3)
    assert canvas.dtype == np.uint8
    expected = [[10, 20, 30], [40, 50, 255]]
    for row in range(2):
        for column in range(3):
            tile = canvas[9 * row : 9 * row + 8, 7 * column : 7 * column + 6]
            np.testing.assert_array_equal(tile, expected[row][column])
    assert (canvas[8] == 255).all()
    assert figure.axes[0].get_title(loc="left") == "five"


def test_image_grid_keeps_the_proportions():
    figure = figures.image_grid(shades(4), num_columns=2)
    width, height = figure.get_size_inches() * figure.axes[0].get_position().size
    rows, columns = colors_in_figure(figure).shape[:2]
    assert math.isclose(width / height, columns / rows, rel_tol=1e-6)


def test_samples_is_a_grid():
    canvas = colors_in_figure(figures.samples(shades(9)))
    assert canvas.shape == (8 + 1 + 8, 8 * 7 - 1, 3)


def test_reconstructions_alternate_below_their_originals():
    originals = shades(5)
    figure = figures.reconstructions(originals, originals + np.uint8(100), num_columns=3)
    (axes,) = figure.axes
    canvas = colors_in_figure(figure)
    expected = [[10, 20, 30], [110, 120, 130], [40, 50, 255], [140, 150, 255]]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["original", "reconstruction"] * 2
    # The labels sit at the middle of their rows.
    for middle, shade in zip(axes.get_yticks(), expected, strict=True):
        np.testing.assert_array_equal(canvas[int(middle), 3::7, 0], shade)


@pytest.mark.parametrize(
    ("images", "num_columns", "message"),
    [
        (np.zeros((2, 4, 4, 3)), 2, "uint8.*float64"),
        (np.zeros((4, 4, 3), np.uint8), 2, r"\[N, H, W, C\].*\(4, 4, 3\)"),
        (np.zeros((2, 4, 4, 2), np.uint8), 2, "C = 1 or 3"),
        (np.zeros((0, 4, 4, 3), np.uint8), 2, r"\(0, 4, 4, 3\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), 0, "at least 1, got 0"),
    ],
)
def test_image_misuse(images, num_columns, message):
    with pytest.raises(ValueError, match=message):
        figures.image_grid(images, num_columns=num_columns)
    with pytest.raises(ValueError, match=message):
        figures.reconstructions(images, images, num_columns=num_columns)


def test_reconstructions_must_match():
    with pytest.raises(ValueError, match=r"same shape.*\(2, 8, 6, 3\) and \(3, 8, 6, 3\)"):
        figures.reconstructions(shades(2), shades(3))


# Rate and distortion

PATHS = {
    "gs_soft": ([10.0, 500.0, 1400.0], [14500.0, 11000.0, 8300.0], [1000, 2000, 50000]),
    "vq": ([2100.0, 2050.0], [13000.0, 8200.0]),
}


def test_rate_distortion_path_draws_the_data_from_hollow_to_filled():
    figure = figures.rate_distortion_path(PATHS)
    paths = lines(figure)
    assert set(paths) == {"gs_soft, 50,000 steps", "vq"}
    np.testing.assert_array_equal(paths["gs_soft, 50,000 steps"].get_xdata(), PATHS["gs_soft"][0])
    np.testing.assert_array_equal(paths["vq"].get_ydata(), PATHS["vq"][1])
    assert paths["vq"].get_markevery() == [1]
    (axes,) = figure.axes
    starts = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in starts] == [
        (10.0, 14500.0),
        (2100.0, 13000.0),
    ]
    ends = [line for line in axes.lines if line.get_zorder() == 3 and line not in starts]
    assert [line.get_xydata()[0].tolist() for line in ends] == [
        [PATHS[name][0][-1], PATHS[name][1][-1]] for name in PATHS
    ]
    assert max(line.get_zorder() for line in paths.values()) < 3  # no path covers an end
    assert not any("bits/dim" in text for text in texts(axes))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(paths)


def test_arrows_point_along_the_path():
    (axes,) = figures.rate_distortion_path({"vq": PATHS["vq"]}).axes
    arrows = [text for text in axes.texts if text.get_text() == ""]
    assert len(arrows) == 2
    for arrow in arrows:
        head, tail = arrow.xy, arrow.get_position()
        assert 8200 < head[1] < tail[1] < 13000


def test_diagonals_are_lines_of_equal_bits_per_dim_within_the_view():
    num_dims = 3072
    (axes,) = figures.rate_distortion_path(PATHS, num_dims=num_dims).axes
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    diagonals = [line for line in axes.lines if hasattr(line, "get_slope")]
    assert len(diagonals) >= 3
    assert {line.get_slope() for line in diagonals} == {-1}
    nats = [sum(line.get_xy1()) for line in diagonals]
    assert all(left + bottom < total < right + top for total in nats)
    levels = [round(total / (num_dims * math.log(2)), 6) for total in nats]
    names = [text for text in texts(axes) if text.endswith("bits/dim")]
    assert set(names) <= {f"{level:g} bits/dim" for level in levels}
    assert len(names) >= len(levels) - 1  # one may leave through a corner
    # They leave the view as the data set it.
    np.testing.assert_allclose((left, right), (10 - 0.06 * 2090, 2100 + 0.06 * 2090))


def test_one_point_makes_no_path_but_a_figure():
    (axes,) = figures.rate_distortion_path({"vq": ([3.0], [10.0])}, num_dims=12).axes
    assert [text for text in axes.texts if text.get_text() == ""] == []


def test_rate_distortion_misuse():
    with pytest.raises(ValueError, match=r"'vq'.*\[2, 3\]"):
        figures.rate_distortion_path({"vq": ([1.0, 2.0], [1.0, 2.0, 3.0])})
    with pytest.raises(ValueError, match="at least one label"):
        figures.rate_distortion_path({})


def test_rate_distortion_joins_sizes_and_shows_both_prices():
    results = {"vq": [(900.0, 12_000.0, 1300.0), (1000.0, 11_500.0, 1600.0)], "fsq": [(1.0, 9.0)]}
    figure = figures.rate_distortion(results, num_dims=3072)
    drawn = lines(figure)
    assert set(drawn) == {"vq", "fsq"}
    np.testing.assert_array_equal(drawn["vq"].get_xydata(), [p[:2] for p in results["vq"]])
    (axes,) = figure.axes
    hollow = [line for line in axes.lines if line.get_fillstyle() == "none"]
    assert [line.get_xydata()[0].tolist() for line in hollow] == [[1300, 12_000], [1600, 11_500]]
    assert figure.legends[0].get_title().get_text() == "hollow: simple prior, filled: learned prior"
    one_price = figures.rate_distortion({"fsq": [(1.0, 9.0)]})
    assert one_price.legends[0].get_title().get_text() == ""
    with pytest.raises(ValueError, match=r"results\['vq'\] must be pairs .* got \[\]"):
        figures.rate_distortion({"vq": []})


# Codebooks


def test_codebook_pca_has_a_panel_for_each_codebook_and_one_color_bar():
    codebooks = {"gs_soft": stack(10), "vq": 3 * stack(2)}
    figure = figures.codebook_pca(codebooks)
    *panels, bar = figure.axes
    assert len(panels) == 8 + 2
    assert [text.get_text() for text in figure.texts if "latent" not in text.get_text()] == [
        "gs_soft",
        "vq",
        "norm of a\ncode, by row",
    ]
    assert sum("latent" in text.get_text() for text in figure.texts) == 8
    assert [label.get_text() for label in bar.get_yticklabels()] == ["min", "max"]
    rows = [stack(10)[:8]] * 8 + [3 * stack(2)] * 2
    for panel, codebook, row in zip(panels, [*stack(10)[:8], *(3 * stack(2))], rows, strict=True):
        (points,) = panel.collections
        np.testing.assert_allclose(np.stack(points._offsets3d, -1), pca.project(codebook, 3))
        np.testing.assert_allclose(points.get_array(), np.linalg.norm(codebook, axis=-1))
        norms = np.linalg.norm(row, axis=-1)
        assert (points.norm.vmin, points.norm.vmax) == (norms.min(), norms.max())


def test_codebook_panels_have_one_scale_and_hold_every_code():
    flat = stack(1) * np.array([5.0, 1.0] + 6 * [0.01])
    panel = figures.codebook_pca({"vq": flat}).axes[0]
    limits = np.array([panel.get_xlim(), panel.get_ylim(), panel.get_zlim()])
    np.testing.assert_allclose(np.ptp(limits, axis=1), np.ptp(limits[0]))
    codes = pca.project(flat[0], 3)
    assert (codes > limits[:, 0]).all()
    assert (codes < limits[:, 1]).all()


def test_explained_variance_draws_mean_and_range():
    codebooks = stack(4)
    ratios = np.stack([pca.explained_variance(codebook) for codebook in codebooks])
    cumulative = np.cumsum(ratios, axis=1)[:, :5]
    figure = figures.explained_variance({"gs_soft": codebooks}, max_components=5)
    line = lines(figure)["gs_soft"]
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4, 5])
    np.testing.assert_allclose(line.get_ydata(), cumulative.mean(0))
    (band,) = figure.axes[0].collections
    corners = band.get_paths()[0].vertices
    for component in range(5):
        heights = corners[corners[:, 0] == component + 1, 1]
        assert math.isclose(heights.min(), cumulative[:, component].min())
        assert math.isclose(heights.max(), cumulative[:, component].max())


def test_explained_variance_counts_collapsed_codebooks():
    codebooks = stack(4)
    codebooks[:3] = 1.0
    figure = figures.explained_variance({"vq": codebooks, "vimco": np.ones((2, 16, 8))})
    drawn = lines(figure)
    assert set(drawn) == {"vq (3 of 4 collapsed)", "vimco (2 of 2 collapsed)"}
    alive = np.cumsum(pca.explained_variance(codebooks[3]))
    np.testing.assert_allclose(drawn["vq (3 of 4 collapsed)"].get_ydata(), alive)
    assert len(drawn["vimco (2 of 2 collapsed)"].get_xdata()) == 0


@pytest.mark.parametrize("draw", [figures.codebook_pca, figures.explained_variance])
def test_codebook_misuse(draw):
    with pytest.raises(ValueError, match=r"'vq'.*\[n, C, D\].*\(4, 2\)"):
        draw({"vq": np.zeros((4, 2))})
    with pytest.raises(ValueError, match="at least one label"):
        draw({})


# Results


def test_bits_per_dim_by_codebook_size():
    results = {"gs_soft": [(512, 4.61), (8, 5.0), (64, 4.7)], "vq": [(64, 4.9)]}
    figure = figures.bits_per_dim_by_codebook_size(
        results, references={"paper": 4.611, "other": 4.612}
    )
    line = lines(figure)["gs_soft"]
    np.testing.assert_array_equal(line.get_xdata(), [8, 64, 512])
    np.testing.assert_array_equal(line.get_ydata(), [5.0, 4.7, 4.61])
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["8", "64", "512"]
    dashed = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert dashed == [4.611, 4.612]


def test_reference_labels_do_not_touch():
    references = {"a": 4.61, "b": 4.611, "c": 4.612, "d": 4.9}
    figure = figures.bits_per_dim_by_codebook_size({"vq": [(8, 5.0)]}, references=references)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert texts(figure.axes[0]) == ["a: 4.61", "b: 4.61", "c: 4.61", "d: 4.90"]
    # The extent of an annotation holds its leader line; compare the text's own middle and height.
    middles = [text.get_position()[1] for text in figure.axes[0].texts]
    pixels = figure.axes[0].transData.transform([(8, middle) for middle in middles])[:, 1]
    assert (np.diff(pixels) > 9 / 72 * figure.dpi).all()
    assert max(box.x1 for box in boxes) <= figure.bbox.x1


def test_learning_curve():
    steps = np.arange(5)
    train = {"gs_soft": (steps, 6.0 - steps), "vq": (steps, 7.0 - steps)}
    figure = figures.learning_curve(train, {"gs_soft": (steps[::2], 6.5 - steps[::2])})
    curves = lines(figure)
    assert list(curves) == ["gs_soft, train", "gs_soft, validation", "vq, train"]
    np.testing.assert_array_equal(curves["vq, train"].get_ydata(), 7.0 - steps)
    np.testing.assert_array_equal(curves["gs_soft, validation"].get_xdata(), [0, 2, 4])
    assert curves["gs_soft, train"].get_color() == curves["gs_soft, validation"].get_color()


def test_learning_curve_names_its_unit():
    figure = figures.learning_curve({"nvil": ([1, 2], [3.0, 2.0])}, unit="nats")
    assert figure.axes[0].get_ylabel() == "nats"


def test_active_units_are_sorted_and_counted():
    figure = figures.active_units({"nvil": [0.0, 0.2, 0.005, 0.1]}, threshold=0.01)
    (line,) = (line for label, line in lines(figure).items() if "nvil" in label)
    assert line.get_label() == "nvil: 2 of 4 active"
    np.testing.assert_array_equal(line.get_ydata(), [0.2, 0.1, 0.005, 0.0])


@pytest.mark.parametrize(
    "draw",
    [figures.bits_per_dim_by_codebook_size, figures.learning_curve, figures.active_units],
)
def test_no_results(draw):
    with pytest.raises(ValueError, match="at least one label"):
        draw({})
