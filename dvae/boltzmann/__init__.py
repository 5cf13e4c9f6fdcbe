"""Boltzmann machines on any graph: energies, enumeration, samplers, log Z, KLs of posteriors.

    graph = boltzmann.graphs.zephyr(4)                             # or Graph(num_units, edges)
    params = boltzmann.Machine(bias, weights, graph)               # [n], [E] one for each edge
    state = boltzmann.gibbs.init(key, params, num_chains=1000)
    state, info = boltzmann.gibbs.step(key, params, state, num_sweeps=40)
    estimate = boltzmann.ais.log_z(key, params)                    # value, std_error, ess

Memory and time grow with the edges, not with the square of the units. The graph is static: it is
made once in NumPy, has a coloring, and is no leaf of the machine's tree, so that `jax.grad` and
optimizers see biases and weights alone.

As a prior of hierarchical posteriors (`kl.hierarchical`), for any groups of units, some of which
may stay hidden:

    log_z = boltzmann.log_z_with_gradient(params, estimate.value, state.z)
    kl = boltzmann.kl.hierarchical(params, logits, log_ratios, log_z)         # [batch] nats

`gibbs` can hold any units; `condition` makes the machine of the free ones, for all else. `rbm` is
the fast path of complete bipartite graphs, and has relaxed priors.
"""

from dvae.boltzmann import ais, annealing, edge_lists, exact, gibbs, graphs, kl, tempering
from dvae.boltzmann._graph import Graph
from dvae.boltzmann.energy import Machine, centered_bias, condition, energy, from_rbm, logits
from dvae.boltzmann.kl import log_z_with_gradient

__all__ = [
    "Graph",
    "Machine",
    "ais",
    "annealing",
    "centered_bias",
    "condition",
    "edge_lists",
    "energy",
    "exact",
    "from_rbm",
    "gibbs",
    "graphs",
    "kl",
    "log_z_with_gradient",
    "logits",
    "tempering",
]
