"""Puts finished runs of `binary_vae` beside the benchmark of DisARM and the estimators after it.

    python -m experiments.disarm_table RUN_DIR [RUN_DIR ...] --out=docs/results

writes disarm_table.md and disarm_table.json: the 100-sample bound of the test images, the ELBO of
training images at the last step and the variance of the encoder's gradient, a row an estimator,
with steps, seeds and evaluations of the decoder on the same line. Published values, each at
1,000,000 steps, stand beside the nonlinear model on dynamic MNIST.
"""

import numpy as np

from experiments.binary_vae import gradient_noise, names, presets, report, training
from experiments.binary_vae.program import PROGRAM
from experiments.common import tables as result_tables
from experiments.common.tables import Published, Summary

PUBLISHED_STEPS = 1_000_000
# Of single-layer models; taken from a collection of results, not from the papers' own tables.
PUBLISHED: Published = {
    ("mnist_dynamic", names.NONLINEAR): {
        "disarm": (101.6, None),
        "double_cv": (99.16, None),
        "arms": (99.08, None),
        "rodeo": (98.72, None),
    },
}
_SETTINGS = ("activation", "batch_size", "learning_rate", "schedule", "prior_learning_rate")


def accepts(summary: Summary) -> str:
    """Tells why a run is not of this table's kind: one group, and an estimator of that line."""
    config = summary["config"]
    if config["num_groups"] != 1 or config.get("prior", names.DIRECTED) != names.DIRECTED:
        return "its models have one group of bits and a directed prior"
    if summary["estimator"] not in presets.DISARM_CELLS:
        return f"its estimators are {', '.join(presets.DISARM_CELLS)}"
    return ""


def comparable(summary: Summary) -> bool:
    """Tells whether model, optimizer and evaluation are those of the protocol, but for steps."""
    config = summary["config"]
    protocol = presets.PRESETS[f"disarm_{summary['estimator']}"]
    wanted = {name: protocol[name] for name in _SETTINGS}
    wanted |= {**report.PAPER_SIZES, "test_samples": 100}
    return all(config.get(name) == value for name, value in wanted.items())


def evaluations(summary: Summary) -> int:
    """Returns how often a step decodes the bits of an image: once a sample."""
    config = summary["config"]
    if summary["estimator"] == names.DISARM:
        return 2 * int(config.get("disarm_pairs", 1))
    return int(config["num_samples"])


def training_elbo(summary: Summary) -> str:
    """Writes the ELBO of training images, mean and deviation over seeds; empty where none is."""
    if training.TRAINING not in summary:
        return ""
    values = np.ravel(summary[training.TRAINING][training.ELBO])
    spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{spread}"


def gradient_variance(summary: Summary) -> str:
    """Writes the variance of the encoder's gradient at first and last validation."""
    if gradient_noise.METRIC not in summary:
        return ""
    values = summary[gradient_noise.METRIC]["encoder"]
    return f"{values[0]:.3g} → {values[-1]:.3g}"


def published_steps(summary: Summary) -> str:
    """Writes the length behind a published value; empty where none is shown."""
    shown = result_tables.published(TABLE, summary) is not None
    return f"{PUBLISHED_STEPS:,}" if shown else ""


TABLE = result_tables.Table(
    name="disarm_table",
    source=(
        "Dong et al. (2020), Titsias and Shi (2021), Dimitriev and Zhou (2021), Shi et al. (2022), "
        f"100-sample bounds after {PUBLISHED_STEPS:,} steps, read off a collection of results "
        "which states neither layers nor samples a step"
    ),
    program=PROGRAM,
    published=PUBLISHED,
    comparable=comparable,
    accepts=accepts,
    structure=lambda summary: summary["config"]["structure"],
    column=lambda summary: summary["estimator"],
    more=(
        ("published steps", published_steps),
        ("decodings", evaluations),
        ("training ELBO", training_elbo),
        ("gradient variance", gradient_variance),
        report.ACTIVE_UNITS,
    ),
    fields=("num_samples", "disarm_pairs"),
    heading="the benchmark of DisARM",
)

if __name__ == "__main__":
    result_tables.start(TABLE)
