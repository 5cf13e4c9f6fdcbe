"""Builds the site (`make docs`), which loads nothing from a network, then or when it is read."""

import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PATHS = [str(ROOT), str(ROOT / "docs" / "_ext")]
sys.path[:0] = PATHS
# Kernels of the tutorials see this tree, not another one that is installed.
os.environ["PYTHONPATH"] = os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")])
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import dvae  # noqa: E402

project = "dvae"
author = copyright = "The dvae authors"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "api_pages",
]
exclude_patterns = ["_build", "api/equations", "api/generated/groups.md", "**.ipynb_checkpoints"]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True

napoleon_numpy_docstring = False
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

smartquotes_action = "D"  # dashes alone: shapes are written [..., n]

html_theme = "furo"
html_title = f"dvae {dvae.__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False


def title_reports(app: Any, docname: str, source: list[str]) -> None:
    """Puts a title over tables that programs wrote, which begin without one."""
    if docname.startswith("results/") and not re.search(r"^# ", source[0], re.MULTILINE):
        path = docname.removeprefix("results/").replace("/", ": ").replace("_", " ")
        source[0] = f"# {path[0].upper()}{path[1:]}\n\n{source[0]}"


def drop_empty_globs(app: Any, docname: str, source: list[str]) -> None:
    """Leaves out of the contents those patterns that match no page, which Sphinx warns of."""
    if docname != "index":
        return
    lines = source[0].split("\n")
    globs = [line for line in lines if re.fullmatch(r"[\w/-]+[*\[][\w/*\]]*", line)]
    empty = [line for line in globs if not any((ROOT / "docs").glob(f"{line}.md"))]
    source[0] = "\n".join(line for line in lines if line not in empty)


def setup(app: Any) -> None:
    """Connects what changes the text of pages."""
    app.connect("source-read", title_reports)
    app.connect("source-read", drop_empty_globs)
