"""The manifest of published cells: commands that programs take, each cell once."""

import dataclasses
import functools
import json
import re
from pathlib import Path

import programs
import pytest
from test_flags import parse_line

from experiments import table1, table2, table3
from experiments.common import tables
from experiments.dvaepp import config as dvaepp_config
from experiments.dvaepp import presets as dvaepp_presets
from experiments.reproduce import manifest

ROOT = Path(__file__).parents[2]
CELLS = [
    pytest.param(cell, id=f"{table.name}-{cell.name}")
    for table in manifest.TABLES.values()
    for cell in table.cells
]


@pytest.mark.parametrize("budget", manifest.BUDGETS)
def test_every_command_of_the_manifest_is_taken_by_its_program(budget) -> None:
    parse = {
        name: functools.partial(parse_line, config_class, presets)
        for name, (config_class, presets) in programs.TRAINING.items()
    }
    for param in CELLS:
        (cell,) = param.values
        module, *arguments = cell.arguments(budget)
        assert module == f"experiments.{cell.program.name}"
        config = parse[cell.program.name](*arguments)
        assert config == cell.config(budget)
        assert config.dataset == cell.dataset


def test_the_page_names_every_table() -> None:
    page = (ROOT / "docs" / "programs" / "reproduce.md").read_text()
    listed = re.search(r"^The first word is a table: ([^.]*)\.", page, re.MULTILINE)
    assert re.findall(r"`(\w+)`", listed[1]) == list(manifest.TABLES)


def test_the_manifest_lists_every_published_cell_once() -> None:
    for name, published in (("table1", table1), ("table2", table2), ("table3", table3)):
        table = manifest.TABLES[name]
        numbers = {
            (dataset, row, column): value
            for (dataset, row), columns in published.PUBLISHED.items()
            for column, value in columns.items()
        }
        assert len(table.cells) == len({cell.name for cell in table.cells}) == len(numbers)
        assert sorted((c.published, c.deviation) for c in table.cells if c.deviation) == sorted(
            value for value in numbers.values() if value[1]
        )
    figure = {cell.name: cell.published for cell in manifest.TABLES["figure1"].cells}
    assert {name: bits for name, bits in figure.items() if bits} == {
        "gs_soft_512": 4.61,
        "vq_128": 4.81,
        "vq_ema_128": 4.81,
    }
    best = {cell.name: cell.published for cell in manifest.TABLES["best"].cells}
    assert best["vq_ema_128"] == 4.81
    settings = [
        (table.name, json.dumps(dataclasses.asdict(cell.config(budget)), sort_keys=True))
        for table in manifest.TABLES.values()
        for cell in table.cells
        for budget in manifest.BUDGETS
    ]
    assert len(set(settings)) == len(settings)


def test_settings_of_data_sets() -> None:
    """The papers sample OMNIGLOT once; log Z of CIFAR-10's machines is renewed often."""
    for name in ("table1", "table2", "table3"):
        for cell in manifest.TABLES[name].cells:
            once = cell.config("paper").binarization == "once"
            assert once == cell.name.startswith("omniglot"), cell.name
    cells = {cell.name: cell.config("paper") for cell in manifest.TABLES["table3"].cells}
    usual = dvaepp_config.Config(**dvaepp_presets.PRESETS["cifar10"]).log_z_interval
    for row in ("rolfe_normal", "rbm_normal", "rbm_bernoulli"):
        assert cells[f"cifar10_{row}"].log_z_interval == usual < 1_000


@pytest.mark.parametrize("name", ["table1", "table2", "table3"])
def test_a_cell_is_the_one_that_its_table_shows_it_as(name, tmp_path) -> None:
    """The number that the table's program puts beside a run of the paper's budget is the cell's."""
    table = {"table1": table1, "table2": table2, "table3": table3}[name].TABLE
    for cell in manifest.TABLES[name].cells:
        config = cell.config("paper")
        summary = {
            "dataset": config.dataset,
            "config": dataclasses.asdict(config),
            "estimator": getattr(config, "estimator", ""),
            "bound": getattr(config, "bound", ""),
        }
        if name == "table3":
            row = cell.name.removeprefix(f"{cell.dataset}_")
            order = list(manifest.dvaepp_presets.ROWS).index(row)
            summary["latents"] = table3.ROWS[order]
        assert tables.published(table, summary) == (cell.published, cell.deviation)


def test_pairs_change_a_rate_or_temperature_where_ours_is_another() -> None:
    cells = {cell.name: cell for cell in manifest.TABLES["table1_settings"].cells}
    changed = {
        name: cell.recipes["cpu"].flags
        for name, cell in cells.items()
        if "-rate_" in name or name.endswith("-temperature")
    }
    of_cell = lambda name: {at.split("-", 1)[1] for at in changed if at.startswith(f"{name}-")}
    assert of_cell("linear_rebar") == {"rate_3e-4"}
    assert of_cell("nonlinear_rebar") == set(), "ours is 3e-4"
    assert of_cell("nonlinear_concrete") == {"rate_3e-4", "temperature"}
    assert of_cell("linear_exponential_joint") == {"rate_1e-4", "rate_5e-4"}
    assert of_cell("nonlinear_exponential_joint") == {"rate_1e-4"}
    assert changed["nonlinear_concrete-temperature"] == {"temperature": 0.5, "num_steps": 300_000}


def test_settings_of_the_published_length_are_not_those_of_shorter_runs() -> None:
    cells = {
        (table, cell.name): cell
        for table in ("table1", "table2")
        for cell in manifest.TABLES[table].cells
    }
    names = ("learning_rate", "initial_variance")
    tuned = {
        (table, name, budget): tuple(recipe.flags.get(of) for of in names)
        for (table, name), cell in cells.items()
        for budget, recipe in cell.recipes.items()
        if set(names) & set(recipe.flags)
    }
    assert tuned == {
        ("table1", "mnist_static_linear_nvil", "paper"): (1e-3, None),
        ("table1", "mnist_static_nonlinear_exponential_joint", "paper"): (3e-4, 2.0),
        ("table1", "mnist_static_nonlinear_exponential_marginal", "paper"): (3e-4, 2.0),
        ("table2", "mnist_static_1nonlinear_joint", "paper"): (5e-4, None),
        ("table2", "mnist_static_1nonlinear_marginal", "paper"): (5e-4, None),
    }
