"""Groups of bits that fill a machine's units in order: how they meet across its sides."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import ArrayLike, upcast
from dvae.rbm._checks import check_groups
from dvae.rbm._rbm import RBM, product


class Layout(NamedTuple):
    """Where the groups lie on the machine's sides."""

    known: list[int]  # groups with left units that meet right units of a later group
    start: int  # first left unit of the group on both sides; n1 without one
    stop: int  # right units before this one are in that group; n2 without one


def layout(
    params: RBM, logits: Sequence[ArrayLike], others: Sequence[ArrayLike], name: str
) -> Layout:
    """Finds the layout of groups, others (of that name) being what belongs to their zeta.

    Raises:
        ValueError: if an array is given for a list, and unless there is one of the others for each
            group, of its shape where it is used, and the groups have the machine's units in total
            and equal leading axes.
    """
    check_groups(**{"logits": logits, name: others})
    n1, n2 = params.weights.shape
    shapes = [np.shape(x) for x in logits]
    sizes = [shape[-1] if shape else 0 for shape in shapes]
    if len(logits) != len(others):
        raise ValueError(
            f"logits and {name} need one entry for each group, got {len(logits)} and {len(others)}"
        )
    if sum(sizes) != n1 + n2:
        raise ValueError(
            f"the groups must have the machine's units in total: got groups of {sizes} and an RBM "
            f"of {n1} x {n2}"
        )
    ends = np.cumsum(sizes).tolist()
    starts = [0, *ends[:-1]]
    known = [g for g, end in enumerate(ends) if starts[g] < n1 and end < n1 + n2]
    for g, shape in enumerate(shapes):
        if shape[:-1] != shapes[0][:-1] or (g in known and np.shape(others[g]) != shape):
            raise ValueError(
                f"logits must have equal leading axes in all groups, and {name} the shape of "
                f"their group: got shapes {shapes} and {[np.shape(x) for x in others]}"
            )
    both = next(g for g, end in enumerate(ends) if end > n1)
    if starts[both] >= n1:
        return Layout(known, n1, n2)
    return Layout(known, starts[both], ends[both] - n1)


def join(groups: Sequence[ArrayLike]) -> jax.Array:
    """Joins groups of units, in at least float32."""
    return jnp.concatenate([upcast(group) for group in groups], axis=-1)


def coupling(params: RBM, where: Layout, mean: jax.Array, known: jax.Array) -> jax.Array:
    """Evaluates sum_ij c_ij W_ij mean_j over left units i and right units j.

    c_ij is the mean of i, once its zeta is known if j is in a later group: the zeta of a group
    decides nothing about its own other bits.

    Args:
        params: RBM.
        where: Layout.
        mean: [..., n1 + n2], of all units before their zeta is known.
        known: [..., m], of the units of the groups `where.known` after it is.

    Returns:
        [...].
    """
    weights = upcast(params.weights)
    n1, n2 = weights.shape
    left, right = mean[..., :n1], mean[..., n1:]
    own = jnp.concatenate([known[..., : where.start], left[..., where.start :]], axis=-1)
    fields = product(own, weights[:, : where.stop])
    if where.stop < n2:
        later = product(known[..., :n1], weights[:, where.stop :])
        fields = jnp.concatenate([fields, later], axis=-1)
    return jnp.sum(fields * right, axis=-1)
