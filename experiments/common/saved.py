"""The configuration of a run that is in a folder, for what reads it afterwards."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvae.train import checkpoint
from experiments.common import whose
from experiments.common.config import RunConfig
from experiments.common.program import Program


def read_config(directory: Path, programs: Mapping[str, Program], **changes: Any) -> RunConfig:
    """Returns the configuration of a run, finished or not.

    Args:
      directory: of the run.
      programs: of which it may be a run, by their names.
      **changes: fields that are to have other values.

    Raises:
      ValueError: the directory holds no run, its records are damaged, or the values do not fit.
    """
    path, wanted = directory / checkpoint.CONFIG_FILE, f"name a run of {' or '.join(programs)}"
    if not path.is_file():
        is_what = "holds no run" if directory.is_dir() else "is no directory"
        raise ValueError(
            f"{directory} {is_what if directory.exists() else 'does not exist'}; {wanted}"
        )
    saved = checkpoint.read_config(path)
    name = whose.program_of(saved)
    if name not in programs:
        is_what = f"is a {name} run" if name else "holds no run"
        raise ValueError(f"{directory} {is_what}; {wanted}")
    program = programs[name]
    known = {field.name for field in dataclasses.fields(program.config_class)}
    settings = {**program.before, **saved, **changes}
    return program.config_class(**{k: v for k, v in settings.items() if k in known})
