"""Puts finished runs of `joint_vae` side by side.

    python -m experiments.joint_table RUN_DIR [RUN_DIR ...] --out=docs/results

writes joint_vae.md and joint_vae.json: accuracy of the discrete codes as a classifier,
reconstruction error and KL of every run, a row a seed, and how often the accuracy falls short of
the published mean.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dvae.analysis import tables
from experiments import result_tables
from experiments.result_tables import Summary

PUBLISHED_ACCURACY = 0.887  # MNIST, 100 epochs: Dupont (2018), sec. 4.2
NAME = "joint_vae"
_NOTES = (
    "Accuracy: share of test images whose code's class, the commonest among its training images, "
    "is theirs. Distortion: cross entropy of the pixels, nats an image, at the mean of h and the "
    "likeliest codes; RMSE of pixels in [0, 1]. ELBO with one sample of h and one-hot codes. KL in "
    "nats an image."
)


def rows(summary: Summary) -> list[dict[str, object]]:
    """Returns one row for every seed of a run."""
    config, test = summary["config"], summary["test"]
    several = len(summary["seeds"]) > 1

    def of_seed(name: str, i: int) -> Any:
        return test[name][i] if several else test[name]

    found = []
    for i, seed in enumerate(summary["seeds"]):
        accuracy = of_seed("accuracy", i) if "accuracy" in test else None
        found.append(
            {
                "data set": summary["dataset"],
                "objective": config["objective"],
                "discrete": config["discrete"],
                "seed": seed,
                "accuracy": "" if accuracy is None else f"{accuracy:.3f}",
                "distortion": f"{of_seed('distortion_nats_per_image', i):.2f}",
                "RMSE": f"{of_seed('rmse_of_pixels', i):.4f}",
                "ELBO": f"{of_seed('elbo_nats_per_image', i):.2f}",
                "KL, continuous": f"{np.sum(of_seed('kl_continuous_nats', i)):.2f}",
                "KL, discrete": f"{np.sum(of_seed('kl_discrete_nats', i)):.2f}",
                "steps": f"{summary['num_steps']:,}",
                "epochs": f"{summary['epochs']:g}",
                "minutes": f"{summary['wall_seconds'] / 60:.0f}",
            }
        )
    return found


def shortfalls(summaries: Sequence[Summary]) -> list[str]:
    """Says for each kind of MNIST run how many seeds stay below the published accuracy."""
    kinds: dict[str, list[float]] = defaultdict(list)
    for summary in summaries:
        if summary["dataset"] == "mnist" and "accuracy" in summary["test"]:
            kind = f"{summary['config']['objective']}, {summary['num_steps']:,} steps"
            kinds[kind] += np.atleast_1d(summary["test"]["accuracy"]).tolist()
    return [
        f"- {kind}: accuracy {np.mean(values):.3f} on average over {len(values)} seed(s), "
        f"{sum(value < PUBLISHED_ACCURACY for value in values)} of them below the published mean "
        f"of {PUBLISHED_ACCURACY} (100 epochs)."
        for kind, values in kinds.items()
    ]


def compare(directories: list[Path], out: Path) -> str:
    """Writes the table as Markdown and its records as JSON into `out`; returns the Markdown.

    Raises:
      ValueError: a directory holds no run of `joint_vae`, or `out` cannot be written.
    """
    summaries = [result_tables.read_summary(directory) for directory in directories]
    for directory, summary in zip(directories, summaries, strict=True):
        if "rmse_of_pixels" not in summary.get("test", {}):
            raise ValueError(f"{directory} does not hold a run of {NAME}")
    summaries.sort(key=lambda s: (s["dataset"], s["config"]["objective"], s["seeds"]))
    cells = [row for summary in summaries for row in rows(summary)]
    text = tables.markdown(tuple(cells[0]), [list(row.values()) for row in cells])
    hardware = ", ".join(sorted({summary["hardware"] for summary in summaries}))
    lines = [text, "", *shortfalls(summaries), "", f"{_NOTES} Hardware: {hardware}.", ""]
    result_tables.save("\n".join(lines), summaries, NAME, out)
    return text


if __name__ == "__main__":
    result_tables.start_program("joint_table", compare)
