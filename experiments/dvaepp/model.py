"""The model that a `dvaepp` run trains, as `dvae.trained` takes it."""

from typing import Any

import jax

from dvae import trained
from experiments.boltzmann import graphs
from experiments.boltzmann import prior as boltzmann_prior
from experiments.boltzmann.names import ANNEALING
from experiments.dvaepp.config import BOLTZMANN, NORMAL, Config

PyTree = Any


def functions(config: Config, image_shape: tuple[int, int, int]) -> trained.dvaepp.Functions:
    """Returns the model's functions."""
    machine = config.global_latents in BOLTZMANN
    return trained.dvaepp.Functions(
        config.model(image_shape).config,
        config.global_latents,
        config.local_latents,
        num_chains=config.num_chains if machine else 0,
        weighted_chains=machine and config.sampler == ANNEALING,
        topology=graphs.topology(config),
    )


def arrays(
    config: Config, params: PyTree, model_state: PyTree, log_z: jax.Array | None = None
) -> PyTree:
    """Returns the parameters that `functions` take.

    Args:
      config: whose kinds of variables they have.
      params: of the training, without a seed axis.
      model_state: likewise.
      log_z: [] of a Boltzmann prior.
    """
    network = {"network": params["network"]}
    if config.global_latents == NORMAL:
        return network
    if config.global_latents in BOLTZMANN:
        return network | boltzmann_prior.arrays(params, model_state, log_z)
    return network | {"prior": params["prior"]}
