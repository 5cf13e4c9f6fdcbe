"""Lines on stderr that say what a program is busy with.

    with status.phase("compiling the step"):
        ...

A phase that is over in a moment says nothing. A longer one is said when it has begun and, with the
time that it took, when it is over; a terminal shows the time meanwhile. What of it went into
compilation, by whatever it called, is said as well.
"""

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Iterator

import jax
from tqdm import tqdm

__all__ = [
    "DELAY_SECONDS",
    "compile_seconds",
    "fixed_length",
    "fixed_seconds",
    "phase",
    "say",
]

DELAY_SECONDS = 1.0  # before a phase is worth a line
_COMPILING = (
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
_compiled = {"seconds": 0.0}  # by this process so far
_fixed = {"seconds": 0.0}  # in `fixed_length`, by this process so far


def say(text: str) -> None:
    """Prints a line on stderr, without disturbing bars; a terminal that is gone is no error."""
    with contextlib.suppress(OSError):
        if sys.stderr.isatty():
            tqdm.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


def compile_seconds() -> float:
    """Returns the seconds that JAX has spent compiling since this was called first, or a phase."""
    _listen()
    return _compiled["seconds"]


@contextlib.contextmanager
def fixed_length() -> Iterator[None]:
    """Counts this context as a part of an evaluation that takes as long for any number of images.

    A time limit and a dry run do not multiply it by the images of the final evaluation.
    """
    began, compiled = time.perf_counter(), compile_seconds()
    try:
        yield
    finally:
        passed = time.perf_counter() - began - (compile_seconds() - compiled)
        _fixed["seconds"] += max(0.0, passed)


def fixed_seconds() -> float:
    """Returns the seconds in `fixed_length` so far, compilation excluded."""
    return _fixed["seconds"]


@contextlib.contextmanager
def phase(text: str, *, silent: bool = False) -> Iterator[None]:
    """Shows on stderr what is being done in this context, if it takes long.

    Args:
      text: a few words, such as "loading the data".
      silent: says nothing, as all processes of a run but the main one.
    """
    if silent:
        yield
        return
    over = threading.Event()
    said = threading.Event()
    began, compiled = time.time(), compile_seconds()
    line = threading.Thread(target=_show, args=(text, began, over, said), daemon=True)
    line.start()
    try:
        yield
    finally:
        over.set()
        line.join()
    if said.is_set():
        say(f"{text}: {_taken(time.time() - began, compile_seconds() - compiled)}")


def _taken(seconds: float, compiling: float) -> str:
    """Writes a time, and how much of it was compilation where that is part of it."""
    part = f", {compiling:.1f} s of it compiling" if compiling >= DELAY_SECONDS else ""
    return f"{seconds:.1f} s{part}"


def _show(text: str, began: float, over: threading.Event, said: threading.Event) -> None:
    """Shows one phase until it is over."""
    if over.wait(DELAY_SECONDS):
        return
    said.set()
    if not sys.stderr.isatty():
        say(text)
        return
    with contextlib.suppress(OSError):
        bar = tqdm(bar_format="{desc} [{elapsed}]", desc=text, leave=False, file=sys.stderr)
        bar.start_t = began  # when the phase began, not its line
        while not over.wait(1.0):
            bar.refresh()
        bar.close()


@functools.cache
def _listen() -> None:
    """Adds up, from now on, what JAX reports of its compilations."""

    def add(event: str, duration_secs: float, **_: str | int) -> None:
        if event in _COMPILING:
            _compiled["seconds"] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(add)
