"""Turns docstrings, which are written to be read in a terminal, into reStructuredText.

Indented blocks become literal blocks, Markdown tables become tables, single backticks become code
or links, and what else means something in reStructuredText is escaped. Sections (Args, Raises) keep
their form for Napoleon.
"""

import ast
import re
from collections.abc import Callable, Iterable

__all__ = ["Resolve", "inline", "to_rst"]

# What a name in backticks refers to: the full name of a documented object, or None.
Resolve = Callable[[str], str | None]

_SECTIONS = ("Args:", "Raises:", "Yields:")
_RETURNS = "Returns:"
_REFERENCES = "References:"
_BULLET = re.compile(r"(\*|-) +\S")
_TOKENS = re.compile(r"``(?P<two>.+?)``|`(?P<one>[^`]+)`|(?P<special>[*|\\]|_(?!\w)|`)", re.DOTALL)


def inline(text: str, resolve: Resolve) -> str:
    """Escapes a line or paragraph of prose, and marks its code."""

    def replace(match: re.Match[str]) -> str:
        code = match["one"] or match["two"]
        if code is None:
            return "\\" + match["special"]
        code = " ".join(code.split())
        target = resolve(code)
        # Inline markup has to be followed by a space: the escaped one is not shown.
        if target:
            return f"\\ :py:obj:`{code} <{target}>`\\ "
        return f"\\ ``{code}``\\ "

    return _TOKENS.sub(replace, text)


def to_rst(lines: Iterable[str], resolve: Resolve) -> list[str]:
    """Converts a docstring without common indentation."""
    output: list[str] = []
    for block in _blocks(lines):
        output += _convert(block, resolve, after=output)
        output.append("")
    return output


def _blocks(lines: Iterable[str]) -> list[list[str]]:
    """Splits at blank lines; sections, and indented blocks with blank lines inside, stay whole."""
    blocks: list[list[str]] = []
    is_new = True
    for line in lines:
        if not line.strip():
            is_new = True
            continue
        is_indented = line.startswith(" ")
        heads = blocks[-1][0] if blocks else ""
        joins = is_indented and (heads.startswith(" ") or _is_header(heads))
        if is_new and blocks and joins:
            blocks[-1] += ["", line]
        elif is_new or _is_header(line) or (line.startswith("- ") and not _BULLET.match(heads)):
            blocks.append([line])
        else:
            blocks[-1].append(line)
        is_new = False
    return blocks


def _is_header(line: str) -> bool:
    return line in (*_SECTIONS, _RETURNS, _REFERENCES)


def _convert(block: list[str], resolve: Resolve, after: list[str]) -> list[str]:
    """Converts one block by its kind."""
    first = block[0]
    if first == _RETURNS:
        # Not left to Napoleon, which takes what stands before a colon for a type.
        body = [line.strip() for line in block[1:]]
        return [f":returns: {inline(' '.join(body), resolve)}"]
    if first == _REFERENCES:
        entries = _entries(block[1:])
        return ["References:", "", *(f"* {inline(entry, resolve)}" for entry in entries)]
    if first in _SECTIONS:
        return [first, *inline("\n".join(block[1:]), resolve).split("\n")]
    if first.startswith("|"):
        return _table(block, resolve)
    if first.startswith(" "):
        return _literal(block)
    if _BULLET.match(first):
        return _list(block, resolve)
    if any(line.startswith(" ") for line in block):  # an equation that begins at the margin
        return _literal([f"    {line}" for line in block])
    return inline("\n".join(block), resolve).split("\n")


def _entries(lines: list[str]) -> list[str]:
    """Joins the wrapped lines of a list of references, each of which ends with a period."""
    entries, current = [], ""
    for line in lines:
        current = f"{current} {line.strip()}".strip()
        if current.endswith((".", ").")):
            entries.append(current)
            current = ""
    return [*entries, current] if current else entries


def _list(block: list[str], resolve: Resolve) -> list[str]:
    items: list[str] = []
    for line in block:
        if _BULLET.match(line):
            items.append(line.split(maxsplit=1)[1])
        else:
            items[-1] += f" {line.strip()}"
    return [f"* {inline(item, resolve)}" for item in items]


def _table(block: list[str], resolve: Resolve) -> list[str]:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block]
    rows = [row for row in rows if not all(set(cell) <= set("-: ") for cell in row)]
    output = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        output += [
            f"   {'* -' if number == 0 else '  -'} {inline(cell, resolve)}"
            for number, cell in enumerate(row)
        ]
    return output


def _literal(block: list[str]) -> list[str]:
    """Makes a block of code: Python where it is Python, else plain."""
    indent = min(len(line) - len(line.lstrip()) for line in block if line)
    lines = [line[indent:] for line in block]
    language = "python" if _is_python("\n".join(lines)) else "text"
    return [f".. code-block:: {language}", "", *(f"    {line}".rstrip() for line in lines)]


def _is_python(text: str) -> bool:
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Assign | ast.FunctionDef | ast.Call) for node in nodes)
