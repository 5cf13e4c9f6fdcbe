"""How long a cell's run is expected to take, by what earlier runs took a step.

Runs of the same kind on one core give a number. Where there are none, others of the same sizes give
one that is marked as near.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.reproduce.manifest import PAPER, Cell, Table

RESULTS = Path(__file__).parents[2] / "docs" / "results"
_IDLE_WITHOUT_RBM = ("method", "num_samples", "num_chains", "num_sweeps")


class Hours(NamedTuple):
    """How long a run takes."""

    value: float
    is_near: bool = False  # of another kind, or on other hardware, than the timed one

    def __str__(self) -> str:
        """Writes 1.5, or ~1.5."""
        return f"{'~' if self.is_near else ''}{self.value:.1f}"


class _Timed(NamedTuple):
    """A step that was timed on one H200, docs/results/gpu.md."""

    program: str
    milliseconds: float
    settings: dict[str, Any]  # without which it tells nothing
    kind: dict[str, Any]  # without which it is near


_ONE_GROUP = {"prior": "directed", "num_groups": 1, "batch_size": 24}
_OF_TABLE1 = {"structure": "nonlinear", "estimator": "exponential", "bound": "joint"}
_WITH_RBM = {"global_latents": "rbm", "local_latents": "normal"}
_ON_GPU = (
    _Timed("cifar_vq", 2.54, {"estimator": "gs_soft"}, {"codebook_size": 512}),
    _Timed("cifar_vq", 2.24, {"estimator": "vq_ema"}, {"codebook_size": 512}),
    _Timed("cifar_vq", 5.04, {"estimator": "vimco"}, {"codebook_size": 512}),
    _Timed("binary_vae", 0.131, {**_ONE_GROUP, "num_seeds": 1}, _OF_TABLE1),
    _Timed("binary_vae", 0.171, {**_ONE_GROUP, "num_seeds": 5}, _OF_TABLE1),
    _Timed("dvaepp", 27.1, {"decoder": "unconditional"}, _WITH_RBM),
    # Images of 32x32 pixels in colors; the others of this decoder are smaller.
    _Timed("dvaepp", 30.7, {"decoder": "conditional"}, {"dataset": "cifar10", **_WITH_RBM}),
)


def on_cpu(table: Table, cell: Cell, budget: str) -> Hours | None:
    """Returns the hours on one core, evaluations included; None without a run of its sizes.

    Several seeds take as many times as long as one.
    """
    path = RESULTS / table.folder / table.records
    if not path.exists():
        return None
    config = cell.config(budget)
    names, sizes = cell.program.costs, cell.program.sizes
    # By which settings are the cell's, the most telling ones first, and whether on one core.
    found: dict[tuple[tuple[bool, ...], bool], list[float]] = {}
    for summary in json.loads(path.read_text(encoding="utf-8")):
        if "core" not in summary["hardware"] or len(summary["seeds"]) > 1:
            continue
        values = {**vars(config), **cell.program.before, **_old(summary)}
        equal = {n: _value(values, n, config) == _of_cell(config, n) for n in names}
        if all(equal[name] for name in sizes):
            likeness = tuple(equal.values()), summary["hardware"].startswith("1 core")
            steps = summary.get("steps", summary["num_steps"])
            found.setdefault(likeness, []).append(summary["wall_seconds"] / steps)
    if not found:
        return None
    best = max(found)
    seconds = float(np.median(found[best])) * config.num_steps * config.num_seeds
    return Hours(seconds / 3600, is_near=not (all(best[0]) and best[1]))


def on_gpu(cell: Cell, budget: str) -> Hours | None:
    """Returns the hours of the training on one H200; None where no step was timed."""
    if budget != PAPER:
        return None
    config = cell.config(budget)
    has = lambda settings: all(getattr(config, name) == x for name, x in settings.items())
    for timed in _ON_GPU:
        if timed.program == cell.program.name and has(timed.settings):
            hours = timed.milliseconds * config.num_steps / 3.6e6
            return Hours(hours, is_near=not has(timed.kind))
    return None


def _old(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a run's settings, of which older ones lack some."""
    return {"prior": "directed", **summary["config"]}


def _of_cell(config: Any, name: str) -> Any:
    return _value(vars(config), name, config)


def _value(values: Mapping[str, Any], name: str, config: Any) -> Any:
    """Returns a setting, or nothing where a directed prior does not read it."""
    directed = getattr(config, "prior", "") == values.get("prior") == "directed"
    return None if directed and name in _IDLE_WITHOUT_RBM else values.get(name)
