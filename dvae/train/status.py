"""Says on stderr what a program is busy with.

    with status.phase("compiling the step"):
        ...

A phase that is over in a moment says nothing. Of a longer one a terminal shows the time that it
has taken so far; elsewhere there is one plain line.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from tqdm import tqdm

__all__ = ["DELAY_SECONDS", "phase", "say"]

DELAY_SECONDS = 1.0  # before a phase is worth a line


def say(text: str) -> None:
    """Prints a line, without disturbing bars; a terminal that is gone is no error."""
    with contextlib.suppress(OSError):
        if sys.stderr.isatty():
            tqdm.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def phase(text: str, *, silent: bool = False) -> Iterator[None]:
    """Shows what is being done in this context.

    Args:
        text: a few words, such as "loading the data".
        silent: shows nothing, as all processes of a run but the main one.
    """
    if silent:
        yield
        return
    over = threading.Event()
    line = threading.Thread(target=_show, args=(text, time.time(), over), daemon=True)
    line.start()
    try:
        yield
    finally:
        over.set()
        line.join()


def _show(text: str, began: float, over: threading.Event) -> None:
    """Shows one phase until it is over."""
    if over.wait(DELAY_SECONDS):
        return
    if not sys.stderr.isatty():
        say(text)
        return
    with contextlib.suppress(OSError):
        bar = tqdm(bar_format="{desc} [{elapsed}]", desc=text, leave=False, file=sys.stderr)
        bar.start_t = began  # when the phase began, not its line
        while not over.wait(1.0):
            bar.refresh()
        bar.close()
    say(f"{text} [{tqdm.format_interval(time.time() - began)}]")
