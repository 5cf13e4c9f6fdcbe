"""Sixteen groups of local variables of DVAE++: scanned or unrolled, kept or recomputed.

    python benchmarks/dvaepp_groups.py

Compile time of the train step, memory that it needs beside its arguments (as XLA plans it), and
the time of a step. Writes docs/results/dvaepp_groups.json and .md.
"""

import functools
import json
import statistics
import time
from pathlib import Path
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import numpy as np

from dvae.analysis import tables
from dvae.data import Dataset
from dvae.models import dvaepp as networks
from dvae.train import sharding
from experiments.common import records
from experiments.dvaepp import __main__ as dvaepp
from experiments.dvaepp.config import Config

OUT = Path(__file__).parents[1] / "docs" / "results" / "dvaepp_groups"
SETTINGS = dict(
    global_latents="bernoulli",
    local_latents="normal",
    local_groups=16,
    local_size=32,
    features=8,
    batch_size=100,
)
REPEATS = 5


def images() -> Dataset:
    """Binary pixels."""
    draw = lambda count: (np.random.default_rng(0).random((count, 28, 28, 1)) < 0.13).astype("u1")
    return Dataset("noise", draw(500), draw(100), draw(100), "static")


def measure(unroll: bool, remat: str) -> dict[str, Any]:
    """Compiles the step and runs it."""
    config = Config(**{**SETTINGS, "remat": remat})
    scan = functools.partial(nn.scan, unroll=config.local_groups if unroll else 1)
    with mock.patch.object(networks.nn, "scan", scan):
        task = dvaepp.make_task(config, images(), sharding.make_mesh(1))
        state = jax.jit(task.init)(task.key_init, task.data)
        began = time.perf_counter()
        step = jax.jit(task.step).lower(state, task.data, task.key_train).compile()
        seconds = time.perf_counter() - began
    memory = step.memory_analysis().temp_size_in_bytes
    times = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        jax.block_until_ready(step(state, task.data, task.key_train))
        times.append(time.perf_counter() - began)
    return {
        "groups": "unrolled" if unroll else "scanned",
        "remat": remat,
        "compile_seconds": round(seconds, 1),
        "temporary_megabytes": round(memory / 1e6, 1),
        "step_ms": round(1e3 * statistics.median(times[1:]), 1),
    }


def main() -> None:
    """Measures all four and writes the table."""
    jax.config.update("jax_enable_compilation_cache", False)
    found = [measure(unroll, remat) for unroll in (False, True) for remat in ("off", "on")]
    header = ("groups", "--remat", "compilation, s", "temporary memory, MB", "step, ms")
    table = tables.markdown(header, [list(row.values()) for row in found])
    settings = ", ".join(f"{k}={v}" for k, v in SETTINGS.items())
    text = (
        "# Groups of DVAE++: scanned or unrolled, kept or recomputed\n\n"
        f"`python benchmarks/dvaepp_groups.py` on {records.describe_hardware()}: the train step "
        f"of `dvaepp` with {settings}; median of {REPEATS} steps. The model scans; `--remat=on` "
        f"recomputes a group's layers in the backward pass.\n\n{table}\n"
    )
    OUT.with_suffix(".md").write_text(text)
    OUT.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
