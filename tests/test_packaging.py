"""What a wheel holds, and what importing the library costs its user."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dvae
from dvae import _extras

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_wheel_holds_the_library_with_types_and_nothing_generic(tmp_path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path]
    subprocess.run([*command, ROOT], check=True, capture_output=True)
    (wheel,) = tmp_path.glob(f"discrete_vae_jax-{dvae.__version__}-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"dvae/__init__.py", "dvae/py.typed", "dvae/relax/gumbel_softmax.py"} <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"dvae"}
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "dvae").rglob("*.py")}
    assert sources <= names


def declared(name: str = "") -> list[Requirement]:
    """What the core or an extra requires, without what holds elsewhere alone."""
    found = []
    for text in EXTRAS[name] if name else PROJECT["dependencies"]:
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:
            found += [r for extra in sorted(requirement.extras) for r in declared(extra)]
        elif requirement.marker is None or requirement.marker.evaluate():
            found.append(requirement)
    return found


def closure(waiting: list[Requirement]) -> set[str]:
    """The distributions that requirements bring here, by their normal names."""
    names: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        names.add(name)
        for text in metadata.requires(name) or ():
            further = Requirement(text)
            settings = [{"extra": extra} for extra in extras or {""}]
            if further.marker is None or any(further.marker.evaluate(s) for s in settings):
                waiting.append(further)
    return names


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Runs Python where only what the library's core requires is installed."""
    site = tmp_path_factory.mktemp("site")
    for name in closure(declared()):
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files if file.parts[0] != ".."}:
            if top != "__pycache__":
                (site / top).symlink_to(distribution.locate_file(top))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-S", *arguments]  # -S: without the packages of the environment
        return subprocess.run(command, capture_output=True, text=True, cwd=site, env=environment)

    return run


def test_the_core_needs_jax_and_numpy_alone(bare) -> None:
    """The pure packages work with what `dependencies` names; each other one names its extra."""
    code = """
import importlib, jax, numpy as np
from dvae import boltzmann, bounds, data, distributions, estimators, rbm, relax, vq
from dvae.analysis import codes, pca, tables
for package in (boltzmann, bounds, distributions, estimators, rbm, relax, vq):
    for name in package.__all__:
        getattr(package, name)
print(relax.exponential.icdf(0.5, 0.0, 8.0), pca.__name__)
print(data.batches.draw(jax.random.key(0), np.zeros((4, 2, 2, 1), np.uint8), 0, batch_size=2).shape)
uses = [lambda n=n: importlib.import_module(n) for n in NAMES]
uses += [lambda: data.load("digits"), lambda: data.load("patches"), lambda: data.load("mnist")]
uses += [lambda: boltzmann.graphs.zephyr(2)]
for use in uses:
    try:
        use()
    except ImportError as error:
        print(error)
"""
    names = ["dvae.models", "dvae.models.mlp", "dvae.train", "dvae.train.lock", "dvae.trained"]
    names += ["dvae.analysis.figures"]
    ran = bare("-c", f"NAMES = {names}\n{code}")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "0.5 dvae.analysis.pca",
        "(2, 2, 2, 1)",
        "dvae.models needs flax: pip install '.[train]' in a checkout",
        "dvae.models needs flax: pip install '.[train]' in a checkout",
        "dvae.train needs optax: pip install '.[train]' in a checkout",
        "dvae.train needs optax: pip install '.[train]' in a checkout",
        "dvae.models needs flax: pip install '.[train]' in a checkout",
        "dvae.analysis.figures needs matplotlib: pip install '.[plots]' in a checkout",
        "the data set digits needs sklearn: pip install '.[data]' in a checkout",
        "the data set patches needs sklearn: pip install '.[data]' in a checkout",
        "the data set mnist needs tensorflow_datasets: pip install '.[data]' in a checkout",
        "boltzmann.graphs.zephyr needs dwave_networkx: pip install '.[graphs]' in a checkout",
    ]


def test_a_program_without_extras_says_so_in_one_line(bare) -> None:
    ran = bare("-m", "experiments.cifar_vq")
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert re.fullmatch(r"error: the programs need \w+: pip install -e '.\[all\]' in .*", line)


def test_only_what_is_missing_is_said_to_be() -> None:
    own = pytest.raises(ModuleNotFoundError, match=r"^No module named 'dvae\.no_such'$")
    with own, _extras.needed("dvae.train", "train"):
        importlib.import_module("dvae.no_such")
    _extras.require("this", "test", "pytest", "jax")
    with pytest.raises(
        ImportError, match=r"^this needs no_such: pip install '\.\[test\]' in a "
    ) as e:
        _extras.require("this", "test", "pytest", "no_such")
    assert e.value.name == "no_such"


def test_constraints_lie_within_the_bounds() -> None:
    """`constraints.txt` names a version of all that the extras ask for."""
    first, *lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert first.startswith("# ")
    assert lines == sorted(lines)
    matches = [re.fullmatch(r"([a-z0-9-]+)==([0-9][0-9a-z.]*)", line) for line in lines]
    versions = {match[1]: match[2] for match in matches if match}
    assert len(versions) == len(lines)
    for requirement in [*declared(), *declared("test"), *declared("docs")]:
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement
        bounds = [specifier.operator for specifier in requirement.specifier]
        assert ">=" in bounds, f"{requirement} has no lowest version to test"


def test_the_pure_library_loads_no_framework() -> None:
    """`dvae.relax` and its siblings need JAX alone."""
    code = (
        "import sys; from dvae import boltzmann, bounds, data, estimators, rbm, relax, vq; "
        "print([m for m in ('flax', 'optax', 'orbax', 'matplotlib', 'absl.flags', "
        "'tensorflow_datasets', 'sklearn', 'networkx') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"


def test_packages_load_when_they_are_used() -> None:
    """Without an import of their own, and without the frameworks of others before."""
    code = """
import sys, dvae
frameworks = "jax flax optax orbax matplotlib tensorflow tensorflow_datasets sklearn".split()
print([name for name in frameworks if name in sys.modules])
print(sorted(set(dvae.__all__) - set(dir(dvae))))
print(dvae.relax.exponential.icdf(0.5, 0.0, 8.0), "flax" in sys.modules)
packages = [name for name in dvae.__all__ if name not in ("__version__", "load")]
print(all(getattr(dvae, name).__name__ == f"dvae.{name}" for name in packages))
print(dvae.__version__)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert result.stdout.splitlines() == ["[]", "[]", "0.5 False", "True", dvae.__version__]
    packages = {path.parent.name for path in (ROOT / "dvae").glob("*/__init__.py")}
    assert set(dvae.__all__) == {"__version__", "load", *packages}
    with pytest.raises(AttributeError, match="has no attribute relaxations"):
        _ = dvae.relaxations


def test_nothing_names_the_other_project_of_the_index() -> None:
    """`dvae` on the public index is not this library: nobody may be told to install it."""
    texts = [*ROOT.rglob("*.py"), *ROOT.rglob("*.md"), ROOT / "Makefile"]
    for path in texts:
        environment = any(part.startswith(".venv") for part in path.parts)
        if environment or path == Path(__file__):
            continue
        for found in re.findall(r"pip\s+install\s+\S+", path.read_text()):
            assert not re.search(r"install\s+['\"]?dvae\b", found), path
