"""The topology of a machine: edges, a coloring, and whether products or neighbor lists are used."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dvae._checks import check_count
from dvae.boltzmann import _coloring

MAX_ENTRIES = 1 << 27  # of neighbor lists: two tables of int32, 1 GiB in all
MAX_COLORED = 1 << 22  # units that DSATUR, in Python, colors within about 2 GiB
MAX_UNROLLED = 8  # colors that a compiled sweep writes out; more of them are a loop
_DENSITY = 1 / 16  # of the couplings from which on products are faster than gathers, on CPUs


@jax.tree_util.register_static
class Graph:
    """Units and the edges between them, made once in NumPy; static to `jax.jit`.

    Equal graphs, with the same edges in the same order and the same colors, are compiled once.
    """

    num_units: int  # n
    edges: np.ndarray  # [E, 2] int32, read-only, in the order given
    colors: np.ndarray  # [n] int32, read-only: no edge joins two units of one color

    def __init__(
        self,
        num_units: int,
        edges: np.ndarray | Sequence[Sequence[int]],
        *,
        colors: np.ndarray | Sequence[int] | None = None,
    ) -> None:
        """Checks edges, and colors the units unless colors are given.

        Args:
            num_units: n, at least 1.
            edges: [E, 2] int in [0, n), in any order and direction, each once.
            colors: [n] int from 0, of neighbors different; by default DSATUR finds few.

        Raises:
            ValueError: if an edge is a loop, double or out of range, colors are improper, or the
                neighbor lists, or the search for colors, would not fit into memory.
        """
        self.num_units = check_count("num_units", num_units)
        self.edges = _check_edges(self.num_units, edges)
        check_entries(self.num_units, len(self.edges), 2 * len(self.edges))
        if colors is None:
            if self.num_units > MAX_COLORED:
                raise ValueError(
                    f"a graph of {self.num_units} units takes too much memory to be colored, which "
                    f"is for at most {MAX_COLORED}: pass colors=, or use fewer units"
                )
            self.colors = _coloring.color(self.num_units, self.edges)
        else:
            self.colors = _check_colors(self.num_units, self.edges, colors)
        check_entries(self.num_units, len(self.edges), _padded(self), self.num_colors)
        for array in (self.edges, self.colors):
            array.flags.writeable = False
        self._hash = hash((self.num_units, self.edges.tobytes(), self.colors.tobytes()))

    @property
    def num_edges(self) -> int:
        """E."""
        return len(self.edges)

    @property
    def num_colors(self) -> int:
        """Blocks of units that a sweep draws one after the other."""
        return int(self.colors.max()) + 1

    @property
    def degrees(self) -> np.ndarray:
        """Number of neighbors, [n] int."""
        return np.bincount(self.edges.ravel(), minlength=self.num_units)

    @property
    def is_dense(self) -> bool:
        """Whether sums over neighbors are products with a dense matrix, [n, n]."""
        return 2 * self.num_edges >= _DENSITY * self.num_units**2

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles what makes the graph: hashes of bytes differ from process to process."""
        return _rebuild, (self.num_units, self.edges, self.colors)

    def __hash__(self) -> int:
        """Hashes what equality compares."""
        return self._hash

    def __eq__(self, other: Any) -> bool:
        """Compares units, edges in their order, and colors."""
        if self is other:
            return True
        return (
            isinstance(other, Graph)
            and self._hash == other._hash
            and self.num_units == other.num_units
            and np.array_equal(self.edges, other.edges)
            and np.array_equal(self.colors, other.colors)
        )

    def __repr__(self) -> str:
        """Shows sizes."""
        sizes = f"{self.num_units} units, {self.num_edges} edges, {self.num_colors} colors"
        return f"Graph({sizes})"


def _rebuild(num_units: int, edges: np.ndarray, colors: np.ndarray) -> Graph:
    return Graph(num_units, edges, colors=colors)


def _check_edges(num_units: int, edges: np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
    """Returns edges as int32 [E, 2] of their own memory."""
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(edges)):
        raise ValueError("edges must be static, got traced ones: make the graph outside of jit")
    if hasattr(edges, "edges"):  # as a sequence it is one of its nodes
        raise ValueError(
            f"edges must be integers [E, 2], got a {type(edges).__name__}; of a networkx graph: "
            "list(graph.edges)"
        )
    try:
        array = np.asarray(edges)
    except ValueError:  # rows of several lengths
        raise ValueError("edges must be integers [E, 2], got rows of several lengths") from None
    if array.size == 0:
        array = np.zeros((0, 2), np.int32)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise ValueError(f"edges must be integers [E, 2], got {array.dtype} {array.shape}")
    outside = np.flatnonzero(((array < 0) | (array >= num_units)).any(1))
    if len(outside):
        k = outside[0]
        raise ValueError(
            f"edge {k} is {tuple(array[k].tolist())}, outside of the units 0 to {num_units - 1}"
        )
    array = np.array(array, np.int32)
    loops = np.flatnonzero(array[:, 0] == array[:, 1])
    if len(loops):
        raise ValueError(
            f"edge {loops[0]} joins unit {array[loops[0], 0]} to itself: a bit's square is the "
            "bit, so add its weight to the bias"
        )
    ordered = np.sort(array, 1).astype(np.int64)
    _, first, inverse = np.unique(
        ordered @ np.array([num_units, 1]), return_index=True, return_inverse=True
    )
    doubles = np.flatnonzero(first[inverse] != np.arange(len(array)))
    if len(doubles):
        k = doubles[0]
        raise ValueError(
            f"edges {first[inverse[k]]} and {k} both join units {ordered[k, 0]} and "
            f"{ordered[k, 1]}: add their weights, and keep one"
        )
    return array


def _check_colors(
    num_units: int, edges: np.ndarray, colors: np.ndarray | Sequence[int]
) -> np.ndarray:
    """Returns colors as int32 [n], proper and numbered without gaps."""
    array = np.asarray(colors)
    if array.shape != (num_units,) or array.dtype.kind not in "iu":
        raise ValueError(f"colors must be {num_units} integers, got {array.dtype} {array.shape}")
    clash = _coloring.improper(edges, array)
    if clash is not None:
        i, j = clash
        raise ValueError(f"units {i} and {j} share an edge and color {array[i]}")
    # Numbered anew: a color without units would be a block without a draw.
    return np.unique(array, return_inverse=True)[1].astype(np.int32)


def _padded(graph: Graph) -> int:
    """Counts the entries of the tables: padded neighbor lists of the colors, or dense rows."""
    sizes = np.bincount(graph.colors)
    longest = np.zeros(len(sizes), np.int64)
    np.maximum.at(longest, graph.colors, graph.degrees)
    if graph.is_dense:
        longest[:] = graph.num_units
    if len(sizes) > MAX_UNROLLED:
        return len(sizes) * int(sizes.max()) * int(longest.max())
    return int(sizes @ longest)


def check_entries(num_units: int, num_edges: int, entries: int, num_colors: int = 0) -> None:
    """Raises ValueError if neighbor lists would not fit into memory."""
    if entries > MAX_ENTRIES:
        colors = f", {num_colors} colors" if num_colors else ""
        gigabytes = math.ceil(8 * entries / 2**30)
        raise ValueError(
            f"a graph of {num_units} units, {num_edges} edges{colors} needs neighbor lists of "
            f"{gigabytes} GiB, more than {8 * MAX_ENTRIES / 2**30:g}: split units that have far "
            "more neighbors than others of their color, or use fewer edges"
        )
