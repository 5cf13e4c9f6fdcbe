"""Summaries of runs that differ in their seeds alone, as the summary of one run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.common import records

Summary = dict[str, Any]
_PER_SEED = (*records.SETS, "log_z", "training")  # parts of a summary that hold a number a seed
_NOT_PER_SEED = ("num_images", "step", "importance_samples")
_MEANS = {"gradient_variance": ("steps", "encoder")}  # means over seeds, at what they belong to


def merge(summaries: Sequence[Summary]) -> Summary:
    """Returns the summary of one run with the seeds of all; what is not of a seed is the first's.

    Wall time is the sum. Statistics over seeds are left out, as they are those of one run; curves
    of means over seeds are averaged. Parts that not all runs have are left out.
    """
    if len(summaries) == 1:
        return summaries[0]
    first = summaries[0]
    whole = dict(first)
    for part in _PER_SEED:
        whole.pop(part, None)
        if all(part in summary for summary in summaries):
            whole[part] = _merge_part(summaries, part)
    for part, (index, values) in _MEANS.items():
        whole.pop(part, None)
        points = [summary.get(part, {}).get(index) for summary in summaries]
        if points[0] is not None and points.count(points[0]) == len(points):
            weights = [len(summary["seeds"]) for summary in summaries]
            curves = [summary[part][values] for summary in summaries]
            mean = np.average(np.asarray(curves, np.float64), axis=0, weights=weights)
            whole[part] = {**first[part], values: mean.tolist()}
    if "evaluated_step" in first:
        whole["evaluated_step"] = [x for s in summaries for x in np.ravel(s["evaluated_step"])]
    whole["seeds"] = [seed for summary in summaries for seed in summary["seeds"]]
    whole["wall_seconds"] = sum(summary["wall_seconds"] for summary in summaries)
    return whole


def _merge_part(summaries: Sequence[Summary], part: str) -> dict[str, Any]:
    """Puts the seeds' numbers of a part behind one another; a text stays if any run has it."""
    whole: dict[str, Any] = {}
    for name in dict.fromkeys(name for summary in summaries for name in summary[part]):
        having = [summary for summary in summaries if name in summary[part]]
        value = having[0][part][name]
        if isinstance(value, str) or name in _NOT_PER_SEED:
            whole[name] = value
        elif len(having) == len(summaries) and not name.endswith("_over_seeds"):
            whole[name] = [x for summary in summaries for x in of_each_seed(summary, part, name)]
    return whole


def of_each_seed(summary: Mapping[str, Any], part: str, name: str) -> list[Any]:
    """Returns an entry's value for every seed, in their order."""
    value = summary[part][name]
    return value if len(summary["seeds"]) > 1 else [value]
