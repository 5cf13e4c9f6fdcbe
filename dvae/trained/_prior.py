"""The folder of a prior that was learned over a model's codes: prior/, in that of the model.

prior.safetensors   its arrays
prior.json          everything else, the identity of the model's arrays too; written last
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import safetensors.numpy

import dvae
from dvae.models import code_prior as networks
from dvae.trained import cifar_vq
from dvae.trained._arrays import (
    ModelError,
    check_arrays,
    flatten,
    identity,
    line,
    read_arrays,
    replace,
)
from dvae.trained._settings import from_json, to_json
from dvae.trained.code_prior import PRIOR, Functions

__all__ = ["FOLDER", "MODEL_SHA256", "is_in", "load", "prior_record", "save"]

PyTree = Any
FOLDER = "prior"
_FORMAT, _FORMAT_VERSION = "dvae prior", 1
_ARRAYS, _RECORD = "prior.safetensors", "prior.json"
MODEL_SHA256 = "model_sha256"  # of a record: `identity` of the arrays whose codes it is of


def is_in(folder: Path) -> bool:
    """Tells whether a model's folder has a prior."""
    return (folder / FOLDER / _RECORD).exists()


def save(folder: Path, functions: Functions, params: PyTree, told: Mapping[str, Any]) -> None:
    """Writes a prior into the folder of its model.

    Args:
        folder: of the model.
        functions: of both.
        params: of both.
        told: further entries of the record.

    Raises:
        ValueError: arrays do not fit the settings, or a number is not finite.
        OSError: a file cannot be written.
    """
    arrays = flatten(jax.device_get(params[PRIOR]))
    check_arrays(arrays, flatten(functions.abstract_prior()), "the prior")
    record = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "dvae_version": dvae.__version__,
        MODEL_SHA256: identity({name: x for name, x in params.items() if name != PRIOR}),
        **told,
        "settings": to_json(functions.prior),
    }
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    folder = folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    # Without it there is no prior until all of the new one is there.
    (folder / _RECORD).unlink(missing_ok=True)
    replace(folder / _ARRAYS, safetensors.numpy.save(arrays))
    replace(folder / _RECORD, text.encode())


def prior_record(folder: Path) -> dict[str, Any]:
    """Reads what is told of the prior in a model's folder, without its arrays.

    Raises:
        ModelError: there is none, or it is damaged or of another version.
    """
    path = folder / FOLDER / _RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {line(error)}") from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise ModelError(f"{path} is not the description of a prior over codes")
    version = record.get("format_version")
    if type(version) is not int or not 1 <= version <= _FORMAT_VERSION:
        raise ModelError(
            f"{path} has format version {version!r}; dvae {dvae.__version__} reads versions up to "
            f"{_FORMAT_VERSION}"
        )
    return record


def load(
    folder: Path, model: cifar_vq.Functions, params: PyTree, info: Mapping[str, Any]
) -> tuple[Functions, PyTree, dict[str, Any]]:
    """Adds the prior in a model's folder to the model.

    Args:
        folder: of the model.
        model: its functions.
        params: its arrays.
        info: what its model.json says.

    Returns:
        Functions, parameters and information of both; `info["prior"]` is the prior's.

    Raises:
        ModelError: the prior is damaged, or of the codes of another model.
    """
    record, path = prior_record(folder), folder / FOLDER
    remedy = (
        "learn it again (python -m experiments.code_prior), or load the model without it: "
        "dvae.load(path, learned_prior=False)"
    )
    if record.get(MODEL_SHA256) != identity(params):
        raise ModelError(f"{path} is a prior for codes of another model than {folder}; {remedy}")
    try:
        functions = Functions(model, from_json(networks.CodePriorConfig, record.get("settings")))
        expected = flatten(functions.abstract_prior())
    except (ValueError, TypeError, OverflowError, MemoryError, RuntimeError) as error:
        raise ModelError(f"{path} holds no settings of a prior: {line(error)}; {remedy}") from error
    arrays = read_arrays(path / _ARRAYS)
    try:
        check_arrays(arrays, expected, str(path / _ARRAYS))
    except ValueError as error:
        raise ModelError(f"{error}; {remedy}") from error
    tree = jax.tree.structure(functions.abstract_prior())
    prior = jax.tree.unflatten(tree, [jnp.asarray(arrays[name]) for name in expected])
    return functions, {**params, PRIOR: prior}, {**info, PRIOR: record}
