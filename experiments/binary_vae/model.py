"""The model that a `binary_vae` run trains, as `dvae.trained` takes it."""

import math
from typing import Any

import jax

from dvae import trained
from dvae.data import Dataset
from experiments.binary_vae import conditions
from experiments.binary_vae.config import Config
from experiments.boltzmann import graphs
from experiments.boltzmann import prior as boltzmann_prior
from experiments.boltzmann.names import ANNEALING

PyTree = Any


def functions(config: Config, images: Dataset) -> trained.binary_vae.Functions:
    """Returns the model's functions, with the products that evaluations take.

    Args:
      config: everything.
      images: the data set, for the shape of an image and the kind of labels.
    """
    dtype = None if config.eval_dtype == "float32" else config.eval_dtype
    image_shape = images.train.shape[1:]
    condition = conditions.condition_of(config, images)
    network = config.model(math.prod(image_shape), condition=condition, product_dtype=dtype).config
    machine = config.has_machine
    return trained.binary_vae.Functions(
        network,
        image_shape,
        num_chains=config.num_chains if machine else 0,
        weighted_chains=machine and config.sampler == ANNEALING,
        topology=graphs.topology(config, condition.size),
    )


def arrays(params: PyTree, model_state: PyTree, log_z: jax.Array | None = None) -> PyTree:
    """Returns the parameters that `functions` take.

    Args:
      params: of the training, without a seed axis.
      model_state: likewise.
      log_z: [] of a Boltzmann prior, given labels [C].
    """
    model = {
        "network": params["network"],
        "mean": model_state["mean"],
        "batch_stats": model_state["batch_stats"],
    }
    return model | (boltzmann_prior.arrays(params, model_state, log_z) if "prior" in params else {})
