"""Discrete-latent variational autoencoders in JAX.

`relax`, `estimators`, `rbm`, `boltzmann`, `vq`, `bounds` and `distributions` are pure functions of
arrays, free of Flax and global state; `models`, `data`, `train` and `analysis` build on them:

    import dvae

    zeta = dvae.relax.exponential.sample(key, logits, beta)

    from dvae import boltzmann, bounds, distributions, estimators, rbm, relax, vq

`load` reads a trained model, whose functions are in `trained`:

    model = dvae.load("runs/x")
    codes = model.encode(key, images)

A package here is loaded, and what it builds on with it, when it is first used.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvae import (
        analysis,
        boltzmann,
        bounds,
        data,
        distributions,
        estimators,
        models,
        rbm,
        relax,
        train,
        trained,
        vq,
    )

__version__ = "0.2.0"

__all__ = [
    "__version__",
    "analysis",
    "boltzmann",
    "bounds",
    "data",
    "distributions",
    "estimators",
    "load",
    "models",
    "rbm",
    "relax",
    "train",
    "trained",
    "vq",
]


def load(path: Any, *, seed: int | None = None, learned_prior: bool = True) -> "trained.Model":
    """Reads a trained model; see `trained.load`.

    Args:
        path: folder of a run, or of a model.
        seed: which of a run's models to take, where it trained several seeds.
        learned_prior: False leaves out a prior that was learned over the model's codes.

    Raises:
        ValueError: there is no model, or it is damaged or of another version.
    """
    package = importlib.import_module("dvae.trained")
    return package.load(path, seed=seed, learned_prior=learned_prior)


def __getattr__(name: str) -> ModuleType:
    """Loads a package on its first use."""
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__} has no attribute {name}")


def __dir__() -> list[str]:
    """Lists the packages, loaded or not."""
    return sorted({*globals(), *__all__})
