"""Which units groups of bits cover, in which order, and what is left hidden."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import ArrayLike, upcast
from dvae.boltzmann._graph import Graph
from dvae.rbm._checks import check_groups

Groups = Sequence[Sequence[int] | np.ndarray] | None


class Cover(NamedTuple):
    """Groups of units, static."""

    sizes: tuple[int, ...]
    units: np.ndarray  # [m] the covered units, group after group
    group: np.ndarray  # [n] number of the group of each unit; that of no group for hidden ones

    @property
    def hidden(self) -> np.ndarray:
        """Units that no group covers."""
        return np.flatnonzero(self.group == len(self.sizes))


def cover(graph: Graph, groups: Groups, sizes: Sequence[int] | None = None) -> Cover:
    """Checks groups of units.

    Args:
        graph: Graph.
        groups: units of each group; None if groups of the sizes fill the units in order.
        sizes: of the groups' arrays, where there are some.

    Raises:
        ValueError: if a unit is out of range or covered twice, or the sizes do not fit.
    """
    n = graph.num_units
    if groups is None:
        if sizes is None or sum(sizes) != n:
            raise ValueError(
                f"without groups the units are filled in order: got groups of {sizes} and {n} "
                "units; pass groups=, and units that are in none of them are hidden"
            )
        groups = np.split(np.arange(n), np.cumsum(sizes)[:-1])
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(groups)):
        raise ValueError("groups must be static, got traced ones: make them in NumPy")
    parts = [_as_units(units) for units in groups]
    found = tuple(part.size for part in parts)
    if any(part.ndim != 1 for part in parts) or (sizes is not None and found != tuple(sizes)):
        raise ValueError(
            f"groups must list the units of each group, as many as it has bits: got groups of "
            f"{list(found)} units and bits of {None if sizes is None else list(sizes)}"
        )
    units = np.concatenate([np.zeros(0, np.int32), *parts])
    wrong = units[(units < 0) | (units >= n)]
    if len(wrong):
        raise ValueError(f"groups have unit {wrong[0]}, outside of the units 0 to {n - 1}")
    counts = np.bincount(units, minlength=n)
    if counts.max() > 1:
        raise ValueError(f"groups have unit {counts.argmax()} {counts.max()} times: once at most")
    group = np.full(n, len(parts))
    for number, part in enumerate(parts):
        group[part] = number
    return Cover(found, units, group)


def checked(
    graph: Graph, groups: Groups, logits: Sequence[ArrayLike], log_ratios: Sequence[ArrayLike]
) -> Cover:
    """Checks groups and their arrays; the log-ratios of the last group are not used.

    Raises:
        ValueError: if their numbers, sizes or leading axes do not fit.
    """
    check_groups(logits=logits, log_ratios=log_ratios)
    if not len(logits) or len(logits) != len(log_ratios):
        raise ValueError(
            f"logits and log_ratios need one entry for each group, got {len(logits)} and "
            f"{len(log_ratios)}"
        )
    shapes = [np.shape(x) for x in logits]
    found = cover(graph, groups, [shape[-1] if shape else 0 for shape in shapes])
    used = [np.shape(x) for x in log_ratios[:-1]]
    if used != shapes[:-1] or any(shape[:-1] != shapes[0][:-1] for shape in shapes):
        raise ValueError(
            "logits must have equal leading axes in all groups, and log_ratios the shape of their "
            f"group: got shapes {shapes} and {[np.shape(x) for x in log_ratios]}"
        )
    return found


def probability_logits(
    logits: Sequence[ArrayLike], log_ratios: Sequence[ArrayLike]
) -> tuple[jax.Array, jax.Array]:
    """Joins the logits of mu, and of what is known once each zeta but the last is: [..., m]."""
    before = [upcast(x) for x in logits]
    after = [x + upcast(r) for x, r in zip(before[:-1], log_ratios[:-1], strict=True)]
    join = functools.partial(jnp.concatenate, axis=-1)
    return join(before), join([*after, before[-1]])


def _as_units(units: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns units of one group as int32."""
    array = np.asarray(units)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"groups must list integers, got {array.dtype}")
    return array.astype(np.int32)


class Hidden(NamedTuple):
    """Hidden units and their edges: `summed` are summed out given the others, `drawn` are not."""

    summed: np.ndarray  # [s] units, no two of them neighbors
    drawn: np.ndarray  # [d] units
    pairs: np.ndarray  # indices of edges of a drawn unit with one that is not summed
    inner: np.ndarray  # indices of edges of a summed unit
    ends: np.ndarray  # [inner, 2] their summed unit, as a place in `summed`, and the other unit


def hidden(graph: Graph, found: Cover) -> Hidden:
    """Splits the hidden units: of a coloring of them, the largest color is summed out."""
    units = found.hidden
    place = np.full(graph.num_units, -1)
    place[units] = np.arange(len(units))
    is_hidden = place[graph.edges] >= 0
    among = Graph(len(units), place[graph.edges[is_hidden.all(1)]].astype(np.int32))
    largest = np.bincount(among.colors).argmax()
    summed, drawn = units[among.colors == largest], units[among.colors != largest]
    is_summed = np.isin(graph.edges, summed)
    inner = np.flatnonzero(is_summed.any(1))
    pairs = np.flatnonzero(is_hidden.any(1) & ~is_summed.any(1))
    first = is_summed[inner, 0]
    edges = graph.edges[inner]
    own, other = np.where(first, edges.T, edges.T[::-1])
    ends = np.stack([np.searchsorted(summed, own), other], 1)
    return Hidden(*(x.astype(np.int32) for x in (summed, drawn, pairs, inner, ends)))
