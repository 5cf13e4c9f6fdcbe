"""The model whose codes a prior is learned over, and the two together."""

from typing import Any

from dvae import trained
from experiments.code_prior.config import Config

PyTree = Any


def load(config: Config) -> trained.Model:
    """Returns the model of the run, without a prior that was learned before.

    Raises:
      ValueError: it is no model of codes, or another than the one that training began with.
    """
    model = trained.load(config.run_dir, seed=config.seed_of_model, learned_prior=False)
    if not isinstance(model.functions, trained.cifar_vq.Functions):
        raise ValueError(
            f"{config.run_dir} holds a {model.kind} model; a prior is learned over the codes of "
            "cifar_vq"
        )
    now = trained.identity(model.params)
    if config.model_sha256 and config.model_sha256 != now:
        raise ValueError(
            f"the model in {config.run_dir} is another than that of this prior ({now[:8]}, was "
            f"{config.model_sha256[:8]}): it was trained on since; choose another --workdir"
        )
    return model


def functions(config: Config, model: trained.Model) -> trained.code_prior.Functions:
    """Returns the functions of model and prior."""
    of_model = model.functions
    assert isinstance(of_model, trained.cifar_vq.Functions)
    prior = config.prior(of_model.grid, of_model.code_sizes)
    return trained.code_prior.Functions(of_model, prior)


def arrays(model: trained.Model, params: PyTree) -> PyTree:
    """Returns the parameters that `functions` take."""
    return {**model.params, trained.code_prior.PRIOR: params}
