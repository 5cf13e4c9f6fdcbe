"""The folder of a trained model: what is written, and what is checked when it is read.

    model.safetensors   the arrays, by names such as network/encoder/Conv_0/kernel
    README.md           the model's card
    machine.csv, .npz   a Boltzmann prior as an edge list, see `boltzmann.edge_lists`
    prior/              of `cifar_vq`, a prior over the codes that was learned: see `_prior`
    model.json          everything else; written last, so that a folder with it is whole

A run's folder has it as model/; of several seeds there is a folder for each, model/seed_0/ ...
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import safetensors.numpy

import dvae
from dvae.trained import _card, _prior, binary_vae, cifar_vq, code_prior, dvaepp, joint_vae
from dvae.trained._arrays import ModelError, check_arrays, flatten, line, read_arrays
from dvae.trained._arrays import replace as _replace
from dvae.trained._machine import write_machine
from dvae.trained._model import Functions, Model
from dvae.trained._settings import from_json, to_json

__all__ = [
    "MODEL_FOLDER",
    "RECORD_FILE",
    "Card",
    "ModelError",
    "find",
    "load",
    "save",
    "save_prior",
    "seed_folder",
]

PyTree = Any
FORMAT, FORMAT_VERSION = "dvae model", 1
MODEL_FOLDER = "model"
RECORD_FILE = "model.json"
_ARRAYS, _README, _SEED = "model.safetensors", "README.md", "seed_"
_FUNCTIONS: dict[str, Callable[..., Functions]] = {
    module.Functions.kind: module.Functions for module in (binary_vae, cifar_vq, dvaepp, joint_vae)
}


@dataclass(frozen=True)
class Card:
    """What is told of a model beside its arrays and settings."""

    dataset: str  # its label
    preparation: str = ""  # what was done to its images before the model saw them
    binarization: str = "none"  # as in `data.Dataset`
    step: int | None = None  # of the training
    seed: int | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)  # of the test images
    log_z: Mapping[str, Any] | None = None  # of a Boltzmann prior: nats, standard error
    license: str = "unspecified"


def save(folder: str | os.PathLike[str], functions: Functions, params: PyTree, card: Card) -> None:
    """Writes a model; one that is in the folder is replaced.

    Args:
        folder: is made if it is not there.
        functions: of the model, with its settings.
        params: its arrays, as `functions` takes them.
        card: what is told of it.

    Raises:
        ValueError: arrays do not fit the settings, or a number of the card is not finite.
        OSError: a file cannot be written.
    """
    if isinstance(functions, code_prior.Functions):
        model = {name: x for name, x in params.items() if name != code_prior.PRIOR}
        save(folder, functions.model, model, card)
        save_prior(folder, functions, params, card)
        return
    arrays = flatten(jax.device_get(params))
    check_arrays(arrays, flatten(functions.abstract_params()), "params")
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": functions.kind,
        "dvae_version": dvae.__version__,
        "license": card.license,
        "dataset": card.dataset,
        "images": {
            "shape": list(functions.image_shape),
            "pixels": functions.pixels,
            "binarization": card.binarization,
            "preparation": card.preparation,
        },
        "seed": card.seed,
        "step": card.step,
        "metrics": dict(card.metrics),
        **({} if card.log_z is None else {"log_z": dict(card.log_z)}),
        "settings": to_json(functions),
    }
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Without it the folder holds no model until all of the new one is there.
    (folder / RECORD_FILE).unlink(missing_ok=True)
    _replace(folder / _ARRAYS, safetensors.numpy.save(arrays))
    _replace(folder / _README, _card.describe(record, arrays).encode())
    write_machine(folder, params)
    _replace(folder / RECORD_FILE, text.encode())


def save_prior(
    folder: str | os.PathLike[str], functions: code_prior.Functions, params: PyTree, card: Card
) -> None:
    """Writes the prior of a model into that model's folder; one that is there is replaced.

    Args:
        folder: of the model.
        functions: of model and prior.
        params: of both.
        card: what is told of the prior.

    Raises:
        ValueError: arrays do not fit the settings.
        OSError: a file cannot be written.
    """
    told = {name: getattr(card, name) for name in ("dataset", "seed", "step", "license")}
    _prior.save(Path(folder), functions, params, {**told, "metrics": dict(card.metrics)})


def seed_folder(seed: int) -> str:
    """Returns the name of the folder of a seed's model, in the folder of a run's models."""
    return f"{_SEED}{seed}"


def load(
    path: str | os.PathLike[str], *, seed: int | None = None, learned_prior: bool = True
) -> Model:
    """Reads a trained model; executes nothing that is in its files.

    A `cifar_vq` model whose folder has a prior that was learned over its codes comes with it.

    Args:
        path: folder of a run, or of a model.
        seed: which of a run's models to take, where it trained several seeds.
        learned_prior: False leaves such a prior out, for the factorial one of the model.

    Returns:
        The model, with its arrays on the default device.

    Raises:
        ModelError: there is no model, or it is damaged or of another version; or the prior is of
            other codes than the model's.
    """
    folder = find(path, seed=seed)
    record = _read_record(folder / RECORD_FILE)
    settings_of = _FUNCTIONS[record["kind"]]
    try:
        functions = from_json(settings_of, record.get("settings"))  # type: ignore[arg-type]
        abstract = functions.abstract_params()
    except (ValueError, TypeError, OverflowError, MemoryError, RuntimeError) as error:
        raise ModelError(
            f"{folder / RECORD_FILE} holds no settings of a model: {line(error)}"
        ) from error
    arrays, expected = read_arrays(folder / _ARRAYS), flatten(abstract)
    try:
        check_arrays(arrays, expected, str(folder / _ARRAYS))
    except ValueError as error:
        raise ModelError(f"{error}; export the run again: python -m experiments.export") from error
    ordered = [jnp.asarray(arrays[name]) for name in expected]
    params = jax.tree.unflatten(jax.tree.structure(abstract), ordered)
    if learned_prior and isinstance(functions, cifar_vq.Functions) and _prior.is_in(folder):
        return Model(*_prior.load(folder, functions, params, record))
    return Model(functions, params, record)


def find(path: str | os.PathLike[str], *, seed: int | None = None) -> Path:
    """Returns the folder that holds a model's files.

    Args:
        path: folder of a run, or of a model.
        seed: which of a run's models to take, where it trained several seeds.

    Raises:
        ModelError: there is no model.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise ModelError(f"{path} does not exist; name the folder of a run, or of a model")
    if not path.is_dir():
        raise ModelError(f"{path} is a file; name the folder of a run, or of a model")
    root = path if (path / RECORD_FILE).exists() else path / MODEL_FOLDER
    names = [p.parent.name.removeprefix(_SEED) for p in root.glob(f"{_SEED}*/{RECORD_FILE}")]
    seeds = sorted(int(name) for name in names if name.isdecimal())
    if seeds:
        listed = ", ".join(map(str, seeds))
        if seed is None:
            raise ModelError(
                f"{path} holds models of seeds {listed}; name one: dvae.load(path, seed={seeds[0]})"
            )
        if seed not in seeds:
            raise ModelError(f"{path} holds models of seeds {listed}, and none of seed {seed}")
        return root / seed_folder(seed)
    if not (root / RECORD_FILE).exists():
        raise ModelError(
            f"{path} holds no trained model; of a run, finished or not, make one: "
            f"python -m experiments.export {path}"
        )
    if seed is not None and _read_record(root / RECORD_FILE).get("seed") != seed:
        raise ModelError(f"{path} holds one model, and not that of seed {seed}; leave seed out")
    return root


def _read_record(path: Path) -> dict[str, Any]:
    """Reads model.json as far as it must be understood before anything else is."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {line(error)}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ModelError(f"{path} is not the description of a dvae model")
    version = record.get("format_version")
    if type(version) is not int or version < 1:
        raise ModelError(f"{path} names no version of its format, got {version!r}")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{path} has format version {version}, written by dvae {record.get('dvae_version')}; "
            f"dvae {dvae.__version__} reads versions up to {FORMAT_VERSION}: install a newer dvae"
        )
    if not isinstance(record.get("kind"), str) or record["kind"] not in _FUNCTIONS:
        raise ModelError(
            f"{path} is of kind {record.get('kind')!r}, and this version knows "
            f"{', '.join(_FUNCTIONS)}"
        )
    return record
