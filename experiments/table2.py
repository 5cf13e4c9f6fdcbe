"""Puts finished runs of `binary_vae` beside Table 2 of Vahdat et al., "DVAE++" (2018).

    python -m experiments.table2 RUN_DIR [RUN_DIR ...] --out=docs/results

writes table2.md and table2.json: Boltzmann and directed priors under one and two groups of bits,
the test NLL in nats beside the published value where model and evaluation are the paper's, with
log Z, its error and the sampler's effort on the same line. Runs of DVAE# (relaxed priors) and
of machines on other graphs come with them; the paper has no column for those.
"""

from pathlib import Path

from experiments.binary_vae import names, report
from experiments.binary_vae.program import PROGRAM
from experiments.common import tables as result_tables
from experiments.common.tables import Published, Summary

RBM, ROLFE = "rbm, exponential", "rbm, Rolfe"
JOINT, MARGINAL = "directed, joint", "directed, marginal"
PUBLISHED_STEPS = 1_000_000


def _cells(*values: tuple[float, float | None]) -> dict[str, tuple[float, float | None]]:
    return dict(zip((RBM, ROLFE, JOINT, MARGINAL), values, strict=True))


PUBLISHED: Published = {
    ("mnist_static", "1 linear"): _cells(
        (91.21, 0.11), (91.55, 0.08), (106.70, 0.08), (106.80, 0.19)
    ),
    ("mnist_static", "2 linear"): _cells(
        (94.15, 0.45), (91.06, 0.21), (98.16, 0.11), (98.56, 0.10)
    ),
    ("mnist_static", "1 nonlinear"): _cells(
        (85.41, 0.04), (85.57, 0.03), (95.04, 0.10), (95.06, 0.08)
    ),
    ("mnist_static", "2 nonlinear"): _cells(
        (84.27, 0.05), (84.52, 0.05), (87.96, 0.13), (88.23, 0.11)
    ),
    ("omniglot", "1 linear"): _cells(
        (109.66, 0.09), (109.83, 0.17), (117.62, 0.09), (117.78, 0.07)
    ),
    ("omniglot", "2 linear"): _cells(
        (109.01, 0.45), (110.35, 0.14), (111.21, 0.12), (111.49, 0.08)
    ),
    ("omniglot", "1 nonlinear"): _cells(
        (102.62, 0.07), (103.12, 0.06), (108.77, 0.24), (108.82, 0.20)
    ),
    ("omniglot", "2 nonlinear"): _cells(
        (100.55, 0.05), (105.60, 0.68), (103.57, 0.15), (104.05, 0.22)
    ),
}


def accepts(summary: Summary) -> str:
    """Tells why a run is not of this table's kind: a Boltzmann prior, or a smoothing."""
    config = summary["config"]
    directed = config.get("prior", names.DIRECTED) == names.DIRECTED
    if directed and summary["estimator"] != names.EXPONENTIAL:
        return "its directed models are trained with --estimator=exponential"
    return ""


def column(summary: Summary) -> str:
    """Names the prior, and how the model was trained under it."""
    config = summary["config"]
    if config.get("prior", names.DIRECTED) == names.DIRECTED:
        return f"directed, {summary['bound']}"
    if config["method"] == names.DVAE:
        return ROLFE
    if config["prior"] == names.GENERAL:
        return f"boltzmann, {Path(config['graph']).name}, {config['smoothing']}"
    if config["method"] == names.DVAEPP:
        return f"rbm, {config['smoothing']}"
    samples = config["num_samples"] if config["bound"] == names.IW else 1
    return f"relaxed rbm, {config['smoothing']}, K = {samples}"


def comparable(summary: Summary) -> bool:
    """Tells whether model, images and samples are those of the paper, and log Z is sound."""
    config = summary["config"]
    same = report.is_as_published(summary, test_samples=4_000)
    normalized = config["structure"] == names.LINEAR or config["normalization"] == names.BATCH
    return same and normalized and "warning" not in summary.get("log_z", {})


TABLE = result_tables.Table(
    name="table2",
    source=(
        'Vahdat et al., "DVAE++" (2018), Table 2, mean and standard deviation of five runs of '
        f"{PUBLISHED_STEPS:,} steps of batch 100 with 1,000 chains of 40 sweeps"
    ),
    program=PROGRAM,
    published=PUBLISHED,
    comparable=comparable,
    accepts=accepts,
    structure=lambda s: f"{s['config']['num_groups']} {s['config']['structure']}",
    column=column,
    more=(
        report.ACTIVE_UNITS,
        ("log Z", result_tables.log_z),
        ("chains x sweeps", result_tables.effort),
    ),
    fields=("sampler", "num_chains", "num_sweeps"),
)

if __name__ == "__main__":
    result_tables.start(TABLE)
