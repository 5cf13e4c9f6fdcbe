"""Writes the table of all presets: what each sets, and what its finished runs gave.

    python -m experiments.preset_table --out=docs/presets.md

Results and hours are those of the runs recorded under docs/results, where settings are the
preset's but for the seed and for how often it was validated and saved.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.binary_vae import presets as binary_presets
from experiments.binary_vae import report as binary_report
from experiments.cifar_vq import config as cifar_vq
from experiments.cifar_vq import presets as cifar_vq_presets
from experiments.common import flags, records
from experiments.common import groups as run_groups
from experiments.common.flags import option
from experiments.common.groups import Program
from experiments.dvaepp import config as dvaepp
from experiments.dvaepp import presets as dvaepp_presets
from experiments.joint_vae import config as joint_vae

RESULTS = Path(__file__).parents[1] / "docs" / "results"
Presets = Mapping[str, Mapping[str, Any]]


class Source(NamedTuple):
    """A program's presets, and where its results are recorded."""

    program: Program
    presets: Presets
    records: Sequence[str]  # files below docs/results
    key: str  # of the summary's test numbers
    unit: str


SOURCES = (
    Source(
        Program("cifar_vq", cifar_vq.Config),
        cifar_vq_presets.PRESETS,
        ("cifar10_vq/results.json",),
        "bits_per_dim",
        "bits/dim",
    ),
    Source(
        binary_report.PROGRAM,
        binary_presets.PRESETS,
        ("table1.json", "table2.json", "boltzmann.json", "disarm_table.json"),
        "nll_nats",
        "nats NLL",
    ),
    Source(
        Program("joint_vae", joint_vae.Config),
        joint_vae.PRESETS,
        ("joint_vae.json",),
        "accuracy",
        "accuracy",
    ),
    Source(
        Program("dvaepp", dvaepp.Config),
        dvaepp_presets.PRESETS,
        ("table3.json",),
        "nll_nats",
        "nats NLL",
    ),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Where the table is written."""

    out: str = option("docs/presets.md", "File of the table.", path=True)


def table() -> str:
    """Returns the table of all programs' presets as Markdown."""
    parts = [
        "# Presets\n\n"
        "`python -m experiments.PROGRAM --preset=NAME` runs one; flags beside it override what it "
        "sets, `--show_preset=NAME` prints its full command. Results are on test images, of one "
        "seed or as the mean of several, from the runs recorded in [results](results/README.md); "
        "hours are those of these runs, on the hardware recorded there. Made by "
        "`python -m experiments.preset_table`."
    ]
    for source in SOURCES:
        name = source.program.name
        recorded = [
            summary
            for file in source.records
            if (RESULTS / file).exists()
            for summary in json.loads((RESULTS / file).read_text(encoding="utf-8"))
        ]
        lines = [f"## {name}\n", "| preset | result | hours | command |", "|---|---|---|---|"]
        for preset, values in source.presets.items():
            config = source.program.config_class(**values)
            runs = [
                summary
                for summary in recorded
                if run_groups.is_of(source.program, summary, config)
                and not records.is_unfinished(summary)
            ]
            command = flags.command(f"experiments.{name}", source.program.config_class, values)
            result = hours = ""
            if runs:
                numbers = np.concatenate([np.ravel(run["test"][source.key]) for run in runs])
                result = f"{numbers.mean():.4g} {source.unit}"
                hours = f"{np.mean([run['wall_seconds'] for run in runs]) / 3600:.1f}"
            lines.append(f"| `{preset}` | {result} | {hours} | `{command}` |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str]) -> None:
    """Writes the table."""
    with flags.setup():
        flags.refuse_words(arguments)
        out = Path(flags.parse(Config).out)
        try:
            out.write_text(table(), encoding="utf-8")
        except OSError as error:
            raise ValueError(f"cannot write to {out} ({error.strerror}); try --out") from error


if __name__ == "__main__":
    flags.define(Config)
    flags.run(main)
