"""What the records of every experiment share: curves, hardware, versions, rounding."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

import dvae
from dvae.train import metrics

SUMMARY_FILE = "summary.json"
FILES = "files"  # of a summary: what was written beside it, after which the run is finished
PRIOR_FILE = "prior.npz"


def read_curve(
    workdir: Path, split: str, *names: str, first_seed: bool = False
) -> tuple[np.ndarray, ...]:
    """Reads recorded metrics of `train` or `validation`: steps [T] and one array [T] a name.

    Several seeds are averaged, or the first one is taken; the arrays are empty where nothing was
    recorded.
    """
    records = [r for r in metrics.read_metrics(workdir) if f"{split}/{names[0]}" in r]
    steps = np.array([r["step"] for r in records])
    value = (lambda x: np.ravel(x)[0]) if first_seed else np.mean
    return steps, *(np.array([value(r[f"{split}/{name}"]) for r in records]) for name in names)


def describe_hardware() -> str:
    """Names the devices; for a CPU its model and the cores that this process may use."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{jax.device_count()} x {device.device_kind}"
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
        names = re.findall(r"^model name\s*: (.*)$", text, re.MULTILINE)
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {model}" if cores != 1 else f"1 core of {model}"


def per_seed(values: np.ndarray) -> Any:
    """Rounds to what is meant; drops the seed axis of a single seed."""
    rounded = np.round(np.asarray(values, np.float64), 4)
    return rounded[0].tolist() if len(rounded) == 1 else rounded.tolist()


def versions() -> dict[str, str]:
    """Returns the versions of this package and of what it computes with."""
    others = {name: importlib.metadata.version(name) for name in ("jax", "flax", "optax")}
    return {"dvae": dvae.__version__, **others}
