"""What a `dvaepp` run leaves behind: summary.json and its pictures."""

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from matplotlib.figure import Figure

from dvae import analysis, bounds, rbm
from dvae.data import Dataset
from dvae.train import loop
from experiments.boltzmann import report as boltzmann_report
from experiments.common import evaluation, records
from experiments.common import models as run_models
from experiments.common import report as run_report
from experiments.dvaepp import model as dvaepp_model
from experiments.dvaepp.config import BERNOULLI, RBM, RBM_ROLFE, Config
from experiments.dvaepp.evaluation import Evaluation, Evaluator, machine

NUM_PICTURES = 16
NUM_DRAWS, NUM_EACH = 16, 5  # of the global variables, and images of each (the paper's Fig. 4)
_GLOBAL = {RBM: "RBM", RBM_ROLFE: "RBM (Rolfe)", BERNOULLI: "Bernoulli"}


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
        dvaepp_model.functions(config, images.train.shape[1:]),
        functools.partial(dvaepp_model.arrays, config),
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
    sets = boltzmann_report.evaluate_sets(config, evaluator.evaluate, state, images)
    num_dims = math.prod(images.train.shape[1:]) if config.colored else None
    of_set = lambda results: _of_set(results, num_dims)
    summary = {
        "dataset": images.name,
        "latents": kind(config),
        **boltzmann_report.summarize(config, prior, state, sets, of_set),
        **run_report.of_run(config, result, result.state.params),
    }
    params, model_state = run_report.first_seed(config, (state.params, state.model_state))
    return run_report.Report(
        summary,
        f"{summary['latents']} on {images.name}",
        boltzmann_report.rows(summary, _rows_of_set),
        draw=lambda: _pictures(config, params, model_state, images, workdir, evaluator),
        notes=boltzmann_report.warnings(summary),
        models=models(config, result, images, summary["test"], sets["test"].log_z),
        arrays=boltzmann_report.arrays(prior, state),
    )


def kind(config: Config) -> str:
    """Names the row of Table 3, or the graph of a machine that has none there."""
    if config.machine_graph:
        return f"Boltzmann, {Path(config.machine_graph).name} + {config.local_latents}"
    return f"{_GLOBAL.get(config.global_latents, 'normal')} + {config.local_latents}"


def _of_set(results: Evaluation, num_dims: int | None) -> dict[str, Any]:
    """Numbers of one set of images, with bits/dim where a number of dimensions is told."""
    kls = results.kl.mean(1)
    record = {
        "kl_global_nats": records.per_seed(kls[:, 0]),
        "kl_local_nats": records.per_seed(kls[:, 1:]),
    }
    if num_dims is not None:
        mean = results.log_likelihood.astype(np.float64).mean(1)
        bits = np.asarray(bounds.bits_per_dim(mean, num_dims))
        record["bits_per_dim"] = records.per_seed(bits)
        record["bits_per_dim_is"] = "of the nll: an upper bound of -log2 p(x) a dimension"
    return record


def _rows_of_set(record: dict[str, Any]) -> list[run_report.Row]:
    """Numbers of one set of images, for the terminal."""
    rows = [
        ("  kl, global", record["kl_global_nats"], "nats"),
        ("  kl, local", np.sum(record["kl_local_nats"], -1), "nats, all groups"),
    ]
    if "bits_per_dim" in record:
        rows.append(("  bits/dim", record["bits_per_dim"], "of the nll: a bound"))
    return rows


def _pictures(
    config: Config,
    params: Any,
    model_state: Any,
    images: Dataset,
    workdir: Path,
    evaluator: Evaluator,
) -> dict[str, Figure]:
    """Draws the first seed's pictures."""
    figures = analysis.figures
    originals = evaluation.spread(images.test, NUM_PICTURES)
    levels = originals if config.colored else 255 * originals
    reconstructions = evaluator.reconstruct(params, model_state, originals)
    samples = evaluator.sample_prior(params, model_state, NUM_DRAWS * NUM_EACH, num_each=NUM_EACH)
    pictures = {
        "reconstructions": figures.reconstructions(levels, reconstructions),
        "samples": figures.image_grid(
            samples,
            num_columns=2 * NUM_EACH,
            title=f"{NUM_EACH} in a row from one draw of the global variables",
        ),
    }

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        steps, values = records.read_curve(workdir, "train", name, first_seed=True)
        return steps, values

    if len(read("kl_global")[0]):
        local = {f"h{j}": read(f"kl_local_{j}") for j in range(1, config.local_groups + 1)}
        pictures["kl_per_group"] = figures.kl_per_dimension(local, {"global": read("kl_global")})
    return pictures | boltzmann_report.curves(
        config,
        machine(config),
        workdir,
        model=kind(config),
        kl_warmup_steps=config.kl_warmup_steps,
    )
