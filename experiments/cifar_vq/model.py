"""The model that a `cifar_vq` run trains, as `dvae.trained` takes it."""

from typing import Any

import jax

from dvae import trained
from dvae.train import averaging
from dvae.train.state import TrainState
from experiments.cifar_vq import names
from experiments.cifar_vq.config import Config

PyTree = Any


def functions(config: Config, image_shape: tuple[int, int, int]) -> trained.cifar_vq.Functions:
    """Returns the model's functions, for samples of a shape [H, W, C]."""
    nearest = config.estimator in names.DETERMINISTIC
    kinds = trained.cifar_vq
    posterior = kinds.NEAREST if nearest else kinds.CATEGORICAL
    return kinds.Functions(config.model(image_shape[-1]).config, image_shape, posterior)


def codebook_of(params: PyTree, model_state: PyTree) -> jax.Array:
    """Returns the codebooks [n, C, D], whoever owns them."""
    if "codebook" in params:
        return params["codebook"]
    return model_state.codebook


def evaluated(config: Config, state: TrainState) -> TrainState:
    """Returns the state that is evaluated: with averaged parameters if there are any."""
    if not config.ema_params:
        return state
    return state._replace(params=averaging.averaged(state), model_state=())


def arrays(params: PyTree, model_state: PyTree) -> PyTree:
    """Returns the parameters that `functions` take."""
    return {"network": params["network"], "codebook": codebook_of(params, model_state)}
