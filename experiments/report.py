"""Puts finished runs of `cifar_vq` side by side: one table, and the figures that need several runs.

    python -m experiments.report RUN_DIR [RUN_DIR ...] --out=docs/results/cifar10_vq

writes report.md and results.json; bits_per_dim.png (Fig. 1a of Sonderby et al. 2017: bits/dim
against the codebook's size, where there are several), rate_distortion.png (Fig. 1c: the path of
training on validation images), explained_variance.png (Fig. 1b) and codebooks.png (Fig. 2). Runs
that differ in their seeds alone are averaged; others are labeled by the settings in which they
differ.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dvae.analysis import figures, tables
from experiments.cifar_vq import names, sizes
from experiments.cifar_vq import report as vq_report
from experiments.cifar_vq.program import PROGRAM
from experiments.common import groups as run_groups
from experiments.common import models as run_models
from experiments.common import records
from experiments.common import tables as result_tables
from experiments.common.groups import Group, Summary

_CIFAR_DIMS = 32 * 32 * 3  # of an image, in runs that do not say

# CIFAR-10 test bits/dim of Sonderby et al. (2017), Fig. 1(a) and text; 256 maps, full training.
# VQ-VAE has one value there, for whichever rule moves its codebook.
PUBLISHED_BITS = {("gs_soft", 512): 4.61, ("vq", 128): 4.81, ("vq_ema", 128): 4.81}
_OF_VQ_VAE = " (their VQ-VAE's best; 4.67 by van den Oord et al.)"
_REMARKS = {("vq", 128): _OF_VQ_VAE, ("vq_ema", 128): _OF_VQ_VAE}
PUBLISHED = {cell: f"{bits}{_REMARKS.get(cell, '')}" for cell, bits in PUBLISHED_BITS.items()}
_RULES = {"gs_soft": "GS-Soft", "vq": "VQ-VAE", "vq_ema": "VQ-VAE"}  # one line of the figure
REFERENCES = {
    f"{_RULES[rule]}, C = {size}, published": bits for (rule, size), bits in PUBLISHED_BITS.items()
}
_SIZE = "codebook_size"
_SIZES = (_SIZE, "levels")  # that make the number of codes
LEARNED = "learned_bits_per_dim"  # of a run's test numbers, once `code_prior` has been there
_LEARNED = "learned prior"
_IMPORTANCE = "importance bound"
_MODE = "likeliest codes, no bound"
_FIELDS = (
    run_groups.DATASET,
    "estimator",
    *_SIZES,
    "num_latents",
    "features",
    "crop",
    "num_steps",
    "steps",
    "batch_size",
)
_NEEDS = (
    "bits_per_dim",
    "rate_nats",
    "distortion_nats",
    "perplexity",
    "dead_codes",
)


def num_codes(settings: Mapping[str, Any]) -> int:
    """Returns the codes of each codebook, C; of several stages those of one.

    Args:
      settings: of a run, or of a group of runs.
    """
    if settings["estimator"] == names.FSQ:
        return math.prod(sizes.levels_of(settings["levels"]))
    return int(settings[_SIZE])


def row(summary: Summary) -> dict[str, object]:
    """Returns one row of the table; several seeds are averaged."""
    config, test = summary["config"], summary["test"]
    mean = lambda name: float(np.mean(test[name]))
    several = len(summary["seeds"]) > 1
    size = num_codes({**config, "estimator": summary["estimator"]})
    reference = PUBLISHED.get((summary["estimator"], size), "")
    optional = lambda name: f"{mean(name):.3f}" if name in test else ""
    # Bounds of other numbers of samples are other numbers.
    nll = optional("nll_bits_per_dim")
    samples = f" (K = {config['test_samples']})" if nll else ""
    return {
        "data set": summary["dataset"],
        "estimator": summary["estimator"],
        "C": size,
        "n": config["num_latents"],
        "maps": config["features"],
        "crop": config["crop"] or "whole",
        "steps": records.steps(summary),
        "batch": config["batch_size"],
        "seeds": " ".join(str(seed) for seed in summary["seeds"]),
        "bits/dim": f"{mean('bits_per_dim'):.3f}",
        "± seeds": f"{np.std(test['bits_per_dim'], ddof=1):.3f}" if several else "",
        "± SE": result_tables.standard_error(test, "bits_per_dim", "{:.3f}"),
        _LEARNED: optional(LEARNED),
        _IMPORTANCE: f"{nll}{samples}",
        _MODE: optional("mode_bits_per_dim"),
        "rate": f"{mean('rate_nats'):.0f}",
        "distortion": f"{mean('distortion_nats'):.0f}",
        "perplexity": f"{mean('perplexity'):.1f}",
        "dead": f"{mean('dead_codes'):.1f}",
        "minutes": f"{summary['wall_seconds'] / 60:.1f}",
        "published": reference if config[run_groups.DATASET] == "cifar10" else "",
    }


def lay_out(groups: Sequence[Group]) -> str:
    """Returns the Markdown table, with a column of what else sets rows apart if anything does."""
    rows = [row(group.summary) for group in groups]
    if others := run_groups.differing(groups, but=_FIELDS):
        for cells, group in zip(rows, groups, strict=True):
            cells["other settings"] = run_groups.describe(group, others)
    for column in ("± seeds", _LEARNED, _IMPORTANCE, _MODE):
        if not any(cells[column] for cells in rows):
            rows = [{k: v for k, v in cells.items() if k != column} for cells in rows]
    return tables.markdown(tuple(rows[0]), [list(cells.values()) for cells in rows])


def _explained(table: str) -> str:
    """Says what the optional columns of a table hold; empty without them."""
    texts = {
        _IMPORTANCE: "by K importance samples an image, an upper bound that is tighter on average",
        _MODE: "exact KL plus distortion at the posterior's argmax, which bounds nothing",
    }
    said = [f"{column}: {text}" for column, text in texts.items() if f"| {column} " in table]
    return "".join(f"{text[0].upper()}{text[1:]}.\n" for text in said)


def by_size(groups: Sequence[Group]) -> dict[str, list[tuple[int, float]]]:
    """Returns label -> (C, bits/dim): a curve joins what differs in the codebook's size alone."""
    curves: list[list[Group]] = []
    for group in groups:
        alike = lambda curve, group=group: not run_groups.differing([curve[0], group], but=_SIZES)
        curve = next(filter(alike, curves), None)
        if curve is None:
            curves.append(curve := [])
        curve.append(group)
    labels = label([curve[0] for curve in curves])
    bits = lambda group: float(np.mean(group.summary["test"]["bits_per_dim"]))
    return {
        name: [(num_codes(group.settings), bits(group)) for group in curve]
        for name, curve in zip(labels, curves, strict=True)
    }


def label(groups: Sequence[Group]) -> list[str]:
    """Names groups by their estimators and whatever else they differ in but the codebook's size."""
    stems = [group.settings["estimator"] for group in groups]
    return run_groups.label(groups, stems, but=("estimator", *_SIZES))


def draw(groups: Sequence[Group]) -> dict[str, figures.Figure]:
    """Draws the figures of several runs, by name."""
    cifar10 = all(group.settings[run_groups.DATASET] == "cifar10" for group in groups)
    references = REFERENCES if cifar10 else None
    pictures = {}
    counts = Counter(num_codes(group.settings) for group in groups)
    if len(counts) > 1:
        pictures["bits_per_dim"] = figures.bits_per_dim_by_codebook_size(
            by_size(groups), references=references
        )
    # In the figures of paths and codebooks one size: the one that most groups share.
    shared = max(sorted(counts), key=lambda size: counts[size])
    alike = [group for group in groups if num_codes(group.settings) == shared]
    paths, codebooks = {}, {}
    for name, group in zip(label(alike), alike, strict=True):
        steps, rate, distortion = _validation_path(group)
        if len(steps) > 1:
            paths[name] = (rate, distortion, steps)
        file = group.runs[0].directory / vq_report.CODEBOOK_FILE
        if file.exists() and group.settings["estimator"] not in names.GRIDS:
            codebooks[name] = np.load(file)
    if paths:
        num_dims = alike[0].summary.get("num_dims", _CIFAR_DIMS)
        pictures["rate_distortion"] = figures.rate_distortion_path(paths, num_dims=num_dims)
    if codebooks:
        pictures["explained_variance"] = figures.explained_variance(codebooks)
        pictures["codebooks"] = figures.codebook_pca(codebooks)
    return pictures


def _with_learned_prior(group: Group) -> Group:
    """Adds to each run's numbers the bound under the prior that was learned over its codes."""
    runs = []
    for run in group.runs:
        images = run.summary["test"].get("num_images")
        bits = [
            run_models.learned_prior(run.directory, seed, images) for seed in run.summary["seeds"]
        ]
        if None not in bits:
            test = {**run.summary["test"], LEARNED: bits if len(bits) > 1 else bits[0]}
            run = run._replace(summary={**run.summary, "test": test})
        runs.append(run)
    return group._replace(runs=runs)


def _validation_path(group: Group) -> tuple[np.ndarray, ...]:
    """Steps, rate and distortion of the validations, averaged over the seeds of all runs."""
    curves = [
        records.read_curve(run.directory, "validation", "rate", "distortion") for run in group.runs
    ]
    length = min(len(curve[0]) for curve in curves)
    weights = [len(run.summary["seeds"]) for run in group.runs]
    mean = lambda i: np.average([curve[i][:length] for curve in curves], axis=0, weights=weights)
    return mean(0), mean(1), mean(2)


def compare(directories: list[Path], out: Path) -> str:
    """Writes the report of the runs into `out` and returns its Markdown table.

    Raises:
      ValueError: a directory holds no finished run, or `out` cannot be written.
    """
    return write(run_groups.read_groups(directories, PROGRAM, "experiments.report", _NEEDS), out)


def write(groups: Sequence[Group], out: Path) -> str:
    """Writes the report of groups of runs; see `compare`."""
    order = lambda group: (
        group.settings[run_groups.DATASET],
        group.settings["estimator"],
        num_codes(group.settings),
    )
    groups = sorted(map(_with_learned_prior, groups), key=order)
    table = lay_out(groups)
    summaries = run_groups.summaries_of(groups)
    baselines = {s["dataset"]: f"{s['baseline']['bits_per_dim']:.3f}" for s in summaries}
    listed = ", ".join(f"{value} on {name}" for name, value in baselines.items())
    notes = (
        "bits/dim: discrete ELBO of whole test images with hard codes, an upper bound on the "
        "negative log-likelihood; rate and distortion in nats an image; SE over images.\n"
        f"{_explained(table)}"
        f"Baseline (independent pixels, histogram): {listed} bits/dim. "
        f"{result_tables.hardware(summaries)} Published values are of full-length training with "
        "256 maps and are not comparable with shorter runs."
    )
    pictures = draw(groups)
    images = "\n\n".join(f"![{name}]({name}.png)" for name in pictures)
    text = f"# All runs of cifar_vq\n\n{table}\n\n{notes}\n\n{images}\n"
    result_tables.save(text, summaries, "report", out, json_name="results", pictures=pictures)
    return table


if __name__ == "__main__":
    result_tables.start_program("report", compare)
