"""What a `cifar_vq` run leaves behind: summary.json and its pictures."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from matplotlib.figure import Figure

from dvae import analysis, bounds, data
from dvae.data import Dataset
from dvae.models import vq_conv
from dvae.train import loop
from experiments.cifar_vq import model as vq_model
from experiments.cifar_vq import names, objectives
from experiments.cifar_vq.config import Config
from experiments.cifar_vq.evaluation import (
    Evaluation,
    Evaluator,
    Others,
    histogram_bits_per_dim,
)
from experiments.cifar_vq.model import codebook_of
from experiments.common import evaluation, records
from experiments.common import models as run_models
from experiments.common import report as run_report

CODEBOOK_FILE = "codebook.npy"
NUM_PICTURES = 8
STRIP_WIDTH = 64  # pixels of a photograph that are reconstructed together
_MODE = "rate of samples with the distortion of the likeliest codes: no bound"
_RATE_OF = {
    False: "KL(q(z|x) || p(z)), analytic",
    True: "-log p(z) of the codes, one of each image",
}


def summarize(
    config: Config,
    result: loop.Result,
    images: Dataset,
    test: Evaluation,
    others: Others | None = None,
) -> dict[str, Any]:
    """Returns the record of a finished run; several seeds give lists in their order."""
    held_out = evaluation.spread(images.test, config.num_test_images)
    deterministic = config.estimator in names.DETERMINISTIC
    return {
        "dataset": images.name,
        "num_dims": images.test[0].size,
        "estimator": config.estimator,
        "bound": "discrete ELBO with hard codes: at least the negative log-likelihood",
        "rate_is": _RATE_OF[deterministic],
        **({} if others is None else {"mode_is": _MODE}),
        "training_objective": objectives.TRAINING_OBJECTIVE[config.estimator],
        "test": {
            "num_images": test.rate.shape[1],
            **run_report.over_images("bits_per_dim", test.bits_per_dim),
            **run_report.rates("", test.rate, test.num_dims),
            "distortion_nats": records.per_seed(test.distortion.mean(1)),
            "perplexity": records.per_seed(test.perplexity),
            "dead_codes": records.per_seed(test.num_dead),
            **({} if others is None else _summarize_others(config, test, others)),
        },
        "baseline": {
            "bits_per_dim": histogram_bits_per_dim(images.train, held_out),
            "model": "independent pixels, histogram of the training pixels by channel",
        },
        **run_report.of_run(config, result, _model(config, result)),
    }


def _model(config: Config, result: loop.Result) -> Any:
    """Returns the shapes of the exported arrays, of all seeds: codebooks may be no parameters."""
    of_seeds = vq_model.arrays if config.num_seeds == 1 else jax.vmap(vq_model.arrays)
    state = vq_model.evaluated(config, result.state)
    return jax.eval_shape(of_seeds, state.params, state.model_state)


def _summarize_others(config: Config, test: Evaluation, others: Others) -> dict[str, Any]:
    """Returns what the summary says of the posterior's argmax, and of importance samples."""
    in_bits = lambda nats: np.asarray(bounds.bits_per_dim(-nats, test.num_dims))
    mode = in_bits(test.rate + others.mode_distortion)
    numbers = run_report.over_images("mode_bits_per_dim", mode)
    if others.log_likelihood is not None and others.ess is not None:
        nll = -others.log_likelihood
        numbers |= run_report.over_images("nll_nats", nll)
        numbers |= run_report.over_images("nll_bits_per_dim", in_bits(nll))
        numbers["importance_samples"] = config.test_samples
        numbers["effective_samples"] = records.per_seed(others.ess.mean(1))
    return numbers


def models(
    config: Config, result: loop.Result, images: Dataset, test: Mapping[str, Any]
) -> list[run_models.Trained]:
    """Returns the models of all seeds, with what the summary says of the test images."""
    functions = vq_model.functions(config, images.train.shape[1:])
    state = vq_model.evaluated(config, result.state)
    return run_models.of_seeds(config, functions, vq_model.arrays, state, images, test)


def report(
    config: Config, result: loop.Result, images: Dataset, workdir: Path, mesh: Mesh
) -> run_report.Report:
    """Evaluates the test set; the codebook is written to codebook.npy."""
    evaluator = Evaluator(config, images, mesh)
    evaluated = vq_model.evaluated(config, result.state)
    state = evaluated.params, evaluated.model_state
    held_out = evaluation.spread(images.test, config.num_test_images)
    test_evaluation = evaluator.evaluate(*state, held_out)
    others = None
    if config.estimator in names.PROBABILISTIC:
        others = evaluator.evaluate_others(*state, held_out, config.test_samples)
    summary = summarize(config, result, images, test_evaluation, others)
    params, model_state = run_report.first_seed(config, state)
    codebook = np.asarray(codebook_of(params, model_state))
    test = summary["test"]
    rows = [
        ("bits/dim", test["bits_per_dim"], "test, discrete ELBO: a bound"),
        *_rows_of_others(test),
        (
            "  baseline",
            summary["baseline"]["bits_per_dim"],
            "independent pixels by their histogram",
        ),
        ("rate", test["rate_nats"], "nats an image: what the codes cost"),
        (
            "distortion",
            test["distortion_nats"],
            "nats an image: what the pixels cost given the codes",
        ),
        (
            "code perplexity",
            np.mean(test["perplexity"]),
            f"of {config.num_codes} codes, mean",
        ),
        ("dead codes", np.mean(test["dead_codes"]), "mean over latent variables"),
    ]
    return run_report.Report(
        summary,
        f"{config.estimator} on {images.name}",
        rows,
        draw=lambda: _pictures(config, params, model_state, images, workdir, evaluator),
        models=models(config, result, images, test),
        arrays={CODEBOOK_FILE: codebook},
    )


def _rows_of_others(test: Mapping[str, Any]) -> Iterator[run_report.Row]:
    """Yields the lines of the terminal for what only some runs have."""
    if "nll_bits_per_dim" in test:
        count = test["importance_samples"]
        told = f"test, {count} importance samples: a tighter bound"
        yield f"  K={count}", test["nll_bits_per_dim"], told
    if "mode_bits_per_dim" in test:
        yield "  likeliest", test["mode_bits_per_dim"], "test, the posterior's argmax: no bound"


def _pictures(
    config: Config,
    params: Any,
    model_state: Any,
    images: Dataset,
    workdir: Path,
    evaluator: Evaluator,
) -> dict[str, Figure]:
    """Draws one seed's pictures."""
    codebook = np.asarray(codebook_of(params, model_state))
    figures, name = analysis.figures, config.estimator
    originals = evaluation.spread(images.test, 2 * NUM_PICTURES)
    reconstructions = evaluator.reconstruct(params, model_state, originals)
    samples = evaluator.sample_prior(params, model_state, 2 * NUM_PICTURES)
    pictures = {
        "reconstructions": figures.reconstructions(originals, reconstructions),
        "samples": figures.samples(samples),
    }
    if config.estimator not in names.GRIDS:
        pictures["codebooks"] = figures.codebook_pca({name: codebook})
        pictures["explained_variance"] = figures.explained_variance({name: codebook})
    steps, bits = records.read_curve(workdir, "train", "bits_per_dim")
    held_steps, held_bits = records.read_curve(workdir, "validation", "bits_per_dim")
    if len(steps):
        held_out = {name: (held_steps, held_bits)} if len(held_steps) else None
        pictures["learning_curve"] = figures.learning_curve({name: (steps, bits)}, held_out)
    steps, rate, distortion = records.read_curve(workdir, "validation", "rate", "distortion")
    if len(steps):
        pictures["rate_distortion"] = figures.rate_distortion_path(
            {name: (rate, distortion, steps)}, num_dims=images.test[0].size
        )
    if config.dataset == "patches":
        pictures["photographs"] = _photographs(
            lambda strip: evaluator.reconstruct(params, model_state, strip)
        )
    return pictures


def _photographs(reconstruct: Callable[[np.ndarray], np.ndarray]) -> Figure:
    """Draws the whole photographs of `patches`: originals, what training saw, reconstructions."""
    whole = data.embedded.photographs()
    # The model takes multiples of its downsampling.
    height, width = (n // vq_conv.DOWNSAMPLING * vq_conv.DOWNSAMPLING for n in whole.shape[1:3])
    whole = whole[:, :height, :width]
    seen = data.embedded.seen_in_training()[None, :height, :width, None]
    rows = {
        "original": whole,
        "seen in training": np.where(seen, whole, np.uint8(255)),
        "reconstruction": np.concatenate(list(_by_strips(reconstruct, whole)), axis=2),
    }
    return analysis.figures.image_rows(rows, num_columns=2)


def _by_strips(
    reconstruct: Callable[[np.ndarray], np.ndarray], images: np.ndarray
) -> Iterator[np.ndarray]:
    """Reconstructs strips of images [N, H, W, C], each with some of its neighbors around it.

    A whole photograph at once would take a gigabyte of logits.
    """
    width = images.shape[2]
    for left in range(0, width, STRIP_WIDTH):
        first = max(0, min(left - STRIP_WIDTH // 2, width - 2 * STRIP_WIDTH))
        around = reconstruct(images[:, :, first : first + 2 * STRIP_WIDTH])
        yield around[:, :, left - first : left - first + STRIP_WIDTH]
