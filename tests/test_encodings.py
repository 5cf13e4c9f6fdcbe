"""Text files are UTF-8 wherever the program runs."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for part in ("dvae", "experiments") for path in (ROOT / part).rglob("*.py"))
# Where the mode stands: the second argument of the function, the first of a path's method.
TEXT = {"read_text", "write_text"}


def without_encoding(source: str) -> list[int]:
    """Lines that open, read or write a text file in the encoding of the locale."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(k.arg == "encoding" for k in node.keywords):
            continue
        if isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id in ("Image", "os"):
                continue  # neither opens a text file
            name, place = node.func.attr, 0
        else:
            name, place = getattr(node.func, "id", ""), 1
        modes = [k.value for k in node.keywords if k.arg == "mode"] + node.args[place : place + 1]
        binary = any(isinstance(m, ast.Constant) and "b" in str(m.value) for m in modes)
        if name in TEXT or (name in ("open", "fdopen") and not binary):
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_text_file_names_its_encoding(path) -> None:
    assert without_encoding(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("p.read_text()", [1]),
        ("p.write_text(x)", [1]),
        ("open(p)", [1]),
        ("open(p, 'w')", [1]),
        ("p.open('a')", [1]),
        ("open(p, 'rb'); p.open('rb'); p.open(mode='wb'); Image.open(p)", []),
        ("open(p, encoding='utf-8'); p.read_text(encoding='utf-8')", []),
    ],
)
def test_what_is_found(source, expected) -> None:
    assert without_encoding(source) == expected
