"""Writes the tables of flags in the documentation from the programs' configurations.

    python -m experiments.flag_tables --docs=docs

A page asks for a program's table by two comments, each on a line of its own:

    <!-- flags of cifar_vq -->
    <!-- end of flags -->

What stands between them is replaced. The texts are those of `--help`.
"""

import dataclasses
import importlib
import importlib.util
import re
from itertools import groupby
from pathlib import Path
from typing import Any

from experiments.common import flag_help, flags
from experiments.common.flags import option

__all__ = ["Config", "config_class", "fill", "main", "markdown"]

_SECTION = re.compile(
    r"^<!-- flags of (?P<program>\w+) -->\n.*?^<!-- end of flags -->$", re.DOTALL | re.MULTILINE
)
_FLAG = re.compile(r"--\w+(?:=\w+(?:\.\w+)*)?")  # in the text of a help


@dataclasses.dataclass(frozen=True)
class Config:
    """Where the pages are."""

    docs: str = option("docs", "Folder whose Markdown pages are filled in.", path=True)


def config_class(program: str) -> type | None:
    """Returns the configuration that a program's flags come from; None: it has none of its own.

    Args:
      program: name of a module or package under `experiments`.

    Raises:
      ValueError: there is no such program.
    """
    name = f"experiments.{program}"
    homes = [home for home in (f"{name}.config", f"{name}.__main__", name) if _exists(home)]
    if not homes:
        raise ValueError(f"there is no program {name}")
    config: type | None = getattr(importlib.import_module(homes[0]), "Config", None)
    return config if config and config.__module__ == homes[0] else None


def _exists(module: str) -> bool:
    """Returns whether a module can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it would be in
        return False


def markdown(program: str) -> str:
    """Returns the tables of a program's flags, one for each group of `--help`.

    Raises:
      ValueError: there is no such program, or it has no configuration of its own.
    """
    config: Any = config_class(program)
    if config is None:
        raise ValueError(f"experiments.{program} has no configuration of its own")
    rules = flags.rules_of(config)
    fields = flags.flag_fields(config)
    rank = lambda field: flag_help.GROUPS.index(field.metadata["group"])
    parts = []
    for group, members in groupby(sorted(fields, key=rank), key=lambda f: f.metadata["group"]):
        lines = [f"**{group.capitalize()}**\n", "| flag | what | default |", "|---|---|---|"]
        for field in members:
            text = flag_help.describe(field, rules.get(field.name, ()))
            what, default = text.removesuffix(".").rsplit(" Default: ", 1)
            what = _FLAG.sub(r"`\g<0>`", what).replace("|", r"\|").replace("$", r"\$")
            value = default if default == "empty" else f"`{default}`"
            lines.append(f"| `--{field.name}` | {what} | {value} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def fill(text: str) -> str:
    """Returns a page with the tables that it asks for.

    Raises:
      ValueError: it asks for those of a program that has none.
    """

    def section(match: re.Match[str]) -> str:
        program = match["program"]
        table = markdown(program)
        return f"<!-- flags of {program} -->\n\n{table}\n\n<!-- end of flags -->"

    return _SECTION.sub(section, text)


def main(arguments: list[str]) -> None:
    """Fills in all pages."""
    with flags.setup():
        flags.refuse_words(arguments)
        docs = Path(flags.parse(Config).docs)
        pages = sorted(docs.rglob("*.md"))
        if not pages:
            raise ValueError(f"--docs={docs} holds no Markdown pages")
        for page in pages:
            text = page.read_text(encoding="utf-8")
            if (filled := fill(text)) != text:
                page.write_text(filled, encoding="utf-8")
                flag_help.tell(str(page))


if __name__ == "__main__":
    flags.define(Config)
    flags.run(main)
