"""Looks at trained models: principal components of codebooks, codes, figures and tables.

NumPy arrays in, matplotlib figures and strings out; nothing here needs a display.

    figure = figures.explained_variance({"gs_soft": codebooks})
    figures.save(figure, "explained_variance.png")
    print(tables.markdown(("estimator", "bits/dim"), rows))
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from dvae.analysis import codes, pca, tables

if TYPE_CHECKING:
    from dvae.analysis import figures

__all__ = ["codes", "figures", "pca", "tables"]


def __getattr__(name: str) -> ModuleType:
    """Loads `figures`, and matplotlib with it, on its first use."""
    if name == "figures":
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__} has no attribute {name}")
