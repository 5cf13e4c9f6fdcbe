"""Times functions against each other: warmed up, in turn, medians and their ratio to the first."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from dvae.analysis import tables


def compare(title: str, functions: Mapping[str, Callable[[], Any]], *, repeats: int = 9) -> str:
    """Returns a Markdown table of the functions' times; the first is the one all are compared with.

    Args:
      title: what is computed, with the sizes.
      functions: label -> a call without arguments that returns JAX arrays.
      repeats: timed calls of each, interleaved so that a slow moment of the machine hits all.
    """
    seconds: dict[str, list[float]] = {label: [] for label in functions}
    for function in functions.values():
        for _ in range(2):
            jax.block_until_ready(function())
    for _ in range(repeats):
        for label, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            seconds[label].append(time.perf_counter() - start)
    medians = {label: statistics.median(times) for label, times in seconds.items()}
    first = next(iter(medians.values()))
    rows = [
        [
            label,
            f"{1e3 * medians[label]:.1f}",
            f"{1e3 * min(seconds[label]):.1f} to {1e3 * max(seconds[label]):.1f}",
            f"{medians[label] / first:.2f}",
        ]
        for label in functions
    ]
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    table = tables.markdown(("form", "median, ms", "range, ms", "ratio"), rows)
    return f"{title} ({device}, {repeats} runs in turn)\n\n{table}\n"
