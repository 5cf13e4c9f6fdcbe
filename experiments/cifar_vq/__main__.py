"""Trains a codebook model of images: Gumbel-Softmax, VIMCO, VQ-VAE, FSQ and other quantizers.

    python -m experiments.cifar_vq --estimator=gs_soft --dataset=patches --preset=demo
    python -m experiments.cifar_vq --estimator=vimco --dataset=cifar10 --data_dir=DIR --preset=paper

The model is that of Sonderby, Poole and Mnih, "Continuous Relaxation Training of Discrete Latent
Variable Image Models" (2017). The workdir receives config.json, metrics.jsonl, TensorBoard events,
checkpoints, summary.json and pictures. The same command continues an interrupted run.
"""

from typing import Any

from jax.sharding import Mesh

from dvae import data
from dvae.train import loop
from experiments.cifar_vq import evaluation, report, task
from experiments.cifar_vq.config import Config
from experiments.cifar_vq.presets import PRESETS
from experiments.common import run as runner


def make_task(config: Config, images: data.Dataset, mesh: Mesh) -> loop.Task:
    """Returns what the loop trains and validates."""
    return task.make_task(config, images, mesh, evaluation.validator(config, images, mesh))


def run(config: Config) -> dict[str, Any]:
    """Trains, or continues, one run and returns its summary; see `runner.run`."""
    return runner.run(config, prepare=task.prepare, make_task=make_task, report=report.report)


if __name__ == "__main__":
    runner.start(Config, PRESETS, run)
