"""The examples run, with few steps."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "examples" / "own_model.py"


@pytest.mark.thorough
@pytest.mark.parametrize(("framework", "method"), [("linen", "relaxation"), ("nnx", "estimator")])
def test_a_model_of_ones_own_learns(tmp_path, framework, method) -> None:
    spec = importlib.util.spec_from_file_location("own_model", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    before, after = module.main(framework, method, "100", str(tmp_path))  # as a command line does
    assert -55 < before < -45
    assert after > before + 10
