"""General Boltzmann machines: parameters, and the checks of machines, graphs and colorings."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from dvae._numerics import ArrayLike, as_float
from dvae.rbm._checks import check_finite, is_known


class BoltzmannMachine(NamedTuple):
    """Parameters of a Boltzmann machine."""

    bias: jax.Array  # [n] b
    weights: jax.Array  # [n, n] W, symmetric, zero on the diagonal


def check_machine(params: BoltzmannMachine, z: ArrayLike | None = None) -> BoltzmannMachine:
    """Returns the parameters as arrays of floating dtypes.

    Raises:
        ValueError: unless sizes fit and the weights, where known, are those of a machine.
    """
    bias, weights = map(np.shape, params)
    if len(bias) != 1 or weights != bias * 2 or not bias[0]:
        raise ValueError(
            "a Boltzmann machine has bias [n] and weights [n, n], n at least 1, got shapes "
            f"{bias} and {weights}"
        )
    if z is not None and np.shape(z)[-1:] != bias:
        raise ValueError(f"z must end in an axis of {bias[0]} units, got shape {np.shape(z)}")
    for name, value in zip(BoltzmannMachine._fields, params, strict=True):
        check_finite(f"{name} of the machine", value)
    if is_known(params.weights):
        known = np.asarray(params.weights)
        if np.any(known != known.T) or np.any(np.diagonal(known)):
            raise ValueError("weights must be symmetric with a zero diagonal: use graph.on_edges")
    return BoltzmannMachine(*map(as_float, params))


def check_adjacency(adjacency: np.ndarray) -> np.ndarray:
    """Returns the adjacency as bool [n, n], symmetric and without loops."""
    adjacency = np.asarray(adjacency) != 0
    if adjacency.ndim != 2 or adjacency.shape[0] != adjacency.shape[1]:
        raise ValueError(f"adjacency must be [n, n], got shape {adjacency.shape}")
    wrong = np.argwhere((adjacency != adjacency.T) | np.diag(np.diagonal(adjacency)))
    if len(wrong):
        i, j = wrong[0].tolist()
        raise ValueError(
            "adjacency must be symmetric with a zero diagonal, got "
            f"{adjacency[i, j]} at ({i}, {j}) and {adjacency[j, i]} at ({j}, {i})"
        )
    return adjacency


def check_colors(colors: np.ndarray | Sequence[int], params: BoltzmannMachine) -> np.ndarray:
    """Returns the colors as an array [n], proper for the weights where these are known."""
    if any(isinstance(c, jax.core.Tracer) for c in jax.tree.leaves(colors)):
        raise ValueError("colors must be static, got traced ones: close over those of graph.color")
    colors, shape = np.asarray(colors), np.shape(params.bias)
    if colors.shape != shape or colors.dtype.kind not in "iu":
        raise ValueError(
            f"colors must be {math.prod(shape)} integers, got {colors.dtype} {colors.shape}"
        )
    if is_known(params.weights):
        same = colors[:, None] == colors[None]
        clash = np.argwhere(same & (np.asarray(params.weights) != 0))
        if len(clash):
            i, j = clash[0]
            raise ValueError(
                f"units {i} and {j} have a weight and share color {colors[i]}: use graph.color"
            )
    return colors
