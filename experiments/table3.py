"""Puts finished runs of `dvaepp` beside Table 3 of Vahdat et al., "DVAE++" (2018).

    python -m experiments.table3 RUN_DIR [RUN_DIR ...] --out=docs/results

writes table3.md and table3.json: kinds of global and local latent variables, the test NLL in nats
(CIFAR-10: bits/dim) beside the published value, with the model's size on the same line. The paper's
own sizes are not public but for the numbers of latent variables; a difference is shown where those
are the published ones.
"""

import math

import numpy as np

from experiments.common import pixels
from experiments.common import tables as result_tables
from experiments.common.tables import Published, Summary
from experiments.dvaepp.config import BINARY_DATASETS, CONDITIONAL, UNCONDITIONAL
from experiments.dvaepp.program import PROGRAM

ROWS = (
    "normal + normal",
    "RBM (Rolfe) + normal",
    "RBM + normal",
    "RBM + bernoulli",
    "bernoulli + bernoulli",
)
_COLUMNS = {
    ("mnist_static", UNCONDITIONAL): (79.40, 79.04, 79.17, 79.72, 79.90),
    ("mnist_dynamic", UNCONDITIONAL): (78.59, 78.65, 78.49, 79.55, 79.62),
    ("omniglot", CONDITIONAL): (92.51, 92.56, 92.38, 93.95, 93.87),
    ("caltech101_silhouettes", CONDITIONAL): (82.24, 81.95, 81.88, 85.40, 86.57),
    ("cifar10", CONDITIONAL): (3.40, 3.39, 3.38, 3.59, 3.62),  # bits/dim
}
PUBLISHED: Published = {
    key: {row: (value, None) for row, value in zip(ROWS, values, strict=True)}
    for key, values in _COLUMNS.items()
}
_SIZES = ("num_groups", "num_latents", "local_groups", "local_size", "features")
_CIFAR_DIMS = 32 * 32 * 3


def comparable(summary: Summary) -> bool:
    """Tells whether the images are those of the data set as it is, and log Z is sound."""
    config = summary["config"]
    as_published = pixels.published(config["dataset"])
    return (
        config.get("binarization", pixels.AS_STORED) == as_published
        and not config.get("image_size", 0)
        and "warning" not in summary.get("log_z", {})
    )


def same_model(summary: Summary) -> bool:
    """Tells whether the numbers of latent variables and the evaluation are the published ones."""
    config = summary["config"]
    binary = config["dataset"] in BINARY_DATASETS
    paper = {"local_groups": 16, "local_size": 32, "test_samples": 4_000, "num_test_images": 0}
    same = all(config[name] == value for name, value in paper.items())
    return same and config["num_groups"] * config["num_latents"] == (16 if binary else 128)


def unit(summary: Summary) -> float:
    """Nats in the unit of the table: bits/dim for images of levels, which have that number."""
    test = summary["test"]
    if "bits_per_dim" in test:
        return float(np.mean(test["nll_nats"]) / np.mean(test["bits_per_dim"]))
    return _CIFAR_DIMS * math.log(2) if summary["config"]["dataset"] == "cifar10" else 1.0


def _size(summary: Summary) -> str:
    c = summary["config"]
    layers = f"{c['num_groups']} x {c['num_latents']}"
    return f"{layers} global, {c['local_groups']} x {c['local_size']} local, {c['features']} maps"


TABLE = result_tables.Table(
    name="table3",
    source='Vahdat et al., "DVAE++" (2018), Table 3; bits/dim for images of levels',
    published=PUBLISHED,
    comparable=comparable,
    accepts=lambda summary: "",
    structure=lambda summary: summary["config"]["decoder"],
    column=lambda summary: summary["latents"],
    more=(
        ("KL, global", lambda s: f"{np.mean(s['test']['kl_global_nats']):.2f}"),
        ("KL, local", lambda s: f"{np.mean(np.sum(s['test']['kl_local_nats'], -1)):.2f}"),
        ("model", _size),
        ("log Z", result_tables.log_z),
        ("chains x sweeps", result_tables.effort),
    ),
    fields=("sampler", "num_chains", "num_sweeps", *_SIZES),
    title="latents",
    program=PROGRAM,
    same_model=same_model,
    unit=unit,
)

if __name__ == "__main__":
    result_tables.start(TABLE)
