"""One mesh axis, `data`, over all devices: the state is replicated, the batch is sharded.

The step is written for the whole batch; XLA cuts it along the constraint of `shard_batch` and
inserts the reductions. JAX's random numbers do not depend on the sharding, so the same seed gives
the same training on any number of devices, up to the rounding of sums. One device is the ordinary
case of the same code.
"""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

PyTree = Any
AXIS = "data"


def make_mesh(num_devices: int | None = None) -> Mesh:
    """Returns a mesh over the first `num_devices` devices (all of them by default)."""
    devices = jax.devices()
    if num_devices is not None and not 1 <= num_devices <= len(devices):
        raise ValueError(f"num_devices must be between 1 and {len(devices)}, got {num_devices}")
    return jax.make_mesh(
        (num_devices or len(devices),),
        (AXIS,),
        axis_types=(AxisType.Auto,),
        devices=devices[:num_devices],
    )


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises ValueError unless the devices of the mesh can share a batch equally."""
    if batch_size % mesh.size:
        below = batch_size - batch_size % mesh.size
        raise ValueError(
            f"batch_size={batch_size} is not divisible by the {mesh.size} devices; "
            f"use {below or mesh.size} or {below + mesh.size}"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that keeps a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(mesh: Mesh, batch: PyTree) -> PyTree:
    """Constrains the arrays of a batch, inside jit, to be sharded along their first axis."""
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec(AXIS)))
