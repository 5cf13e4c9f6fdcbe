"""Several real processes on this machine, over localhost: they train as one does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dvae.train import distributed

PROGRAM = Path(__file__).with_name("process.py")
ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def start(workdir, num_steps, *processes):
    """Starts one process with one device of its own."""
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(PROGRAM), *map(str, (workdir, num_steps, *processes))]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def train(workdir, num_steps, count, *, dies_at=None, main=()):
    """Trains by `count` processes, the last of which may die; returns statuses and messages."""
    if count == 1:
        running = [start(workdir, num_steps)]
    else:
        port = free_port()
        running = [start(workdir, num_steps, port, count, i, *main) for i in range(count - 1)]
        dying = () if dies_at is None else (dies_at,)
        running.append(start(workdir, num_steps, port, count, count - 1, *dying))
    try:
        outcomes = [
            (process.communicate(timeout=120)[1], process.returncode) for process in running
        ]
    finally:
        for process in running:
            process.kill()
    return [status for _, status in outcomes], [errors for errors, _ in outcomes]


def result(workdir, num_steps):
    return [np.array(x) for x in json.loads((workdir / f"result_{num_steps}.json").read_text())]


def assert_ends_like(workdir, alone):
    """After 12 steps, up to the rounding of sums."""
    for found, expected in zip(result(workdir, 12), alone, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.fixture(name="alone", scope="module")
def train_alone(tmp_path_factory):
    """What one process ends with after 12 steps."""
    workdir = tmp_path_factory.mktemp("alone")
    statuses, errors = train(workdir, 12, 1)
    assert statuses == [0], errors
    return result(workdir, 12)


@pytest.mark.thorough
@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_train_like_one(tmp_path, alone, count) -> None:
    statuses, errors = train(tmp_path, 12, count)
    assert statuses == [0] * count, errors
    assert_ends_like(tmp_path, alone)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()]
    assert sorted(set(steps)) == [2, 4, 6, 8, 10, 12], "written once, by the main process"


@pytest.mark.thorough
def test_a_lost_process_ends_the_others_and_all_continue(tmp_path, alone) -> None:
    statuses, errors = train(tmp_path, 12, 2, dies_at=6)
    assert statuses == [3, -signal.SIGKILL], errors
    assert "PeerError: process 0 of 2 lost another one" in errors[0]
    assert "continue from the last checkpoint" in errors[0]
    # Now by three processes: the number of them is not part of a checkpoint.
    statuses, errors = train(tmp_path, 12, 3)
    assert statuses == [0] * 3, errors
    assert "continuing from step 4" in errors[0]
    assert_ends_like(tmp_path, alone)


@pytest.mark.thorough
def test_the_main_process_ends_all_by_its_clock_and_all_continue(tmp_path, alone) -> None:
    statuses, errors = train(tmp_path, 12, 2, main=(-1, "late"))
    assert statuses == [0, 0], errors
    assert "the time limit is near: ending after step 2" in errors[0]
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["2"]
    statuses, errors = train(tmp_path, 12, 2)
    assert statuses == [0, 0], errors
    assert_ends_like(tmp_path, alone)


@pytest.mark.thorough
def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path) -> None:
    port, checkpoints = free_port(), tmp_path / "checkpoints"
    running = [start(tmp_path, 100_000, port, 2, i) for i in range(2)]
    try:
        for _ in range(600):
            if checkpoints.exists() and any(p.name.isdigit() for p in checkpoints.iterdir()):
                break
            time.sleep(0.1)
        running[1].send_signal(signal.SIGTERM)
        errors = [process.communicate(timeout=60)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    said = [error.strip().splitlines()[-1] for error in errors]
    assert said[0] == said[1]
    assert said[0].startswith("StoppedError: stopped by SIGTERM after step")
    last = max(int(p.name) for p in checkpoints.iterdir() if p.name.isdigit())
    assert f"after step {last}, which is saved" in said[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost", 2, 0), "must be HOST:PORT of process 0, or auto"),
        (("localhost:77x", 2, 0), "must be HOST:PORT of process 0, or auto"),
        (("localhost:7777", 2, 2), "--process_id=2 must be one of 0, ..., --num_processes - 1"),
    ],
)
def test_arguments_that_name_no_process_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        distributed.initialize(*arguments)


def test_without_a_cluster_auto_says_what_to_give(monkeypatch) -> None:
    def initialize(**_):
        # What JAX says where its detection finds nothing; it cannot be called twice in a process.
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(distributed.jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=r"found no cluster in the environment .*--num_processes"):
        distributed.initialize("auto", 1, 0)
