"""Trains DVAE++ on images: global discrete latents over a hierarchy of local ones.

    python -m experiments.dvaepp --preset=demo                      # embedded digits, no files
    python -m experiments.dvaepp --preset=table3_cpu_rbm_normal --data_dir=DIR
    python -m experiments.dvaepp --dataset=cifar10 --decoder=conditional --data_dir=DIR

The model is that of Vahdat et al., "DVAE++" (2018), sec. 6. The workdir receives config.json,
metrics.jsonl, TensorBoard events, checkpoints, summary.json and pictures. The same command
continues an interrupted run.
"""

from typing import Any

from jax.sharding import Mesh

from dvae import data
from dvae.train import loop
from experiments.common import run as runner
from experiments.dvaepp import evaluation, report, task
from experiments.dvaepp.config import Config
from experiments.dvaepp.presets import PRESETS


def make_task(config: Config, images: data.Dataset, mesh: Mesh) -> loop.Task:
    """Returns what the loop trains and validates."""
    return task.make_task(config, images, mesh, evaluation.validator(config, images, mesh))


def run(config: Config) -> dict[str, Any]:
    """Trains, or continues, one run and returns its summary; see `runner.run`."""
    return runner.run(config, prepare=task.prepare, make_task=make_task, report=report.report)


if __name__ == "__main__":
    runner.start(Config, PRESETS, run)
