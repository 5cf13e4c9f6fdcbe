"""The help of the programs: groups, nouns first, short where that was asked for."""

import dataclasses
import importlib
import re
import subprocess
import sys

import pytest
from command_line import fresh_flags
from programs import EXPERIMENTS

from experiments import compare_samplers, plot_relaxations, vq_compress
from experiments.common import flag_help, flags

PROGRAMS = {
    **EXPERIMENTS,
    "compare_samplers": (compare_samplers.Config, None),
    "plot_relaxations": (plot_relaxations.Config, None),
    "vq_compress": (vq_compress.Config, None),
}
# A help that begins so does not say what the flag is.
NO_NOUNS = ("Of", "Which", "Where", "Whether", "In", "Use", "Both", "Train", "Recompute", "For")


def manual_of(program):
    """What the program's own file says of it."""
    module = importlib.import_module(f"experiments.{program}")
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"experiments.{program}.__main__")
    return module.__doc__


def render(program, *, short):
    config_class, presets = PROGRAMS[program]
    manual = manual_of(program)
    values = fresh_flags(config_class, presets)
    return flag_help.render(values, f"experiments.{program}", manual, short=short)


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_lists_every_flag_once_in_its_group(program) -> None:
    config_class, presets = PROGRAMS[program]
    text = render(program, short=False)
    lines = text.splitlines()
    for field in flags.flag_fields(config_class):
        entry = re.compile(rf"  --{field.name}(\s|$)")  # further in are the lines of a text
        (place,) = (i for i, line in enumerate(lines) if entry.match(line))
        above = [line for line in lines[:place] if line.rstrip(":") in flag_help.GROUPS]
        assert above[-1] == f"{field.metadata['group']}:"
    assert len(max(lines, key=len)) <= 100
    assert ("--preset" in text) == bool(presets is not None)
    assert text.startswith(manual_of(program).split("\n")[0])


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_begins_with_a_noun_and_ends_with_a_period(program) -> None:
    for field in dataclasses.fields(PROGRAMS[program][0]):
        text = field.metadata["help"]
        assert text.split()[0].rstrip(":,") not in NO_NOUNS, field.name
        assert text[0].isupper(), field.name
        assert text.endswith((".", "...")), field.name


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_two_flags_have_the_same_help(program) -> None:
    texts = [field.metadata["help"] for field in dataclasses.fields(PROGRAMS[program][0])]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("program", EXPERIMENTS)
def test_short_help_is_short_and_names_all(program) -> None:
    text = render(program, short=True)
    assert len(text.splitlines()) <= 28
    for field in flags.flag_fields(EXPERIMENTS[program][0]):
        assert f"--{field.name}" in text.split()


@pytest.mark.parametrize("program", EXPERIMENTS)
def test_help_says_where_data_is_looked_for(program) -> None:
    text = " ".join(render(program, short=False).split())
    assert "$TFDS_DATA_DIR, else ~/tensorflow_datasets" in text


def test_help_says_what_a_flag_goes_with() -> None:
    text = " ".join(render("cifar_vq", short=False).split())
    assert "Temperature of the Gumbel-Softmax. Goes with --estimator=gs_soft or gs_hard." in text


def test_what_asks_for_help() -> None:
    ask = lambda *words: flag_help.asked(["program", *words])
    assert ask("--help") == ask("-h") == ask("-help") == ask("x", "--help") == flag_help.FULL
    assert ask("--helpfull") == flag_help.FULL
    assert ask("--helpshort") == flag_help.SHORT
    assert ask() == ask("help") == ask("--workdir=--help") == ask("--", "--help") == ""


@pytest.mark.thorough
def test_help_from_a_shell_lists_out_and_a_closed_pipe_is_no_error() -> None:
    """`python -m experiments.table1 --help | head -1`."""
    command = f"{sys.executable} -m experiments.table1 --help"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 0
    assert "--out" in done.stdout
    assert "runs/table1" in done.stdout
    assert "logtostderr" not in done.stdout
    closed = subprocess.run(f"{command} | true", shell=True, capture_output=True, text=True)
    assert closed.stderr == ""
