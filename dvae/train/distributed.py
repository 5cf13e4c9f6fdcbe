"""Several processes that train as one, on JAX's own runtime.

Every process runs the same program on its own devices; what they compute together are arrays over
the devices of all. Only the main process writes records and pictures; all of them take part in
checkpoints, so the workdir must be one directory that every process sees.
"""

import functools
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from dvae.train import signals

__all__ = [
    "HEARTBEAT_SECONDS",
    "PeerError",
    "agreed",
    "agreed_end",
    "any_process",
    "barrier",
    "initialize",
    "is_main",
    "leave",
    "naming_lost_peers",
    "sum_over_processes",
]

# A process that is gone is noticed at the next collective operation, which becomes a `PeerError`.
# Where the others wait for it in a checkpoint, JAX's runtime ends them itself after this long
# ("Terminating process because the JAX distributed service detected fatal errors ...").
HEARTBEAT_SECONDS = 30


class PeerError(RuntimeError):
    """Another process died or cannot be reached."""

    @classmethod
    def after(cls, error: Exception) -> Exception:
        """Returns what an error of the runtime means for a run of several processes.

        Args:
          error: of an operation that all of them take part in.

        Returns:
          A `PeerError`, or the error itself if this process ran out of memory.
        """
        if "RESOURCE_EXHAUSTED" in str(error):
            return error  # this process is out of memory itself
        reason = " ".join(str(error).split())[:300]
        return cls(
            f"process {jax.process_index()} of {jax.process_count()} lost another one ({reason}); "
            "start all of them again with the same commands: they continue from the last checkpoint"
        )


def initialize(
    coordinator: str, num_processes: int, process_id: int, *, timeout: int = 300
) -> None:
    """Joins the processes of a run, before anything else of JAX is called.

    Args:
      coordinator: HOST:PORT of process 0; "auto" takes all three from the environment, which JAX
        knows how to read under SLURM, Open MPI, Kubernetes and on Cloud TPU.
      num_processes: how many there are (unless "auto").
      process_id: which one this is, from 0.
      timeout: seconds to wait for the others.

    Raises:
      ValueError: the arguments name no process of a run, or "auto" found none.
      PeerError: the others did not come in time.
    """
    join = functools.partial(
        jax.distributed.initialize,
        initialization_timeout=timeout,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )
    if coordinator != "auto":
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"--coordinator={coordinator} must be HOST:PORT of process 0, or auto")
        if not 0 <= process_id < num_processes:
            raise ValueError(
                f"--process_id={process_id} must be one of 0, ..., --num_processes - 1, got "
                f"--num_processes={num_processes}"
            )
        join = functools.partial(
            join, coordinator, num_processes, process_id, cluster_detection_method="deactivate"
        )
    try:
        join()
    except ValueError as error:
        raise ValueError(
            "--coordinator=auto found no cluster in the environment (SLURM, Open MPI, Kubernetes, "
            "Cloud TPU); give --coordinator=HOST:PORT, --num_processes and --process_id"
        ) from error
    except RuntimeError as error:
        raise PeerError(f"the processes of the run did not find each other: {error}") from error
    signals.renew()  # JAX's runtime listens to SIGTERM itself


def is_main() -> bool:
    """Returns whether this process is the one that writes records and pictures."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until all processes have come here; `name` must be the same in all of them."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def any_process(flag: bool) -> bool:
    """Returns whether the flag is set in any process; every process must call this."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def agreed_end(
    received: signal.Signals | None, late: bool, *, asking: bool
) -> tuple[signal.Signals | None, bool]:
    """Returns why all processes stop after this step, if they do: by a signal, or by the clock.

    Args:
      received: by this process.
      late: whether the time of the run is over by the clock of this process.
      asking: whether this is a step after which processes ask each other; the same in all of them.

    Returns:
      The signal as of `agreed`, and whether the clock of any process is over.
    """
    if jax.process_count() == 1:
        return received, late
    if not asking:
        return None, False
    flags = multihost_utils.process_allgather(np.array([received is not None, late]))
    signaled, over = np.any(flags, axis=0)
    return (received or signal.SIGTERM) if signaled else None, bool(over)


def agreed(received: signal.Signals | None, *, asking: bool) -> signal.Signals | None:
    """Returns the signal that all processes stop by after this step, if any.

    Args:
      received: by this process.
      asking: whether this is a step after which processes ask each other; the same in all of them.

    Returns:
      The signal of this process, SIGTERM if only another one received one, or None.
    """
    return agreed_end(received, False, asking=asking)[0]


def sum_over_processes(values: np.ndarray) -> np.ndarray:
    """Adds the arrays of all processes, each of which must call this.

    Args:
      values: int32 or float32, of the same shape in every process.

    Returns:
      The sum, of that shape and type.
    """
    if jax.process_count() == 1:
        return values
    return multihost_utils.process_allgather(values).sum(0)


@contextmanager
def naming_lost_peers() -> Iterator[None]:
    """Turns an error of the runtime about a lost process into a `PeerError`.

    Raises:
      PeerError: another process died or cannot be reached.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise PeerError.after(error) from error


def leave(status: int) -> NoReturn:
    """Ends this process.

    One of several ends at once: an orderly end would wait for the others.

    Args:
      status: of the process.

    Raises:
      SystemExit: in a run of one process.
    """
    if not jax.distributed.is_initialized():
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
