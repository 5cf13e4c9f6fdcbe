"""One writer for one folder, also after kills, over hosts, and at simultaneous starts."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from dvae.train import lock

ROOT = Path(__file__).parents[2]
HOLDS = """
import sys, time
from pathlib import Path
from dvae.train import lock
with lock.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
OLD = 2 * lock.STALE_SECONDS


def write_lock(workdir, *, age=0.0, **changes):
    """Leaves the lock file of a process that does not refresh it."""
    workdir.mkdir(exist_ok=True)
    here = lock._this_process()._replace(since="2025-01-01 00:00:00+00:00", token="abc")
    path = workdir / lock.LOCK_FILE
    path.write_text(json.dumps({**here._asdict(), **changes}))
    touch(path, age)
    return path


def touch(path, age):
    now = time.time() - age
    os.utime(path, (now, now))


def wait_until(condition):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("not within ten seconds")


def names(workdir):
    return sorted(path.name for path in workdir.iterdir())


@pytest.mark.thorough
def test_another_process_is_named_until_it_is_killed(tmp_path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    other = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        since = json.loads((tmp_path / lock.LOCK_FILE).read_text())["since"]
        with pytest.raises(lock.LockedError) as refused, lock.hold(tmp_path):
            pass
        with pytest.raises(lock.LockedError):
            lock.check_free(tmp_path)
        assert f"in use by process {other.pid} on " in str(refused.value)
        assert f"since {since}; wait until it ends, stop it, or choose" in str(refused.value)
        assert "delete" not in str(refused.value)
    finally:
        other.send_signal(signal.SIGKILL)
    # Not waited for: it is a zombie by now, which has a process number but does not live.
    for _ in range(200):
        if Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    lock.check_free(tmp_path)
    with lock.hold(tmp_path):
        assert json.loads((tmp_path / lock.LOCK_FILE).read_text())["pid"] == os.getpid()
    other.wait()
    assert names(tmp_path) == []


def test_a_process_number_in_another_use_is_not_mistaken(tmp_path) -> None:
    write_lock(tmp_path, pid=os.getppid(), started="1")
    with lock.hold(tmp_path):
        pass
    alive = lock._start_of(os.getppid())
    write_lock(tmp_path, pid=os.getppid(), started=alive, age=OLD)
    with pytest.raises(lock.LockedError), lock.hold(tmp_path):
        pass  # stopped for long, but alive


def test_a_lock_of_another_host_is_stale_when_it_was_not_touched_for_minutes(tmp_path) -> None:
    path = write_lock(tmp_path, machine="another", host="node7", pid=os.getpid())
    with pytest.raises(lock.LockedError, match=r"on node7 since .*a start 5 minutes after"):
        lock.check_free(tmp_path)
    touch(path, OLD)
    lock.check_free(tmp_path)
    with lock.hold(tmp_path):
        assert json.loads(path.read_text())["host"] != "node7"
    assert names(tmp_path) == []


def test_the_clock_is_that_of_the_file_system(tmp_path, monkeypatch) -> None:
    write_lock(tmp_path, machine="another")
    monkeypatch.setattr(time, "time", lambda: 1e12)
    with pytest.raises(lock.LockedError):
        lock.check_free(tmp_path)
    with pytest.raises(lock.LockedError), lock.hold(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "[]", '{"pid": 0}', "{}", "\0"])
def test_a_lock_that_says_nothing_is_judged_by_its_age(tmp_path, text) -> None:
    path = write_lock(tmp_path)
    path.write_text(text)
    with pytest.raises(lock.LockedError, match=r"by a process that .*run\.lock does not name"):
        lock.check_free(tmp_path)
    touch(path, OLD)
    with lock.hold(tmp_path):
        pass


def test_looking_writes_nothing(tmp_path) -> None:
    lock.check_free(tmp_path)
    lock.check_free(tmp_path / "nowhere")
    assert names(tmp_path) == []


def test_the_thread_that_holds_it_may_ask_again_and_no_other(tmp_path) -> None:
    refused = []

    def other():
        with pytest.raises(lock.LockedError, match="by this process") as found:
            lock.hold(tmp_path).__enter__()
        refused.append(found)

    with lock.hold(tmp_path) as held:
        with lock.hold(tmp_path) as again:
            assert again is held
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert refused
        assert names(tmp_path) == [lock.LOCK_FILE]
    assert names(tmp_path) == []


def test_it_is_released_after_an_error(tmp_path) -> None:
    with pytest.raises(KeyError), lock.hold(tmp_path):
        raise KeyError
    assert names(tmp_path) == []


def test_file_systems_without_hard_links(tmp_path, monkeypatch) -> None:
    def link(*_):
        raise OSError(errno.ENOTSUP, "no links")

    monkeypatch.setattr(os, "link", link)
    with lock.hold(tmp_path):
        with pytest.raises(lock.LockedError):
            lock.check_free(tmp_path)
        assert names(tmp_path) == [lock.LOCK_FILE]
    assert names(tmp_path) == []


def test_a_link_whose_answer_was_lost(tmp_path, monkeypatch) -> None:
    link = os.link

    def lost(source, target):
        link(source, target)
        raise FileExistsError

    monkeypatch.setattr(os, "link", lost)
    with lock.hold(tmp_path):
        assert names(tmp_path) == [lock.LOCK_FILE]


@pytest.mark.parametrize("age", [None, OLD], ids=["new", "stale"])
def test_of_simultaneous_starts_one_wins(tmp_path, age) -> None:
    for attempt in range(10):
        workdir = tmp_path / str(attempt)
        if age is not None:
            write_lock(workdir, machine="another", age=age)
        together, done, won, errors = threading.Barrier(8), threading.Event(), [], []

        def start(workdir=workdir, together=together, done=done, won=won, errors=errors):
            together.wait()
            try:
                with lock.hold(workdir):
                    won.append(1)
                    done.wait()
            except lock.LockedError as error:
                errors.append(error)

        threads = [threading.Thread(target=start) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda errors=errors: len(errors) >= 7)
        done.set()
        for thread in threads:
            thread.join()
        assert (len(won), len(errors)) == (1, 7)
        assert names(workdir) == []


def test_a_start_that_was_killed_while_taking_over(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(lock, "_TAKEOVER_SECONDS", 0.3)
    write_lock(tmp_path, machine="another", age=OLD)
    claim = tmp_path / f"{lock.LOCK_FILE}.after-abc"
    claim.touch()
    with pytest.raises(lock.LockedError), lock.hold(tmp_path):
        pass
    touch(claim, OLD)
    with lock.hold(tmp_path):
        pass
    assert names(tmp_path) == []


def test_it_is_refreshed_and_put_back_while_it_is_held(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)
    path = tmp_path / lock.LOCK_FILE
    with lock.hold(tmp_path) as held:
        touch(path, OLD)
        wait_until(lambda: time.time() - path.stat().st_mtime < OLD / 2)
        path.unlink()
        wait_until(path.exists)
        held.check()
    assert names(tmp_path) == []


def test_a_lock_that_another_took_over_is_noticed_and_left_alone(tmp_path) -> None:
    with lock.hold(tmp_path) as held:
        held.check()
        path = write_lock(tmp_path, machine="another", host="node7")
        with pytest.raises(lock.LockedError, match=r"on node7 .*took over .*so this one ends"):
            held.check()
    assert path.exists()


def test_a_folder_that_cannot_be_written(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"[Nn]ot a directory|exists"), lock.hold(tmp_path / "file"):
        pass
    with contextlib.suppress(ValueError):
        lock.check_free(tmp_path / "file" / "run")


def test_a_released_lock_is_not_made_again(tmp_path, monkeypatch) -> None:
    """The heart is about to make a file that somebody removed, and the run ends."""
    acquire, beating, ending = lock._acquire, threading.Event(), threading.Event()

    def slow(path, holder):
        if threading.current_thread() is not threading.main_thread():
            beating.set()
            ending.wait(0.5)
        acquire(path, holder)

    monkeypatch.setattr(lock, "_acquire", slow)
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)
    with lock.hold(tmp_path) as held:
        (tmp_path / lock.LOCK_FILE).unlink()
        assert beating.wait(10)
    ending.set()
    held._heart.join()
    assert not names(tmp_path)


def test_another_thread_may_let_go_while_this_one_looks(tmp_path, monkeypatch) -> None:
    class Vanishing(dict):
        def __contains__(self, key):
            return self.pop(key, None) is not None

    path = tmp_path.resolve() / lock.LOCK_FILE
    others = Vanishing({path: types.SimpleNamespace(thread=-1)})
    monkeypatch.setattr(lock, "_held", others)
    with lock.hold(tmp_path):
        assert names(tmp_path) == [lock.LOCK_FILE]
