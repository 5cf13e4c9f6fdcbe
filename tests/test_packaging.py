"""What a wheel holds, and what importing the library costs its user."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dvae

ROOT = Path(__file__).parent.parent


def test_wheel_holds_the_library_with_types_and_nothing_generic(tmp_path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path]
    subprocess.run([*command, ROOT], check=True, capture_output=True)
    (wheel,) = tmp_path.glob(f"discrete_vae_jax-{dvae.__version__}-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"dvae/__init__.py", "dvae/py.typed", "dvae/relax/gumbel_softmax.py"} <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"dvae"}
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "dvae").rglob("*.py")}
    assert sources <= names


def test_the_pure_library_loads_no_framework() -> None:
    """`dvae.relax` and its siblings need JAX alone."""
    code = (
        "import sys; from dvae import bounds, distributions, estimators, relax, vq; "
        "print([m for m in ('flax', 'optax', 'orbax', 'matplotlib', 'absl.flags', "
        "'tensorflow_datasets', 'sklearn') if m in sys.modules])"
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
print(all(getattr(dvae, name).__name__ == f"dvae.{name}" for name in dvae.__all__[1:]))
print(dvae.__version__)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert result.stdout.splitlines() == ["[]", "[]", "0.5 False", "True", dvae.__version__]
    packages = {path.parent.name for path in (ROOT / "dvae").glob("*/__init__.py")}
    assert set(dvae.__all__) == {"__version__", *packages}
    with pytest.raises(AttributeError, match="has no attribute relaxations"):
        _ = dvae.relaxations


def test_nothing_names_the_other_project_of_the_index() -> None:
    """`dvae` on the public index is not this library: nobody may be told to install it."""
    texts = [*ROOT.rglob("*.py"), *ROOT.rglob("*.md"), ROOT / "Makefile"]
    for path in texts:
        if ".venv" in path.parts or path == Path(__file__):
            continue
        for found in re.findall(r"pip\s+install\s+\S+", path.read_text()):
            assert not re.search(r"install\s+['\"]?dvae\b", found), path
