"""Checkpoints of the train state by Orbax, and the configuration they belong to.

Orbax writes a checkpoint into a temporary directory and renames it when it is complete, so a run
that is killed while writing restarts from the one before. `config.json` beside the checkpoints says
what they are checkpoints of; a run under another configuration is refused.
"""

import functools
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding

from dvae import _replacing
from dvae.train import distributed

__all__ = [
    "CONFIG_FILE",
    "FOLDER",
    "CheckpointError",
    "Checkpoints",
    "check_same",
    "describe_saved",
    "prepare_workdir",
    "read_config",
    "write_json",
]

PyTree = Any
CONFIG_FILE = "config.json"
FOLDER = "checkpoints"


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file that is either complete or not there.

    Args:
      path: of the file; its folder must be there.
      value: finite numbers, strings, lists and dictionaries.

    Raises:
      TypeError: the value has no form in JSON.
      ValueError: a number is not finite.
      OSError: the file cannot be written.
    """
    _replacing.replace_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def prepare_workdir(workdir: Path, config: dict[str, Any], *, free: Collection[str] = ()) -> None:
    """Makes a run's directory with its `config.json`, or checks that the one there is the same.

    Args:
      workdir: where the run lives, the same for all of its processes.
      config: every field of its configuration.
      free: the fields that may differ when it is resumed.

    Raises:
      ValueError: the directory cannot be written, is another one for another process, or holds a
        run of another configuration; the message names the fields that differ.
    """
    path = workdir / CONFIG_FILE
    if distributed.is_main():
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                write_json(path, config)
            if not os.access(workdir, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise ValueError(
                f"cannot write to workdir {workdir}: {error.strerror}; choose another --workdir"
            ) from error
    distributed.barrier("workdir")
    try:
        found = read_config(path)
    except FileNotFoundError as error:
        raise ValueError(
            f"process {jax.process_index()} does not see what the main one wrote in {workdir}: "
            "--workdir must be one directory that all processes share"
        ) from error
    check_same(workdir, found, config, free=free)


def read_config(path: Path) -> dict[str, Any]:
    """Reads the configuration of a run.

    Raises:
      FileNotFoundError: there is none.
      ValueError: the file is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); choose another --workdir") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no settings; choose another --workdir")
    return found


def check_same(
    workdir: Path, found: dict[str, Any], config: dict[str, Any], *, free: Collection[str] = ()
) -> None:
    """Checks that a run may go on under a configuration.

    Args:
      workdir: of the run, for the message.
      found: the configuration of the run.
      config: the one that it is to go on under.
      free: the fields that may differ.

    Raises:
      ValueError: other fields differ; the message names them.
    """
    config = json.loads(json.dumps(config))
    missing = "(absent)"
    differing = [
        f"{name} (there: {found.get(name, missing)}, now: {config.get(name, missing)})"
        for name in sorted((found.keys() | config.keys()) - set(free))
        if found.get(name, missing) != config.get(name, missing)
    ]
    if differing:
        raise ValueError(
            f"{workdir} holds a run with another configuration: {', '.join(differing)}; "
            "use the same flags to resume it, or choose another --workdir"
        )


def describe_saved(workdir: Path) -> str:
    """Returns in a few words from which step a run in the directory would go on."""
    steps = _complete(workdir / FOLDER)
    if not steps:
        return "no checkpoint is there yet"
    return f"step {steps[-1]} is saved, the same command continues from there"


def _complete(folder: Path) -> list[int]:
    """Returns the steps of the complete checkpoints, after which Orbax names their folders."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; what was complete before is still there."""


class Checkpoints:
    """The checkpoints of one run: the last two are kept."""

    def __init__(self, workdir: Path) -> None:
        """Opens the folder of the checkpoints and removes those that were not completed.

        Args:
          workdir: of the run; the folder is made in it if it is not there.
        """
        self._folder = (workdir / FOLDER).absolute()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True),
        )

    @property
    def latest_step(self) -> int | None:
        """Returns the step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: PyTree, info: dict[str, Any]) -> None:
        """Saves the state and a JSON record; returns once the state is copied off the device.

        Args:
          step: steps done; later than those saved before.
          state: arrays, which may be donated afterwards.
          info: values that JSON can hold.

        Raises:
          CheckpointError: it cannot be written, or the one before could not.
        """
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), info=ocp.args.JsonSave(info)
                ),
            )

    def restore(self, step: int, like: PyTree, sharding: Sharding) -> tuple[PyTree, dict[str, Any]]:
        """Restores what `save` wrote, as arrays of the shapes of `like` with the given sharding.

        Args:
          step: of the checkpoint.
          like: arrays or `jax.ShapeDtypeStruct`s, in the structure that was saved.
          sharding: of all arrays; that of the run which saved them does not matter.

        Returns:
          The state and the JSON record.

        Raises:
          CheckpointError: a file of it is damaged, or it is of another model; the message says
            which, and names the arrays.
        """
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like
        )
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(abstract), info=ocp.args.JsonRestore()
                ),
            )
        except Exception as error:  # Orbax, TensorStore and JSON have no one exception for it
            if differing := _differing(self._folder / str(step) / "state", abstract):
                raise CheckpointError(
                    f"{self._folder} holds the state of another model ({differing}); choose "
                    "another workdir, or delete that folder to start anew"
                ) from error
            others = [str(other) for other in self._manager.all_steps() if other != step]
            remedy = (
                f"delete that folder to continue from step {others[-1]}"
                if others
                else "delete the workdir to start anew"
            )
            raise CheckpointError(
                f"the checkpoint in {self._folder / str(step)} cannot be read "
                f"({_one_line(error)}); {remedy}, or choose another workdir"
            ) from error
        return restored["state"], restored["info"]

    def wait(self) -> None:
        """Waits until everything is written, and leaves the folder open.

        Raises:
          CheckpointError: it cannot be written.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until everything is written, and closes the folder.

        Raises:
          CheckpointError: it cannot be written.
        """
        with self._writing():
            self._manager.wait_until_finished()
            self._manager.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns a failed write into a `CheckpointError` that names the folder and what is left."""
        try:
            yield
        except jax.errors.JaxRuntimeError:
            raise  # a lost process
        except Exception as error:  # as above: a full disk comes as ValueError from TensorStore
            complete = _complete(self._folder)
            kept = f"that of step {complete[-1]} is kept" if complete else "there was none before"
            raise CheckpointError(
                f"a checkpoint cannot be written to {self._folder} ({_one_line(error)}); {kept}; "
                "make room there and start the same command again"
            ) from error


def _differing(folder: Path, like: PyTree) -> str:
    """Names arrays whose shapes are others in a checkpoint; empty: none, or they are unknown."""
    try:  # what restoring takes is never refused: this is read where it failed
        there = _shapes(ocp.StandardCheckpointHandler().metadata(folder).tree)
    except Exception:  # as above
        return ""
    here = _shapes(jax.eval_shape(_plain, like))
    of = lambda shapes, name: shapes.get(name, "absent")
    found = [
        f"{name}: {of(there, name)} there, {of(here, name)} here"
        for name in sorted(there.keys() | here.keys(), key=lambda x: ("params" not in x, x))
        if there.get(name) != here.get(name)
    ]
    return ", ".join([*found[:3], *(["..."] if len(found) > 3 else [])])


def _plain(tree: PyTree) -> PyTree:
    """Makes of typed keys the integers that are saved."""
    is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """Returns shapes by names such as params/w."""
    name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    return {name(path): tuple(x.shape) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    short = text if len(text) < 300 else f"{text[:120]} ... {text[-160:]}"  # the cause ends it
    return f"{type(error).__name__}: {short}"
