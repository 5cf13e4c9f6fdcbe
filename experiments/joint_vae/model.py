"""The model that a `joint_vae` run trains, as `dvae.trained` takes it."""

from typing import Any

from dvae import trained
from experiments.joint_vae.config import Config

PyTree = Any


def functions(config: Config, image_shape: tuple[int, int, int]) -> trained.joint_vae.Functions:
    """Returns the model's functions, of images of a shape [H, W, C]."""
    return trained.joint_vae.Functions(config.model_config(image_shape))


def arrays(params: PyTree) -> PyTree:
    """Returns the parameters that `functions` take."""
    return {"network": params}
