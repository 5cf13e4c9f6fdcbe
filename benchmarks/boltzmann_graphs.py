"""Chromatic Gibbs on the graphs of quantum annealers: 1,000 chains on Zephyr m = 8, and a curve.

    python benchmarks/boltzmann_graphs.py

`boltzmann.gibbs` against thrml and PyTorch, all three on one machine in one run, and its cost
against edges from Zephyr m = 2 to 12, beside that of the dense `rbm.graph`. Before anything is
timed the samplers must agree on the mean energy.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from _timing import Comparison, compare, show
from thrml import Block, SamplingSchedule, SpinNode, sample_states
from thrml.models import IsingEBM, IsingSamplingProgram

from dvae import boltzmann, rbm

CHAINS, SWEEPS = 1_000, 10
Sampler = Callable[[int], Any]  # number of sweeps -> bits [chains, n]


def machine(m: int) -> boltzmann.Machine:
    """A machine with couplings of both signs, which ten sweeps bring near equilibrium."""
    graph, rng = boltzmann.graphs.zephyr(m), np.random.default_rng(0)
    bias = rng.normal(0, 0.5, graph.num_units).astype(np.float32)
    weights = rng.normal(0, 0.3, graph.num_edges).astype(np.float32)
    return boltzmann.Machine(jnp.asarray(bias), jnp.asarray(weights), graph)


def ours(params: boltzmann.Machine, chains: int) -> Sampler:
    """`boltzmann.gibbs`."""
    key_start, key = jax.random.split(jax.random.key(0))
    state = boltzmann.gibbs.init(key_start, params, chains)
    return lambda sweeps: boltzmann.gibbs.step(key, params, state, num_sweeps=sweeps)[0].z


def dense(params: boltzmann.Machine, chains: int) -> Sampler:
    """`rbm.graph`, with a matrix of all pairs of units."""
    graph = params.graph
    i, j = graph.edges.T
    upper = jnp.zeros((graph.num_units,) * 2).at[i, j].set(params.weights)
    whole = rbm.graph.BoltzmannMachine(params.bias, upper + upper.T)
    key_start, key = jax.random.split(jax.random.key(0))
    state = rbm.graph.init(key_start, whole, chains)
    colors = tuple(graph.colors.tolist())
    step = jax.jit(
        lambda sweeps: rbm.graph.step(key, whole, state, colors=colors, num_sweeps=sweeps)[0].z,
        static_argnums=0,
    )
    return step


def thrml(params: boltzmann.Machine, chains: int) -> Sampler:
    """thrml, whose units are spins s = 2 z - 1: J = w / 4, h = b / 2 + sum_j w_ij / 4."""
    graph = params.graph
    nodes = [SpinNode() for _ in range(graph.num_units)]
    edges = [(nodes[i], nodes[j]) for i, j in graph.edges.tolist()]
    field = boltzmann.centered_bias(params) / 2
    ebm = IsingEBM(nodes, edges, field, params.weights / 4, jnp.float32(1))
    members = [np.flatnonzero(graph.colors == c) for c in range(graph.num_colors)]
    blocks = [Block([nodes[u] for u in units]) for units in members]
    program = IsingSamplingProgram(ebm, blocks, clamped_blocks=[])
    key_start, key = jax.random.split(jax.random.key(0))
    start = boltzmann.gibbs.init(key_start, params, chains).z.astype(bool)
    start = [start[:, units] for units in members]
    keys = jax.random.split(key, chains)

    def run(sweeps: int) -> jax.Array:
        schedule = SamplingSchedule(n_warmup=sweeps, n_samples=1, steps_per_sample=1)
        one = lambda k, s: sample_states(k, program, schedule, s, [], [Block(nodes)])[0][0]
        return jax.vmap(one)(keys, start)

    return jax.jit(run, static_argnums=0)


def pytorch_gather(params: boltzmann.Machine, chains: int) -> Sampler:
    """The plain way in PyTorch: neighbors of all chains are gathered, weighted and summed."""
    blocks, bias, start = _for_pytorch(params, chains)

    @torch.no_grad()
    def run(sweeps: int) -> torch.Tensor:
        z = start.clone()
        for _ in range(sweeps):
            for units, neighbors, weights in blocks:
                logits = bias[units] + (z[:, neighbors] * weights).sum(-1)
                z[:, units] = (torch.rand_like(logits) < torch.sigmoid(logits)).float()
        return z[:, :-1]

    return run


def pytorch_sparse(params: boltzmann.Machine, chains: int) -> Sampler:
    """PyTorch with a sparse matrix in rows for each color."""
    blocks, bias, start = _for_pytorch(params, chains)
    width = start.shape[1]
    rows = []
    for units, neighbors, weights in blocks:
        matrix = torch.zeros(len(units), width).scatter_add_(1, neighbors, weights)
        rows.append((units, matrix.to_sparse_csr()))

    @torch.no_grad()
    def run(sweeps: int) -> torch.Tensor:
        z = start.T.contiguous()
        for _ in range(sweeps):
            for units, matrix in rows:
                logits = bias[units, None] + matrix @ z
                z[units] = (torch.rand_like(logits) < torch.sigmoid(logits)).float()
        return z[:-1].T

    return run


def _for_pytorch(params: boltzmann.Machine, chains: int) -> tuple[list, torch.Tensor, torch.Tensor]:
    """Padded neighbor lists of each color, biases, and bits with a column of zeros for padding."""
    graph = params.graph
    near: list[list[tuple[int, float]]] = [[] for _ in range(graph.num_units)]
    for (i, j), w in zip(graph.edges.tolist(), np.asarray(params.weights).tolist(), strict=True):
        near[i].append((j, w))
        near[j].append((i, w))
    blocks = []
    for c in range(graph.num_colors):
        units = np.flatnonzero(graph.colors == c)
        padded = list(
            itertools.zip_longest(*(near[u] for u in units), fillvalue=(graph.num_units, 0.0))
        )
        table = np.array(padded).transpose(1, 0, 2)
        neighbors, weights = table[..., 0].astype(np.int64), table[..., 1].astype(np.float32)
        blocks.append(tuple(map(torch.from_numpy, (units, neighbors, weights))))
    bits = np.array(boltzmann.gibbs.init(jax.random.key(1), params, chains).z)
    start = torch.from_numpy(np.pad(bits, ((0, 0), (0, 1))))
    return blocks, torch.from_numpy(np.array(params.bias)), start


def check(params: boltzmann.Machine, samplers: dict[str, Sampler], chains: int) -> None:
    """Raises unless all samplers have the same mean energy, within 6 standard errors."""
    means = {}
    for label, sampler in samplers.items():
        energies = np.asarray(boltzmann.energy(params, np.asarray(sampler(100), np.float32)))
        means[label] = energies.mean(), energies.std() / np.sqrt(chains)
    (first, error), *others = means.values()
    if any(abs(mean - first) > 6 * np.hypot(error, e) for mean, e in others):
        raise RuntimeError(f"the samplers differ in their mean energies and errors: {means}")


def peers(m: int = 8, chains: int = CHAINS, sweeps: int = SWEEPS) -> Comparison:
    """Sweeps of all chains by each library."""
    params = machine(m)
    forms = {
        "boltzmann.gibbs": ours,
        "thrml": thrml,
        "PyTorch, gather": pytorch_gather,
        "PyTorch, sparse product": pytorch_sparse,
        "rbm.graph, dense": dense,
    }
    few = min(chains, 200)  # enough for an error, and a hundred sweeps of all would take long
    check(params, {label: make(params, few) for label, make in forms.items()}, few)
    samplers = {label: make(params, chains) for label, make in forms.items()}
    calls = {label: lambda s=s: s(sweeps) for label, s in samplers.items()}
    title = f"chromatic Gibbs, Zephyr m = {m}, {params.graph}, {chains} chains, {sweeps} sweeps"
    mark = "2 times the best of thrml and PyTorch's gather"
    return compare(title, calls, repeats=5, mark=mark)


def curve(
    sizes: tuple[int, ...] = (2, 4, 6, 8, 12), chains: int = CHAINS, sweeps: int = SWEEPS
) -> Comparison:
    """Cost against edges; of the dense machine up to m = 8."""
    calls = {}
    for make, label in ((ours, "lists"), (dense, "dense")):
        for m in sizes if make is ours else [m for m in sizes if m <= 8]:
            params = machine(m)
            graph = params.graph
            text = f"{label}, m = {m}: {graph.num_units} units, {graph.num_edges} edges"
            sampler = make(params, chains)
            calls[text] = lambda s=sampler: s(sweeps)
    title = f"cost against edges, Zephyr, {chains} chains, {sweeps} sweeps"
    return compare(title, calls, repeats=5, mark="grows with edges, not with the square of units")


def comparisons() -> list[Comparison]:
    """Times both."""
    return [peers(), curve()]


if __name__ == "__main__":
    show(comparisons())
