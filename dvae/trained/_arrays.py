"""Trees of arrays as safetensors: their names, their identity, and what is checked of them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from dvae._replacing import replacing

__all__ = ["ModelError", "check_arrays", "flatten", "identity", "line", "read_arrays", "replace"]

PyTree = Any


class ModelError(ValueError):
    """A folder holds no model that can be read; one line says why and what to do."""


def flatten(tree: PyTree) -> dict[str, Any]:
    """Names the arrays of a tree by their path, in its order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}


def identity(tree: PyTree) -> str:
    """Returns what trees of other arrays do not share: a SHA-256 of names, dtypes and values.

    Args:
        tree: of arrays, on the host or on devices.
    """
    digest = hashlib.sha256()
    for name, array in sorted(flatten(jax.device_get(tree)).items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads a file of arrays; ModelError unless it is one."""
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as safetensors: {line(error)}") from error


def check_arrays(arrays: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    """Raises ValueError unless arrays are those that the settings ask for."""
    for word, names in (
        ("lacks", expected.keys() - arrays.keys()),
        ("has, beyond the settings,", arrays.keys() - expected.keys()),
    ):
        if names:
            more = f" and {len(names) - 1} more arrays" if len(names) > 1 else ""
            raise ValueError(f"{where} {word} the array {min(names)}{more}")
    for name, like in expected.items():
        array = arrays[name]
        if array.shape != like.shape or array.dtype != like.dtype:
            raise ValueError(
                f"{where}: {name} must be {like.dtype} {like.shape} by the settings, got "
                f"{array.dtype} {array.shape}"
            )


def replace(path: Path, content: bytes) -> None:
    """Writes a file that is either complete or not there."""
    with replacing(path) as part:
        part.write_bytes(content)


def line(error: BaseException) -> str:
    """Writes an error in one line of at most some hundred characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
