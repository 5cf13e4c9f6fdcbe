"""The configuration of a run that is in a folder, for what reads it afterwards."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvae.train import checkpoint
from experiments.common import groups
from experiments.common.config import RunConfig

# What runs did that are older than a field, where that is not the field's default.
_BEFORE: dict[str, dict[str, Any]] = {"binary_vae": {"latent_inputs": "bits"}}


def read_config(
    directory: Path, classes: Mapping[str, type[RunConfig]], **changes: Any
) -> RunConfig:
    """Returns the configuration of a run, finished or not.

    Args:
      directory: of the run.
      classes: of the configurations, by the programs' names.
      **changes: fields that are to have other values.

    Raises:
      ValueError: the directory holds no run, its records are damaged, or the values do not fit.
    """
    path = directory / checkpoint.CONFIG_FILE
    if not path.is_file():
        raise ValueError(groups.what_is(directory))
    saved = checkpoint.read_config(path)
    program = groups.program_of(saved)
    if program not in classes:
        raise ValueError(groups.what_is(directory))
    known = {field.name for field in dataclasses.fields(classes[program])}
    settings = {**_BEFORE.get(program, {}), **saved, **changes}
    return classes[program](**{k: v for k, v in settings.items() if k in known})
