"""Runs all benchmarks and writes docs/results/benchmarks.json and .md.

python benchmarks/run.py            # a quarter of an hour on a quiet machine
"""

import importlib
import json
from pathlib import Path

import jax
import torch

from experiments.common import records

OUT = Path(__file__).parents[1] / "docs" / "results" / "benchmarks"
MODULES = (
    "noise",
    "gibbs",
    "boltzmann_graphs",
    "binary_vae",
    "cifar_vq",
    "gumbel_softmax",
    "pixel_likelihood",
    "nearest_code",
    "quantizers",
)


def main() -> None:
    """Times module after module."""
    found = []
    for module in MODULES:
        for comparison in importlib.import_module(module).comparisons():
            print(comparison.markdown(), flush=True)
            found.append(comparison)
    hardware = records.describe_hardware()
    versions = {**records.versions(), "torch": torch.__version__}
    text = (
        f"# Benchmarks\n\nMade by `make bench` on {hardware} ({jax.default_backend()}); quote the "
        "ratios, not the times. The first form of each table is ours.\n\n"
        + "\n".join(comparison.markdown() for comparison in found)
    )
    OUT.with_suffix(".md").write_text(text)
    rows = [comparison.record() for comparison in found]
    result = {"hardware": hardware, "versions": versions, "comparisons": rows}
    OUT.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
