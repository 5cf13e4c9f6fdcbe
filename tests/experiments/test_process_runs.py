"""Experiments in several real processes on this machine, against the same run in one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

ROOT = Path(__file__).parents[2]
RUNS = {
    "cifar_vq": ["--preset=smoke", "--estimator=vq_ema", "--num_steps=12", "--batch_size=8"],
    "binary_vae": ["--preset=smoke", "--prior=rbm", "--num_chains=16", "--num_steps=12"],
}
COMMON = [
    "--checkpoint_interval=4",
    "--eval_interval=4",
    "--log_interval=4",
    "--num_test_images=16",
]


def start(cache, experiment, workdir, *arguments):
    """Starts one process with one device; processes that share a cache compile once."""
    environment = {
        **os.environ,
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1"),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", f"experiments.{experiment}", f"--workdir={workdir}"]
    return subprocess.Popen(
        [*command, *RUNS[experiment], *COMMON, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_all(cache, experiment, workdir, count, *arguments):
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    shared = [f"--coordinator=localhost:{port}", f"--num_processes={count}", *arguments]
    return [start(cache, experiment, workdir, *shared, f"--process_id={i}") for i in range(count)]


def finish(running):
    """Returns statuses and what was written to stderr."""
    outcomes = [(process.communicate(timeout=300)[1], process.returncode) for process in running]
    return [status for _, status in outcomes], [errors for errors, _ in outcomes]


def last_state(workdir, step):
    path = (workdir / "checkpoints" / str(step) / "state").absolute()
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    reader = ocp.Checkpointer(ocp.StandardCheckpointHandler())
    state = reader.restore(path, args=ocp.args.StandardRestore(fallback_sharding=here))
    return list(map(np.asarray, jax.tree.leaves(state)))


def assert_same_run(found, expected, step):
    for a, b in zip(last_state(found, step), last_state(expected, step), strict=True):
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
        else:
            np.testing.assert_array_equal(a, b)
    one, other = (json.loads((d / "summary.json").read_text())["test"] for d in (found, expected))
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=2e-3, atol=1e-3, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", list(RUNS))
def test_processes_end_like_one_also_after_the_loss_of_one(experiment, tmp_path) -> None:
    alone, together, broken = (tmp_path / name for name in ("alone", "together", "broken"))
    cache = tmp_path / "cache"
    statuses, errors = finish([start(cache, experiment, alone)])
    assert statuses == [0], errors
    statuses, errors = finish(start_all(cache, experiment, together, 2))
    assert statuses == [0, 0], errors
    assert errors[1].count("step") == 0, "the main process alone reports"
    assert_same_run(together, alone, 12)

    # One of four is killed in the middle; two go on from the checkpoint of the four.
    running = start_all(cache, experiment, broken, 4, "--num_steps=100000")
    checkpoints = broken / "checkpoints"
    for _ in range(2400):
        if checkpoints.exists() and any(p.name.isdigit() for p in checkpoints.iterdir()):
            break
        time.sleep(0.05)
    running[2].send_signal(signal.SIGKILL)
    statuses, errors = finish(running)
    assert statuses[2] == -signal.SIGKILL
    for status, error in zip(statuses, errors, strict=True):
        assert status != 0
        assert status == -signal.SIGKILL or "lost another one" in error or "another task" in error
    steps = [int(p.name) for p in checkpoints.iterdir() if p.name.isdigit()]
    last = 4 * (max(steps) // 4 + 2)
    config = json.loads((broken / "config.json").read_text())
    config["num_steps"] = last
    (broken / "config.json").write_text(json.dumps(config))
    statuses, errors = finish(start_all(cache, experiment, broken, 2, f"--num_steps={last}"))
    assert statuses == [0, 0], errors
    assert "continuing from step" in errors[0]
