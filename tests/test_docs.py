"""The site's sources: every module has its place, formulas name functions, links lead somewhere."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EQUATIONS = sorted((DOCS / "api" / "equations").glob("*.md"))
WRITTEN = [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if not {"_build", "generated", "equations"} & set(path.relative_to(DOCS).parts)
]
PURE = ("relax", "distributions", "estimators", "rbm", "boltzmann", "vq", "bounds")


@pytest.fixture(scope="module")
def extension():
    """Imports a module of docs/_ext."""
    sys.path.insert(0, str(DOCS / "_ext"))
    yield importlib.import_module
    sys.path.remove(str(DOCS / "_ext"))


def test_every_package_is_in_the_reference(extension) -> None:
    packages = {path.parent.name for path in (ROOT / "dvae").glob("*/__init__.py")}
    assert packages - set(extension("sources").GROUPS) == set()


def test_every_module_of_equations_has_its_formulas(extension) -> None:
    modules = extension("sources").modules()
    wanted = {
        name.removeprefix("dvae.")
        for name, module in modules.items()
        if name.startswith(tuple(f"dvae.{p}." for p in PURE)) and not hasattr(module, "__path__")
    }
    assert {path.stem for path in EQUATIONS} - {"relax", "estimators"} == wanted


@pytest.mark.parametrize("path", EQUATIONS, ids=lambda path: path.stem)
def test_formulas_name_what_exists(path: Path, extension) -> None:
    text, resolve = path.read_text(encoding="utf-8"), extension("sources").resolver
    names = re.findall(r"`([^`]+)`", text)
    assert names
    assert [name for name in names if not resolve(f"dvae.{path.stem}")(name)] == []
    assert text.count("$") % 2 == 0
    assert text.count("{") == text.count("}")
    assert text.count(r"\left") - text.count(r"\leftarrow") == text.count(r"\right")
    assert text.count(r"\begin") == text.count(r"\end")


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(DOCS)))
def test_links_lead_to_files(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = re.findall(r"\]\(<?([^)>\s#]+)[^)]*\)", text)
    local = [t for t in targets if not re.match(r"[a-z]+:|.*api/generated/", t)]
    assert [t for t in local if not (path.parent / t).exists()] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Takes *batch, |v| and x_ of `lookup`.",
            r"Takes \*batch, \|v\| and x\_ of \ ``lookup``\ .",
        ),
        ("Is:\n\n    q = v^\n\n    r", "Is:\n\n.. code-block:: text\n\n    q = v^\n\n    r"),
        ("Is:\n\n    y = f(x)", "Is:\n\n.. code-block:: python\n\n    y = f(x)"),
        ("log p =\n    + sum", ".. code-block:: text\n\n    log p =\n        + sum"),
        ("if\n- one\n  line;\n- two.", "if\n\n* one line;\n* two."),
        ("*   one\n    line", "* one line"),
        ("Returns:\n    [n], floats\n    (nats: |x|).", r":returns: [n], floats (nats: \|x\|)."),
        ("Args:\n    x: [*b].\n\nEnd.", "Args:\n    x: [\\*b].\n\nEnd."),
        (
            "| a | b |\n|---|---|\n| 1 | 2 |",
            ".. list-table::\n   :header-rows: 1\n\n   * - a\n     - b\n   * - 1\n     - 2",
        ),
    ],
)
def test_docstrings_become_restructured_text(text: str, expected: str, extension) -> None:
    lines = extension("docstrings").to_rst(text.split("\n"), lambda name: None)
    assert "\n".join(lines).strip() == expected


def test_names_have_the_shortest_path(extension) -> None:
    sources = extension("sources")
    assert sources.public_name("dvae.vq.codebook", "lookup") == "dvae.vq.lookup"
    assert sources.public_name("dvae.vq.fsq", "lookup") == "dvae.vq.fsq.lookup"
    assert sources.home("dvae.vq", "lookup") == "dvae.vq.codebook"
    assert sources.home("dvae.vq", "Quantized") == "dvae.vq"
    assert sources.resolver("dvae.vq.residual")("vq.perplexity") == "dvae.vq.perplexity"
    assert sources.resolver("dvae.vq.residual")("axis=0") is None


def test_pages_refuse_what_has_no_docstring(extension, monkeypatch) -> None:
    pytest.importorskip("sphinx")
    pages, sources = extension("api_pages"), extension("sources")
    text = pages.page("dvae.bounds.iwae", DOCS / "api" / "equations")
    assert ".. autofunction:: dvae.bounds.iwae\n" in text
    assert "{py:obj}`dreg <dvae.bounds.dreg>`: the value" in text
    monkeypatch.setattr(sources.modules()["dvae.bounds.iwae"].iwae, "__doc__", None)
    with pytest.raises(pages.ExtensionError, match=r"dvae\.bounds\.iwae: no docstring"):
        pages.page("dvae.bounds.iwae", DOCS / "api" / "equations")


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path) -> None:
    pytest.importorskip("myst_nb")
    pytest.importorskip("sphinx-mathjax-offline")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("XLA_FLAGS", None)  # tutorials run on one device
    result = subprocess.run(
        [*command, str(DOCS), str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr[-4000:]
