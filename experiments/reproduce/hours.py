"""How long a cell's run is expected to take, by what earlier runs took a step."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.reproduce.manifest import PAPER, Cell, Table

RESULTS = Path(__file__).parents[2] / "docs" / "results"
# Settings of each program that a step's time depends on.
_COST = {
    "cifar_vq": (
        "estimator",
        "codebook_size",
        "levels",
        "num_stages",
        "num_latents",
        "features",
        "crop",
        "batch_size",
    ),
    "binary_vae": (
        "prior",
        "graph",
        "method",
        "estimator",
        "bound",
        "structure",
        "num_groups",
        "num_samples",
        "num_chains",
        "num_sweeps",
        "batch_size",
        "test_samples",
    ),
    "joint_vae": ("image_size", "features", "batch_size"),
    "dvaepp": (
        "global_latents",
        "graph",
        "local_latents",
        "local_groups",
        "local_size",
        "features",
        "batch_size",
        "decoder",
    ),
}
_IDLE_WITHOUT_RBM = ("method", "num_samples", "num_chains", "num_sweeps")
_FILES = {"figure1": "cifar10_vq/results.json"}
# Milliseconds of a step on one H200, docs/results/gpu.md: (program, setting, its value).
_GPU = {
    ("cifar_vq", "estimator", "gs_soft"): 4.49,
    ("cifar_vq", "estimator", "vq_ema"): 7.34,
    ("cifar_vq", "estimator", "vimco"): 7.45,
    ("dvaepp", "decoder", "unconditional"): 27.9,
    ("dvaepp", "decoder", "conditional"): 30.9,
}


def on_cpu(table: Table, cell: Cell, budget: str) -> float | None:
    """Returns the hours on one core, evaluations included; None without a run of its kind."""
    path = RESULTS / _FILES.get(table.name, table.records)
    if not path.exists():
        return None
    config = cell.config(budget)
    names = _COST[cell.program.name]
    of = lambda values: [_value(values, name, config) for name in names]
    wanted = of(vars(config))
    seconds = [
        summary["wall_seconds"] / summary["num_steps"]
        for summary in json.loads(path.read_text(encoding="utf-8"))
        if of({**vars(config), **cell.program.before, **_old(summary)}) == wanted
        and summary["hardware"].startswith("1 core")
        and len(summary["seeds"]) == 1
    ]
    return float(np.median(seconds)) * config.num_steps / 3600 if seconds else None


def on_gpu(cell: Cell, budget: str) -> float | None:
    """Returns the hours of the training on one H200; None where no step was timed."""
    config = cell.config(budget)
    settings = vars(config)
    sizes = cell.program.name != "cifar_vq" or config.codebook_size == 512
    if budget != PAPER or not sizes:
        return None
    of_program = [
        ms
        for (program, name, wanted), ms in _GPU.items()
        if program == cell.program.name and settings[name] == wanted
    ]
    return of_program[0] * config.num_steps / 3.6e6 if of_program else None


def _old(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a run's settings, of which older ones lack some."""
    return {"prior": "directed", **summary["config"]}


def _value(values: Mapping[str, Any], name: str, config: Any) -> Any:
    """Returns a setting, or nothing where a directed prior does not read it."""
    directed = getattr(config, "prior", "") == values.get("prior") == "directed"
    return None if directed and name in _IDLE_WITHOUT_RBM else values.get(name)
