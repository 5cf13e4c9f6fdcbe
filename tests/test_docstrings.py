"""The form of docstrings that ruff does not check: those of functions begin with a verb."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "dvae").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")])


def is_property(function: ast.FunctionDef) -> bool:
    """Whether it is read like a value, and described like one."""
    names = {d.id if isinstance(d, ast.Name) else "" for d in function.decorator_list}
    return bool(names & {"property", "cached_property"})


def wrong(source: str) -> list[str]:
    """The public functions and methods whose docstrings begin otherwise."""
    functions = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and not is_property(node)
    ]
    first_words = {f.name: (ast.get_docstring(f) or "").split()[:1] for f in functions}
    return [
        name
        for name, words in first_words.items()
        if words and not words[0].strip(",").endswith("s")
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_described_by_verbs(path: Path) -> None:
    assert wrong(path.read_text(encoding="utf-8")) == []


def test_a_noun_is_found() -> None:
    texts = {"f": "One row.", "g": "Returns one row.", "_h": "Row."}
    source = "\n".join(f'def {name}():\n    "{text}"' for name, text in texts.items())
    assert wrong(source) == ["f"]
