"""Puts finished runs of `cifar_vq` side by side: one table, and the figures that need several runs.

    python -m experiments.report RUN_DIR [RUN_DIR ...] --out=docs/results/cifar10_vq

writes report.md and results.json; bits_per_dim.png (Fig. 1a of Sonderby et al. 2017: bits/dim
against the codebook's size), rate_distortion.png (Fig. 1c: the path of training on validation
images), explained_variance.png (Fig. 1b) and codebooks.png (Fig. 2).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from dvae.analysis import figures, tables
from dvae.train import checkpoint
from experiments import result_tables, run_record, vq_report
from experiments.vq_evaluation import NUM_DIMS

# CIFAR-10 test bits/dim of Sonderby et al. (2017), Fig. 1(a) and text; 256 maps, full training.
PUBLISHED = {
    ("gs_soft", 512): "4.61",
    ("vq", 128): "4.81 (their VQ-VAE's best; 4.67 by van den Oord et al.)",
}
REFERENCES = {"GS-Soft, C = 512, published": 4.61, "VQ-VAE, C = 128, published": 4.81}
HEADER = (
    "estimator",
    "C",
    "n",
    "maps",
    "crop",
    "steps",
    "batch",
    "seeds",
    "bits/dim",
    "± SE",
    "rate",
    "distortion",
    "perplexity",
    "dead",
    "minutes",
    "published",
)


def read_run(directory: Path) -> dict[str, Any]:
    """Reads the summary of a finished run.

    Raises:
      ValueError: the directory does not hold one.
    """
    path = directory / run_record.SUMMARY_FILE
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        if "estimator" not in summary:
            raise ValueError(f"{path} is not the summary of a cifar_vq run")
        return summary
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}): is the run finished?"
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from error


def row(summary: dict[str, Any]) -> list[object]:
    """One row of the table; several seeds are averaged."""
    config, test = summary["config"], summary["test"]
    mean = lambda value: round(float(np.mean(value)), 3)
    return [
        summary["estimator"],
        config["codebook_size"],
        config["num_latents"],
        config["features"],
        config["crop"] or "whole",
        summary["num_steps"],
        config["batch_size"],
        len(summary["seeds"]),
        f"{mean(test['bits_per_dim']):.3f}",
        f"{mean(test['bits_per_dim_standard_error']):.3f}",
        f"{mean(test['rate_nats_per_image']):.0f}",
        f"{mean(test['distortion_nats_per_image']):.0f}",
        f"{mean(test['code_perplexity']):.1f}",
        f"{mean(test['dead_codes']):.1f}",
        f"{summary['wall_seconds'] / 60:.1f}",
        PUBLISHED.get((summary["estimator"], config["codebook_size"]), "")
        if summary["dataset"] == "cifar10"
        else "",
    ]


def label_runs(summaries: list[dict[str, Any]], directories: list[Path]) -> list[str]:
    """Names each run by its estimator, and by its directory where two runs share one."""
    names = [summary["estimator"] for summary in summaries]
    return [
        name if names.count(name) == 1 else f"{name} ({directory.name})"
        for name, directory in zip(names, directories, strict=True)
    ]


def compare(directories: list[Path], out: Path) -> str:
    """Writes the report of the runs into `out` and returns its Markdown table.

    Raises:
      ValueError: a directory holds no finished run, or `out` cannot be written.
    """
    summaries = [read_run(directory) for directory in directories]
    order = sorted(
        range(len(summaries)),
        key=lambda i: (summaries[i]["estimator"], summaries[i]["config"]["codebook_size"]),
    )
    summaries, directories = [summaries[i] for i in order], [directories[i] for i in order]
    table = tables.markdown(HEADER, [row(summary) for summary in summaries])
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write to {out} ({error.strerror}); try --out") from error

    # Runs that share estimator and size (other seeds, say) are averaged in Fig. 1(a).
    results: dict[str, dict[int, list[float]]] = {}
    for summary in summaries:
        sizes_of = results.setdefault(summary["estimator"], {})
        values = sizes_of.setdefault(summary["config"]["codebook_size"], [])
        values.append(float(np.mean(summary["test"]["bits_per_dim"])))
    by_size = {
        name: [(size, float(np.mean(values))) for size, values in sizes_of.items()]
        for name, sizes_of in results.items()
    }
    cifar10 = all(summary["dataset"] == "cifar10" for summary in summaries)
    pictures = {
        "bits_per_dim": figures.bits_per_dim_by_codebook_size(
            by_size, references=REFERENCES if cifar10 else None
        )
    }
    # One run an estimator in the figures of paths and codebooks: the size that most estimators
    # share.
    sizes = [summary["config"]["codebook_size"] for summary in summaries]
    shared = max(sorted(set(sizes)), key=sizes.count)
    chosen = [i for i, size in enumerate(sizes) if size == shared]
    labels = label_runs([summaries[i] for i in chosen], [directories[i] for i in chosen])
    found = {}
    for label, i in zip(labels, chosen, strict=True):
        steps, rate, distortion = run_record.read_curve(
            directories[i], "validation", "rate", "distortion"
        )
        if len(steps) > 1:
            found[label] = (rate, distortion, steps)
    if found:
        pictures["rate_distortion"] = figures.rate_distortion_path(found, num_dims=NUM_DIMS)
    files = [directories[i] / vq_report.CODEBOOK_FILE for i in chosen]
    codebooks = {label: np.load(f) for label, f in zip(labels, files, strict=True) if f.exists()}
    if codebooks:
        pictures["explained_variance"] = figures.explained_variance(codebooks)
        pictures["codebooks"] = figures.codebook_pca(codebooks)
    for name, figure in pictures.items():
        figures.save(figure, out / f"{name}.png")
    checkpoint.write_json(out / "results.json", summaries)
    hardware = sorted({summary["hardware"] for summary in summaries})
    baselines = {s["dataset"]: f"{s['baseline']['bits_per_dim']:.3f}" for s in summaries}
    listed = ", ".join(f"{value} on {name}" for name, value in baselines.items())
    notes = (
        "bits/dim: discrete ELBO of whole test images with hard codes, an upper bound on the "
        "negative log-likelihood; rate and distortion in nats an image; SE over images.\n"
        f"Baseline (independent pixels, histogram): {listed} bits/dim. "
        f"Hardware: {', '.join(hardware)}. Published values are of full-length training with 256 "
        "maps and are not comparable with shorter runs."
    )
    images = "\n\n".join(f"![{name}]({name}.png)" for name in pictures)
    (out / "report.md").write_text(f"{table}\n\n{notes}\n\n{images}\n", encoding="utf-8")
    return table


if __name__ == "__main__":
    result_tables.start_program("report", compare)
