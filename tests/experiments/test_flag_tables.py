"""The tables of flags in the documentation are those of today's configurations."""

import re
from pathlib import Path

import pytest

from experiments import flag_tables
from experiments.common import flags

PAGES = sorted((Path(__file__).parents[2] / "docs").rglob("*.md"))
PROGRAMS = (
    "cifar_vq",
    "binary_vae",
    "dvaepp",
    "joint_vae",
    "gradient_variance",
    "code_prior",
    "compare_samplers",
    "encode",
    "export",
    "plot_relaxations",
    "reproduce",
    "vq_compress",
)


def test_pages_have_the_tables_of_today() -> None:
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    assert all(any(f"<!-- flags of {name} -->" in t for t in texts.values()) for name in PROGRAMS)
    old = [page.name for page, text in texts.items() if flag_tables.fill(text) != text]
    assert old == [], "run `python -m experiments.flag_tables`"


def test_pages_of_programs_and_results_name_flags_that_there_are() -> None:
    configs = map(flag_tables.config_class, PROGRAMS)
    fields = [field for config in configs for field in flags.flag_fields(config)]
    known = {name for field in fields for name in (field.name, field.metadata["alias"])}
    known |= {"preset", "list_presets", "show_preset", "help", "helpshort"}
    known |= {"peer", "trace"}  # of the benchmarks
    pages = [page for page in PAGES if {"programs", "results"} & {*page.parts}]
    found = {
        (page.name, x) for page in pages for x in re.findall(r"--([a-z]\w+)", page.read_text())
    }
    assert {(page, name) for page, name in found if name not in known} == set()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_table_has_each_flag_once_with_its_default(program) -> None:
    rows = [line for line in flag_tables.markdown(program).splitlines() if line.startswith("| `")]
    fields = flags.flag_fields(flag_tables.config_class(program))
    cells = [row.removeprefix("| ").removesuffix(" |").rsplit(" | ", 1) for row in rows]
    written = {head.split("`")[1]: default.strip("`") for head, default in cells}
    assert len(rows) == len(written) == len(fields)
    for field in fields:
        expected = "empty" if field.default == "" else str(field.default)
        assert written[f"--{field.name}"] == expected


def test_only_what_a_page_asks_for_is_replaced() -> None:
    asked = "a\n<!-- flags of plot_relaxations -->\nold\n<!-- end of flags -->\nb\n"
    filled = flag_tables.fill(asked)
    assert filled.startswith("a\n<!-- flags of plot_relaxations -->\n\n**Run**\n")
    assert filled.endswith("\n\n<!-- end of flags -->\nb\n")
    assert "\nold\n" not in filled
    assert flag_tables.fill(filled) == filled
    assert flag_tables.fill("a | b\n") == "a | b\n"


def test_a_program_without_flags_of_its_own_has_no_table() -> None:
    assert flag_tables.config_class("table3") is None
    for name, message in (("table3", "no configuration"), ("nothing", "no program")):
        with pytest.raises(ValueError, match=message):
            flag_tables.fill(f"<!-- flags of {name} -->\n<!-- end of flags -->\n")
