"""What a summary says of the training itself: the ELBO of its images, the gradient's variance."""

from pathlib import Path
from typing import Any

import numpy as np

from dvae import data
from dvae.data import Dataset
from dvae.train.state import TrainState
from experiments.binary_vae import conditions, gradient_noise
from experiments.binary_vae.config import Config
from experiments.binary_vae.evaluation import Evaluator
from experiments.common import evaluation, records
from experiments.common import report as run_report

Record = dict[str, Any]
TRAINING, ELBO, SEED = "training", "elbo_nats", 0  # of the pixels that are sampled once


def of_run(
    config: Config, evaluator: Evaluator, state: TrainState, images: Dataset, workdir: Path
) -> Record:
    """Returns the parts of a summary that the flags ask for; empty without.

    Args:
      config: everything.
      evaluator: of the model.
      state: of the last step.
      images: the data set; of gray levels the pixels are sampled once, always alike.
      workdir: of the run, with the metrics of its validations.
    """
    record: Record = {}
    if config.num_training_images:
        chosen = evaluation.spread_indices(len(images.train), config.num_training_images)
        pixels = np.asarray(images.train[chosen])
        if images.binarization == "dynamic":
            pixels = data.sample_once(pixels, SEED)
        labels = conditions.labels_of(config, images, "train", chosen)
        results = evaluator.evaluate(
            state.params, state.model_state, pixels, num_samples=1, **labels
        )
        elbo = results.elbo.astype(np.float64)
        record[TRAINING] = {
            "step": int(np.max(np.asarray(state.step))),
            "num_images": len(pixels),
            **run_report.over_images(ELBO, elbo),
            **run_report.over_seeds(ELBO, elbo.mean(1)),
            "is": "the estimate from one sample an image, at the last step",
        }
    steps, variance = records.read_curve(workdir, "validation", gradient_noise.METRIC)
    # A time limit and an export validate where they end: a run without them has no such step.
    scheduled = (steps % max(1, config.eval_interval) == 0) | (steps == config.num_steps)
    steps, variance = steps[scheduled], variance[scheduled]
    if len(steps):
        record[gradient_noise.METRIC] = {
            "steps": steps.tolist(),
            "encoder": [float(f"{value:.4g}") for value in variance],
            "is": (
                f"of {config.gradient_draws} gradients of the mean loss of one batch of validation "
                "images in the encoder's parameters, nats squared; mean over seeds"
            ),
        }
    return record


def rows(summary: Record) -> list[run_report.Row]:
    """Returns the lines for the terminal."""
    lines: list[run_report.Row] = []
    if TRAINING in summary:
        record = summary[TRAINING]
        text = f"nats, one sample, {record['num_images']:,} training images, last step"
        lines.append(("training -elbo", -np.asarray(record[ELBO]), text))
    if gradient_noise.METRIC in summary:
        values = summary[gradient_noise.METRIC]["encoder"]
        ends = [values[0], values[-1]]
        lines.append(("gradient", ends, "variance in the encoder, at first and last validation"))
    return lines
