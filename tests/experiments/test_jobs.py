"""Several commands at once: their order, their time, and signals that stop them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dvae.train.loop import StoppedError
from experiments.reproduce import __main__ as reproduce
from experiments.reproduce import jobs

# Jobs are modules; this one says what it was given, and waits as long as it is told.
JOB = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("saved"), sys.exit(130)))
print(sys.argv[1:], os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION"), flush=True)
time.sleep(float(sys.argv[1]))
sys.exit(int(sys.argv[2]))
"""


@pytest.fixture(name="make_job")
def make_make_job(tmp_path, monkeypatch):
    (tmp_path / "a_job.py").write_text(JOB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)

    def make(name, seconds=0, status=0):
        return jobs.Job(name, ["a_job", str(seconds), str(status)], tmp_path / f"{name}.log")

    return make


def test_jobs_run_in_their_order_and_a_failure_ends_none(make_job) -> None:
    over = []
    queue = [make_job("a"), make_job("b", status=3), make_job("c")]
    left = jobs.run_all(
        queue, parallel=1, until=None, shortest=0.0, ended=lambda *one: over.append(one)
    )
    assert (left, over) == (0, [(queue[0], 0), (queue[1], 3), (queue[2], 0)])
    assert queue[0].log.read_text() == "['0', '0'] None\n"


def test_what_goes_on_from_a_result_comes_before_all_that_wait(make_job) -> None:
    queue, over = [make_job("a"), make_job("b")], []
    following = make_job("after a")

    def ended(job, code):
        over.append(job.name)
        return following if job is queue[0] else None

    assert jobs.run_all(queue, parallel=1, until=None, shortest=0.0, ended=ended) == 0
    assert over == ["a", "after a", "b"]


def test_at_the_end_of_the_time_jobs_save_and_no_other_begins(make_job) -> None:
    over = []
    queue = [make_job("a", 60), make_job("b", 60), make_job("c")]
    began = time.perf_counter()
    left = jobs.run_all(
        queue, parallel=2, until=began + 3, shortest=1.0, ended=lambda *one: over.append(one)
    )
    assert time.perf_counter() - began < 30
    assert (left, sorted(over)) == (1, [(queue[0], 130), (queue[1], 130)])
    said, saved = queue[1].log.read_text().splitlines()
    assert said.startswith("['60', '0', '--time_limit=0.0")
    assert said.endswith(" 0.450")
    assert saved == "saved"


def test_what_goes_on_from_a_result_at_the_end_of_the_time_is_counted(make_job) -> None:
    queue, following = [make_job("a", 60)], make_job("after a")
    until = time.perf_counter() + 2
    left = jobs.run_all(
        queue, parallel=1, until=until, shortest=1.0, ended=lambda job, code: following
    )
    assert left == 1


@pytest.mark.parametrize("case", ["a result cannot be read", "a job cannot be started"])
def test_after_an_error_no_job_is_left_running(make_job, tmp_path, case) -> None:
    queue, over = [make_job("a", 30), make_job("b", 1.5)], []

    def ended(job, code):
        over.append((job.name, code))
        if case == "a result cannot be read":
            raise ValueError("damaged")
        return job._replace(name="c", log=tmp_path / "a.log" / "c.log")  # no folder

    began = time.perf_counter()
    with pytest.raises((ValueError, FileExistsError, NotADirectoryError)):
        jobs.run_all(queue, parallel=2, until=None, shortest=0.0, ended=ended)
    assert time.perf_counter() - began < 20
    assert over == [("b", 0)]
    assert queue[0].log.read_text().endswith("saved\n"), "it was asked to save, and waited for"


def test_a_job_without_cores_of_its_own_runs_all_the_same(make_job, monkeypatch) -> None:
    def forbidden(pid, cores):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    monkeypatch.setattr(jobs, "_cores", lambda place, parallel: {place})
    over = []
    jobs.run_all(
        [make_job("a")], parallel=2, until=None, shortest=0.0, ended=lambda *one: over.append(one)
    )
    assert [code for _, code in over] == [0]


def test_a_signal_is_passed_on_once(make_job) -> None:
    queue, over = [make_job("a", 60)], []
    sender = "import os, sys, time; time.sleep(1.5); os.kill(int(sys.argv[1]), 15)"
    with (
        subprocess.Popen([sys.executable, "-c", sender, str(os.getpid())]),
        pytest.raises(StoppedError, match="stopped by SIGTERM; the same command continues"),
    ):
        jobs.run_all(
            queue, parallel=1, until=None, shortest=0.0, ended=lambda *one: over.append(one)
        )
    assert over == [(queue[0], 130)]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_damaged_results_do_not_stand_for_what_ended_the_training(
    tmp_path, monkeypatch, capsys
) -> None:
    def stopped(*_):
        raise StoppedError("stopped by SIGTERM")

    def damaged(place):
        raise ValueError("table1.json is not valid JSON")

    config = reproduce.Config(runs=str(tmp_path))
    monkeypatch.setattr(reproduce.flags, "parse", lambda _: config)
    monkeypatch.setattr(reproduce, "train", stopped)
    monkeypatch.setattr(reproduce.results, "write", damaged)
    with pytest.raises(StoppedError):
        reproduce.main(["reproduce", "table1"])
    assert "no table: table1.json is not valid JSON" in capsys.readouterr().err
