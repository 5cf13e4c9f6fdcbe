"""One writer for one folder: a lock file that says who holds it.

    with lock.hold(workdir) as held:   # LockedError names the holder
        ...
        held.check()                   # before writing what must not mix with another's

`run.lock` is made by a hard link, which exactly one of several starts can make, also on network
file systems. It is stale when its process is dead, which the same machine can see, or when it was
not touched for minutes, which other machines must go by; a stale lock is taken over. So a run that
was killed can be started again, on its machine at once.
"""

import contextlib
import datetime
import functools
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dvae.train import signals

__all__ = [
    "HEARTBEAT_SECONDS",
    "LOCK_FILE",
    "STALE_SECONDS",
    "Held",
    "Holder",
    "LockedError",
    "check_free",
    "hold",
    "is_own_file",
]

LOCK_FILE = "run.lock"
HEARTBEAT_SECONDS = 20.0
STALE_SECONDS = 300.0  # beyond what network file systems cache, and what a busy machine is late by
_TAKEOVER_SECONDS = 5.0  # to wait for another start that is taking over


class LockedError(ValueError):
    """Another process is writing into the folder."""


class Holder(NamedTuple):
    """The process that a lock file names."""

    host: str
    machine: str  # tells boots and containers apart: process numbers mean nothing in another
    pid: int
    started: str  # of the process, so that its number in another's use is not mistaken; or empty
    since: str
    token: str  # of this lock alone


class Held:
    """A lock that this process holds."""

    def __init__(self, path: Path, holder: Holder) -> None:
        """Keeps a lock file fresh from now on, in a thread."""
        self._path, self._holder = path, holder
        self.thread = threading.get_ident()
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="run.lock", daemon=True)
        self._heart.start()

    def check(self) -> None:
        """Raises LockedError if another process has taken the lock over."""
        with contextlib.suppress(OSError):  # a network drive that is away for a moment
            other = _read(self._path)
            if other is not None and other.token != self._holder.token:
                raise LockedError(
                    f"{_describe(self._path, other)}: it took over when this process "
                    f"did not move for {STALE_SECONDS / 60:.0f} minutes, so this one ends"
                )

    def release(self) -> None:
        """Removes the lock file, unless another process has taken it over."""
        self._over.set()
        self._heart.join()  # or it might make the file again
        with contextlib.suppress(OSError):
            if (found := _read(self._path)) is not None and found.token == self._holder.token:
                self._path.unlink()

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError, LockedError):
                found = _read(self._path)
                if found is not None and found.token == self._holder.token:
                    os.utime(self._path)
                elif not self._path.exists() and not self._over.is_set():
                    _acquire(self._path, self._holder)  # somebody removed it


_held: dict[Path, Held] = {}


@contextlib.contextmanager
def hold(workdir: Path) -> Iterator[Held]:
    """Holds the lock of a folder, which is made if it is not there.

    The thread that holds it may ask for it again.

    Raises:
      LockedError: another process holds it, or another thread of this one.
      OSError: the folder cannot be written.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir.resolve() / LOCK_FILE
    before = _held.get(path)
    if before is not None and before.thread == threading.get_ident():
        yield before
        return
    holder = _this_process()._replace(
        since=datetime.datetime.now().astimezone().isoformat(" ", "seconds"), token=uuid.uuid4().hex
    )
    _acquire(path, holder)
    held = _held[path] = Held(path, holder)
    try:
        with signals.before_leaving(held.release):
            yield held
    finally:
        del _held[path]
        held.release()


def check_free(workdir: Path) -> None:
    """Raises LockedError if a process holds the lock of a folder; makes nothing."""
    path = workdir / LOCK_FILE
    if path.exists() and _is_held(path, holder := _read(path), _now(path)):
        raise LockedError(_refusal(path, holder))


def is_own_file(name: str) -> bool:
    """Returns whether a file of this name in a folder belongs to its lock."""
    return name == LOCK_FILE or name.startswith(f"{LOCK_FILE}.")


def _acquire(path: Path, holder: Holder) -> None:
    """Makes the lock file, in place of a stale one if there is one; LockedError if it is held."""
    patience = time.monotonic() + _TAKEOVER_SECONDS
    own = _written(path, holder)
    try:
        while not _place(own, path):
            other = _read(path)
            if not path.exists():
                continue  # released since
            if _is_held(path, other, own.stat().st_mtime) or time.monotonic() > patience:
                raise LockedError(_refusal(path, other))
            if _replace(path, other, own):
                return
            os.utime(own)
            time.sleep(0.05)
    finally:
        own.unlink(missing_ok=True)


def _written(path: Path, holder: Holder) -> Path:
    """Writes a file beside the lock file that names the holder, and returns its path."""
    own = _beside(path, holder.token)
    own.write_text(json.dumps(holder._asdict()) + "\n", encoding="utf-8")
    return own


def _place(own: Path, path: Path) -> bool:
    """Makes the lock file out of a written one; returns False if there is a lock file already."""
    try:
        os.link(own, path)
        return True
    except FileExistsError:
        # A network drive may have made it, and lost its answer on the way.
        return (found := _read(path)) is not None and own == _beside(path, found.token)
    except OSError:
        pass  # a file system without hard links
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(own.read_text(encoding="utf-8"))
        return True
    except FileExistsError:
        return False


def _replace(path: Path, stale: Holder | None, own: Path) -> bool:
    """Puts the written file in place of a stale lock; returns False if another start does.

    Two starts may find the same lock stale. Its token names a second lock, so that only one of them
    replaces it; the other then finds another token.
    """
    token = stale.token if stale else "unreadable"
    claim = _beside(path, f"after-{token}")
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            if own.stat().st_mtime - claim.stat().st_mtime > STALE_SECONDS:
                claim.unlink()  # of a start that was killed in the act
        return False
    try:
        if not path.exists() or _read(path) != stale:
            return False
        os.replace(own, path)
        return True
    finally:
        claim.unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{LOCK_FILE}.{suffix}")


def _read(path: Path) -> Holder | None:
    """Returns who holds a lock file, or None if it is gone or says nothing that can be read."""
    try:
        holder = Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    good = isinstance(holder.pid, int) and 0 < holder.pid < 2**31 and str(holder.token).isalnum()
    return holder if good else None


def _is_held(path: Path, holder: Holder | None, now: float) -> bool:
    """Returns whether the process of a lock file still lives, as far as this one can know."""
    if holder is not None and holder.machine == _this_process().machine:
        started = _start_of(holder.pid)
        if started is None or (started and holder.started and started != holder.started):
            return False
        if started and holder.started:
            return True  # however long it has been stopped
    try:
        return now - path.stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False


def _now(path: Path) -> float:
    """Returns the time by the clock of the file system, which touches locks; ours may be off."""
    probe = _beside(path, uuid.uuid4().hex)
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _describe(path: Path, holder: Holder | None) -> str:
    if holder is None:
        return f"{path.parent} is in use by a process that {path} does not name"
    who = f"process {holder.pid} on {holder.host}"
    if (holder.machine, holder.pid) == _this_process()[1:3]:
        who = f"this process ({holder.pid} on {holder.host})"
    return f"{path.parent} is in use by {who} since {holder.since}"


def _refusal(path: Path, holder: Holder | None) -> str:
    """Returns the message that says who holds the lock, and what to do."""
    remedy = "wait until it ends, stop it, or choose another workdir"
    if holder is None or holder.machine != _this_process().machine:
        minutes = f"{STALE_SECONDS / 60:.0f} minutes"
        remedy += f" (if it is dead, a start {minutes} after its death continues the run)"
    return f"{_describe(path, holder)}; {remedy}"


def _this_process() -> Holder:
    """Returns this process as a holder of no lock yet."""
    return _process(os.getpid())


@functools.cache
def _process(pid: int) -> Holder:
    host, machine = socket.gethostname(), f"{uuid.getnode():x}"
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        machine = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return Holder(host, machine, pid, _start_of(pid) or "", "", "")


def _start_of(pid: int) -> str | None:
    """Returns when a process started, in ticks since the boot.

    None if it is dead, empty if it lives and the system does not say since when.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass  # another user's
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # a name in parentheses may hold anything
    return None if fields[0] in "ZX" else fields[19]  # a zombie is dead
