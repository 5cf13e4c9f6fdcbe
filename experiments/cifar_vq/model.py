"""The model that a `cifar_vq` run trains, as `dvae.trained` takes it."""

from typing import Any

import jax

from dvae import trained, vq
from dvae.train import averaging
from dvae.train.state import TrainState
from experiments.cifar_vq import names, sizes
from experiments.cifar_vq.config import Config

PyTree = Any


_KINDS = trained.cifar_vq
_POSTERIORS = {
    **dict.fromkeys(names.PROBABILISTIC, _KINDS.CATEGORICAL),
    **dict.fromkeys(names.NEAREST, _KINDS.NEAREST),
    **dict.fromkeys(names.SIGNS, _KINDS.SIGNS),
    names.FSQ: _KINDS.LEVELS,
    names.RESIDUAL: _KINDS.RESIDUAL,
}


def functions(config: Config, image_shape: tuple[int, int, int]) -> trained.cifar_vq.Functions:
    """Returns the model's functions, for samples of a shape [H, W, C].

    Raises:
      ValueError: nothing says how the estimator chooses codes.
    """
    if config.estimator not in _POSTERIORS:  # a new one, which nearest codes need not be
        raise ValueError(
            f"experiments/cifar_vq/model.py does not say how --estimator={config.estimator} "
            "chooses codes; add it to _POSTERIORS, or to NEAREST of names.py"
        )
    posterior = _POSTERIORS[config.estimator]
    levels = sizes.levels_of(config.levels) if posterior == _KINDS.LEVELS else ()
    network = config.model(image_shape[-1]).config
    return _KINDS.Functions(network, image_shape, posterior, levels)


def codebook_of(params: PyTree, model_state: PyTree) -> jax.Array:
    """Returns the codebooks [n, C, D], whoever owns them; of R stages [n R, C, D]."""
    if "directions" in params:  # of `cosine`; nearest by angle is nearest on the unit sphere
        return vq.cosine.unit(params["directions"])
    if "weights" in params:  # of `simvq`
        return jax.vmap(vq.simvq.codebook)(model_state.basis, params["weights"])
    if "codebook" in params:
        codebook: jax.Array = params["codebook"]
        return codebook.reshape(-1, *codebook.shape[-2:])
    return model_state.codebook


def evaluated(config: Config, state: TrainState) -> TrainState:
    """Returns the state that is evaluated: with averaged parameters if there are any."""
    if not config.ema_params:
        return state
    average = averaging.averaged(state)
    if config.estimator == names.COSINE:  # a mean of unit vectors is shorter than they are
        average = {**average, "codebook": vq.cosine.unit(average["codebook"])}
    return state._replace(params=average, model_state=())


def arrays(params: PyTree, model_state: PyTree) -> PyTree:
    """Returns the parameters that `functions` take."""
    return {"network": params["network"], "codebook": codebook_of(params, model_state)}
