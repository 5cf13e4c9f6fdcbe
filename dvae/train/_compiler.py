"""How the functions of a task are compiled."""

import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, SingleDeviceSharding

from dvae.train._task import Task

_LEVEL = "xla_backend_optimization_level"
_OF_STEP: dict[str, Any] = {
    # XLA takes vectors of 256 bits where a CPU has 512; drawing noise gains most.
    "xla_cpu_prefer_vector_width": 512,
    # Without it a loop of steps copies parts of the state that it carries, in every step.
    "xla_cpu_copy_insertion_use_region_analysis": True,
}


def quick(mesh: Mesh) -> dict[str, Any] | None:
    """Returns options with which code for CPUs is compiled soon, and not polished.

    A level that XLA_FLAGS asks for stays.
    """
    return _unless_chosen({_LEVEL: 1}) if _on_cpu(mesh) else None


def of_step(task: Task, mesh: Mesh) -> dict[str, Any] | None:
    """Returns the options that a task's step is compiled with.

    What XLA_FLAGS asks for stays, and options that this version of XLA lacks are left out.
    """
    if not _on_cpu(mesh):
        return None
    device = mesh.local_devices[0]
    options = {name: value for name, value in _OF_STEP.items() if _is_known(name, value, device)}
    return _unless_chosen({**options, **({_LEVEL: 1} if task.quick_to_compile else {})})


def _on_cpu(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


def _unless_chosen(options: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the options that XLA_FLAGS does not name, None if it names all."""
    chosen = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if name not in chosen} or None


@functools.cache
def _is_known(name: str, value: Any, device: jax.Device) -> bool:
    """Tells whether the installed XLA takes an option, by compiling next to nothing with it."""
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=SingleDeviceSharding(device))
    try:
        jax.jit(lambda x: x).lower(scalar).compile(compiler_options={name: value})
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return False
    return True
