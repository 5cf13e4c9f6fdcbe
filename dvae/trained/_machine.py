"""The Boltzmann prior of a trained model: its arrays among the parameters, graph, and edge list."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dvae import boltzmann, rbm
from dvae.models import boltzmann as machines
from dvae.models import labeled_machine

__all__ = [
    "MACHINE_FILES",
    "NO_GRAPH",
    "Topology",
    "abstract_machine",
    "check_chains",
    "check_topology",
    "log_prob",
    "sample",
    "write_machine",
]

MACHINE_FILES = ("machine.csv", "machine.npz")


@dataclass(frozen=True)
class Topology:
    """The graph of a machine as settings have it; without units that of an RBM, its sides."""

    name: str = ""  # what it was made by
    num_units: int = 0  # n
    edges: str = ""  # pairs of units, "0-1 0-2", in the order of the weights
    colors: str = ""  # of the units, "0 1 1"

    @classmethod
    def of(cls, name: str, graph: boltzmann.Graph) -> "Topology":
        """Describes a graph."""
        edges = " ".join(f"{i}-{j}" for i, j in graph.edges.tolist())
        return cls(name, graph.num_units, edges, " ".join(map(str, graph.colors.tolist())))

    def graph(self) -> boltzmann.Graph | None:
        """Makes the graph, once for equal settings; None without units.

        Raises:
            ValueError: the settings describe no graph.
        """
        return _graph(self) if self.num_units else None


NO_GRAPH = Topology()


@functools.lru_cache(maxsize=16)
def _graph(topology: Topology) -> boltzmann.Graph:
    pairs = [pair.split("-") for pair in topology.edges.split()]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("edges must be pairs of units such as 0-1")
    edges = np.array([[int(i), int(j)] for i, j in pairs], np.int64)
    colors = np.array([int(c) for c in topology.colors.split()], np.int64)
    return boltzmann.Graph(topology.num_units, edges, colors=colors)


def check_chains(num_chains: int, *, needed: bool) -> None:
    """Raises ValueError unless there are chains where a machine needs them, and nowhere else."""
    if num_chains < 0 or needed != (num_chains > 0):
        wanted = "at least 1 with a Boltzmann prior" if needed else "0 without a Boltzmann prior"
        raise ValueError(f"num_chains must be {wanted}, got {num_chains}")


def check_topology(topology: Topology, *, directed: bool, num_labels: int) -> None:
    """Raises ValueError for a graph without a machine, or a machine of labels without a graph."""
    if directed and topology != NO_GRAPH:
        raise ValueError("a directed prior has no graph")
    if num_labels and not directed and not topology.num_units:
        raise ValueError(
            "a restricted Boltzmann machine takes no labels; use the bipartite graph, "
            "topology=Topology.of(...) of boltzmann.graphs.with_labels"
        )


def abstract_machine(
    num_bits: int, num_chains: int, topology: Topology, *, weighted: bool, num_labels: int = 0
) -> dict[str, Any]:
    """Returns shapes and dtypes of machine, log Z and chains.

    Args:
        num_bits: units of the machine without those of labels; half of an RBM's are on each side.
        num_chains: at least 1.
        topology: of the machine.
        weighted: whether chains have weights.
        num_labels: that the machine is given, each with a unit and a log Z; 0: none.

    Raises:
        ValueError: the graph has another number of units.
    """
    num_units, graph = num_bits + num_labels, topology.graph()
    if graph is not None and graph.num_units != num_units:
        raise ValueError(f"the graph must have {num_units} units, got {graph.num_units}")

    zeros: Any = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    log_weights = zeros(num_chains) if weighted else None
    prior: machines.Machine
    chains: machines.Chains | machines.GraphChains
    if graph is None:
        n = num_units // 2
        prior = rbm.RBM(zeros(n), zeros(n), zeros(n, n))
        chains = machines.Chains(zeros(num_chains, n), zeros(num_chains, n), log_weights)
    else:
        prior = boltzmann.Machine(zeros(num_units), zeros(graph.num_edges), graph)
        chains = machines.GraphChains(zeros(num_chains, num_units), log_weights)
    log_z = zeros(num_labels) if num_labels else zeros()
    return {"prior": prior, "log_z": log_z, "chains": chains}


def log_prob(
    params: Any, groups: Sequence[jax.Array], *, labels: jax.Array | None = None
) -> jax.Array:
    """Evaluates log p(z) of the machine among a model's parameters, or log p(z | y) given labels.

    Args:
        params: of the model.
        groups: one float [..., N, n] a group.
        labels: int [N], where the model has labels.
    """
    arguments = params["prior"], params["log_z"], groups
    if labels is None:
        return machines.log_prob(*arguments)
    return labeled_machine.log_prob(*arguments, labels)


def sample(
    key: jax.Array,
    params: Any,
    num_samples: int,
    *,
    num_groups: int,
    num_labels: int,
    labels: jax.Array | None,
) -> list[jax.Array]:
    """Draws bits [num_samples, n] of each group from the chains among a model's parameters.

    Args:
        key: typed PRNG key.
        params: of the model; its log Z is not read.
        num_samples: at least 1.
        num_groups: of the model.
        num_labels: that it knows.
        labels: int [num_samples], where there are some.
    """
    arguments = key, params["prior"], params["chains"]
    if labels is None:
        return machines.sample(*arguments, num_samples, num_groups=num_groups)
    return labeled_machine.sample(*arguments, labels, num_labels=num_labels, num_groups=num_groups)


def write_machine(folder: Path, params: Any) -> None:
    """Writes a Boltzmann prior as an edge list, `MACHINE_FILES`; without one they are removed.

    Units are the bits in the order of the codes, then those of labels, if there are any.

    Args:
        folder: of the model.
        params: of the model.

    Raises:
        ValueError: a parameter is not finite.
        OSError: a file cannot be written.
    """
    prior = params.get("prior") if isinstance(params, dict) else None
    if isinstance(prior, rbm.RBM):
        prior = boltzmann.from_rbm(prior)
    for name in MACHINE_FILES:
        if isinstance(prior, boltzmann.Machine):
            boltzmann.edge_lists.write(folder / name, prior)
        else:
            (folder / name).unlink(missing_ok=True)
