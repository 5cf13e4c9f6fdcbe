"""Signals to a real process in every phase: it ends at once, in one line, and goes on later."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from dvae.train import lock

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("tiny.py")
AT_ONCE = 20.0  # seconds, on a busy machine; each phase takes a minute or more
# What is on stderr when a phase has begun, by the setting that makes it slow.
SAID = {
    "loading": "loading the data",
    "compiling": "compiling the step",
    "stepping": "validation at step 4",
    "validating": "validating at step 8",
    "compiling_validation": "validating at step 8",
    "evaluating": "evaluating",
    "drawing": "drawing",
}


def environment(**changes):
    flags = "--xla_force_host_platform_device_count=1"
    return {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), **changes}


def start(workdir, *arguments, **options):
    command = [sys.executable, str(PROGRAM), f"--workdir={workdir}", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment(), stdout=pipe, stderr=pipe, text=True, **options
    )


def wait_for(process, text):
    """Reads stderr until a line begins with the text; returns all lines."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith(text):
            return lines
    pytest.fail(f"{text!r} was never said: {lines}")


def end(process, *numbers, pause=0.0):
    """Sends signals; returns the exit status and the last line on stderr."""
    began = time.monotonic()
    for number in numbers:
        process.send_signal(number)
        time.sleep(pause)
    try:
        _, errors = process.communicate(timeout=AT_ONCE)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"it went on for {time.monotonic() - began:.0f} s")
    assert "Traceback" not in errors
    assert "Fatal" not in errors
    return process.returncode, errors.splitlines()[-1]


def finishes(workdir):
    """Whether the same command then brings the run to its end."""
    process = start(workdir)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return (workdir / "summary.json").exists()


@pytest.mark.thorough
@pytest.mark.parametrize("presses", [1, 2])
@pytest.mark.parametrize(
    "phase",
    [
        "compiling",
        pytest.param("loading", marks=pytest.mark.slow),
        pytest.param("evaluating", marks=pytest.mark.slow),
        pytest.param("drawing", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_outside_of_training_ends_at_once(tmp_path, phase, presses) -> None:
    process = start(tmp_path / "run", f"--slow={phase}")
    wait_for(process, SAID[phase])
    status, last = end(process, *[signal.SIGINT] * presses)
    assert status == 130
    if phase in ("evaluating", "drawing"):
        assert last == (
            "stopped by SIGINT; step 12 is saved, the same command continues from there"
        )
    else:
        assert last == "stopped by SIGINT; no checkpoint is there yet"
    assert not (tmp_path / "run" / lock.LOCK_FILE).exists()
    if phase != "compiling" or presses == 2:
        assert finishes(tmp_path / "run")


@pytest.mark.parametrize(
    "phase",
    [
        "stepping",
        pytest.param("validating", marks=pytest.mark.slow),
        pytest.param("compiling_validation", marks=pytest.mark.slow),
    ],
)
def test_in_training_the_second_signal_ends_at_once(tmp_path, phase) -> None:
    process = start(tmp_path / "run", f"--slow={phase}")
    wait_for(process, SAID[phase])
    time.sleep(1.0)  # until the call of minutes runs
    process.send_signal(signal.SIGINT)
    time.sleep(2.0)
    assert process.poll() is None, "the first one waits for the call and saves"
    status, last = end(process, signal.SIGINT)
    assert status == 130
    assert last == "stopped by SIGINT; step 4 is saved, the same command continues from there"
    assert not (tmp_path / "run" / lock.LOCK_FILE).exists()
    assert finishes(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_in_training_the_first_signal_saves(tmp_path, number) -> None:
    process = start(tmp_path / "run", "--num_steps=1000000", "--checkpoint_interval=100000")
    wait_for(process, "step 8/")
    status, last = end(process, number, number)  # twice at once, as timeout(1) does
    assert status == 130
    assert last.startswith(f"stopped by {number.name} after step ")
    assert last.endswith(", which is saved; the same command continues from there")
    step = last.split("after step ")[1].split(",")[0]
    assert (tmp_path / "run" / "checkpoints" / step).is_dir()


def start_in_terminal(workdir, *arguments):
    """Starts the program in a terminal of its own; returns its process number and the other end."""
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        command = [sys.executable, str(PROGRAM), f"--workdir={workdir}", *arguments]
        os.execve(sys.executable, command, environment())
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    return child, terminal


def read_until(terminal, text):
    """Reads what a terminal shows until the text comes, or the program's end; returns the end."""
    shown = b""
    while text not in shown:
        try:
            shown = shown[-1000:] + os.read(terminal, 1000)
        except OSError:  # nobody is there any more
            break
    return shown


def status_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_a_closed_terminal_saves_and_nohup_goes_on(tmp_path) -> None:
    workdir = tmp_path / "run"
    endless = ["--num_steps=1000000", "--checkpoint_interval=100000"]
    child, terminal = start_in_terminal(workdir, *endless)
    read_until(terminal, b"validation at step 8")
    os.close(terminal)
    assert status_of(child) == 130
    assert any(path.name.isdecimal() for path in (workdir / "checkpoints").iterdir())
    assert not (workdir / lock.LOCK_FILE).exists()

    ignoring = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    process = start(tmp_path / "other", *endless, preexec_fn=ignoring)
    wait_for(process, "step 8/")
    process.send_signal(signal.SIGHUP)
    for _ in range(5):
        wait_for(process, "step ")
    assert end(process, signal.SIGTERM)[0] == 130


@pytest.mark.slow
def test_a_terminal_shows_the_time_and_one_line_at_the_end(tmp_path) -> None:
    child, terminal = start_in_terminal(tmp_path / "run", "--slow=compiling")
    assert b"compiling the step [0" in read_until(terminal, b"compiling the step [0")
    os.write(terminal, b"\x03\x03")  # Ctrl-C, pressed twice
    shown = read_until(terminal, b"no such text")
    assert status_of(child) == 130
    assert shown.splitlines()[-1] == b"stopped by SIGINT; no checkpoint is there yet"
    assert b"Traceback" not in shown


@pytest.mark.thorough
def test_a_second_start_names_the_first_until_that_is_killed(tmp_path) -> None:
    workdir = tmp_path / "run"
    first = start(workdir, "--slow=stepping")
    wait_for(first, SAID["stepping"])
    second = start(workdir)
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 2
    assert len(errors.splitlines()) == 1
    assert f"{workdir} is in use by process {first.pid} on " in errors
    assert "delete" not in errors
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert (workdir / lock.LOCK_FILE).exists()
    assert finishes(workdir)


@pytest.mark.slow
def test_of_simultaneous_starts_one_trains(tmp_path) -> None:
    running = [start(tmp_path / "run") for _ in range(3)]
    errors = [process.communicate(timeout=300)[1] for process in running]
    statuses = [process.returncode for process in running]
    for status, error in zip(statuses, errors, strict=True):
        assert status == 0 or "is in use by process" in error, error
    # One that comes when the first is done finds a finished run.
    assert sum("validation at step 12" in error for error in errors) == 1


def test_an_import_is_interrupted_without_a_traceback(tmp_path) -> None:
    command = [sys.executable, "-m", "experiments.vq_compress", f"--workdir={tmp_path}"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
    )
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130)
    assert "Traceback" not in errors
