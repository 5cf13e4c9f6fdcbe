"""Checks of arguments that the packages share: keys, counts, numbers and class axes."""

import math
from typing import TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

ArrayLike = jax.typing.ArrayLike


def check_key(key: jax.Array) -> None:
    """Raises TypeError unless key is a typed key, ValueError if it is an array of keys."""
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        kind = getattr(key, "dtype", type(key).__name__)
        raise TypeError(
            f"key must be a typed key, as jax.random.key(seed) makes it, got {kind}; an old one is "
            "made one by jax.random.wrap_key_data(key)"
        )
    if key.ndim:
        raise ValueError(
            f"key must be a single key (jax.vmap the call over an array of them), got an array of "
            f"keys of shape {key.shape}"
        )


def _is_number(value: ArrayLike) -> TypeGuard[float]:
    """Tells whether it is a Python or NumPy number, or a NumPy array of no axes."""
    number = isinstance(value, int | float | np.number)
    return number or (isinstance(value, np.ndarray) and value.ndim == 0)


def check_positive(name: str, value: ArrayLike) -> None:
    """Raises ValueError if a Python or NumPy number is not positive and finite; arrays pass."""
    if _is_number(value) and not 0 < value < math.inf:
        finite = " and finite" if value > 0 else ""
        raise ValueError(f"{name} must be positive{finite}, got {value}")


def check_unit(name: str, value: ArrayLike) -> None:
    """Raises ValueError if a Python or NumPy number is outside [0, 1]; arrays pass."""
    if _is_number(value) and not 0 <= value <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value}; draw it, or clip it")


def check_classes(*arrays: jax.Array) -> None:
    """Raises ValueError unless the last axes, the class axes, are there and equally long."""
    lengths = {x.shape[-1] if x.ndim else 0 for x in arrays}
    if len(lengths) > 1 or 0 in lengths:
        shapes = " and ".join(str(x.shape) for x in arrays)
        raise ValueError(f"expected [..., C] with one number of classes C, got shapes {shapes}")


def check_temperature(temperature: ArrayLike) -> None:
    """Raises ValueError unless it is positive, and one for all classes of a variable."""
    check_positive("temperature", temperature)
    shape = jnp.shape(temperature)
    if shape and shape[-1] != 1:
        raise ValueError(
            "temperature must be a scalar or [..., 1], one for all classes of a variable, got "
            f"shape {shape}; add an axis: temperature[..., None]"
        )


def check_static(name: str, value: ArrayLike) -> None:
    """Raises ValueError for what is traced, or an array of axes, in place of one number."""
    if isinstance(value, jax.core.Tracer):
        raise ValueError(
            f"{name} must be static, a Python number: name it in jit's static_argnames"
        )
    if np.ndim(value):
        raise ValueError(f"{name} must be one Python number, got shape {np.shape(value)}")


def check_count(name: str, value: int, *, minimum: int = 1, why: str = "") -> int:
    """Returns a static number as an int; raises ValueError if it is none, or below the minimum."""
    check_static(name, value)
    number = int(value)
    if number != value:
        raise ValueError(f"{name} must be an integer, got {value}")
    if number < minimum:
        reason = f" ({why})" if why else ""
        raise ValueError(f"{name} must be at least {minimum}{reason}, got {number}")
    return number
