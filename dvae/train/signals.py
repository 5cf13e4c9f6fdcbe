"""Signals that stop a run: SIGINT (Ctrl-C), SIGTERM (preemption) and SIGHUP (a closed terminal).

    with signals.end_at_once():                   # the whole life of a program
        with signals.before_leaving(last_words):  # what is undone and said first
            with signals.StopRequest() as stop:
                stop.arm()                        # from here on the first signal is a request
                while stop.received is None:
                    ...

Python calls signal handlers between two instructions of the main thread: not while XLA compiles or
a step of minutes runs. A program therefore has a thread that reads the numbers of signals from a
socket, into which the interpreter's C handler writes them at once, and ends the process itself: an
orderly end would wait for the compiler. A library must not do that to its caller. There, in the
main thread, `StopRequest` has handlers of its own while it is armed; in other threads no signals.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

__all__ = ["STATUS", "STOPPING", "StopRequest", "before_leaving", "end_at_once", "renew"]

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
STATUS = 130  # of a process that a signal stopped
# Some senders send twice: timeout(1) to its child, and to the group that the child is in.
_ECHO_SECONDS = 0.3
_PATIENCE_SECONDS = 1.0  # for a full pipe or a network drive that hangs, when leaving

_last_words: list[Callable[[], str | None]] = []
_watcher: "_Watcher | None" = None


@contextlib.contextmanager
def before_leaving(act: Callable[[], str | None]) -> Iterator[None]:
    """Calls `act`, in another thread, if a signal ends the program in this context.

    Args:
      act: undoes what must not be left behind, or returns what a user should know.
    """
    _last_words.append(act)
    try:
        yield
    finally:
        _last_words.remove(act)


@contextlib.contextmanager
def end_at_once() -> Iterator[None]:
    """Lets a signal end the process at once, with one line and status 130, unless it is requested.

    For programs, around all that they do. Does nothing in a thread or where it is in force already.
    """
    global _watcher
    if _watcher is not None or not _in_main_thread():
        yield
        return
    _watcher = _Watcher()
    try:
        yield
    finally:
        _watcher.close()
        _watcher = None


class StopRequest:
    """Turns the first signal into a request; a second one ends at once.

    In a library the second one raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        """Starts unarmed: signals act as they do elsewhere."""
        self.received: signal.Signals | None = None
        self._armed = False
        # A handler may interrupt another one, or `arm`, while it is held.
        self._lock = threading.RLock()
        self._taken = 0.0  # when
        self._handlers: _Handlers | None = None

    def arm(self) -> None:
        """Takes signals as requests from here on, until the context is left."""
        with self._lock:
            self._armed = True
        if _watcher is not None:
            _watcher.requests.append(self)
        elif _in_main_thread():
            self._handlers = _Handlers(self._handle)

    def take(self, number: int) -> bool:
        """Takes a signal as a request if it is the first one, or its echo.

        Args:
          number: of the signal.

        Returns:
          Whether it was taken; if not, it has to act.
        """
        with self._lock:
            if not self._armed:
                return False
            if self.received is None:
                self.received, self._taken = signal.Signals(number), time.monotonic()
            echo = time.monotonic() - self._taken < _ECHO_SECONDS
            return self.received == number and echo

    def __enter__(self) -> "StopRequest":
        """Returns the request, still unarmed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Lets signals act as they did before."""
        with self._lock:
            self._armed = False
        if self._handlers is not None:
            self._handlers.restore()
        elif _watcher is not None and self in _watcher.requests:
            _watcher.requests.remove(self)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.take(number):
            raise KeyboardInterrupt


class _Handlers:
    """Handlers of the stopping signals, and the ones that were there before."""

    def __init__(self, handle: Callable[[int, FrameType | None], Any]) -> None:
        self._terminals = [fd for fd in (1, 2) if _is_terminal(fd)]
        self._previous: dict[int, Any] = {}

        def first(number: int, frame: FrameType | None) -> None:
            self.hang_up()
            handle(number, frame)

        for number in STOPPING:
            # nohup asks for exactly this.
            if number == getattr(signal, "SIGHUP", None) and (
                signal.getsignal(number) == signal.SIG_IGN
            ):
                continue
            self._previous[number] = signal.signal(number, first)

    def hang_up(self) -> None:
        """Discards further output if the terminal is closed: writing to it would be an error."""
        for fd in self._terminals:
            if not _is_terminal(fd):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, fd)
                os.close(nowhere)
        self._terminals = [fd for fd in self._terminals if _is_terminal(fd)]

    def restore(self) -> None:
        """Puts the earlier handlers back; None is one that was not made in Python."""
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class _Watcher:
    """A thread that hears signals whatever the main thread does."""

    def __init__(self) -> None:
        self.requests: list[StopRequest] = []
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handlers = _Handlers(lambda number, frame: None)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def renew(self) -> None:
        """Puts the handlers in place again, after another library set its own."""
        self._handlers.restore()
        self._handlers = _Handlers(lambda number, frame: None)

    def close(self) -> None:
        """Ends the thread."""
        self._handlers.restore()
        signal.set_wakeup_fd(self._before)
        self._writer.close()

    def _watch(self) -> None:
        while numbers := self._reader.recv(64):
            for number in numbers:
                if number in STOPPING and not any(r.take(number) for r in self.requests):
                    self._handlers.hang_up()
                    _leave(signal.Signals(number))
        self._reader.close()


def renew() -> None:
    """Hears signals again after another library set handlers of its own."""
    if _watcher is not None:
        _watcher.renew()


def _leave(number: signal.Signals) -> None:
    """Ends the process without waiting for anything that may hang."""
    said: list[str] = []

    def act() -> None:
        for last in reversed(_last_words):
            said.extend(filter(None, [last()]))

    _briefly(act)
    _briefly(sys.stdout.flush)
    _briefly(sys.stderr.flush)
    start = "\n" if _is_terminal(2) else ""  # where a bar may be
    line = f"{start}{'; '.join([f'stopped by {number.name}', *said])}\n"
    with contextlib.suppress(OSError):
        if select.select([], [2], [], _PATIENCE_SECONDS)[1]:
            os.write(2, line.encode(errors="backslashreplace"))
    os._exit(STATUS)


def _briefly(act: Callable[[], object]) -> None:
    """Calls a function in a thread, which is left alone if it hangs."""

    def call() -> None:
        with contextlib.suppress(Exception):
            act()

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(_PATIENCE_SECONDS)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False
