"""What a run touches outside its own directory: nothing but the caches of libraries."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Runs an experiment under a hook that reports every file opened for writing, made or removed.
WATCHED = """
import os, runpy, sys

events = open(os.environ["EVENTS"], "a", buffering=1)

def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if isinstance(path, (str, bytes)) and (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            events.write(f"{os.path.abspath(os.fsdecode(path))}\\n")
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "shutil.rmtree"):
        events.write(f"{os.path.abspath(os.fsdecode(arguments[0]))}\\n")

sys.addaudithook(watch)
experiment = sys.argv[1]
sys.argv = sys.argv[1:]
runpy.run_module(f"experiments.{experiment}", run_name="__main__", alter_sys=True)
"""
# Matplotlib keeps a list of fonts in the home directory; threads are given names.
LIBRARIES = ("matplotlib", "fontconfig", "__pycache__", "/dev/", "/proc/self/comm")
PARENTS = (".cache", ".config")


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["cifar_vq", "binary_vae", "joint_vae", "dvaepp"])
def test_a_run_writes_into_its_workdir_alone(tmp_path, experiment) -> None:
    names = ("home", "cwd", "temporary", "workdir")
    home, cwd, temporary, workdir = (tmp_path / name for name in names)
    for directory in (home, cwd, temporary):
        directory.mkdir()
    events = tmp_path / "events"
    environment = {
        **{k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"},
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1"),
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "EVENTS": str(events),
    }
    command = [sys.executable, "-c", WATCHED, experiment, "--preset=smoke", f"--workdir={workdir}"]
    ran = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    assert (workdir / "summary.json").exists()
    inside = str(workdir)
    outside = {
        path
        for path in events.read_text().splitlines()
        if not path.startswith(inside)
        and not path.endswith(PARENTS)
        and not any(part in path for part in LIBRARIES)
    }
    assert not outside
    left = [p for d in (home, cwd, temporary) for p in d.rglob("*") if p.is_file()]
    assert not [p for p in left if not any(part in str(p) for part in LIBRARIES)]
