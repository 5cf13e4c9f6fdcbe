"""What a `binary_vae` run leaves behind: summary.json and its pictures."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from matplotlib.figure import Figure

from dvae import analysis, rbm
from dvae.data import Dataset
from dvae.train import loop
from experiments.binary_vae import classes, conditions, names, training
from experiments.binary_vae import model as binary_model
from experiments.binary_vae.config import Config
from experiments.binary_vae.evaluation import ACTIVE_VARIANCE, Evaluation, Evaluator, machine
from experiments.boltzmann import report as boltzmann_report
from experiments.common import evaluation, pixels, records
from experiments.common import models as run_models
from experiments.common import report as run_report

NUM_PICTURES = 16
PAPER_SIZES = dict(num_latents=200, hidden_units=200, hidden_layers=2, num_test_images=0)
_PAPER_MODEL = dict(
    **PAPER_SIZES,
    activation=names.TANH,
    condition=names.NONE,
    image_size=0,
)
ACTIVE_UNITS = ("active units", lambda summary: f"{np.mean(summary['test']['active_units']):.0f}")


def is_as_published(summary: Mapping[str, Any], **more: Any) -> bool:
    """Tells whether a run has the model and the images of DVAE++'s tables.

    Args:
      summary: of the run; a field that it is older than has its default.
      more: settings that it must have besides.
    """
    usual = {field.name: field.default for field in dataclasses.fields(Config)}
    config = {**usual, **summary["config"]}
    more["binarization"] = pixels.published(config["dataset"])
    return all(config[name] == value for name, value in {**_PAPER_MODEL, **more}.items())


def models(
    config: Config,
    result: loop.Result,
    images: Dataset,
    test: Mapping[str, Any],
    log_z: rbm.ais.LogZ | None,
) -> list[run_models.Trained]:
    """Returns the models of all seeds, with what the summary says of the test images."""
    return run_models.of_seeds(
        config,
        binary_model.functions(config, images),
        binary_model.arrays,
        boltzmann_report.best_state(config, result),
        images,
        test,
        log_z=log_z,
    )


def report(
    config: Config, result: loop.Result, images: Dataset, workdir: Path, mesh: Mesh
) -> run_report.Report:
    """Evaluates validation and test sets; a Boltzmann prior is written to prior.npz."""
    evaluator, prior = Evaluator(config, images, mesh), machine(config)
    state = boltzmann_report.best_state(config, result)
    options = functools.partial(conditions.labels_of, config, images)
    sets = boltzmann_report.evaluate_sets(
        config, evaluator.evaluate, state, images, options=options
    )
    # Neither those of an estimator nor the relaxed posterior's are in the model that is exported.
    model = [result.state.params.get(part, ()) for part in ("network", "prior")]
    summary = {
        "dataset": images.name,
        "prior": config.prior,
        "estimator": _method(config),
        "bound": config.bound,
        "elbo_and_kl_are": "estimates from one sample an image, in the binary limit; nats an image",
        **boltzmann_report.summarize(config, prior, state, sets, _of_set),
        **training.of_run(config, evaluator, result.state, images, workdir),
        **classes.of_run(config, evaluator, state.params, state.model_state, images),
        **run_report.of_run(config, result, model),
    }
    params, model_state = run_report.first_seed(config, (state.params, state.model_state))
    return run_report.Report(
        summary,
        f"{summary['estimator']} ({config.bound} bound) on {images.name}",
        [
            *boltzmann_report.rows(summary, _rows_of_set),
            *training.rows(summary),
            *classes.rows(summary),
        ],
        draw=lambda: _pictures(
            config, params, model_state, images, workdir, evaluator, sets["test"]
        ),
        notes=boltzmann_report.warnings(summary),
        models=models(config, result, images, summary["test"], sets["test"].log_z),
        arrays=boltzmann_report.arrays(prior, state),
    )


def _of_set(results: Evaluation) -> dict[str, Any]:
    """Numbers of one set of images."""
    return {
        "kl_nats": records.per_seed(results.kl.mean(1)),
        "active_units": records.per_seed(results.active_units),
    }


def _rows_of_set(record: dict[str, Any]) -> list[run_report.Row]:
    """Numbers of one set of images, for the terminal."""
    return [
        ("  kl", np.ravel(record["kl_nats"]), "nats, group by group, or of all"),
        ("  active units", record["active_units"], "of the first group"),
    ]


def _method(config: Config) -> str:
    """Names how the run is trained."""
    if config.prior == names.DIRECTED:
        return config.estimator
    if config.machine_graph:
        return f"boltzmann on {Path(config.machine_graph).name}, {config.smoothing}"
    samples = f" of {config.num_samples} samples" if config.bound == names.IW else ""
    return f"{config.method}, {config.smoothing}{samples}"


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
    chosen = evaluation.spread_indices(len(images.test), NUM_PICTURES)
    originals, labels = images.test[chosen], conditions.labels_of(config, images, "test", chosen)
    reconstructions = evaluator.reconstruct(params, model_state, originals, **labels)
    # Given labels are those of the test images, again and again.
    again = np.arange(4 * NUM_PICTURES) % len(originals)
    labels = {name: value[again] for name, value in labels.items()}
    samples = evaluator.sample_prior(params, model_state, 4 * NUM_PICTURES, **labels)
    return {
        **classes.picture(config, evaluator, params, model_state, images),
        "reconstructions": figures.reconstructions(255 * originals, reconstructions),
        "samples": figures.samples(samples),
        "active_units": figures.active_units(
            {name: test.unit_variance[0]}, threshold=ACTIVE_VARIANCE
        ),
        **boltzmann_report.curves(
            config,
            machine(config),
            workdir,
            model=name,
            kl_warmup_steps=config.kl_warmup_steps,
        ),
    }
