"""Small `binary_vae` runs with a Boltzmann prior, for the tests."""

import itertools

import jax
import numpy as np

from dvae.train import sharding
from experiments.binary_vae import __main__ as binary_vae
from experiments.binary_vae import names
from experiments.binary_vae.presets import PRESETS

TINY = {
    **PRESETS["smoke"],
    "prior": names.BOLTZMANN,
    "num_latents": 4,
    "num_chains": 16,
    "num_sweeps": 2,
    "ais_temperatures": 50,
    "ais_chains": 64,
}


def start(config, images, num_devices=1):
    """The state before the first step, with a prior that has couplings."""
    mesh = sharding.make_mesh(num_devices)
    task = binary_vae.make_task(config, images, mesh)
    everywhere = sharding.replicated(mesh)
    first = jax.jit(task.init, out_shardings=everywhere)(
        task.key_init, jax.device_put(task.data, everywhere)
    )
    key = jax.random.key(7)
    prior = jax.tree.map(
        lambda p: 0.5 * jax.random.normal(jax.random.fold_in(key, p.ndim), p.shape),
        first.params["prior"],
    )
    return task, first, prior


def bits_of(num_units):
    return np.array(list(itertools.product((0.0, 1.0), repeat=num_units)), np.float32)
