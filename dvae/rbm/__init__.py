"""Restricted Boltzmann machines: energies, enumeration, samplers, log Z and priors.

    params = rbm.RBM(bias1, bias2, weights)                        # [n1], [n2], [n1, n2]
    log_z = rbm.exact.log_z(params)                                # min(n1, n2) <= 20
    state = rbm.gibbs.init(key, params, num_chains=1000)
    state, info = rbm.gibbs.step(key, params, state, num_sweeps=40)
    estimate = rbm.ais.log_z(key, params)                          # value, std_error, ess

As a prior of hierarchical posteriors (`kl.hierarchical`), trained by plain autodiff:

    log_z = rbm.log_z_with_gradient(params, estimate.value, state.z1, state.z2)
    kl = rbm.kl.hierarchical(params, logits, log_ratios, log_z)    # [batch] nats

or through densities of smoothed bits: `relaxed` priors have them, and with them importance-weighted
bounds; `rolfe` makes the gradient where the smoothing has no density.

Samplers are `init` and `step` on an explicit state, for many chains at once: `gibbs`, `tempering`,
`annealing`; `graph` does it for machines with couplings between any units. For sparse graphs
`dvae.boltzmann` does that by lists of edges, and faster.

What loops is compiled once for each shape and number of sweeps, also outside of `jax.jit`. Known
parameters that are NaN or infinite are refused; traced ones give NaN, in chains and estimates.
Chains may be sharded, over mesh axes of any type; no sharding changes a sample.
"""

from dvae.rbm import (
    ais,
    annealing,
    exact,
    gibbs,
    graph,
    kl,
    relaxed,
    rolfe,
    tempering,
)
from dvae.rbm.energy import (
    RBM,
    centered_biases,
    energy,
    free_energy_1,
    free_energy_2,
    logits_1,
    logits_2,
)
from dvae.rbm.kl import log_z_with_gradient

__all__ = [
    "RBM",
    "ais",
    "annealing",
    "centered_biases",
    "energy",
    "exact",
    "free_energy_1",
    "free_energy_2",
    "gibbs",
    "graph",
    "kl",
    "log_z_with_gradient",
    "logits_1",
    "logits_2",
    "relaxed",
    "rolfe",
    "tempering",
]
