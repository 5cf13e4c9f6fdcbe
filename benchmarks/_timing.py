"""Times functions against each other: warmed up, in turn, medians and their ratio to the first."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from dvae.analysis import tables
from dvae.data import Dataset
from experiments.common import records

PAUSE = 0.1  # seconds: idle threads of the peer before go on spinning for a while


def noise(shape: tuple[int, ...], levels: int, num_train: int) -> Dataset:
    """Random pixels: the work does not depend on them."""
    draw = lambda n: np.random.default_rng(n).integers(0, levels, (n, *shape), np.uint8)
    binarization = "static" if levels == 2 else "none"
    return Dataset("noise", draw(num_train), draw(100), draw(100), binarization)


class Comparison(NamedTuple):
    """Times of functions that compute the same thing; the first one is ours."""

    title: str  # what is computed, with the sizes
    seconds: dict[str, list[float]]  # label -> every timed call
    mark: str = ""  # what is aimed at
    megabytes: dict[str, float] | None = None  # label -> temporary memory

    def record(self) -> dict[str, Any]:
        """Returns medians, ranges and ratios to the first, for JSON."""
        first = statistics.median(next(iter(self.seconds.values())))
        forms = {
            label: {
                "median_ms": round(1e3 * statistics.median(times), 3),
                "range_ms": [round(1e3 * min(times), 3), round(1e3 * max(times), 3)],
                "ratio": round(statistics.median(times) / first, 3),
            }
            for label, times in self.seconds.items()
        }
        for label, size in (self.megabytes or {}).items():
            forms[label]["temporary_megabytes"] = round(size, 1)
        runs = len(next(iter(self.seconds.values())))
        return {"title": self.title, "mark": self.mark, "runs": runs, "forms": forms}

    def markdown(self) -> str:
        """Returns the table, and the mark."""
        return markdown(self.record())


def markdown(record: Mapping[str, Any]) -> str:
    """Returns the table of a comparison's record, and the mark."""
    memory = any("temporary_megabytes" in form for form in record["forms"].values())
    rows = [
        [
            label,
            f"{form['median_ms']:.1f}",
            "{:.1f} to {:.1f}".format(*form["range_ms"]),
            f"{form['ratio']:.2f}",
            *([f"{form['temporary_megabytes']:.1f}"] if memory else []),
        ]
        for label, form in record["forms"].items()
    ]
    titles = ("form", "median, ms", "range, ms", "ratio")
    table = tables.markdown((*titles, "temporary memory, MB") if memory else titles, rows)
    mark = f"Mark: {record['mark']}.\n" if record["mark"] else ""
    return f"**{record['title']}** ({record['runs']} runs in turn)\n\n{table}\n{mark}"


def compare(
    title: str,
    functions: Mapping[str, Callable[[], Any]],
    *,
    repeats: int = 9,
    mark: str = "",
    megabytes: dict[str, float] | None = None,
) -> Comparison:
    """Times calls.

    Args:
      title: what is computed, with the sizes.
      functions: label -> a call without arguments that returns JAX arrays, or something finished.
      repeats: timed calls of each, interleaved so that a slow moment of the machine hits all.
      mark: what is aimed at.
      megabytes: label -> temporary memory, to be shown beside the times.
    """
    seconds: dict[str, list[float]] = {label: [] for label in functions}
    for function in functions.values():
        for _ in range(2):
            jax.block_until_ready(function())
    for _ in range(repeats):
        for label, function in functions.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            jax.block_until_ready(function())
            seconds[label].append(time.perf_counter() - start)
    return Comparison(title, seconds, mark, megabytes)


def show(comparisons: list[Comparison]) -> None:
    """Prints comparisons."""
    print(f"on {records.describe_hardware()}\n")
    for comparison in comparisons:
        print(comparison.markdown())
