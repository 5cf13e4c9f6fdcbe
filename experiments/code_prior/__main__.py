"""Learns an autoregressive prior over the codes of a finished `cifar_vq` run.

    python -m experiments.code_prior RUN_DIR
    python -m experiments.code_prior RUN_DIR --network=transformer --num_steps=20000

The model stays as it is; the bound on -log p(x) is evaluated with its factorial prior and with the
learned one. The workdir receives config.json, metrics.jsonl, TensorBoard events, checkpoints,
summary.json, pictures and model/, which is the model with the prior. `dvae.load(RUN_DIR)` knows the
best prior of those that were learned. The same command continues an interrupted run.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from dvae import data, trained
from dvae.train import lock, loop, paths, status
from experiments.cifar_vq import config as cifar_vq
from experiments.cifar_vq.program import PROGRAM
from experiments.code_prior import evaluation, report, task
from experiments.code_prior import model as prior_model
from experiments.code_prior.config import Config, model_of
from experiments.common import flags, saved
from experiments.common import run as runner


def make_task(config: Config, images: data.Dataset, mesh: Mesh) -> loop.Task:
    """Returns what the loop trains and validates."""
    return task.make_task(config, images, mesh, evaluation.validator(config, images, mesh))


def of_run(config: Config, directory: Path) -> Config:
    """Returns the configuration with what it takes over from the run whose codes they are.

    Args:
      config: of the flags.
      directory: of the run.

    Raises:
      ValueError: there is no run of `cifar_vq`, or no model of it, the run is being trained, or the
        folder is read-only.
    """
    changes = {"data_dir": config.data_dir} if config.data_dir else {}
    run_config = saved.read_config(directory, {PROGRAM.name: PROGRAM}, **changes)
    try:
        lock.check_free(directory)
    except lock.LockedError as error:
        raise ValueError(
            f"{str(error).partition('; ')[0]}, which may change the model; wait until it ends, or "
            "stop it"
        ) from error
    if isinstance(run_config, cifar_vq.Config) and not run_config.validation:
        status.say(
            f"{directory} was trained on its validation images, too (--validation=false): rates of "
            "those, by which the best step is chosen, are of images that the model knows"
        )
    names = ("dataset", "data_dir", "image_size", "test_share")
    known = {name: getattr(run_config, name) for name in names}
    config = dataclasses.replace(config, run_dir=str(directory), **known)
    model = prior_model.load(config)
    folder = trained.find(directory, seed=config.seed_of_model)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write to {folder}, where dvae.load looks for the prior")
    return dataclasses.replace(config, model_sha256=trained.identity(model.params))


def run(config: Config) -> dict[str, Any]:
    """Trains, or continues, one run and returns its summary; see `runner.run`."""
    workdir = Path(config.workdir or config.default_workdir())
    with flags.setup():
        there = model_of(workdir)
        if there not in (None, config.model_sha256):
            raise ValueError(
                f"{workdir} holds a prior of another model ({there[:8]}, that in {config.run_dir} "
                f"is {config.model_sha256[:8]}), which was trained on since or is of another run; "
                "choose another --workdir"
            )
    summary = runner.run(config, prepare=task.prepare, make_task=make_task, report=report.report)
    if not config.dry_run:
        report.hand_over(config, workdir, summary)
    return summary


def main(arguments: list[str]) -> None:
    """Learns the prior that the command line asks for."""
    with flags.setup():
        if len(arguments) != 2:
            raise ValueError(
                "name the folder of one run: python -m experiments.code_prior RUN_DIR; got "
                f"{' '.join(arguments[1:]) or 'none'}"
            )
        config = of_run(flags.parse(Config), paths.local(arguments[1], "RUN_DIR"))
    run(config)


if __name__ == "__main__":
    flags.define(Config)
    flags.run(main)
