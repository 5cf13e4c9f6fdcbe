"""What the README and the other pages say can be typed: Python runs, commands are taken."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "experiments"))

from command_line import fresh_flags  # noqa: E402
from test_flags import parse_line  # noqa: E402
from test_fuzzed_configs import EXPERIMENTS  # noqa: E402

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES.remove(ROOT / "docs" / "presets.md")  # its commands are those of `test_presets`
TABLES = ("report", "table1", "table2", "table3", "joint_table")
WITH_WORDS = (*TABLES, "compare_samplers", "reproduce")
COMMAND = re.compile(r"python -m experiments\.(\w+)((?:\\\n|[^`\n#|&\"])*)")


def commands():
    """(program, arguments) of every command of the pages; shell variables have a value."""
    for page in PAGES:
        for name, rest in COMMAND.findall(page.read_text()):
            words = rest.replace("\\\n", " ").replace("$1", "vq").replace("$2", "8")
            yield page.name, name, shlex.split(words)


@pytest.mark.many_cases
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[1][:30])
def test_python_runs_alone(block) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    del environment["XLA_FLAGS"]  # the suite's are for what is compiled and hardly run
    done = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", block],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_there_are_blocks_and_commands() -> None:
    assert len(BLOCKS) >= 3
    found = list(commands())
    assert len(found) > 30
    assert {name for _, name, _ in found} >= {*EXPERIMENTS, *WITH_WORDS, "vq_compress"}


@pytest.mark.parametrize(("page", "program", "words"), list(commands()))
def test_commands_are_taken(page, program, words) -> None:
    module = importlib.import_module(f"experiments.{program}")
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"experiments.{program}.__main__")
    words = words[: words.index("--")] if "--" in words else words
    flags_given = [word for word in words if word.startswith("-")]
    others = [word for word in words if not word.startswith("-")]
    if program in EXPERIMENTS:
        assert not others
        config_class, presets = EXPERIMENTS[program]
        parse_line(config_class, presets or None, *flags_given)
        return
    assert program in (*WITH_WORDS, "plot_relaxations", "vq_compress")
    assert bool(others) <= (program != "plot_relaxations")
    if config_class := getattr(module, "Config", None) if program not in TABLES else None:
        fresh_flags(config_class, None)(["program", *flags_given])
    else:
        assert all(flag.startswith("--out=") for flag in flags_given)
