"""What the tests of machines on graphs share: small machines, and their tables in float64."""

import itertools

import jax.numpy as jnp
import numpy as np

from dvae import boltzmann
from dvae.boltzmann import _graph

PRISM = [(0, 1), (2, 1), (0, 2), (3, 4), (4, 5), (3, 5), (3, 0), (1, 4), (2, 5)]


def states(n):
    return np.array(list(itertools.product((0.0, 1.0), repeat=n)))


def on(graph, seed=0, scale=1.0, exact=False):
    """A machine on a graph; exact: of parameters whose sums float32 does not round."""
    rng = np.random.default_rng(seed)
    bias, weights = rng.normal(size=graph.num_units), rng.normal(size=graph.num_edges)
    if exact:
        bias, weights = np.round(4 * bias) / 4, np.round(4 * weights) / 4
    return boltzmann.Machine(jnp.float32(scale * bias), jnp.float32(scale * weights), graph)


def prism(**settings):
    """Two triangles joined by three edges: three colors."""
    return on(boltzmann.Graph(6, PRISM), **settings)


def minus_energy(params, z):
    """-E of states [N, n], edge by edge."""
    b, w = np.float64(params.bias), np.float64(params.weights)
    total = z @ b
    for (i, j), weight in zip(params.graph.edges, w, strict=True):
        total = total + weight * z[:, i] * z[:, j]
    return total


def table(params):
    """Probabilities of all states, log Z, and the states."""
    z = states(params.graph.num_units)
    negative = minus_energy(params, z)
    log_z = np.log(np.exp(negative).sum())
    return np.exp(negative - log_z), log_z, z


def assert_law(p, z):
    """The frequencies of the states are the probabilities, within 5 standard errors."""
    n = z.shape[1]
    index = (np.asarray(z, np.float64) @ 2.0 ** np.arange(n)[::-1]).astype(int)
    found = np.bincount(index, minlength=len(p)) / len(z)
    error = np.sqrt(p * (1 - p) / len(z)) + 1e-12
    assert np.all(np.abs(found - p) < 5 * error + 5 / len(z))


def by_lists(monkeypatch):
    """Makes all graphs use neighbor lists."""
    monkeypatch.setattr(_graph, "_DENSITY", 2.0)


def by_products(monkeypatch):
    """Makes all graphs use products."""
    monkeypatch.setattr(_graph, "_DENSITY", 0.0)
