"""A cell of a published table, with its budgets and how it is trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.common import flags
from experiments.common.program import Program

PAPER, CPU = BUDGETS = ("paper", "cpu")
Settings = dict[str, Any]
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

    def settings(self, budget: str, more: Sequence[str] = ()) -> Settings:
        """Returns all settings that differ from the program's defaults; see `config`."""
        recipe, config_class = self.recipes[budget], self.program.config_class
        preset = self.program.presets[recipe.preset]
        own = _read(config_class, more)
        own.pop("dataset", None)  # images of one's own stand for the cell's
        return flags.beside(config_class, preset, {**recipe.flags, **own})

    def config(self, budget: str, more: Sequence[str] = ()) -> Any:
        """Returns the configuration of its run, of seed 0.

        Args:
          budget: of the command.
          more: flags behind those of the cell, whose data set stays that of the cell.

        Raises:
          ValueError: a flag has no such value.
        """
        return self.program.config_class(**self.settings(budget, more))

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


def _read(config_class: type, words: Sequence[str]) -> Settings:
    """Returns the fields that words of a command set; what sets none is left to the program."""
    fields = {field.name: type(field.default) for field in flags.flag_fields(config_class)}
    found: Settings = {}
    for word in words:
        name, equals, text = word.removeprefix("--").partition("=")
        if not equals and fields.get(name) is bool:
            found[name] = True
        elif not equals and fields.get(name.removeprefix("no")) is bool:
            found[name.removeprefix("no")] = False
        elif equals and name in fields:
            try:
                found[name] = flags.PARSERS[fields[name]]().parse(text)
            except ValueError as error:
                raise ValueError(f"{word}: {error}") from error
    return found


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
