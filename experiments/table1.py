"""Puts finished runs of `binary_vae` beside Table 1 of Vahdat et al., "DVAE++" (2018).

    python -m experiments.table1 RUN_DIR [RUN_DIR ...] --out=docs/results

writes table1.md and table1.json: the test NLL in nats by importance samples in the binary limit,
beside the published value where model and evaluation are the paper's, with steps and seeds on the
same line.
"""

from dvae import relax
from experiments.binary_vae import names, report
from experiments.binary_vae.program import PROGRAM
from experiments.common import tables as result_tables
from experiments.common.tables import Published, Summary

# "Baseline performances are taken from" Tucker et al. (2017) there: NVIL, MuProp, REBAR, Concrete.
PUBLISHED_STEPS = 2_000_000
PUBLISHED: Published = {
    ("mnist_static", "linear"): {
        "nvil": (108.35, 0.06),
        "muprop": (108.03, 0.07),
        "rebar": (107.65, 0.08),
        "concrete": (107.00, 0.10),
        "exponential joint": (107.98, 0.10),
        "exponential marginal": (108.57, 0.10),
    },
    ("mnist_static", "nonlinear"): {
        "nvil": (100.00, 0.10),
        "muprop": (100.66, 0.08),
        "rebar": (100.69, 0.08),
        "concrete": (99.54, 0.06),
        "exponential joint": (99.16, 0.12),
        "exponential marginal": (99.10, 0.21),
    },
    ("omniglot", "linear"): {
        "nvil": (117.59, 0.04),
        "muprop": (117.64, 0.04),
        "rebar": (117.65, 0.04),
        "concrete": (117.65, 0.05),
        "exponential joint": (117.38, 0.08),
        "exponential marginal": (118.35, 0.06),
    },
    ("omniglot", "nonlinear"): {
        "nvil": (116.57, 0.08),
        "muprop": (117.51, 0.09),
        "rebar": (118.02, 0.05),
        "concrete": (116.69, 0.08),
        "exponential joint": (113.83, 0.11),
        "exponential marginal": (113.76, 0.18),
    },
}


def accepts(summary: Summary) -> str:
    """Tells why a run is not of this table's kind: one group under a directed prior."""
    config = summary["config"]
    one = config["num_groups"] == 1 and config.get("prior", names.DIRECTED) == names.DIRECTED
    return "" if one else "its models have one group of bits and a directed prior"


def column(summary: Summary) -> str:
    """Names the estimator, and the bound of a smoothing or whatever is not the joint one."""
    by_bound = summary["estimator"] in relax.SMOOTHINGS or summary["bound"] != names.JOINT
    return f"{summary['estimator']} {summary['bound']}" if by_bound else summary["estimator"]


def comparable(summary: Summary) -> bool:
    """Tells whether model and images are the paper's, and the NLL is by its number of samples."""
    return report.is_as_published(summary, test_samples=100, normalization=names.NONE)


TABLE = result_tables.Table(
    name="table1",
    source=(
        'Vahdat et al., "DVAE++" (2018), Table 1, mean and standard deviation of five runs of '
        f"{PUBLISHED_STEPS:,} steps (the number of Tucker et al., 2017, which the paper keeps)"
    ),
    program=PROGRAM,
    published=PUBLISHED,
    comparable=comparable,
    accepts=accepts,
    structure=lambda summary: summary["config"]["structure"],
    column=column,
    more=(
        report.ACTIVE_UNITS,
        ("networks see", lambda s: s["config"].get("latent_inputs", names.BITS)),
    ),
    fields=("latent_inputs",),
)

if __name__ == "__main__":
    result_tables.start(TABLE)
