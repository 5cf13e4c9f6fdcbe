"""Trains a VAE with binary latents on binary images, by any smoothing or gradient estimator.

    python -m experiments.binary_vae --dataset=digits --preset=demo
    python -m experiments.binary_vae --preset=table1_nonlinear_rebar --data_dir=DIR
    python -m experiments.binary_vae --estimator=exponential --bound=marginal --num_groups=2

    python -m experiments.binary_vae --prior=rbm --method=dvaes --smoothing=power --bound=iw

The models are those of Vahdat et al., "DVAE++" and "DVAE#" (2018). The workdir receives
config.json, metrics.jsonl, TensorBoard events, checkpoints, summary.json and pictures. The same
command continues an interrupted run.
"""

from typing import Any

from jax.sharding import Mesh

from dvae import data
from dvae.train import loop
from experiments.binary_vae import evaluation, report, task
from experiments.binary_vae.config import Config
from experiments.binary_vae.presets import PRESETS
from experiments.common import run as runner


def make_task(config: Config, images: data.Dataset, mesh: Mesh) -> loop.Task:
    """Returns what the loop trains and validates."""
    return task.make_task(config, images, mesh, evaluation.validator(config, images, mesh))


def run(config: Config) -> dict[str, Any]:
    """Trains, or continues, one run and returns its summary; see `runner.run`."""
    return runner.run(config, prepare=task.prepare, make_task=make_task, report=report.report)


if __name__ == "__main__":
    runner.start(Config, PRESETS, run)
