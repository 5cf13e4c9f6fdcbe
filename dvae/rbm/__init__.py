"""Restricted Boltzmann machines: energies, enumeration and samplers.

    params = rbm.RBM(bias1, bias2, weights)                        # [n1], [n2], [n1, n2]
    log_z = rbm.exact.log_z(params)                                # min(n1, n2) <= 20
    state = rbm.gibbs.init(key, params, num_chains=1000)
    state, info = rbm.gibbs.step(key, params, state, num_sweeps=40)

Samplers are `init` and `step` on an explicit state, for many chains at once.
"""

from dvae.rbm import exact, gibbs
from dvae.rbm.energy import RBM, energy, free_energy_1, free_energy_2, logits_1, logits_2

__all__ = [
    "RBM",
    "energy",
    "exact",
    "free_energy_1",
    "free_energy_2",
    "gibbs",
    "logits_1",
    "logits_2",
]
