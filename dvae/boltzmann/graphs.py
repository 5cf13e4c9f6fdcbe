"""Graphs by name: complete, bipartite, k-partite, grids, and the topologies of quantum annealers.

    graph = graphs.zephyr(4)                       # 576 units, each with at most 20 neighbors
    params = boltzmann.Machine(jnp.zeros(graph.num_units), jnp.zeros(graph.num_edges), graph)

Those of annealers come from dwave-networkx, the extra `graphs`; units are numbered in the order of
its labels.
"""

import importlib
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from dvae import _extras
from dvae._checks import check_count
from dvae.boltzmann._graph import Graph, check_entries

__all__ = [
    "Graph",
    "bipartite",
    "chimera",
    "complete",
    "grid",
    "k_partite",
    "pegasus",
    "with_labels",
    "zephyr",
]


def complete(num_units: int) -> Graph:
    """Joins all pairs of units; each unit has a color of its own.

    Args:
        num_units: n, at least 1.

    Returns:
        Graph of n units and n (n - 1) / 2 edges.

    Raises:
        ValueError: if there is no unit, or there are too many for the memory.
    """
    num_units = check_count("num_units", num_units)
    check_entries(num_units, num_units * (num_units - 1) // 2, num_units**2, num_units)
    edges = np.stack(np.triu_indices(num_units, 1), 1)
    return Graph(num_units, edges, colors=np.arange(num_units))


def bipartite(num_left: int, num_right: int) -> Graph:
    """Joins each left unit with each right one, as an RBM does; edges in the order of its weights.

    Args:
        num_left: units 0 to num_left - 1, at least 1.
        num_right: the units after them, at least 1.

    Returns:
        Graph of num_left + num_right units and num_left num_right edges.

    Raises:
        ValueError: if a side has no unit, or too many for the memory.
    """
    return k_partite(check_count("num_left", num_left), check_count("num_right", num_right))


def k_partite(*sizes: int) -> Graph:
    """Joins all units of different parts; the parts are the colors.

    Args:
        *sizes: units of each part, in order, at least 1 each.

    Returns:
        Graph of sum(sizes) units, and as many colors as parts.

    Raises:
        ValueError: if there is no part, one without units, or too many units for the memory.
    """
    if not sizes:
        raise ValueError("k_partite needs the sizes of its parts, such as k_partite(50, 50)")
    counts = [check_count("a part's size", size) for size in sizes]
    total = sum(counts)
    ends = total**2 - sum(count**2 for count in counts)  # of edges, two each
    check_entries(total, ends // 2, ends, len(counts))
    starts = np.cumsum([0, *counts])
    units = [np.arange(a, b) for a, b in itertools.pairwise(starts)]
    edges = [
        np.stack(np.meshgrid(first, second, indexing="ij"), -1).reshape(-1, 2)
        for first, second in itertools.combinations(units, 2)
    ]
    joined = np.concatenate([np.zeros((0, 2), np.int64), *edges])
    return Graph(int(starts[-1]), joined, colors=np.repeat(np.arange(len(counts)), counts))


def grid(*shape: int, periodic: bool = False) -> Graph:
    """Joins neighbors on a rectangular lattice of any dimension, units in C order.

    Args:
        *shape: lengths of the axes, at least 1 each.
        periodic: whether each axis closes to a ring; then its length must be 1 or at least 3.

    Returns:
        Graph of prod(shape) units; of 2 colors where that can be.

    Raises:
        ValueError: if there is no axis, one is too short, or there are too many units.
    """
    if not shape:
        raise ValueError("grid needs the lengths of its axes, such as grid(28, 28)")
    lengths = [check_count("an axis's length", length) for length in shape]
    if periodic and 2 in lengths:
        raise ValueError(f"a ring of 2 units would have its edge twice, got the shape {shape}")
    total = math.prod(lengths)
    check_entries(total, len(lengths) * total, 2 * len(lengths) * total)
    units = np.arange(total).reshape(lengths)
    edges = []
    for axis, length in enumerate(lengths):
        inner = np.stack([units.take(range(length - 1), axis), units.take(range(1, length), axis)])
        edges.append(inner.reshape(2, -1))
        if periodic and length > 1:
            closing = np.stack([units.take(length - 1, axis), units.take(0, axis)])
            edges.append(closing.reshape(2, -1))
    return Graph(units.size, np.concatenate(edges, axis=1).T)


def with_labels(graph: Graph, num_labels: int) -> Graph:
    """Adds a unit for each label, joined to every unit of the graph and to no other label.

    One-hot labels y are then C clamped units of a machine with the energy E(z, y).

    Args:
        graph: of n units, which stay units 0 to n - 1.
        num_labels: C, at least 1; units n to n + C - 1.

    Returns:
        Graph of n + C units and one more color. The edges of the graph come first, in their order,
        then those of each label in the order of the units.

    Raises:
        ValueError: if there is no label, or there are too many for the memory.
    """
    num_labels = check_count("num_labels", num_labels)
    n, total = graph.num_units, graph.num_units + num_labels
    added = n * num_labels
    check_entries(total, graph.num_edges + added, 2 * (graph.num_edges + added))
    labels, units = np.meshgrid(np.arange(n, total), np.arange(n), indexing="ij")
    edges = np.concatenate([graph.edges, np.stack([units.ravel(), labels.ravel()], axis=1)])
    colors = np.append(graph.colors, np.full(num_labels, graph.num_colors))
    return Graph(total, edges, colors=colors)


def chimera(m: int, n: int | None = None, t: int | None = None) -> Graph:
    """Makes the graph of D-Wave's 2000Q: m x n cells of 2 t units, two colors.

    Args:
        m: rows of cells.
        n: columns; m by default.
        t: units on each side of a cell; 4 by default.

    Returns:
        Graph of 2 m n t units.

    Raises:
        MissingExtraError: without dwave-networkx.
        ValueError: if a number is below 1, or there are too many units for the memory.
    """
    sizes = [check_count("m", m), check_count("n", m if n is None else n)]
    sizes.append(check_count("t", 4 if t is None else t))
    _check_size(2 * math.prod(sizes), sizes[-1] + 2)
    return _annealer("chimera", sizes, lambda q: (q[0] + q[1] + q[2]) % 2)


def pegasus(m: int) -> Graph:
    """Makes the graph of D-Wave's Advantage: units with at most 15 neighbors, four colors.

    Args:
        m: at least 2; 16 is the machine's.

    Returns:
        Graph, its units in the order of dwave-networkx's coordinates.

    Raises:
        MissingExtraError: without dwave-networkx.
        ValueError: if m is below 2, or there are too many units for the memory.
    """
    sizes = [check_count("m", m, minimum=2)]
    _check_size(24 * sizes[0] * (sizes[0] - 1), 15)
    return _annealer("pegasus", sizes, lambda q: 2 * q[0] + (q[2] + q[3]) % 2)


def zephyr(m: int, t: int | None = None) -> Graph:
    """Makes the graph of D-Wave's Advantage2: 4 t m (2 m + 1) units, four colors.

    Args:
        m: at least 1; 12 is the machine's.
        t: parallel units of a tile; 4 by default, with at most 20 neighbors each.

    Returns:
        Graph, its units in the order of dwave-networkx's coordinates.

    Raises:
        MissingExtraError: without dwave-networkx.
        ValueError: if a number is below 1, or there are too many units for the memory.
    """
    sizes = [check_count("m", m), check_count("t", 4 if t is None else t)]
    _check_size(4 * sizes[1] * sizes[0] * (2 * sizes[0] + 1), 4 * sizes[1] + 4)
    return _annealer("zephyr", sizes, lambda q: (2 * q[0] + q[1] + q[3] + 2 * q[4]) % 4)


def _check_size(num_units: int, degree: int) -> None:
    """Raises ValueError for an annealer's graph that is too large, before it is made."""
    check_entries(num_units, num_units * degree // 2, num_units * degree)


def _annealer(name: str, sizes: Sequence[int], color: Callable[[tuple[int, ...]], int]) -> Graph:
    """Makes a graph by dwave-networkx, units in the order of their coordinates and labels."""
    with _extras.needed(f"boltzmann.graphs.{name}", "graphs"):
        topologies = importlib.import_module("dwave_networkx")
    found = getattr(topologies, f"{name}_graph")(*sizes, coordinates=True)
    nodes = sorted(found.nodes)
    units = {node: unit for unit, node in enumerate(nodes)}
    edges = sorted(sorted((units[a], units[b])) for a, b in found.edges)
    return Graph(len(nodes), np.array(edges), colors=np.array([color(node) for node in nodes]))
