"""The graph of a general Boltzmann prior: `--graph` by name or file, and what is checked of it."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvae import boltzmann, trained
from dvae.boltzmann import edge_lists, graphs
from dvae.train import paths
from experiments.boltzmann.config import BoltzmannConfig
from experiments.boltzmann.names import COMPLETE
from experiments.common import flags
from experiments.common.flags import option

Graph = boltzmann.Graph
_PARTS = {"bipartite": 2, "four_partite": 4}  # of equal sizes, up to one unit
# Of annealers, by their size m: graph and number of units.
_ANNEALERS: dict[str, tuple[Callable[[int], Graph], Callable[[int], int]]] = {
    "chimera": (graphs.chimera, lambda m: 8 * m * m),
    "pegasus": (graphs.pegasus, lambda m: 8 * (3 * m - 1) * (m - 1)),
    "zephyr": (graphs.zephyr, lambda m: 16 * m * (2 * m + 1)),
}
_SMALLEST = {"chimera": 1, "pegasus": 2, "zephyr": 1}
_FILES = (".csv", ".npz")
MAX_DENSE_UNITS = 2_048  # of named graphs with n^2 edges: XLA copies tables of them many times


@dataclass(frozen=True)
class GraphConfig(BoltzmannConfig):
    """The settings of a machine that may be on any graph."""

    graph: str = option(
        "",
        "Graph of a general Boltzmann machine, whose units the bits fill in order: complete (the "
        "default), bipartite, four_partite; chimera:M, pegasus:M or zephyr:M of quantum "
        "annealers; or that of an edge list, a .csv or .npz file, whose values are not used.",
        group="model",
        former="",
    )
    graph_sha256: str = option("", "Identity of the graph of a file.", flag=False, former="")


def settle(config: GraphConfig) -> None:
    """Fills in the graph and its identity, for `__post_init__`; files are read for it.

    A configuration that has the identity already, as records do, needs no file.

    Raises:
      ValueError: there is no such graph, or it has not as many units as the model has bits.
    """
    flags.settle(config, graph=COMPLETE)
    if _is_file(config.graph):
        path = str(paths.local(config.graph, "--graph").absolute())
        object.__setattr__(config, "graph", path)
        if not config.graph_sha256:
            graph = _read(path)
            _check_units(config, graph.num_units)
            object.__setattr__(config, "graph_sha256", _identity(graph))
        return
    num_bits = config.num_groups * config.num_latents
    if config.graph == COMPLETE or config.graph in _PARTS:
        fewest = _PARTS.get(config.graph, 1)
        if not fewest <= num_bits <= MAX_DENSE_UNITS:
            raise ValueError(
                f"--graph={config.graph} takes {fewest} to {MAX_DENSE_UNITS:,} units, got "
                f"{_describe_bits(config)}; use another --num_latents, or a sparse graph"
            )
        return
    name, _, size = config.graph.partition(":")
    if name not in _ANNEALERS or not (size.isascii() and size.isdecimal()):
        raise ValueError(
            f"--graph={config.graph} must be {COMPLETE}, {', '.join(_PARTS)}, "
            f"{', '.join(f'{name}:M' for name in _ANNEALERS)}, or a .csv or .npz file"
        )
    if int(size) < _SMALLEST[name]:
        raise ValueError(f"--graph={config.graph}: M must be at least {_SMALLEST[name]}")
    _check_units(config, _ANNEALERS[name][1](int(size)))


def of(config: BoltzmannConfig, num_labels: int = 0) -> Graph | None:
    """Returns the graph of a configuration that was settled; None of an RBM.

    Args:
      config: everything.
      num_labels: units that hold the label, after those of the bits.

    Raises:
      ValueError: its file is gone, or holds another graph than before; or labels take too much
        memory.
      MissingExtraError: a graph of an annealer, without dwave-networkx.
    """
    name = config.machine_graph
    if not name:
        return None
    assert isinstance(config, GraphConfig)
    num_bits = config.num_groups * config.num_latents
    return _make(name, num_bits, config.graph_sha256, num_labels)


def topology(config: BoltzmannConfig, num_labels: int = 0) -> trained.Topology:
    """Returns the graph as the files of a trained model have it."""
    graph = of(config, num_labels)
    if graph is None:
        return trained.Topology()
    return _topology(Path(config.machine_graph).name, graph)


_topology = functools.lru_cache(maxsize=16)(trained.Topology.of)


@functools.lru_cache(maxsize=16)
def _make(name: str, num_units: int, sha256: str, num_labels: int = 0) -> Graph:
    """Makes a graph, once: equal graphs are then one, which is compared at no cost."""
    if num_labels:
        return graphs.with_labels(_make(name, num_units, sha256), num_labels)
    if _is_file(name):
        graph = _read(name)
        if _identity(graph) != sha256:
            raise ValueError(
                f"--graph={name} holds another graph than when the run began; bring that back, or "
                "choose another --workdir"
            )
        return graph
    if name == COMPLETE:
        return graphs.complete(num_units)
    if name in _PARTS:
        return graphs.k_partite(*(len(p) for p in np.array_split(range(num_units), _PARTS[name])))
    kind, _, size = name.partition(":")
    return _ANNEALERS[kind][0](int(size))


def _is_file(name: str) -> bool:
    return Path(name).suffix.lower() in _FILES


def _read(path: str) -> Graph:
    try:
        return edge_lists.read(path).graph
    except OSError as error:
        raise ValueError(f"--graph={path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"--graph={error}") from error


def _identity(graph: Graph) -> str:
    """Returns what graphs of other units, edges, order of edges or colors do not share."""
    digest = hashlib.sha256(str(graph.num_units).encode())
    digest.update(graph.edges.tobytes())
    digest.update(graph.colors.tobytes())
    return digest.hexdigest()


def _check_units(config: GraphConfig, num_units: int) -> None:
    if num_units != config.num_groups * config.num_latents:
        raise ValueError(
            f"--graph={config.graph} has {num_units:,} units, and the model "
            f"{_describe_bits(config)}: give as many bits as the graph has units"
        )


def _describe_bits(config: GraphConfig) -> str:
    bits = config.num_groups * config.num_latents
    return f"{bits:,} bits (--num_groups={config.num_groups} of --num_latents={config.num_latents})"
