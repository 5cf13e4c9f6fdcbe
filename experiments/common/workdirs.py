"""The folder of a run: whose it is, what it was configured by, and whether it is finished."""

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dvae.data import Dataset
from dvae.train import checkpoint, distributed, lock
from experiments.common import flag_help, flags, records
from experiments.common.config import USE, RunConfig
from experiments.common.whose import PROGRAM, program_of

LENGTH = "num_steps"
IMAGES_FILE = "images.json"
SAMPLE = 16  # images of each split that tell whether the pixels are the same


def examine(config: RunConfig, workdir: Path) -> dict[str, Any] | None:
    """Looks whether this run can have the folder, in which nothing is left.

    Returns:
      The summary, if the very run is finished.

    Raises:
      ValueError: somebody trains in the folder, it holds other files, or another run.
    """
    try:
        lock.check_free(workdir)
        saved = _saved(config, workdir)
    except OSError as error:
        raise ValueError(
            f"cannot read workdir {workdir}: {error.strerror}; choose another --workdir"
        ) from error
    summary = None if saved is None else _finished(config, workdir)
    if summary is None:
        _check_writable(config, workdir)
    return summary


def _check_writable(config: RunConfig, workdir: Path) -> None:
    """Raises ValueError for a folder that cannot be made, or written to; leaves nothing."""
    chain = (workdir.absolute(), *workdir.absolute().parents)
    number, place = next((i, path) for i, path in enumerate(chain) if path.exists())
    if not place.is_dir():
        raise ValueError(f"workdir {workdir}: {place} is a file; choose another --workdir")
    if config.dry_run:
        return
    # Tried, as permissions tell the administrator nothing. A kill leaves what starts do not mind.
    prefix = f"{chain[number - 1].name}." if number else "."
    try:
        os.rmdir(tempfile.mkdtemp(prefix=prefix, dir=place))
    except OSError as error:
        raise ValueError(
            f"cannot write to workdir {workdir}: {place} is not writable ({error.strerror}); "
            "choose another --workdir"
        ) from error


@contextlib.contextmanager
def claim(config: RunConfig, workdir: Path) -> Iterator[lock.Held | None]:
    """Makes the folder this run's, and keeps other processes out of it in this context.

    Returns:
      The lock, in the main process.

    Raises:
      ValueError: as for `examine`, or the folder cannot be written.
    """
    held = None
    with contextlib.ExitStack() as stack:
        if distributed.is_main():
            try:
                held = stack.enter_context(lock.hold(workdir))
            except OSError as error:
                raise ValueError(
                    f"cannot write to workdir {workdir}: {error.strerror}; choose another --workdir"
                ) from error
            path = workdir / checkpoint.CONFIG_FILE
            saved = _saved(config, workdir)
            if saved is not None:
                now = {**saved, LENGTH: config.num_steps}
                if now != checkpoint.read_config(path):
                    checkpoint.write_json(path, now)
        fields = {PROGRAM: config.program, **dataclasses.asdict(config)}
        free = {PROGRAM, *flags.free_fields(config)}
        checkpoint.prepare_workdir(workdir, fields, free=free)
        yield held


def check_images(workdir: Path, images: Dataset) -> None:
    """Checks that a run goes on with the images that it began with, and keeps what tells them.

    Own images are split by shares of their number, so further ones would move training images to
    the test. Other pixels are told by a sample of the images.

    Raises:
      ValueError: there are others, and something was trained.
    """
    held_out = {name: len(getattr(images, name)) for name in ("validation", "test")}
    shape = list(images.train.shape[1:])
    now: dict[str, Any] = {"train": images.num_train, **held_out, "shape": shape}
    now["sample"] = _digest(images)
    path = workdir / IMAGES_FILE
    if path.exists() and any((workdir / checkpoint.FOLDER).glob("*")):
        then = checkpoint.read_config(path)
        # An older version kept numbers alone.
        if then != {name: now[name] for name in now if name in then}:
            raise ValueError(
                f"{workdir} holds a run of other images ({_listed(then)}), {images.name} now has "
                f"{_listed(now)}; put back what was there, or choose another --workdir"
            )
    checkpoint.write_json(path, now)


def _digest(images: Dataset) -> str:
    """Returns hexadecimal digits of the first images of each split, and of some between."""
    digest = hashlib.sha256()
    # How many training images this process has may change between two starts: the first ones only.
    for part, step in (
        (images.train, 1),
        *((x, max(1, len(x) // SAMPLE)) for x in (images.validation, images.test)),
    ):
        digest.update(np.asarray(part[: SAMPLE * step : step], np.uint8).tobytes())
    return digest.hexdigest()[:16]


def _listed(sizes: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sizes.items())


def say_finished(config: RunConfig, workdir: Path, summary: dict[str, Any]) -> None:
    """Prints that there is nothing to do, and how there would be."""
    remedy = f"delete {workdir / records.SUMMARY_FILE} to evaluate and draw it again"
    if config.tied_to_length() is None:
        remedy += f", or train it longer by --workdir={workdir} and a larger --num_steps"
    files = ", ".join([records.SUMMARY_FILE, *summary[records.FILES]])
    flag_help.tell(f"this run is finished, its results are in {workdir}: {files}; {remedy}")


def _saved(config: RunConfig, workdir: Path) -> dict[str, Any] | None:
    """Reads the configuration of the run in the folder, which this run must be able to go on with.

    Returns:
      None if there is no run.

    Raises:
      ValueError: there is another run, or no run but other files.
    """
    path = workdir / checkpoint.CONFIG_FILE
    if not path.exists():
        _refuse_others(config, workdir)
        return None
    saved = {**flags.former_values(config), **checkpoint.read_config(path)}
    program = program_of(saved)
    if program != config.program:
        whose = f"a run of {program}" if program else "the configuration of something else"
        raise ValueError(
            f"{workdir} holds {whose}, this is {config.program}; choose another --workdir"
        )
    free = {PROGRAM, LENGTH, *flags.free_fields(config)}
    checkpoint.check_same(workdir, saved, dataclasses.asdict(config), free=free)
    before, tied = saved.get(LENGTH, config.num_steps), config.tied_to_length()
    if config.num_steps < before:
        raise ValueError(
            f"{workdir} holds a run of {before} steps, and --num_steps={config.num_steps} is "
            "fewer; give at least as many, or choose another --workdir"
        )
    if config.num_steps > before and tied:
        raise ValueError(
            f"{workdir} holds a run of {before} steps, which cannot go on to "
            f"--num_steps={config.num_steps}: {tied}; choose another --workdir"
        )
    return saved


def _refuse_others(config: RunConfig, workdir: Path) -> None:
    """Raises ValueError for a folder of other files, unless it was asked for."""
    if any(
        (workdir / checkpoint.FOLDER).glob("*")
    ):  # a run would go on from them, whosever they are
        raise ValueError(
            f"{workdir} holds checkpoints of a run whose {checkpoint.CONFIG_FILE} is missing, so "
            "nobody knows its settings; choose another --workdir, or delete "
            f"{workdir / checkpoint.FOLDER}"
        )
    if config.nonempty_workdir == USE or not workdir.is_dir():
        return
    own = {Path(checkpoint.CONFIG_FILE).with_suffix(".tmp").name}  # of a start that was killed
    names = sorted(
        path.name
        for path in workdir.iterdir()
        if not (path.name.startswith(".") or path.name in own or lock.is_own_file(path.name))
    )
    if names:
        listed = ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])
        raise ValueError(
            f"{workdir} holds no run, but other files ({listed}); choose another --workdir, or "
            f"add --nonempty_workdir={USE} to write there all the same"
        )


def _finished(config: RunConfig, workdir: Path) -> dict[str, Any] | None:
    """Reads the summary, if it is this run's and everything beside it was written."""
    try:
        summary = records.read_summary(workdir)
        then = summary["config"]
        if records.is_unfinished(summary) or not records.is_whole(workdir, summary):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    free = flags.free_fields(config)
    now = json.loads(json.dumps(dataclasses.asdict(config)))
    then = {**flags.former_values(config), **then}
    same = all(then.get(name) == value for name, value in now.items() if name not in free)
    return summary if same else None
