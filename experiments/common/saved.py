"""The configuration of a run that is in a folder, for what reads it afterwards."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvae.train import checkpoint
from experiments.common import whose
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
    path, wanted = directory / checkpoint.CONFIG_FILE, f"name a run of {' or '.join(classes)}"
    if not path.is_file():
        is_what = "holds no run" if directory.is_dir() else "is no directory"
        raise ValueError(
            f"{directory} {is_what if directory.exists() else 'does not exist'}; {wanted}"
        )
    saved = checkpoint.read_config(path)
    program = whose.program_of(saved)
    if program not in classes:
        is_what = f"is a {program} run" if program else "holds no run"
        raise ValueError(f"{directory} {is_what}; {wanted}")
    known = {field.name for field in dataclasses.fields(classes[program])}
    settings = {**_BEFORE.get(program, {}), **saved, **changes}
    return classes[program](**{k: v for k, v in settings.items() if k in known})
