"""What the README and the other pages say holds: Python runs, commands are taken, links resolve."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "experiments"))

from command_line import fresh_flags  # noqa: E402
from test_flags import parse_line  # noqa: E402
from test_fuzzed_configs import EXPERIMENTS  # noqa: E402

import dvae  # noqa: E402
from experiments import flag_tables  # noqa: E402

README = (ROOT / "README.md").read_text()
LEFT_OUT = {"_build", "generated", "equations"}  # of the site: made pages, and formulas
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if not LEFT_OUT & {*page.parts}),
]
RUN = [ROOT / "README.md", ROOT / "docs" / "guides" / "library.md"]  # their Python runs alone
BLOCKS = [
    block
    for page in RUN
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
]
PROGRAMS = sorted(
    path.parent.name if path.name == "__main__.py" else path.stem
    for path in (ROOT / "experiments").rglob("*.py")
    if '\nif __name__ == "__main__":' in path.read_text()
)
WITH_WORDS = {"code_prior", "compare_samplers", "encode", "export", "reproduce", "vq_compress"}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"python -m experiments\.(\w+)((?:\\\n|[^`\n#|&\"])*)")


def commands():
    """(page, program, arguments) of every command; shell variables have a value."""
    for page in PAGES:
        if page.name == "presets.md":
            continue  # its commands are those of `test_presets`
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


def test_every_program_has_a_command() -> None:
    assert len(BLOCKS) >= 4
    assert {name for _, name, _ in commands()} == {*PROGRAMS}
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "programs").glob("*.md"))
    assert [name for name in PROGRAMS if f"`{name}`" not in pages] == []


@pytest.mark.parametrize(("page", "program", "words"), list(commands()))
def test_commands_are_taken(page, program, words) -> None:
    words = words[: words.index("--")] if "--" in words else words
    flags_given = [word for word in words if word.startswith("-")]
    others = [word for word in words if not word.startswith("-")]
    if program in EXPERIMENTS:
        assert not others
        config_class, presets = EXPERIMENTS[program]
        parse_line(config_class, presets or None, *flags_given)
    elif config_class := flag_tables.config_class(program):
        assert not others or program in WITH_WORDS
        fresh_flags(config_class, None)(["program", *flags_given])
    else:  # a table of run folders
        assert all(flag.startswith("--out=") for flag in flags_given)


def anchors(page: Path) -> set[str]:
    """What links into a page may name: its headings, in lower case with hyphens."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}


def test_links_resolve() -> None:
    dead = []
    for page in PAGES:
        for target in LINK.findall(page.read_text()):
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            if re.match(r"[a-z]+:|.*api/generated/", target):
                continue  # another site's, or a page that the build of this one makes
            if not file.exists() or (anchor and anchor not in anchors(file)):
                dead.append(f"{page.relative_to(ROOT)}: {target}")
    assert dead == []


def test_the_readme_has_the_numbers_of_its_results() -> None:
    """Each row's two numbers stand on the page that it links to, percents also as shares."""
    rows = re.findall(
        r"^\| \[.*\]\((docs/results/.*)\).*\| ([\d.]+)(?: %)? \|"
        r".*\| ([\d.]+)(?: %)? \|.*\|$",
        README,
        re.MULTILINE,
    )
    assert len(rows) == 8
    for page, *values in rows:
        text = (ROOT / page).read_text()
        for value in values:
            assert re.search(rf"\b({re.escape(value)}|{float(value) / 100:.3f})\b", text), value


def test_what_describes_a_release_names_its_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == dvae.__version__
    released = re.search(r"^## (\d\S*) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released
    assert released.groups() == (citation["version"], str(citation["date-released"]))
    needed = {"cff-version", "message", "title", "authors", "license", "type"}
    assert needed <= {*citation}
