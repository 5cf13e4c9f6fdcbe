"""Cells of DVAE#: relaxed Boltzmann priors of Table 2's models, by smoothing and samples."""

from collections.abc import Iterator

from experiments.binary_vae.program import PROGRAM
from experiments.reproduce.cells import CPU, PAPER, Cell, Recipe, Settings

_STRUCTURES = {"1linear": 0, "1nonlinear": 1, "2nonlinear": 2, "4nonlinear": 2}  # to their beta
# Inverse temperatures of the authors; the smoothings that have no presets of their own.
_BETAS = {"uniform_exp": (40.0, 30.0, 16.0), "gaussian": (40.0, 30.0, 25.0)}


def dvaes() -> Iterator[Cell]:
    """Yields NLLs on static MNIST; no number of its paper is in the sources that we have."""
    for structure, column in _STRUCTURES.items():
        for smoothing in ("power", "gaussian_integral", "exponential", *_BETAS):
            for k in (1, 5, 25):
                flags: Settings = {}
                preset = f"{structure}_relaxed_{smoothing}_k{k}"
                if smoothing in _BETAS:
                    preset = f"{structure}_relaxed_power_k{k}"
                    flags = {"smoothing": smoothing, "beta": _BETAS[smoothing][column]}
                recipes = {
                    PAPER: Recipe(f"table2_{preset}", flags),
                    CPU: Recipe(f"table2_cpu_{preset}", flags),
                }
                name = f"{structure}_{smoothing}_k{k}"
                where = "Vahdat et al., DVAE# (2018)"
                yield Cell(name, PROGRAM, "mnist_static", recipes, where)
