"""A cell of a published table, with its budgets and how it is trained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.binary_vae import presets as binary_presets
from experiments.cifar_vq import presets as cifar_vq_presets
from experiments.common import flags
from experiments.common.groups import Program
from experiments.dvaepp import presets as dvaepp_presets
from experiments.joint_vae import config as joint_vae

PAPER, CPU = BUDGETS = ("paper", "cpu")
Settings = dict[str, Any]
PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "cifar_vq": cifar_vq_presets.PRESETS,
    "binary_vae": binary_presets.PRESETS,
    "joint_vae": joint_vae.PRESETS,
    "dvaepp": dvaepp_presets.PRESETS,
}
DVAEPP = 'Vahdat et al., "DVAE++" (2018)'


class Recipe(NamedTuple):
    """How a cell is trained."""

    preset: str
    flags: Settings  # beside the preset
    prior: Settings | None = None  # flags of `code_prior`, which then learns one over the codes


class Cell(NamedTuple):
    """A published number, or a cell of a figure whose number is not printed."""

    name: str  # also of its folder
    program: Program
    dataset: str
    recipes: Mapping[str, Recipe]  # by budget
    where: str  # in which paper it is, and where
    published: float | None = None
    deviation: float | None = None  # over runs
    published_steps: int | None = None
    any_length: bool = True  # whether runs that are longer or shorter by their settings count

    def settings(self, budget: str) -> Settings:
        """Returns all settings that differ from the program's defaults."""
        recipe = self.recipes[budget]
        preset = PRESETS[self.program.name][recipe.preset]
        return flags.beside(self.program.config_class, preset, recipe.flags)

    def config(self, budget: str) -> Any:
        """Returns the configuration of its run, of seed 0."""
        return self.program.config_class(**self.settings(budget))

    def arguments(self, budget: str) -> list[str]:
        """Returns the command's words after `python -m`."""
        recipe = self.recipes[budget]
        preset = f"--preset={recipe.preset}"
        return [f"experiments.{self.program.name}", preset, *_words(recipe.flags)]

    def prior_arguments(self, budget: str, workdir: Path) -> list[str]:
        """Returns the words of the command that learns a prior over a run's codes; none: empty."""
        flags_of_prior = self.recipes[budget].prior
        if flags_of_prior is None:
            return []
        return ["experiments.code_prior", str(workdir), *_words(flags_of_prior)]


def _words(settings: Settings) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]


class Table(NamedTuple):
    """A published table or figure."""

    name: str
    title: str
    metric: str  # of a summary's test set
    unit: str
    records: str  # file of the results, which a table program writes
    cells: tuple[Cell, ...]
    folder: str = ""  # of that file, below one of all tables' results
