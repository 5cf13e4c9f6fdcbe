"""The layers of the house: a module imports only from below, and what each layer may use."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    {"_checks", "_extras", "_jax_release", "_numerics", "_replacing", "distributions"},
    {"relax", "estimators", "rbm", "vq", "bounds"},
    {"boltzmann"},  # builds on rbm
    {"models", "data", "analysis", "train"},
    {"trained"},
]
LAYER_OF = {name: i for i, names in enumerate(LAYERS) for name in names}
# Who imports private modules of whom; all others keep to what is public.
SHARED_PRIVATE = {
    ("boltzmann", "rbm"),
    ("models", "distributions"),
    ("models", "rbm"),
    ("models", "vq"),
}
PURE = {"jax", "jaxlib", "numpy", "dvae"}  # third-party packages of the lowest three layers
FILES = {"csv", "os", "pathlib", "zipfile"}  # for edge lists, and what the environment says
READERS = {("boltzmann", "edge_lists"), ("_replacing",), ("_jax_release",)}
STANDARD = {
    "collections",
    "contextlib",
    "functools",
    "heapq",
    "importlib",
    "itertools",
    "math",
    "operator",
    "typing",
    "types",
    "enum",
    "dataclasses",
    "warnings",
}
LIBRARY = sorted((ROOT / "dvae").rglob("*.py"))
BINARIES = sorted((ROOT / "experiments").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names a file imports; `from dvae import vq` counts as dvae.vq."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            expand = module in ("dvae", "experiments")
            names |= {f"{module}.{a.name}" for a in node.names} if expand else {module}
    return names


def private_imports(path: Path) -> set[tuple[str, str]]:
    """Pairs of subpackages, of which a file of the first imports private modules of the second."""
    own, pairs = path.relative_to(ROOT / "dvae").with_suffix("").parts[0], set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for top, other, *inner in (name.split(".") for name in names if name.count(".") > 1):
            if top == "dvae" and other != own and any(part.startswith("_") for part in inner):
                pairs.add((own, other))
    return pairs


def subpackage(name: str) -> str:
    """The part below dvae that a dotted name or a path belongs to."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def packages() -> set[str]:
    """Dotted names of the packages of the library, which it shows to type checkers."""
    return {f"dvae.{path.parent.name}" for path in (ROOT / "dvae").glob("*/__init__.py")}


def breaches(own: str, names: set[str]) -> list[str]:
    """Imports of dvae that a module of subpackage `own` must not have."""
    found = []
    for name in sorted(names):
        if name.split(".")[0] == "experiments":
            found.append(name)
        elif name.startswith("dvae."):
            other = subpackage(name)
            if other != own and LAYER_OF[other] >= LAYER_OF[own] and not other.startswith("_"):
                found.append(name)
    return found


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_library_imports_only_from_below(path: Path) -> None:
    parts = path.relative_to(ROOT / "dvae").with_suffix("").parts
    if parts == ("__init__",):
        assert imports(path) == {"importlib", "types", "typing", *packages()}
        return
    own, names = parts[0], imports(path)
    assert own in LAYER_OF, f"{own} is in no layer"
    assert breaches(own, names) == []
    if LAYER_OF[own] < 3:
        roots = {name.split(".")[0] for name in names}
        files = FILES if parts in READERS else set()
        assert roots <= PURE | STANDARD | files
    if own != "models":
        assert not any(name.split(".")[0] == "flax" for name in names), "Linen stays in models"


def test_private_modules_are_shared_by_few() -> None:
    """`_numerics` and `_extras` are everyone's; only modules below a subpackage are private."""
    found = set().union(*(private_imports(path) for path in LIBRARY))
    assert {pair for pair in found if not pair[1].startswith("_")} == SHARED_PRIVATE


@pytest.mark.parametrize("path", LIBRARY + BINARIES + TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 320


@pytest.mark.parametrize(
    ("own", "name"),
    [
        ("relax", "dvae.estimators"),
        ("vq", "dvae.models.layers"),
        ("data", "experiments.common.flags"),
        ("distributions", "dvae.vq"),
        ("rbm", "dvae.boltzmann"),
    ],
)
def test_a_breach_is_found(own: str, name: str) -> None:
    assert breaches(own, {name}) == [name]


def test_importing_an_experiment_defines_no_flags() -> None:
    for path in BINARIES:
        tree = ast.parse(path.read_text())
        top = [n for n in tree.body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Call)]
        assert not top, f"{path} calls something on import"
