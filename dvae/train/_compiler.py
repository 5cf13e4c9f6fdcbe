"""How the functions of a task are compiled."""

import os
from typing import Any

from jax.sharding import Mesh

from dvae.train._task import Task

_LEVEL = "xla_backend_optimization_level"


def quick(mesh: Mesh) -> dict[str, Any] | None:
    """Returns options with which code for CPUs is compiled soon, and not polished.

    A level that XLA_FLAGS asks for stays.
    """
    chosen = _LEVEL in os.environ.get("XLA_FLAGS", "")
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return {_LEVEL: 1} if on_cpu and not chosen else None


def of_step(task: Task, mesh: Mesh) -> dict[str, Any] | None:
    """Returns the options that a task's step is compiled with."""
    return quick(mesh) if task.quick_to_compile else None
