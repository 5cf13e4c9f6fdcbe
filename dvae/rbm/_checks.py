"""Checks of what the samplers share: finite parameters, chains that fit a machine."""

import jax
import numpy as np

from dvae._numerics import ArrayLike, float_dtype


def check_state(state: object) -> None:
    """Raises ValueError for an array of bits in place of the state of chains."""
    if isinstance(state, jax.Array | np.ndarray):
        raise ValueError(
            f"state must be a state of chains, got one array of shape {state.shape}: pass what "
            "init or the last step returned"
        )


def check_groups(**arguments: object) -> None:
    """Raises ValueError for an array in place of a list with one entry a group."""
    for name, groups in arguments.items():
        # Its first axis, of images or samples, would be taken for the groups.
        if isinstance(groups, jax.Array | np.ndarray):
            raise ValueError(
                f"{name} must list one entry a group, got one array of shape {groups.shape}; of a "
                f"single group pass [{name}]"
            )


def is_known(*values: ArrayLike) -> bool:
    """Tells whether the values can be read: they are not traced, nor on other hosts."""
    return not any(
        isinstance(value, jax.core.Tracer) or not getattr(value, "is_fully_addressable", True)
        for value in values
    )


def check_finite(name: str, value: ArrayLike) -> None:
    """Raises ValueError if known entries are NaN or infinite."""
    if not is_known(value):
        return
    # In NumPy: inside a jitted caller even operations on known arrays would be traced.
    with np.errstate(over="ignore"):  # a large double is infinite where doubles are not enabled
        known = np.asarray(value).astype(float_dtype(value))
    bad = known.size - np.isfinite(known).sum()
    if bad:
        raise ValueError(
            f"{name} has {bad} entries that are NaN or infinite: did its training diverge? Start "
            "from the last checkpoint before that"
        )


def check_chains(sizes: tuple[int, ...], z1: ArrayLike, z2: ArrayLike, *, minimum: int = 1) -> None:
    """Raises ValueError unless z1 and z2 are the sides of chains of a machine of these sizes."""
    shapes = np.shape(z1), np.shape(z2)
    units = tuple(shape[-1] if shape else 0 for shape in shapes)
    if units != sizes:
        raise ValueError(
            f"the state has {units[0]} and {units[1]} units, the RBM {sizes[0]} and {sizes[1]}: "
            "start chains with init for this machine"
        )
    if shapes[0][:-1] != shapes[1][:-1] or np.prod(shapes[0][:-1]) < minimum:
        raise ValueError(
            f"the state must hold both sides of the same chains, at least {minimum}, got shapes "
            f"{shapes[0]} and {shapes[1]}: start chains with init"
        )
