"""The end of a run: a summary that JSON has no numbers for, a reader of the output that is gone."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from dvae.train import loop
from experiments.common import report as run_report

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("one_device")


def test_a_summary_that_is_not_finite_names_its_fields(tmp_path, monkeypatch) -> None:
    report = tiny.report

    def broken(*arguments):
        made = report(*arguments)
        test = {"nll_nats": np.nan, "kl_nats": [1.0, -np.inf], "elbo_nats": 2.0}
        return made._replace(summary={**made.summary, "test": test})

    monkeypatch.setattr(tiny, "report", broken)
    with pytest.raises(loop.NonFiniteError) as error:
        tiny.run(tiny.Config(workdir=str(tmp_path)))
    said = f"test.kl_nats, test.nll_nats of the finished run in {tmp_path} are not finite"
    assert str(error.value).startswith(said)
    assert str(error.value).endswith("in another workdir")
    assert not (tmp_path / "summary.json").exists()


def test_one_name_stands_for_the_numbers_of_all_seeds(tmp_path) -> None:
    run_report.check_finite({"test": {"kl_nats": [[0.0], [1.0]], "count": 2, "of": "x"}}, tmp_path)
    with pytest.raises(loop.NonFiniteError, match=r"^test.kl_nats of the .* is not finite"):
        run_report.check_finite({"test": {"kl_nats": [[0.0], [np.nan, np.inf]]}}, tmp_path)


def without_reader(*words):
    """Runs Python with these words; its output goes to a program that is gone."""
    command = ["bash", "-o", "pipefail", "-c", '"$@" | true', "", sys.executable, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_the_output_goes_nowhere_where_its_reader_is_gone() -> None:
    tell = "from experiments.common.flag_help import tell; [tell('x' * 10**6) for _ in range(3)]"
    ran = without_reader("-c", tell)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.thorough
def test_a_run_ends_well_where_its_reader_is_gone(tmp_path) -> None:
    words = (str(Path(tiny.__file__)), f"--workdir={tmp_path}")
    for _ in ("trained", "said to be finished"):
        ran = without_reader(*words)
        assert ran.returncode == 0, ran.stderr
        assert "Error" not in ran.stderr
    assert (tmp_path / "line.png").exists()


def test_programs_print_where_a_reader_may_be_gone() -> None:
    """By `flag_help.tell`, or on stderr."""
    for path in (ROOT / "experiments").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or getattr(call.func, "id", "") != "print":
                continue
            elsewhere = any(keyword.arg == "file" for keyword in call.keywords)
            assert elsewhere or path.name == "flag_help.py", f"{path}:{call.lineno}"
