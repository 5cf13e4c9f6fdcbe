"""What a `binary_vae` run leaves behind: summary.json and its pictures."""

from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from matplotlib.figure import Figure

from dvae import analysis
from dvae.data import Dataset
from dvae.train import loop, sharding
from experiments.binary_vae import names
from experiments.binary_vae.config import Config
from experiments.binary_vae.evaluation import ACTIVE_VARIANCE, Evaluation, Evaluator
from experiments.boltzmann import prior as boltzmann_prior
from experiments.common import evaluation, records
from experiments.common import report as run_report
from experiments.common.groups import Program

NUM_PICTURES = 16
# What the tables know of a run, and those that are older than a field.
PROGRAM = Program("binary_vae", Config, before={"latent_inputs": names.BITS})
PAPER_SIZES = dict(num_latents=200, hidden_units=200, hidden_layers=2, num_test_images=0)
ACTIVE_UNITS = ("active units", lambda summary: f"{np.mean(summary['test']['active_units']):.0f}")


def report(
    config: Config, result: loop.Result, images: Dataset, workdir: Path, mesh: Mesh
) -> run_report.Report:
    """Evaluates validation and test sets.

    A Boltzmann prior is written to prior.npz: bias1, bias2 and weights, seeds first if several.
    """
    assert result.best is not None
    # Without a validation on the way there is nothing to choose from but the last step.
    chosen = result.best if config.eval_interval else result.state
    evaluator = Evaluator(config, images.train[0].size, mesh)
    counts = {
        "validation": config.num_validation_images or config.num_test_images,
        "test": config.num_test_images,
    }
    sets = {
        name: evaluator.evaluate(
            chosen.params,
            chosen.model_state,
            evaluation.spread(getattr(images, name), count),
            num_samples=config.test_samples,
        )
        for name, count in counts.items()
    }
    summary = summarize(config, result, images, sets)
    arrays = {}
    if config.prior == names.BOLTZMANN:
        arrays[records.PRIOR_FILE] = sharding.fetch(chosen.params["prior"])._asdict()
    params, model_state = run_report.first_seed(config, (chosen.params, chosen.model_state))
    return run_report.Report(
        summary,
        f"{summary['estimator']} ({config.bound} bound) on {images.name}",
        _rows(summary),
        draw=lambda: _pictures(
            config, params, model_state, images, workdir, evaluator, sets["test"]
        ),
        notes=boltzmann_prior.log_z_warnings(summary),
        arrays=arrays,
    )


def _rows(summary: dict[str, Any]) -> list[run_report.Row]:
    """The result for the terminal."""
    samples = summary["config"]["test_samples"]
    rows: list[run_report.Row] = []
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
    return rows


def summarize(
    config: Config,
    result: loop.Result,
    images: Dataset,
    sets: dict[str, Evaluation],
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
        **{name: _of_set(results) for name, results in sets.items()},
        **(boltzmann_prior.log_z_record(config, log_z) if log_z is not None else {}),
        "evaluated_step": np.asarray(step).tolist(),
        "chosen_by": _chosen_by(config),
        **run_report.of_run(config, result, model),
    }


def _of_set(results: Evaluation) -> dict[str, Any]:
    """Numbers of one set of images; over several seeds also their mean and standard deviation."""
    means = {name: np.atleast_1d(value) for name, value in results.means().items()}
    return {
        **run_report.of_log_likelihood(results.log_likelihood),
        "elbo": records.per_seed(means["elbo"]),
        "kl": records.per_seed(results.kl),
        "active_units": records.per_seed(means["active_units"]),
        "effective_samples": records.per_seed(results.ess.mean(1)),
    }


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


def _pictures(
    config: Config,
    params: Any,
    model_state: Any,
    images: Dataset,
    workdir: Path,
    evaluator: Evaluator,
    test: Evaluation,
) -> dict[str, Figure]:
    """Draws the first seed's pictures."""
    figures, name = analysis.figures, _method(config)
    originals = evaluation.spread(images.test, NUM_PICTURES)
    reconstructions = evaluator.reconstruct(params, model_state, originals)
    samples = evaluator.sample_prior(params, model_state, 4 * NUM_PICTURES, images.test.shape[1:])
    pictures = {
        "reconstructions": figures.reconstructions(255 * originals, reconstructions),
        "samples": figures.samples(samples),
        "active_units": figures.active_units(
            {name: test.unit_variance[0]}, threshold=ACTIVE_VARIANCE
        ),
    }
    steps, bound = records.read_curve(workdir, "train", "objective")
    held_steps, held_elbo, held_nll = records.read_curve(workdir, "validation", "elbo", "nll")
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
    return pictures


def _objective(config: Config) -> str:
    """Says why the curve of a training objective need not be that of a bound."""
    caveats = []
    if config.kl_warmup_steps:
        caveats.append(f"KL weighted down until step {config.kl_warmup_steps:,}")
    if config.prior == names.BOLTZMANN:
        caveats.append(f"log Z of every {config.log_z_interval:,} steps")
    return f"objective ({', '.join(caveats)})" if caveats else "objective"
