"""No text of a figure is cut off or lies on another, also where labels are long and many."""

import itertools
from unittest import mock

import numpy as np
import pytest
from matplotlib.text import Text
from test_figures import stack

from dvae.analysis import figures
from dvae.analysis._drawing import looks
from dvae.analysis.figures import GradientError

LONG = "gs_soft, patches, num_latents=8, kl_warmup_steps=1500, num_steps=2250"
LABELS = [f"{LONG}, seed={i}" for i in range(5)]
RNG = np.random.default_rng(0)


def texts_of(figure):
    """The texts that are drawn and their boxes on the page, in pixels."""
    found = []
    draw = Text.draw

    def record(text, renderer, *args, **kwargs):
        if text.get_text().strip() and text.get_visible():
            # Of an annotation too without its arrow.
            found.append((text, Text.get_window_extent(text, renderer)))
        return draw(text, renderer, *args, **kwargs)

    with mock.patch.object(Text, "draw", record):
        figure.canvas.draw()
    return found


def check(figure):
    found = texts_of(figure)
    assert found
    page = figure.bbox
    for text, box in found:
        inside = (
            box.x0 >= page.x0 - 1
            and box.y0 >= page.y0 - 1
            and box.x1 <= page.x1 + 1
            and box.y1 <= page.y1 + 1
        )
        assert inside, f"{text.get_text()!r} is cut off"
    for (a, first), (b, second) in itertools.combinations(found, 2):
        # Fonts have some room above and below their letters.
        width = min(first.x1, second.x1) - max(first.x0, second.x0)
        height = min(first.y1, second.y1) - max(first.y0, second.y0)
        overlap = width > 2 and height > 3
        assert not overlap, f"{a.get_text()!r} lies on {b.get_text()!r}"


def errors(low, high, biased=True):
    bias = 0.1 if biased else 0.0
    return [GradientError(b * bias, 0.01 * bias + 1e-9, v) for b, v in ((1, low), (2, high))]


DRAWINGS = {
    "one codebook": lambda: figures.codebook_pca({"vq_ema": stack(8)}),
    "codebooks": lambda: figures.codebook_pca({name: stack(4) for name in LABELS[:3]}),
    "explained variance": lambda: figures.explained_variance({n: stack() for n in LABELS}),
    "bits/dim": lambda: figures.bits_per_dim_by_codebook_size(
        {n: [(8, 6.0), (512, 5.0 + i)] for i, n in enumerate(LABELS)},
        references={"GS-Soft, published": 4.61, "VQ-VAE, published": 4.62},
    ),
    "short bits/dim": lambda: figures.bits_per_dim_by_codebook_size({"vq": [(8, 6.0)]}),
    "path": lambda: figures.rate_distortion_path(
        {n: ([100, 300], [13_000, 11_000 + 100 * i], [5, 2250]) for i, n in enumerate(LABELS)},
        num_dims=3072,
    ),
    "short path": lambda: figures.rate_distortion_path(
        {n: ([100, 300], [13_000, 11_000], [5, 2250]) for n in ("gs_soft", "gs_hard", "vq_ema")}
    ),
    "rate and distortion": lambda: figures.rate_distortion(
        {n: [(900 + 40 * i, 12_000 - 90 * i, 1300)] * 2 for i, n in enumerate(LABELS)},
        num_dims=3072,
    ),
    "learning curve": lambda: figures.learning_curve(
        {LONG: ([1, 20_000], [3, 2])}, {n: ([1, 20_000], [3, 2]) for n in LABELS[:2]}
    ),
    "active units": lambda: figures.active_units({LONG: np.linspace(0.3, 0, 50)}),
    "KL": lambda: figures.kl_per_dimension(
        {f"h{i}": ([0, 16_000], [0, 1e-3 * i]) for i in range(10)},
        {"c1": ([0, 16_000], [0, 2.2]), "c2": ([0, 16_000], [0, 2.2])},
    ),
    "less than a decade": lambda: figures.convergence(
        {"RMS": {"8x8, random": {n: ([10, 1000], [0.012, 0.044]) for n in ("Gibbs", "AIS")}}},
        xlabel="sweeps",
    ),
    "hardly a change": lambda: figures.convergence(
        {"RMS": {"100x100, table2_cpu_1nonlinear_rbm": {"AIS": ([10, 11], [0.0331, 0.0345])}}},
        xlabel="sweeps",
    ),
    "long names": lambda: figures.convergence(
        {"RMS": {f"{i}": {name: ([1, 9], [1, 2]) for name in LABELS} for i in range(5)}},
        xlabel="size",
    ),
    "many decades": lambda: figures.convergence(
        {"RMS": {f"{i}": {"AIS": ([1, 1e9], [1e-9, 1e9])} for i in range(3)}}, xlabel="sweeps"
    ),
    "variance": lambda: figures.bias_and_variance(
        {
            "at initialization": {"power": errors(0.2, 6.0), "nvil": errors(0.3, 700.0, False)},
            "after 5,000 steps": {"power": errors(20.0, 60.0), "nvil": errors(9.0, 90.0, False)},
        },
        unit="/ |exact gradient|²",
    ),
    "confusion": lambda: figures.confusion_matrices(
        {f"discrete variable {j}": RNG.integers(0, 2_000, (10, 10)) for j in (1, 2)}
    ),
    "traversals": lambda: figures.traversals(
        [
            (
                "continuous variables at quantiles of the prior",
                [f"{q} %" for q in range(5, 100, 10)],
                {f"h{i}: 0.07 nats": np.zeros((10, 8, 8, 1), np.uint8) for i in range(10)},
            ),
            (
                "discrete variable at its codes",
                [str(c) for c in range(10)],
                {"c1: 2.23 nats": np.zeros((10, 8, 8, 1), np.uint8)},
            ),
        ]
    ),
    "rows": lambda: figures.image_rows(
        {name: np.zeros((4, 32, 32, 3), np.uint8) for name in ("original", "seen in training")}
    ),
    "samples": lambda: figures.samples(np.zeros((3, 8, 8, 1), np.uint8)),
}


@pytest.mark.many_cases
@pytest.mark.parametrize("name", DRAWINGS)
def test_no_text_is_cut_off_or_covered(name) -> None:
    check(DRAWINGS[name]())


def test_the_check_can_fail() -> None:
    figure = figures.learning_curve({"vq": ([1, 2], [3, 2])})
    figure.text(0.99, 0.5, "beyond the edge")
    with pytest.raises(AssertionError, match="is cut off"):
        check(figure)
    figure = figures.learning_curve({"vq": ([1, 2], [3, 2])})
    for word in ("one", "two"):
        figure.text(0.5, 0.5, word, fontsize=20)
    with pytest.raises(AssertionError, match="lies on"):
        check(figure)


def test_no_two_labels_look_alike() -> None:
    names = ["gs_soft", "vq", *(str(i) for i in range(40))]
    assert len(set(looks(names).values())) == len(names)
