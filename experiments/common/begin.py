"""What must happen before a program imports its libraries; an import elsewhere never comes here."""

import os
import re
import signal
import sys
import threading
import time
from types import TracebackType

_VIRTUAL_DEVICES = r"--xla_force_host_platform_device_count=(\d+)"
_THREADS_PER_DEVICE = 4
_DELAY_SECONDS = 1.0  # before imports are worth a line
_imported = threading.Event()
_began: list[float] = []  # when this process began as a program, on `time.perf_counter`


def importing() -> None:
    """Prepares the process for the imports of a program."""
    _began.append(time.perf_counter())
    sys.excepthook = _say_missing
    # Programs write files alone. What a notebook left here may be a backend that is not installed.
    os.environ["MPLBACKEND"] = "agg"
    give_threads()
    # Until the program hears signals itself, Ctrl-C ends it without a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.stderr.isatty():  # where somebody waits; it is over too soon to be worth a line in a log
        threading.Thread(target=_say_importing, daemon=True).start()


def give_threads() -> None:
    """Lets XLA start enough threads for the virtual CPU devices that were asked for.

    A collective holds a thread of each device until all have come, and two may be under way at
    once: one of them in a branch. With fewer threads they wait for each other without an end.
    """
    flag = re.search(_VIRTUAL_DEVICES, os.environ.get("XLA_FLAGS", ""))
    asked = flag[1] if flag else os.environ.get("JAX_NUM_CPU_DEVICES", "")
    if asked.isdecimal() and not {"PJRT_NPROC", "NPROC"} & os.environ.keys():
        needed = _THREADS_PER_DEVICE * int(asked)
        os.environ["PJRT_NPROC"] = str(max(needed, os.cpu_count() or 1))


def imported() -> None:
    """Notes that the imports are over."""
    if sys.excepthook is _say_missing:
        sys.excepthook = sys.__excepthook__
    _imported.set()


def program_start() -> float:
    """Returns when the program began, on `time.perf_counter`; now, where none was started."""
    return _began[0] if _began else time.perf_counter()


def _say_importing() -> None:
    if not _imported.wait(_DELAY_SECONDS):
        print("importing the libraries", file=sys.stderr, flush=True)


def _say_missing(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Prints one line for a package that is not installed, and a traceback for all else."""
    package = (getattr(error, "name", None) or "").split(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package in ("", "dvae", "experiments"):
        sys.__excepthook__(kind, error, trace)
    else:
        remedy = "pip install -e '.[all]' in the checkout"
        print(f"error: the programs need {package}: {remedy}", file=sys.stderr)
