"""Colorings of sparse graphs: no edge joins two units of one color."""

import heapq
from collections.abc import Sequence

import numpy as np

__all__ = ["color", "improper"]


def color(num_units: int, edges: np.ndarray) -> np.ndarray:
    """Colors a graph by DSATUR, in time that grows with its edges.

    The next unit is the one whose neighbors have the most colors so far, then the one with the most
    neighbors, then the first; it gets the first color that none of its neighbors has. That is at
    most the largest number of neighbors + 1, and 2 if the graph is bipartite.

    Source: Brélaz, "New Methods to Color the Vertices of a Graph" (1979).

    Args:
        num_units: n.
        edges: [E, 2] int, without loops and doubles.

    Returns:
        [n] int32, from 0.
    """
    neighbors = _neighbors(num_units, edges)
    colors = [-1] * num_units
    taken: list[set[int]] = [set() for _ in range(num_units)]  # colors of the neighbors
    # Outdated entries stay in the heap: their unit has a color when they come up.
    heap = [(0, -len(near), unit) for unit, near in enumerate(neighbors)]
    heapq.heapify(heap)
    while heap:
        _, _, unit = heapq.heappop(heap)
        if colors[unit] >= 0:
            continue
        own = next(c for c in range(num_units) if c not in taken[unit])
        colors[unit] = own
        for other in neighbors[unit]:
            if colors[other] < 0 and own not in taken[other]:
                taken[other].add(own)
                heapq.heappush(heap, (-len(taken[other]), -len(neighbors[other]), other))
    return np.array(colors, np.int32)


def improper(edges: np.ndarray, colors: np.ndarray) -> tuple[int, int] | None:
    """Returns the first edge whose units share a color, or None."""
    clash = np.flatnonzero(colors[edges[:, 0]] == colors[edges[:, 1]])
    return tuple(edges[clash[0]].tolist()) if len(clash) else None


def _neighbors(num_units: int, edges: np.ndarray) -> Sequence[list[int]]:
    """Lists the neighbors of each unit."""
    both = np.concatenate([edges, edges[:, ::-1]])
    order = np.argsort(both[:, 0], kind="stable")
    cuts = np.searchsorted(both[order, 0], np.arange(1, num_units))
    return [part.tolist() for part in np.split(both[order, 1], cuts)]
