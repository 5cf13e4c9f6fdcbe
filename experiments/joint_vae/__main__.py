"""Trains a VAE with continuous and discrete latent variables on images: JointVAE.

    python -m experiments.joint_vae --preset=demo                      # embedded digits, no files
    python -m experiments.joint_vae --preset=mnist --data_dir=DIR
    python -m experiments.joint_vae --discrete=10,3 --objective=elbo --dataset=fashion_mnist

The model is that of Dupont, "Learning Disentangled Joint Continuous and Discrete Representations"
(2018). The workdir receives config.json, metrics.jsonl, TensorBoard events, checkpoints,
summary.json and pictures. The same command continues an interrupted run.
"""

from typing import Any

from jax.sharding import Mesh

from dvae import data
from dvae.train import loop
from experiments.common import run as runner
from experiments.joint_vae import evaluation, report, task
from experiments.joint_vae.config import PRESETS, Config


def make_task(config: Config, images: data.Dataset, mesh: Mesh) -> loop.Task:
    """Returns what the loop trains and validates."""
    return task.make_task(config, images, mesh, evaluation.validator(config, images, mesh))


def run(config: Config) -> dict[str, Any]:
    """Trains, or continues, one run and returns its summary; see `runner.run`."""
    return runner.run(config, prepare=task.prepare, make_task=make_task, report=report.report)


if __name__ == "__main__":
    runner.start(Config, PRESETS, run)
