"""Long runs on several CPU devices, which would wait for each other if calls were queued."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_interruptions import PROGRAM

from experiments.common import begin

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_a_long_run_that_reads_nothing_ends(tmp_path, num_devices) -> None:
    arguments = ["--num_steps=1500", "--log_interval=1500", "--eval_interval=1500"]
    ran = subprocess.run(
        [sys.executable, str(PROGRAM), f"--workdir={tmp_path / 'run'}", *arguments],
        env={
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    assert "step 1500/1500" in ran.stderr


@pytest.mark.slow
def test_collectives_of_a_branch_and_beside_it_have_threads(tmp_path) -> None:
    """Some steps estimate log Z, in a branch, while the batch is gathered from all devices."""
    arguments = [f"--{name}_interval={n}" for name, n in [("log", 4000), ("eval", 4000)]]
    arguments += ["--checkpoint_interval=0", "--num_steps=4000", "--preset=smoke"]
    arguments += [f"--workdir={tmp_path / 'run'}"]
    environment = {name: value for name, value in os.environ.items() if name != "PJRT_NPROC"}
    ran = subprocess.run(
        [sys.executable, "-m", "experiments.dvaepp", *arguments],
        env={**environment, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"XLA_FLAGS": "--xla_cpu_enable_fast_math=false"}, None),
        ({"XLA_FLAGS": "--a=1 --xla_force_host_platform_device_count=64 --b=2"}, "256"),
        ({"JAX_NUM_CPU_DEVICES": "64"}, "256"),
        ({"JAX_NUM_CPU_DEVICES": "-1"}, None),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=64", "PJRT_NPROC": "3"}, "3"),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=64", "NPROC": "3"}, None),
    ],
)
def test_virtual_devices_get_threads_unless_a_number_is_chosen(given, expected, monkeypatch):
    for name in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "PJRT_NPROC", "NPROC"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    begin.give_threads()
    assert os.environ.get("PJRT_NPROC") == expected
    monkeypatch.delenv("PJRT_NPROC", raising=False)
