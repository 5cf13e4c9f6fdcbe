"""Long runs on several CPU devices, which would wait for each other if calls were queued."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_interruptions import PROGRAM

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_a_long_run_that_reads_nothing_ends(tmp_path, num_devices) -> None:
    arguments = ["--num_steps=1500", "--log_interval=1500", "--eval_interval=0"]
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
