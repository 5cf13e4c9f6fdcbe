"""The tutorials run: their cells, in order, with the assertions that stand behind the prose."""

import re
from pathlib import Path
from typing import Any

import jax
import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n((?::[^\n]*\n)*)(.*?)^```$", re.MULTILINE | re.DOTALL)
NOTEBOOKS = [page for page in PAGES if page.stem != "index"]


@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.stem)
def test_every_cell_is_python_and_numbers_are_asserted(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    cells = CELL.findall(text)
    assert len(cells) == text.count("```{code-cell}")
    for number, (_, source) in enumerate(cells):
        compile(source, f"{page.name}, cell {number}", "exec")
    assert any("assert " in source for options, source in cells if "remove-cell" in options)


def test_the_contents_list_every_page() -> None:
    lines = (ROOT / "docs" / "tutorials" / "index.md").read_text(encoding="utf-8").split("\n")
    assert [page.stem for page in NOTEBOOKS if page.stem not in lines] == []


@pytest.mark.thorough
@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.stem)
def test_cells_run(page: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    namespace: dict[str, Any] = {"__name__": "tutorial"}
    # As a reader runs them: without the suite's strictness.
    lenient = jax.numpy_rank_promotion("allow"), jax.debug_key_reuse(False)
    with matplotlib.rc_context(), lenient[0], lenient[1]:
        for number, (_, source) in enumerate(CELL.findall(page.read_text(encoding="utf-8"))):
            exec(compile(source, f"{page.name}, cell {number}", "exec"), namespace)
            matplotlib.pyplot.close("all")
