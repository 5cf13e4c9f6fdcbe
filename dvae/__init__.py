"""Discrete-latent variational autoencoders in JAX.

`relax`, `estimators`, `rbm`, `vq`, `bounds` and `distributions` are pure functions of arrays, free
of Flax, files and global state; `models`, `data`, `train` and `analysis` build on them:

    import dvae

    zeta = dvae.relax.exponential.sample(key, logits, beta)

    from dvae import bounds, distributions, estimators, rbm, relax, vq

A package here is loaded, and what it builds on with it, when it is first used.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dvae import (
        analysis,
        bounds,
        data,
        distributions,
        estimators,
        models,
        rbm,
        relax,
        train,
        vq,
    )

__version__ = "0.2.0"

__all__ = [
    "__version__",
    "analysis",
    "bounds",
    "data",
    "distributions",
    "estimators",
    "models",
    "rbm",
    "relax",
    "train",
    "vq",
]


def __getattr__(name: str) -> ModuleType:
    """Loads a package on its first use."""
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__} has no attribute {name}")


def __dir__() -> list[str]:
    """Lists the packages, loaded or not."""
    return sorted({*globals(), *__all__})
