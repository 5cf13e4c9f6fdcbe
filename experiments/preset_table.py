"""Writes the table of all presets: what each sets, and what its finished runs gave.

    python -m experiments.preset_table --out=docs/presets.md

Results and hours are those of the runs recorded under docs/results, where settings are the
preset's but for the seed and for how often it was validated and saved.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np

from experiments.common import flags, records
from experiments.common import groups as run_groups
from experiments.common.flags import option
from experiments.programs import PROGRAMS

RESULTS = Path(__file__).parents[1] / "docs" / "results"


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
    for name, program in PROGRAMS.items():
        recorded = [
            summary
            for file in program.records
            if (RESULTS / file).exists()
            for summary in json.loads((RESULTS / file).read_text(encoding="utf-8"))
        ]
        lines = [f"## {name}\n", "| preset | result | hours | command |", "|---|---|---|---|"]
        for preset, values in program.presets.items():
            config = program.config_class(**values)
            runs = [
                summary
                for summary in recorded
                if run_groups.is_of(program, summary, config) and not records.is_unfinished(summary)
            ]
            command = flags.command(f"experiments.{name}", program.config_class, values)
            result = hours = ""
            if runs:
                numbers = np.concatenate([np.ravel(run["test"][program.metric]) for run in runs])
                result = f"{numbers.mean():.4g} {program.unit}"
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
