"""Puts finished runs of `binary_vae` beside Table 1 of Vahdat et al., "DVAE++" (2018).

    python -m experiments.table1 RUN_DIR [RUN_DIR ...] --out=docs/results

writes table1.md and table1.json: the test NLL in nats by importance samples in the binary limit,
beside the published value where model and evaluation are the paper's, with steps and seeds on the
same line.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags as absl_flags

from dvae import relax
from dvae.analysis import tables
from dvae.train import checkpoint
from experiments import flags, run_record

# (data set, structure) -> column -> mean and standard deviation over five runs, nats. "Baseline
# performances are taken from" Tucker et al. (2017) there: NVIL, MuProp, REBAR and Concrete.
PUBLISHED = {
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
PUBLISHED_STEPS = 2_000_000  # Tucker et al. (2017), whose number of iterations the paper keeps
HEADER = (
    "data set",
    "structure",
    "estimator",
    "test NLL",
    "SE (images)",
    "published",
    "difference",
    "steps",
    "seeds",
    "samples",
    "batch",
    "learning rate",
    "best step",
    "-ELBO",
    "active units",
    "minutes",
)


def read_run(directory: Path) -> dict[str, Any]:
    """Reads the summary of a finished run of one group.

    Raises:
      ValueError: the directory does not hold one.
    """
    path = directory / run_record.SUMMARY_FILE
    try:
        summary = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}): is the run finished?"
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from error
    if "effective_samples" not in summary.get("test", {}) or summary["config"]["num_groups"] != 1:
        raise ValueError(f"{path} is not the summary of a binary_vae run with one group")
    return summary


def column(summary: dict[str, Any]) -> str:
    """Names the estimator, and the bound of a smoothing or whatever is not the joint one."""
    named = summary["estimator"] in relax.SMOOTHINGS or summary["bound"] != "joint"
    return f"{summary['estimator']} {summary['bound']}" if named else summary["estimator"]


def is_comparable(summary: dict[str, Any]) -> bool:
    """Whether model and evaluation are those of the published table."""
    config = summary["config"]
    wanted = {"num_latents": 200, "hidden_units": 200, "hidden_layers": 2}
    wanted |= {"test_samples": 100, "num_test_images": 0}
    return all(config[name] == value for name, value in wanted.items())


def row(summary: dict[str, Any]) -> list[object]:
    """One row of the table, in nats; several seeds give their mean and standard deviation."""
    config, test = summary["config"], summary["test"]
    nll = float(np.mean(test["nll"]))
    deviation = test.get("nll_standard_deviation_over_seeds")
    cells = PUBLISHED.get((config["dataset"], config["structure"]), {})
    published = cells.get(column(summary)) if is_comparable(summary) else None
    return [
        summary["dataset"],
        config["structure"],
        column(summary),
        f"{nll:.2f}" + (f" ± {deviation:.2f}" if deviation is not None else ""),
        f"{np.mean(test['nll_standard_error']):.2f}",
        f"{published[0]:.2f} ± {published[1]:.2f}" if published else "",
        f"{nll - published[0]:+.2f}" if published else "",
        f"{summary['num_steps']:,}",
        " ".join(str(seed) for seed in summary["seeds"]),
        config["test_samples"],
        config["batch_size"],
        f"{config['learning_rate']:g}",
        f"{int(np.mean(summary['evaluated_step'])):,}",
        f"{-np.mean(test['elbo']):.2f}",
        f"{np.mean(test['active_units']):.0f}",
        f"{summary['wall_seconds'] / 60:.0f}",
    ]


def compare(directories: list[Path], out: Path) -> str:
    """Writes table1.md and table1.json into `out` and returns the Markdown table.

    Raises:
      ValueError: a directory holds no finished run, or `out` cannot be written.
    """
    summaries = [read_run(directory) for directory in directories]
    order = [name for columns in PUBLISHED.values() for name in columns]

    def place(summary: dict[str, Any]) -> tuple[object, ...]:
        config, name = summary["config"], column(summary)
        rank = order.index(name) if name in order else len(order)
        return summary["dataset"], config["structure"], rank, name

    summaries.sort(key=place)
    table = tables.markdown(HEADER, [row(summary) for summary in summaries])
    hardware = sorted({summary["hardware"] for summary in summaries})
    notes = (
        "Test NLL in nats an image, by importance samples in the binary limit, at the step with "
        "the lowest validation NLL (± the standard deviation over seeds, where there are several); "
        "SE over the test images, -ELBO with one sample. Published: Vahdat et al. (2018), Table 1, "
        f"mean and standard deviation of five runs of {PUBLISHED_STEPS:,} steps. Difference: ours "
        "less theirs. "
        f"Hardware: {', '.join(hardware)}."
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "table1.md").write_text(f"{table}\n\n{notes}\n")
        checkpoint.write_json(out / "table1.json", summaries)
    except OSError as error:
        raise ValueError(f"cannot write to {out} ({error.strerror}); try --out") from error
    return table


def main(arguments: list[str]) -> None:
    """Reports on the directories of the command line."""
    with flags.setup():
        directories = [Path(argument) for argument in arguments[1:]]
        if not directories:
            raise ValueError(
                "name at least one run directory: python -m experiments.table1 RUN_DIR ..."
            )
        out = Path(absl_flags.FLAGS.out)
        print(compare(directories, out))
        print(f"\nwritten to {out}")


if __name__ == "__main__":
    absl_flags.DEFINE_string("out", "runs/table1", "Directory of the table.")
    flags.run(main)
