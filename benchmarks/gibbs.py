"""Block Gibbs sampling and two annealings of a 200x200 machine, 1,000 chains.

    python benchmarks/gibbs.py

`rbm.gibbs`, `rbm.ais` and `rbm.annealing` against PyTorch, the plain way to write them in JAX, and
scikit-learn.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import torch
from _timing import Comparison, compare, show
from sklearn.neural_network import BernoulliRBM
from torch.nn.functional import softplus

from dvae import rbm

UNITS, CHAINS, SWEEPS = 200, 1_000, 40
TEMPERATURES, AIS_CHAINS = 1_000, 1_024


def machine() -> rbm.RBM:
    """A machine with couplings of the size of trained ones."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.3, (UNITS, UNITS)).astype(np.float32)
    return rbm.RBM(jnp.zeros(UNITS), jnp.zeros(UNITS), jnp.asarray(weights))


def half(params: rbm.RBM) -> rbm.RBM:
    """The same machine with bfloat16 parameters: products in bfloat16, sums in float32."""
    return rbm.RBM(*(x.astype(jnp.bfloat16) for x in params))


def gibbs() -> Comparison:
    """Sweeps of all chains, both sides."""
    params, keys = machine(), jax.random.split(jax.random.key(0), 3)
    ours = jax.jit(lambda p, s: rbm.gibbs.step(keys[0], p, s, num_sweeps=SWEEPS)[0])
    state = rbm.gibbs.init(keys[1], params, CHAINS)
    coarse = half(params)
    coarse_state = rbm.gibbs.GibbsState(*(z.astype(jnp.bfloat16) for z in state))

    @jax.jit
    def plain(params: rbm.RBM, z2: jax.Array) -> jax.Array:
        def sweep(z2: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
            key_1, key_2 = jax.random.split(key)
            z1 = jax.random.bernoulli(key_1, jax.nn.sigmoid(params.bias1 + z2 @ params.weights.T))
            logits = params.bias2 + z1.astype(jnp.float32) @ params.weights
            return jax.random.bernoulli(key_2, jax.nn.sigmoid(logits)).astype(jnp.float32), None

        return jax.lax.scan(sweep, z2, jax.random.split(keys[2], SWEEPS))[0]

    a1, a2, weights = (torch.from_numpy(np.array(x)) for x in params)
    start = torch.from_numpy(np.array(state.z2))

    @torch.no_grad()
    def pytorch() -> torch.Tensor:
        z2 = start
        for _ in range(SWEEPS):
            p1 = torch.sigmoid(a1 + z2 @ weights.T)
            z1 = (torch.rand_like(p1) < p1).float()
            p2 = torch.sigmoid(a2 + z1 @ weights)
            z2 = (torch.rand_like(p2) < p2).float()
        return z2

    peer = BernoulliRBM(UNITS, random_state=0)
    peer.components_, peer.intercept_hidden_ = np.array(params.weights.T), np.array(params.bias2)
    peer.intercept_visible_, peer.random_state_ = np.array(params.bias1), np.random.RandomState(0)

    def scikit() -> np.ndarray:
        z1 = np.array(state.z1)
        for _ in range(SWEEPS):
            z1 = peer.gibbs(z1)
        return z1

    calls = {
        "rbm.gibbs": lambda: ours(params, state),
        "rbm.gibbs, bfloat16": lambda: ours(coarse, coarse_state),
        "PyTorch": pytorch,
        "plain JAX": lambda: plain(params, state.z2),
        "scikit-learn": scikit,
    }
    title = f"block Gibbs, {UNITS}x{UNITS} units, {CHAINS} chains, {SWEEPS} sweeps"
    return compare(title, calls, mark="1.5 times PyTorch's speed, 2 times in bfloat16")


def ais() -> Comparison:
    """log Z along one temperature schedule."""
    params, key = machine(), jax.random.key(1)
    settings = {"num_temperatures": TEMPERATURES, "num_chains": AIS_CHAINS}
    ours = jax.jit(lambda p: rbm.ais.log_z(key, p, **settings))
    a1, a2, weights = (torch.from_numpy(np.array(x)) for x in params)

    @torch.no_grad()
    def pytorch() -> torch.Tensor:
        z1 = (torch.rand(AIS_CHAINS, UNITS) < 0.5).float()
        log_weight = torch.zeros(AIS_CHAINS)
        schedule = torch.linspace(0, 1, TEMPERATURES + 1)
        for before, after in itertools.pairwise(schedule):
            linear, fields = z1 @ a1, a2 + z1 @ weights
            right = softplus(after * fields) - softplus(before * fields)
            log_weight += (after - before) * linear + right.sum(-1)
            p2 = torch.sigmoid(after * fields)
            z2 = (torch.rand_like(p2) < p2).float()
            p1 = torch.sigmoid(after * (a1 + z2 @ weights.T))
            z1 = (torch.rand_like(p1) < p1).float()
        return torch.logsumexp(log_weight, 0)

    coarse = half(params)
    calls = {
        "rbm.ais": lambda: ours(params),
        "rbm.ais, bfloat16": lambda: ours(coarse),
        "PyTorch": pytorch,
    }
    title = f"AIS, {UNITS}x{UNITS} units, {TEMPERATURES} temperatures, {AIS_CHAINS} chains"
    return compare(title, calls, repeats=3, mark="2 times PyTorch's speed")


def annealing() -> Comparison:
    """A population along one temperature schedule, resampled where its weights are uneven."""
    params, key = machine(), jax.random.key(1)
    settings = {"num_chains": AIS_CHAINS, "num_temperatures": TEMPERATURES}
    ours = jax.jit(lambda p: rbm.annealing.anneal(key, p, **settings))
    a1, a2, weights = (torch.from_numpy(np.array(x)) for x in params)
    c1, c2 = a1 + weights.sum(1) / 2, a2 + weights.sum(0) / 2  # without the interactions

    @torch.no_grad()
    def pytorch() -> torch.Tensor:
        z2 = (torch.rand(AIS_CHAINS, UNITS) < torch.sigmoid(c2)).float()
        log_weights, log_z = torch.zeros(AIS_CHAINS), softplus(c1).sum() + softplus(c2).sum()
        schedule = torch.linspace(0, 1, TEMPERATURES + 1)
        for before, after in itertools.pairwise(schedule):
            fields = a1 - c1 + z2 @ weights.T
            left = softplus(c1 + after * fields) - softplus(c1 + before * fields)
            log_weights += (after - before) * (z2 @ (a2 - c2)) + left.sum(-1)
            log_mean = torch.logsumexp(log_weights, 0) - math.log(AIS_CHAINS)
            log_z, log_weights = log_z + log_mean, log_weights - log_mean
            if 1 / (2 * log_weights).exp().mean() < 0.5:
                cumulative = log_weights.exp().cumsum(0) / AIS_CHAINS
                teeth = (torch.arange(AIS_CHAINS) + torch.rand(())) / AIS_CHAINS
                index = torch.searchsorted(cumulative, teeth).clamp(max=AIS_CHAINS - 1)
                fields, log_weights = fields[index], torch.zeros(AIS_CHAINS)
            p1 = torch.sigmoid(c1 + after * fields)
            z1 = (torch.rand_like(p1) < p1).float()
            p2 = torch.sigmoid(c2 + after * (a2 - c2 + z1 @ weights))
            z2 = (torch.rand_like(p2) < p2).float()
        return log_z

    coarse = half(params)
    calls = {
        "rbm.annealing": lambda: ours(params),
        "rbm.annealing, bfloat16": lambda: ours(coarse),
        "PyTorch": pytorch,
    }
    title = (
        f"population annealing, {UNITS}x{UNITS} units, {TEMPERATURES} temperatures, "
        f"{AIS_CHAINS} chains"
    )
    return compare(title, calls, repeats=3)


def comparisons() -> list[Comparison]:
    """Times all."""
    return [gibbs(), ais(), annealing()]


if __name__ == "__main__":
    show(comparisons())
