"""Settings as JSON and back: frozen dataclasses of numbers, names and tuples."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

__all__ = ["from_json", "to_json"]

_TOO_LARGE = 2**31
# Sums and products of other types are not what the networks were made for.
_DTYPES = ("float64", "float32", "bfloat16", "float16")


def to_json(settings: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass as JSON has them; dtypes by name."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            value = to_json(value)
        elif _is_dtype(field.name) and value is not None:
            value = jnp.dtype(value).name
        elif isinstance(value, tuple):
            value = list(value)
        values[field.name] = value
    return values


def from_json(cls: type, values: Any, where: str = "settings") -> Any:
    """Makes a dataclass of what `to_json` returned.

    A field that is missing, as in files that are older than it, has its default.

    Args:
        cls: the dataclass.
        values: as JSON has them.
        where: names them, for messages.

    Raises:
        ValueError: a field is unknown, missing or of another type, or the values make no model.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be an object, got {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if unknown := sorted(values.keys() - fields.keys()):
        raise ValueError(f"{where} has {unknown[0]}, which is no setting of this version")
    made = {}
    for name, field in fields.items():
        if name in values:
            made[name] = _read(hints[name], name, values[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"{where} lacks {name}")
    return cls(**made)


def _is_dtype(name: str) -> bool:
    return name.endswith("dtype")


def _read(kind: Any, name: str, value: Any, where: str) -> Any:
    """Checks one value against the type of its field."""
    if dataclasses.is_dataclass(kind):
        return from_json(typing.cast(type, kind), value, where)
    if _is_dtype(name):
        if value is not None and value not in _DTYPES:
            raise ValueError(f"{where} must be one of {', '.join(_DTYPES)}, got {value!r}")
        return None if value is None else jnp.dtype(value)
    if typing.get_origin(kind) is types.UnionType:  # of one integer, or a list of them
        kind = next(k for k in typing.get_args(kind) if (k is int) != isinstance(value, list))
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list) or not all(type(item) is int for item in value):
            raise ValueError(f"{where} must be a list of integers, got {value!r}")
        for item in value:
            _check_size(item, where)
        return tuple(value)
    if kind is float and type(value) is int:  # as JSON has 0.0 that was given as 0
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{where} must be of type {kind.__name__}, got {value!r}")
    if kind is int:
        _check_size(value, where)
    return value


def _check_size(value: int, where: str) -> None:
    """Raises ValueError for a size that no array has, before XLA aborts on it."""
    if abs(value) >= _TOO_LARGE:
        raise ValueError(f"{where} must be below 2^31, got {value}")
