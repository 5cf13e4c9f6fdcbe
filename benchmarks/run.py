"""Runs benchmarks and writes docs/results/benchmarks.json and .md.

    python benchmarks/run.py                      # all: half an hour on a quiet machine
    python benchmarks/run.py quantizers noise     # some: the rows of the others stay

Every comparison is of one run; its row says where and with which versions.
"""

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import jax
import torch
from _timing import markdown

from experiments.common import records

OUT = Path(__file__).parents[1] / "docs" / "results" / "benchmarks"
MODULES = (
    "noise",
    "gibbs",
    "boltzmann_graphs",
    "binary_vae",
    "cifar_vq",
    "joint_vae",
    "residual_block",
    "gumbel_softmax",
    "pixel_likelihood",
    "nearest_code",
    "quantizers",
    "code_sampling",
)


def main() -> None:
    """Times module after module; what is measured is written at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help=f"some of {', '.join(MODULES)}; none: all")
    modules = parser.parse_args().modules or MODULES
    if unknown := set(modules) - set(MODULES):
        parser.error(f"no benchmark: {', '.join(sorted(unknown))}")
    path = OUT.with_suffix(".json")
    rows = json.loads(path.read_text()) if path.exists() else []
    where = {
        "hardware": f"{records.describe_hardware()} ({jax.default_backend()})",
        "versions": {**records.versions(), "torch": torch.__version__},
    }
    for module in modules:
        found = importlib.import_module(module).comparisons()
        print(*(comparison.markdown() for comparison in found), sep="\n", flush=True)
        new = [{"module": module, **comparison.record(), **where} for comparison in found]
        rows = [row for row in rows if row["module"] != module] + new
        rows.sort(key=lambda row: MODULES.index(row["module"]))
        path.write_text(json.dumps(rows, indent=1) + "\n")
        OUT.with_suffix(".md").write_text(page(rows))


def page(rows: list[dict[str, Any]]) -> str:
    """Returns the page of all comparisons."""
    text = (
        "# Benchmarks\n\nMade by `make bench`; quote the ratios, not the times. The first form of "
        "each table is ours.\n"
    )
    before = None
    for row in rows:
        versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        where = f"\n*On {row['hardware']}, {versions}.*\n\n"
        text += (where if where != before else "") + markdown(row) + "\n"
        before = where
    return text


if __name__ == "__main__":
    main()
