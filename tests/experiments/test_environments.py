"""Programs where they were not made: notebooks, other locales, addresses, threads."""

import functools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import command_line
import pytest
import tiny
from absl import flags as absl_flags
from programs import EXPERIMENTS

from dvae.train import sharding
from experiments import compare_samplers, plot_relaxations, vq_compress
from experiments.common import flags
from experiments.common import run as runner
from experiments.common import tables as result_tables

ROOT = Path(__file__).parents[2]
INLINE = "module://matplotlib_inline.backend_inline"
CONFIGS = {
    **{name: config_class for name, (config_class, _) in EXPERIMENTS.items()},
    "compare_samplers": compare_samplers.Config,
    "plot_relaxations": plot_relaxations.Config,
    "vq_compress": vq_compress.Config,
}
PLACES = [
    (program, name)
    for program, config_class in CONFIGS.items()
    for name in ("workdir", "data_dir", "out")
    if name in config_class.__dataclass_fields__
]


def run(*command, **changes):
    """Runs Python where the library is not installed and the locale is not UTF-8."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG"))}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT), **changes},
        capture_output=True,
        timeout=300,
    )


ASCII = dict(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")


@pytest.mark.thorough
def test_a_thread_may_run_an_experiment(tmp_path, monkeypatch) -> None:
    mesh = sharding.make_mesh(1)
    monkeypatch.setattr(runner.sharding, "make_mesh", lambda *_: mesh)
    summaries = []
    work = lambda: summaries.append(tiny.run(tiny.Config(workdir=str(tmp_path / "run"))))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert summaries[0]["num_steps"] == 12


@pytest.mark.thorough
def test_a_backend_that_a_notebook_left_is_of_no_matter(tmp_path) -> None:
    out = f"--workdir={tmp_path / 'out'}"
    ran = run("-m", "experiments.vq_compress", "--num_codes=2", out, MPLBACKEND=INLINE)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "out" / "comparison.png").exists()


@pytest.mark.thorough
def test_imports_leave_the_backend_of_a_notebook_alone() -> None:
    code = (
        "import os, signal, dvae.analysis, matplotlib, experiments.vq_compress, experiments.report;"
        "print(matplotlib.rcParams['backend'], os.environ['MPLBACKEND'],"
        " signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )
    ran = run("-c", code, MPLBACKEND="svg")
    assert ran.stdout.split() == [b"svg", b"svg", b"True"], ran.stderr


@pytest.mark.thorough
def test_an_ascii_terminal(tmp_path) -> None:
    """What is not ASCII is written whole to files, and somehow to the terminal."""
    image = tmp_path / "Fläche.png"
    vq_compress.Image.new("RGB", (8, 8)).save(image)
    out = f"--workdir={tmp_path / 'größe'}"
    ran = run("-m", "experiments.vq_compress", "--num_codes=1", out, image, **ASCII)
    assert ran.returncode == 0, ran.stderr
    assert b"wrote " in ran.stdout
    summary = json.loads((tmp_path / "größe" / "summary.json").read_text(encoding="utf-8"))
    assert "Fl" in summary["image"]


@pytest.mark.slow
def test_reports_are_whole_in_an_ascii_locale(tmp_path) -> None:
    arguments = ["--num_draws=200", "--train_steps=500", "--num_latents=2"]
    arguments += ["--estimators=disarm,exponential", "--hidden_units=2", f"--out={tmp_path}"]
    ran = run("-m", "experiments.gradient_variance", *arguments, **ASCII)
    assert ran.returncode == 0, ran.stderr
    assert "β" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("program", "name"), PLACES)
def test_paths_of_every_program(program, name, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    config = CONFIGS[program](**{name: "~/x"})
    assert getattr(config, name) == "/home/somebody/x"
    with pytest.raises(ValueError, match=f"--{name}=gs://bucket/x is an address"):
        CONFIGS[program](**{name: "gs://bucket/x"})


def test_all_places_are_paths() -> None:
    assert len(PLACES) == 4 * 2 + 2 + 1 + 1 + 1


@pytest.mark.parametrize(
    "arguments", [["--out=gs://bucket/x", "run"], ["gs://bucket/x"], ["--out=~nobody-here/x", "y"]]
)
def test_paths_of_the_programs_that_compare(arguments, monkeypatch, capsys) -> None:
    values = absl_flags.FlagValues()
    for name in command_line.DEFINERS:
        define = functools.partial(getattr(absl_flags, name), flag_values=values)
        monkeypatch.setattr(flags.absl_flags, name, define)
    monkeypatch.setattr(flags.absl_flags, "FLAGS", values)
    monkeypatch.setattr(flags, "run", lambda main: main(values(["report", *arguments])))
    with pytest.raises(SystemExit) as stopped:
        result_tables.start_program("report", lambda *_: pytest.fail("went on"))
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_an_address_writes_nothing(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--workdir=gs://bucket/run"]
    error = command_line.error_of(monkeypatch, capsys, tiny, tiny.Config, {}, given)
    assert "--workdir=gs://bucket/run is an address" in error
    assert list(tmp_path.iterdir()) == []
