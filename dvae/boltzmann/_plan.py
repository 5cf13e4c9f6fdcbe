"""Tables of a graph for the samplers: blocks of units that are drawn at once, and neighbors."""

import functools
from typing import NamedTuple

import numpy as np

from dvae.boltzmann._graph import Graph


class Block(NamedTuple):
    """Free units of one color, or (in a loop) those of all colors, with one more axis in front."""

    rows: np.ndarray  # [m] int32, their places in the order; n + 1, which is none, as padding
    neighbors: np.ndarray  # [m, d] int32, places of their neighbors; n, a unit of 0, as padding
    edges: np.ndarray  # [m, d] int32, the edges to these; E, which has weight 0, as padding


class Plan(NamedTuple):
    """How a graph is swept while some units are clamped."""

    order: np.ndarray  # [n] int32, units by color, in a color the free ones first
    blocks: tuple[Block, ...]  # one a color that has free units
    rest: np.ndarray  # [r] int32, indices of the edges that no unit of the first block has
    rest_places: np.ndarray  # [r, 2] int32, their units' places in the order


@functools.lru_cache(maxsize=64)
def plan(graph: Graph, clamp: bytes | None = None) -> Plan:
    """Makes the tables, clamp being the bytes of a bool [n]; once for each graph and clamp."""
    n = graph.num_units
    clamped = np.zeros(n, bool) if clamp is None else np.frombuffer(clamp, bool)
    order = np.lexsort((clamped, graph.colors)).astype(np.int32)
    place = np.argsort(order).astype(np.int32)
    both = np.concatenate([graph.edges, graph.edges[:, ::-1]])
    index = np.tile(np.arange(graph.num_edges, dtype=np.int32), 2)
    own = place[both[:, 0]]
    by_unit = np.argsort(own, kind="stable")
    own, others, index = own[by_unit], place[both[by_unit, 1]], index[by_unit]
    starts = np.searchsorted(own, np.arange(n + 1))
    blocks = []
    for c in range(graph.num_colors):
        rows = place[order[(graph.colors[order] == c) & ~clamped[order]]]
        if not len(rows):
            continue
        counts = starts[rows + 1] - starts[rows]
        slots = np.arange(counts.max(initial=0))
        valid = slots[None] < counts[:, None]
        entry = np.where(valid, starts[rows][:, None] + slots[None], 0)
        neighbors = np.where(valid, others[entry] if len(others) else 0, n).astype(np.int32)
        edges = np.where(valid, index[entry] if len(index) else 0, graph.num_edges)
        blocks.append(Block(rows.astype(np.int32), neighbors, edges.astype(np.int32)))
    first = np.zeros(n + 2, bool)
    if blocks:
        first[blocks[0].rows] = True
    places = place[graph.edges]
    rest = np.flatnonzero(~first[places].any(1)).astype(np.int32)
    return Plan(order, tuple(blocks), rest, places[rest])


def stack(blocks: tuple[Block, ...], num_units: int, num_edges: int) -> Block:
    """Pads blocks to one size, for a loop over them."""
    pads = num_units + 1, num_units, num_edges
    stacked = []
    for arrays, pad in zip(zip(*blocks, strict=True), pads, strict=True):
        shape = np.max([a.shape for a in arrays], axis=0)
        widths = [[(0, s - t) for s, t in zip(shape, a.shape, strict=True)] for a in arrays]
        padded = [np.pad(a, w, constant_values=pad) for a, w in zip(arrays, widths, strict=True)]
        stacked.append(np.stack(padded))
    return Block(*stacked)
