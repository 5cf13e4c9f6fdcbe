"""Writes the trained model of a run that has none yet: of an older version, or not finished.

    python -m experiments.export runs/x
    dvae.load("runs/x")

Every run of cifar_vq, binary_vae, joint_vae and dvaepp ends with the folder model/; this makes it
from the run's last checkpoint. The model is that of the step that the run evaluates: the best
validation's, or the last one's. log Z of a Boltzmann prior is estimated again, with the run's keys.
The data set is read for the shape of its images. Runs of several seeds get a model each. A prior
that was learned over the codes of a model goes with it, wherever it is written.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from dvae import data, trained
from dvae.train import checkpoint, lock, loop, paths, sharding, status
from experiments import programs
from experiments.common import flag_help, flags, models, records, saved
from experiments.common.config import RunConfig
from experiments.common.flags import option

UNSPECIFIED = trained.Card("").license
_WITH_LOG_Z = ("binary_vae", "dvaepp")  # where they have a Boltzmann prior


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of an export."""

    out: str = option("", "Folder of the model. Empty: model/ in that of the run.", path=True)
    data_dir: str = option(
        "", "Folder of prepared data sets. Empty: the one that the run names.", path=True
    )
    license: str = option(UNSPECIFIED, "License of the model and of a prior learned for it.")

    def __post_init__(self) -> None:
        """Raises ValueError for a path that is none."""
        flags.check_fields(self)


def read(config: Config, directory: Path) -> RunConfig:
    """Returns the configuration of a run, which has a checkpoint and is not in progress.

    Raises:
      ValueError: it is not such a run, or its summary is damaged.
      LockedError: it is being trained.
    """
    changes = {"data_dir": config.data_dir} if config.data_dir else {}
    run_config = saved.read_config(directory, programs.PROGRAMS, workdir=str(directory), **changes)
    lock.check_free(directory)
    if not any((directory / checkpoint.FOLDER).glob("[0-9]*")):
        raise ValueError(f"{directory} has no checkpoint, and so no model; train it first")
    try:
        records.read_summary(directory)
    except FileNotFoundError:
        pass  # the run was not finished
    except ValueError as error:
        raise ValueError(f"{error}; the run's command, given again, writes it anew") from error
    return run_config


def make(config: RunConfig, images: data.Dataset, mesh: Mesh) -> list[models.Trained]:
    """Restores the models of a run from its last checkpoint.

    Args:
      config: of the run.
      images: its data set.
      mesh: the devices.

    Raises:
      LockedError: the run is being trained.
    """
    program, directory = programs.room(config.program, "__main__"), Path(config.workdir)
    task = program.make_task(config, images, mesh)
    # Opening the checkpoints removes those that were not completed, which may be another's.
    with lock.hold(directory):
        result = loop.fit(task, _until_now(config, directory), directory, mesh)
    test: dict[str, Any] = {}
    if (directory / records.SUMMARY_FILE).exists():
        summary = records.read_summary(directory)
        # A run that was prolonged, and did not end since, has the numbers of an earlier model.
        if summary.get("steps", summary["num_steps"]) == int(np.max(result.state.step)):
            test = summary.get("test", {})
    arguments = [config, result, images, test]
    if config.program in _WITH_LOG_Z:
        state = result.best if config.eval_interval else result.state
        assert state is not None
        evaluator = program.evaluation.Evaluator(config, images, mesh)
        arguments.append(evaluator.log_z(state.params))  # and says so
    return program.report.models(*arguments)


def hand_on_prior(model: models.Trained, source: Path, folder: Path, license: str) -> bool:
    """Writes the prior that was learned over the codes of a run's model beside an exported model.

    A prior of other codes is left out, and a line says so.

    Args:
      model: what was exported.
      source: folder of the run's model, where the prior is if there is one.
      folder: of the exported model; may be the same.
      license: of the prior; UNSPECIFIED: its own stays.

    Returns:
      Whether there is a prior beside the exported model now.
    """
    if not (source / trained.code_prior.PRIOR).exists():
        return False
    try:
        learned = trained.load(source)
    except trained.ModelError as error:
        status.say(f"{folder} has no learned prior: {error}")
        return False
    if not isinstance(learned.functions, trained.code_prior.Functions):
        return False  # it was not finished
    record = learned.info[trained.code_prior.PRIOR]
    if record["model_sha256"] != trained.identity(model.params):
        status.say(
            f"{folder} has no learned prior: that in {source} is for codes of another model, which "
            "was trained for fewer or more steps; export without --out, and learn it again: "
            "python -m experiments.code_prior"
        )
        return False
    names = ("dataset", "seed", "step", "metrics", "license")
    card = trained.Card(**{name: record[name] for name in names})
    if license != UNSPECIFIED:
        card = dataclasses.replace(card, license=license)
    trained.save_prior(folder, learned.functions, learned.params, card)
    return True


def _until_now(config: RunConfig, directory: Path) -> loop.LoopConfig:
    """Returns the lengths of a run that ends at its last checkpoint: nothing is trained."""
    checkpoints = checkpoint.Checkpoints(directory)
    step = checkpoints.latest_step
    checkpoints.close()
    assert step is not None
    return dataclasses.replace(config.loop(), num_steps=step)


def main(arguments: list[str]) -> None:
    """Exports the run of the command line."""
    with flags.setup():
        if len(arguments) != 2:
            raise ValueError(
                "name the folder of one run: python -m experiments.export RUN_DIR; got "
                f"{' '.join(arguments[1:]) or 'none'}"
            )
        config = flags.parse(Config)
        directory = paths.local(arguments[1], "RUN_DIR")
        run_config = read(config, directory)
        out = Path(config.out) if config.out else directory / trained.MODEL_FOLDER
        if trouble := models.hidden(run_config.num_seeds, out):
            raise ValueError(f"{trouble}, or choose another --out")
        with status.phase("loading the data"):
            images = programs.room(run_config.program, "task").prepare(run_config)
    made = make(run_config, images, sharding.make_mesh(1))
    licensed = [m._replace(card=dataclasses.replace(m.card, license=config.license)) for m in made]
    for model, name in zip(licensed, models.save(licensed, out), strict=True):
        source = directory / trained.MODEL_FOLDER / name
        learned = hand_on_prior(model, source, out / name, config.license)
        flag_help.tell(f"wrote {out / name}{', with its learned prior' if learned else ''}")


if __name__ == "__main__":
    flags.define(Config)
    flags.run(main)
