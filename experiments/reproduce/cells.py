"""A cell of a published table, with its budgets and how it is trained."""

from collections.abc import Mapping
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

    def settings(self, budget: str) -> Settings:
        """Returns all settings that differ from the program's defaults."""
        preset, more = self.recipes[budget]
        return flags.beside(self.program.config_class, PRESETS[self.program.name][preset], more)

    def config(self, budget: str) -> Any:
        """Returns the configuration of its run, of seed 0."""
        return self.program.config_class(**self.settings(budget))

    def arguments(self, budget: str) -> list[str]:
        """Returns the command's words after `python -m`."""
        preset, more = self.recipes[budget]
        overrides = [f"--{name}={value}" for name, value in more.items()]
        return [f"experiments.{self.program.name}", f"--preset={preset}", *overrides]


class Table(NamedTuple):
    """A published table or figure."""

    name: str
    title: str
    metric: str  # of a summary's test set
    unit: str
    records: str  # file of the results, which a table program writes
    cells: tuple[Cell, ...]
