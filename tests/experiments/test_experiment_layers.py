"""The floors of `experiments`: what each module may import, and that no imports go in a circle."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOUNDATIONS = ("common", "boltzmann")  # packages that others build on, lowest first
SHARED = "experiments.programs"  # the list of programs, for what serves all of them
ROOF = "reproduce"  # the package that runs all programs and tables, and reads what they publish
# Rooms of a program's package, lowest first; a module imports from rooms before its own.
ROOMS = (
    ("names",),
    ("rules", "sizes", "protocol", "machines", "conditions", "code_use"),
    ("config",),
    ("presets",),
    ("program",),
    ("model", "latents", "optimizers"),
    ("objectives", "measurement"),
    (
        "relaxed_objectives",
        "score_objectives",
        "rebar_objectives",
        "boltzmann_objectives",
        "quantizer_objectives",
        "categorical",
    ),
    ("quantizers",),
    ("task",),
    ("gradient_noise",),
    ("evaluation",),
    ("training", "classes"),
    ("report",),
    ("cells", "summaries"),
    ("codebooks", "pairs", "priors", "relaxed", "code_priors"),
    ("manifest", "jobs"),
    ("quantizer_table",),
    ("results", "hours"),
    ("listing",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
# What an experiment on another experiment's model takes from it.
READS = {
    ("gradient_variance", "binary_vae"): {"names", "config", "model", "objectives", "task"},
    ("code_prior", "cifar_vq"): {"config", "program", "task"},
}


def module_name(path: Path) -> str:
    """The dotted name of a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(path): path for path in sorted((ROOT / "experiments").rglob("*.py"))}


def imports(source: str) -> set[str]:
    """The modules of `experiments` that a source imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            whole = {f"{module}.{alias.name}" for alias in node.names}
            names |= {name if name in FILES else module for name in whole}
    return names & set(FILES)


def why_not(own: str, other: str) -> str:
    """Why a module may not import another one; empty if it may."""
    _, package, *room = own.split(".")
    _, other_package, *other_room = [*other.split("."), ""]
    if own == SHARED:
        return "" if other_room[0] == "program" else "it lists the programs, and reads no more"
    if not room:
        if other == SHARED:
            return ""
        alone = FILES[other].parent.name == "experiments" and FILES[other].name != "__init__.py"
        return "programs do not import each other" if alone else ""
    if package == ROOF and other_package != ROOF:
        return ""
    if package in FOUNDATIONS:
        allowed = FOUNDATIONS[: FOUNDATIONS.index(package) + 1]
        return "" if other_package in allowed else f"{package} is below {other_package}"
    if other_package in FOUNDATIONS:
        return ""
    if package != other_package:
        if other_room[0] in READS.get((package, other_package), ()):
            return ""
        return f"{package} is another program than {other_package}"
    return "" if FLOOR[other_room[0]] < FLOOR[room[0]] else "it is no room below"


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_from_below(name: str) -> None:
    if name == "experiments":
        return
    reasons = {other: why_not(name, other) for other in imports(FILES[name].read_text())}
    assert {other: reason for other, reason in reasons.items() if reason} == {}


def test_no_imports_go_in_a_circle() -> None:
    graph = {name: imports(path.read_text()) - {name} for name, path in FILES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ("experiments.common.run", "experiments.boltzmann.prior"),
        ("experiments.boltzmann.prior", "experiments.binary_vae.names"),
        ("experiments.dvaepp.config", "experiments.binary_vae.names"),
        ("experiments.binary_vae.task", "experiments.binary_vae.evaluation"),
        ("experiments.gradient_variance.task", "experiments.binary_vae.report"),
        ("experiments.table1", "experiments.table2"),
        ("experiments.programs", "experiments.binary_vae.task"),
        ("experiments.binary_vae.report", "experiments.programs"),
    ],
)
def test_a_breach_is_found(own: str, other: str) -> None:
    assert why_not(own, other)
