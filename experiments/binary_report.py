"""What a `binary_vae` run leaves behind: summary.json and its pictures."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dvae import analysis
from dvae.data import Dataset
from dvae.train import checkpoint, loop
from experiments import binary_evaluation, boltzmann_prior, run_record
from experiments import binary_names as names
from experiments.binary_config import Config

NUM_PICTURES = 16


def spread(images: np.ndarray, count: int) -> np.ndarray:
    """Returns `count` evenly spaced images (0, or more than there are: all)."""
    return images[run_record.spread_indices(len(images), min(count or len(images), len(images)))]


def write(
    config: Config, result: loop.Result, images: Dataset, workdir: Path, mesh: Mesh
) -> dict[str, Any]:
    """Evaluates validation and test sets, writes summary.json and PNGs, prints the result.

    A Boltzmann prior is written to prior.npz: bias1, bias2 and weights, seeds first if several.
    """
    assert result.best is not None
    # Without a validation on the way there is nothing to choose from but the last step.
    chosen = result.best if config.eval_interval else result.state
    evaluator = binary_evaluation.Evaluator(config, images.train[0].size, mesh)
    print(f"evaluating with {config.test_samples} samples an image", file=sys.stderr, flush=True)
    counts = {
        "validation": config.num_validation_images or config.num_test_images,
        "test": config.num_test_images,
    }
    sets = {
        name: evaluator.evaluate(
            chosen.params,
            chosen.model_state,
            spread(getattr(images, name), count),
            num_samples=config.test_samples,
        )
        for name, count in counts.items()
    }
    summary = summarize(config, result, images, sets)
    checkpoint.write_json(workdir / run_record.SUMMARY_FILE, summary)
    if config.prior == names.BOLTZMANN:
        machine = jax.device_get(chosen.params["prior"])._asdict()
        np.savez(workdir / run_record.PRIOR_FILE, **machine)
    _draw(config, (chosen.params, chosen.model_state), images, workdir, evaluator, sets)
    print(_describe(summary, workdir))
    return summary


def summarize(
    config: Config,
    result: loop.Result,
    images: Dataset,
    sets: dict[str, binary_evaluation.Evaluation],
) -> dict[str, Any]:
    """Returns the record of a finished run; several seeds give lists in their order."""
    assert result.best is not None
    step = result.best.step if config.eval_interval else result.state.step
    log_z = sets["test"].log_z
    model = [result.state.params.get(part, ()) for part in ("network", "prior", "components")]
    return {
        "dataset": images.name,
        "prior": config.prior,
        "estimator": _method(config),
        "bound": config.bound,
        "log_likelihood_is": (
            f"log of the mean of {config.test_samples} importance weights, in the binary limit; "
            "nats an image"
        ),
        "elbo_and_kl_are": "estimates from one sample an image, in the binary limit; nats an image",
        **{name: _of_set(evaluation) for name, evaluation in sets.items()},
        **(boltzmann_prior.log_z_record(config, log_z) if log_z is not None else {}),
        "evaluated_step": np.asarray(step).tolist(),
        "chosen_by": _chosen_by(config),
        "num_steps": config.num_steps,
        "seeds": list(range(config.seed, config.seed + config.num_seeds)),
        "num_parameters": sum(x.size for x in jax.tree.leaves(model)) // config.num_seeds,
        "hardware": run_record.describe_hardware(),
        "wall_seconds": round(result.seconds, 1),
        "versions": run_record.versions(),
        "config": dataclasses.asdict(config),
    }


def _of_set(evaluation: binary_evaluation.Evaluation) -> dict[str, Any]:
    """Numbers of one set of images; over several seeds also their mean and standard deviation."""
    log_likelihood = evaluation.log_likelihood.astype(np.float64)
    num_seeds, num_images = log_likelihood.shape
    nll = -log_likelihood.mean(1)
    means = {name: np.atleast_1d(value) for name, value in evaluation.means().items()}
    record = {
        "num_images": num_images,
        "nll": run_record.per_seed(nll),
        "nll_standard_error": run_record.per_seed(
            log_likelihood.std(1, ddof=1) / np.sqrt(num_images)
        ),
        "elbo": run_record.per_seed(means["elbo"]),
        "kl": run_record.per_seed(evaluation.kl),
        "active_units": run_record.per_seed(means["active_units"]),
        "effective_samples": run_record.per_seed(evaluation.ess.mean(1)),
    }
    if num_seeds > 1:
        record["nll_mean_over_seeds"] = round(float(nll.mean()), 4)
        record["nll_standard_deviation_over_seeds"] = round(float(nll.std(ddof=1)), 4)
    return record


def _method(config: Config) -> str:
    """Names how the run is trained."""
    if config.prior == names.DIRECTED:
        return config.estimator
    samples = f" of {config.num_samples} samples" if config.bound == names.IW else ""
    return f"{config.method}, {config.smoothing}{samples}"


def _chosen_by(config: Config) -> str:
    """Says which step was evaluated."""
    if not config.eval_interval:
        return "last step"
    trusted = " of steps whose log Z is to be trusted" if config.prior == names.BOLTZMANN else ""
    return f"lowest validation nll{trusted}"


def _draw(
    config: Config,
    chosen: Any,
    images: Dataset,
    workdir: Path,
    evaluator: binary_evaluation.Evaluator,
    sets: dict[str, binary_evaluation.Evaluation],
) -> None:
    """Draws the first seed's pictures."""
    # From the host: pictures of a few images are made on one device.
    params, model_state = jax.device_get(chosen)
    if config.num_seeds > 1:
        params, model_state = jax.tree.map(lambda x: x[0], (params, model_state))
    figures, name = analysis.figures, _method(config)
    originals = spread(images.test, NUM_PICTURES)
    reconstructions = evaluator.reconstruct(params, model_state, originals)
    samples = evaluator.sample_prior(params, model_state, 4 * NUM_PICTURES, images.test.shape[1:])
    pictures = {
        "reconstructions": figures.reconstructions(255 * originals, reconstructions),
        "samples": figures.samples(samples),
        "active_units": figures.active_units(
            {name: sets["test"].unit_variance[0]}, threshold=binary_evaluation.ACTIVE_VARIANCE
        ),
    }
    steps, bound = run_record.read_curve(workdir, "train", "objective")
    held_steps, held_elbo, held_nll = run_record.read_curve(workdir, "validation", "elbo", "nll")
    if len(steps):
        held_out = {
            f"{name}, ELBO": (held_steps, -held_elbo),
            f"{name}, {config.eval_samples} samples": (held_steps, held_nll),
        }
        pictures["bounds"] = figures.learning_curve(
            {f"{name}, {_objective(config)}": (steps, -bound)},
            held_out if len(held_steps) else None,
            unit="nats an image, negated",
        )
    for title, figure in pictures.items():
        figures.save(figure, workdir / f"{title}.png")


def _objective(config: Config) -> str:
    """Says why the curve of a training objective need not be that of a bound."""
    caveats = []
    if config.kl_warmup_steps:
        caveats.append(f"KL weighted down until step {config.kl_warmup_steps:,}")
    if config.prior == names.BOLTZMANN:
        caveats.append(f"log Z of every {config.log_z_interval:,} steps")
    return f"objective ({', '.join(caveats)})" if caveats else "objective"


def _describe(summary: dict[str, Any], workdir: Path) -> str:
    """The result in a few lines for the terminal."""
    config = summary["config"]
    samples = config["test_samples"]
    rows = []
    for name in ("validation", "test"):
        record = summary[name]
        rows += [
            (f"{name} nll", record["nll"], f"nats an image, {samples} importance samples"),
            ("  -elbo", -np.asarray(record["elbo"]), "nats, one sample"),
            ("  kl", np.atleast_1d(record["kl"]).ravel(), "nats, group by group, or of all"),
            ("  active units", record["active_units"], "of the first group"),
        ]
    if "nll_mean_over_seeds" in summary["test"]:
        test = summary["test"]
        spread_of = (test["nll_mean_over_seeds"], test["nll_standard_deviation_over_seeds"])
        rows.append(("over seeds", spread_of, "mean and standard deviation of the test nll"))
    if "log_z" in summary:
        rows += boltzmann_prior.log_z_rows(summary)
    lines = [
        f"{label:<16}{' '.join(f'{v:.5g}' for v in np.atleast_1d(value)):>12}  {text}"
        for label, value, text in rows
    ]
    header = (
        f"{summary['estimator']} ({summary['bound']} bound) on {summary['dataset']}: "
        f"{summary['num_steps']} steps, seeds {summary['seeds']}, evaluated at step "
        f"{summary['evaluated_step']}, {summary['wall_seconds']:.0f} s on {summary['hardware']}"
    )
    warning = summary.get("log_z", {}).get("warning")
    if warning:
        lines += ["", f"warning: {warning}"]
    pictures = ", ".join(sorted(p.name for p in workdir.glob("*.png")))
    return "\n".join(["", header, *lines, "", f"pictures in {workdir}: {pictures}"])
