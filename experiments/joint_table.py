"""Puts finished runs of `joint_vae` side by side.

    python -m experiments.joint_table RUN_DIR [RUN_DIR ...] --out=docs/results

writes joint_vae.md and joint_vae.json: accuracy of the discrete codes as a classifier,
reconstruction error and KL of every run, a row a seed; and of the seeds together mean and spread of
the accuracy, the seed that the training loss chooses, and how often the accuracy falls short of the
one of the authors' released model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dvae.analysis import tables
from experiments.common import groups as run_groups
from experiments.common import merging, records
from experiments.common import tables as result_tables
from experiments.common.groups import Group
from experiments.common.tables import Summary
from experiments.joint_vae.program import PROGRAM

# MNIST, 100 epochs: Dupont (2018), sec. 4.2. It is that of the one model that the authors released.
PUBLISHED_ACCURACY = 0.887
NAME = "joint_vae"
_FIELDS = (run_groups.DATASET, "objective", "discrete", "num_steps", "steps")
_NEEDS = (
    "distortion_nats",
    "rmse",
    "elbo_nats",
    "kl_continuous_nats",
    "kl_discrete_nats",
)
_NOTES = (
    "Accuracy: share of test images whose code's class, the commonest among its training images, "
    "is theirs. Distortion: cross entropy of the pixels, nats an image, at the mean of h and the "
    "likeliest codes; RMSE of pixels in [0, 1]. ELBO with one sample of h and one-hot codes. KL in "
    "nats an image."
)


def rows(summary: Summary) -> list[dict[str, object]]:
    """Returns one row for every seed of a run."""
    config, test = summary["config"], summary["test"]
    cells = []
    for i, seed in enumerate(summary["seeds"]):

        def of_seed(name: str, i: int = i) -> Any:
            return merging.of_each_seed(summary, "test", name)[i]

        cells.append(
            {
                "data set": summary["dataset"],
                "objective": config["objective"],
                "discrete": config["discrete"],
                "seed": seed,
                "accuracy": f"{of_seed('accuracy'):.3f}" if "accuracy" in test else "",
                "distortion": f"{of_seed('distortion_nats'):.2f}",
                "RMSE": f"{of_seed('rmse'):.4f}",
                "ELBO": f"{of_seed('elbo_nats'):.2f}",
                "KL, continuous": f"{np.sum(of_seed('kl_continuous_nats')):.2f}",
                "KL, discrete": f"{np.sum(of_seed('kl_discrete_nats')):.2f}",
                "steps": records.steps(summary),
                "epochs": f"{summary['epochs']:g}",
                "minutes": f"{summary['wall_seconds'] / 60:.0f}",
            }
        )
    return cells


def shortfalls(groups: Sequence[Group]) -> list[str]:
    """Counts for each kind of MNIST run the seeds that stay below the published accuracy."""
    scored = [
        group
        for group in groups
        if group.summary["dataset"] == "mnist" and "accuracy" in group.summary["test"]
    ]
    stems = [
        f"{group.settings['objective']}, {records.steps(group.summary)} steps" for group in scored
    ]
    names = run_groups.label(scored, stems, but=("objective", "num_steps", "steps"))
    lines = []
    for name, group in zip(names, scored, strict=True):
        values = np.ravel(group.summary["test"]["accuracy"])
        spread = f" (± {np.std(values, ddof=1):.3f})" if len(values) > 1 else ""
        lines.append(
            f"- {name}: accuracy {np.mean(values):.3f}{spread} on average over {len(values)} "
            f"seed(s), {sum(values < PUBLISHED_ACCURACY)} of them below the "
            f"{PUBLISHED_ACCURACY} of the authors' released model (one run, 100 epochs)."
            f"{_chosen(group)}"
        )
    return lines


def _chosen(group: Group) -> str:
    """Names the seed of the lowest training loss, which knows no labels, and its accuracy."""
    summaries = [run.summary for run in group.runs]
    if len(group.summary["seeds"]) < 2 or any("train" not in summary for summary in summaries):
        return ""  # older runs have no such number

    def of_seeds(part: str, name: str) -> list[float]:
        return [x for one in summaries for x in merging.of_each_seed(one, part, name)]

    best = int(np.argmin(of_seeds("train", "loss_nats")))
    return (
        f" The seed with the lowest training loss, {group.summary['seeds'][best]}, has "
        f"{of_seeds('test', 'accuracy')[best]:.3f}."
    )


def compare(directories: list[Path], out: Path) -> str:
    """Writes the table as Markdown and its records as JSON into `out`; returns the Markdown.

    Raises:
      ValueError: a directory holds no run of `joint_vae`, or `out` cannot be written.
    """
    return write(
        run_groups.read_groups(directories, PROGRAM, "experiments.joint_table", _NEEDS), out
    )


def write(groups: Sequence[Group], out: Path) -> str:
    """Writes the table of groups of runs; see `compare`."""
    order = lambda group: [group.settings[name] for name in (run_groups.DATASET, "objective")]
    groups = sorted(groups, key=order)
    others = run_groups.differing(groups, but=_FIELDS)
    cells = []
    for group in groups:
        more = {"other settings": run_groups.describe(group, others)} if others else {}
        cells += [row | more for run in group.runs for row in rows(run.summary)]
    text = tables.markdown(tuple(cells[0]), [list(row.values()) for row in cells])
    summaries = run_groups.summaries_of(groups)
    notes = f"{_NOTES} {result_tables.hardware(summaries)}"
    lines = ["# All runs of joint_vae", "", text, "", *shortfalls(groups), "", notes, ""]
    result_tables.save("\n".join(lines), summaries, NAME, out)
    return text


if __name__ == "__main__":
    result_tables.start_program("joint_table", compare)
