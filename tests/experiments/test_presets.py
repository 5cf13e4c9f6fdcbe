"""What is said of presets: their lists, the commands without them, and the table in the docs."""

import dataclasses
import shlex
from pathlib import Path
from unittest import mock

import pytest
from programs import EXPERIMENTS
from test_flags import parse_line

from experiments import preset_table
from experiments.common import flag_help, flag_rules

PROGRAMS = [name for name, (_, presets) in EXPERIMENTS.items() if presets]


def answer(capsys, program, *arguments) -> str:
    """What a command prints that ends without a configuration."""
    with pytest.raises(SystemExit) as stopped:
        parse_line(*EXPERIMENTS[program], *arguments)
    assert not stopped.value.code
    return capsys.readouterr().out


def read_fields(config):
    """The values that are read beside the others."""
    values = dataclasses.asdict(config)
    idle = flag_rules.idle(config.READ_WITH, values)
    return {name: value for name, value in values.items() if name not in idle}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_preset_is_the_command_that_is_shown_for_it(program, capsys) -> None:
    config_class, presets = EXPERIMENTS[program]
    with mock.patch.object(flag_help, "program_name", return_value=f"experiments.{program}"):
        for name in presets:
            command = answer(capsys, program, f"--show_preset={name}")
            python, option, module, *given = shlex.split(command)
            assert [python, option, module] == ["python", "-m", f"experiments.{program}"]
            shown, wanted = parse_line(config_class, presets, *given), config_class(**presets[name])
            assert read_fields(shown) == read_fields(wanted)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_list_has_every_preset_and_all_that_it_sets(program, capsys) -> None:
    _, presets = EXPERIMENTS[program]
    text = answer(capsys, program, "--list_presets")
    assert len(max(text.splitlines(), key=len)) <= 100
    entries: dict[str, list[str]] = {}
    for line in text.splitlines():
        if not line.startswith(" "):
            words = entries[line] = []
        else:
            words += line.split()
    for name, values in presets.items():
        settings = [f"--{field}={value}" for field, value in values.items()]
        assert entries[name] == (settings or ["the", "defaults"])
    assert list(entries) == list(presets)


def test_an_unknown_preset_is_told_those_like_it() -> None:
    program = EXPERIMENTS["binary_vae"]
    for flag in ("preset", "show_preset"):
        with pytest.raises(ValueError, match=r"table2_cpu_2linear_rbm.*--list_presets") as error:
            parse_line(*program, f"--{flag}=table2_cpu_2linear_bm")
        assert len(str(error.value)) < 250
    with pytest.raises(ValueError, match="--show_preset=huge must be one of paper, best, small"):
        parse_line(*EXPERIMENTS["cifar_vq"], "--show_preset=huge")


def test_the_table_in_the_docs_is_that_of_today() -> None:
    file = Path(__file__).parents[2] / "docs" / "presets.md"
    text = file.read_text(encoding="utf-8")
    assert text == preset_table.table(), "run `python -m experiments.preset_table`"
    for _, presets in EXPERIMENTS.values():
        assert all(f"`{name}`" in text for name in presets)
