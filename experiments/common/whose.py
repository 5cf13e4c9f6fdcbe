"""Whose run a folder holds: the program that trained it, and its summary."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvae.train.checkpoint import CONFIG_FILE
from experiments.common import records

PROGRAM = "program"  # of a configuration's record
# A field that no other program has, by which to know runs that do not name their program.
_KNOWN_BY = {
    "cifar_vq": "codebook_size",
    "binary_vae": "structure",
    "joint_vae": "discrete",
    "dvaepp": "global_latents",
}


def program_of(config: Mapping[str, Any]) -> str:
    """Returns which program a configuration is of; empty for none."""
    named = config.get(PROGRAM)
    if isinstance(named, str) and named:
        return named
    return next((name for name, field in _KNOWN_BY.items() if field in config), "")


def what_is(directory: Path) -> str:
    """Says in a clause what kind of run a directory holds, or why it holds none.

    Raises:
      ValueError: a record of it is damaged.
    """
    if not directory.is_dir():
        exists = "is no directory" if directory.exists() else "does not exist"
        return f"{directory} {exists}: name the workdir of a finished run"
    whose, summary = look_into(directory)
    if not whose:
        return f"{directory} holds no run of a training program"
    if summary is None:
        return f"{directory} is an unfinished {whose} run: its command, given again, finishes it"
    return f"{directory} is a {whose} run"


def look_into(directory: Path) -> tuple[str, dict[str, Any] | None]:
    """Returns whose run a directory holds, or "", and the summary of a finished one.

    Raises:
      ValueError: a record of it is damaged.
    """
    config = _read_json(directory / CONFIG_FILE) or {}
    summary = records.with_standard_names(_read_json(directory / records.SUMMARY_FILE))
    told = summary or {}
    own = told.get("config")
    whole = {PROGRAM: told.get(PROGRAM), **config, **(own if isinstance(own, dict) else {})}
    return program_of(whole), summary


def _read_json(path: Path) -> dict[str, Any] | None:
    """Reads a JSON object; None where there is no file."""
    try:
        return records.read_object(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
