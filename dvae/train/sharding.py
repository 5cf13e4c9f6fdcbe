"""One mesh axis, `data`, over all devices of all processes.

The state is replicated; batches, Markov chains and the training set are sharded along their first
axis. The step is written for the whole batch; XLA cuts it along the constraint of `shard_batch` and
inserts the reductions. JAX's random numbers do not depend on the sharding, so the same seed gives
the same training on any number of devices, up to the rounding of sums. One device is the ordinary
case of the same code.
"""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

__all__ = [
    "AXIS",
    "PyTree",
    "by_rows",
    "check_batch_size",
    "fetch",
    "gather_rows",
    "local_rows",
    "make_mesh",
    "must_wait",
    "replicate",
    "replicated",
    "shard_batch",
    "shard_rows",
]

PyTree = Any
AXIS = "data"


def make_mesh(num_devices: int | None = None) -> Mesh:
    """Returns a mesh over the first `num_devices` devices (all of them by default).

    Devices of one process are neighbors, so that each process holds one block of a sharded array.

    Raises:
        ValueError: there are not so many devices, or devices of some process would stay out.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if num_devices is not None and not 1 <= num_devices <= len(devices):
        raise ValueError(
            f"a mesh of {num_devices} devices cannot be made of the {len(devices)} that there are"
        )
    if num_devices not in (None, len(devices)) and jax.process_count() > 1:
        raise ValueError(
            f"a run of {jax.process_count()} processes uses all {len(devices)} devices, got a mesh "
            f"of {num_devices}"
        )
    return Mesh(np.array(devices[:num_devices]), (AXIS,), axis_types=(AxisType.Auto,))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises ValueError unless the devices of the mesh can share a batch equally."""
    if batch_size % mesh.size:
        below = batch_size - batch_size % mesh.size
        raise ValueError(
            f"batch_size={batch_size} is not divisible by the {mesh.size} devices; "
            f"use {below or mesh.size} or {below + mesh.size}"
        )


def must_wait(mesh: Mesh) -> bool:
    """Tells whether each call on the mesh must have ended before the next one is made.

    So it is with several CPU devices in one process. Their collectives block a thread each until
    all have come; where many calls are queued, the threads are taken by later ones, and XLA aborts
    ("Termination timeout for `all reduce RendezvousKey`") after 40 seconds, or waits for ever.
    """
    return len(mesh.local_devices) > 1 and mesh.local_devices[0].platform == "cpu"


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that keeps a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh: Mesh) -> NamedSharding:
    """Returns the sharding along the first axis."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def shard_batch(mesh: Mesh, batch: PyTree) -> PyTree:
    """Constrains the arrays of a batch, inside jit, to be sharded along their first axis."""
    return jax.lax.with_sharding_constraint(batch, by_rows(mesh))


def replicate(mesh: Mesh, tree: PyTree) -> PyTree:
    """Puts whole copies of host arrays, the same in every process, on all devices."""
    whole = replicated(mesh)

    def put(x: Any) -> jax.Array:
        if jax.dtypes.issubdtype(getattr(x, "dtype", None), jax.dtypes.prng_key):
            data = jax.make_array_from_process_local_data(whole, np.asarray(jax.random.key_data(x)))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        return jax.make_array_from_process_local_data(whole, np.asarray(x))

    return jax.tree.map(put, tree)


def local_rows(mesh: Mesh, num_rows: int) -> slice:
    """Returns the rows of an array of `num_rows` that this process keeps when it is sharded.

    All devices get equally many rows; where that leaves a rest, the last ones get padding.
    """
    per_device = -(-num_rows // mesh.size)
    owners = [device.process_index for device in mesh.devices.flat]
    first, count = owners.index(jax.process_index()), owners.count(jax.process_index())
    start, stop = first * per_device, (first + count) * per_device
    return slice(min(start, num_rows), min(stop, num_rows))


def shard_rows(mesh: Mesh, rows: np.ndarray, num_rows: int) -> jax.Array:
    """Makes one array [M, ...] over all devices of the rows that each process keeps.

    Args:
        mesh: the devices.
        rows: `local_rows` of the whole array, in this process.
        num_rows: of the whole array; M is the next multiple of the devices, filled up with zeros.
    """
    padded = num_rows + -num_rows % mesh.size
    per_process = padded // mesh.size * len(mesh.local_devices)
    missing = np.zeros((per_process - len(rows), *rows.shape[1:]), rows.dtype)
    full = np.concatenate([rows, missing]) if len(missing) else rows
    shape = (padded, *rows.shape[1:])
    return jax.make_array_from_process_local_data(by_rows(mesh), full, shape)


def gather_rows(mesh: Mesh, rows: np.ndarray, num_rows: int) -> np.ndarray:
    """Puts the whole array together, in every process, of the rows that each keeps."""
    if jax.process_count() == 1:
        return rows
    return fetch(shard_rows(mesh, rows, num_rows))[:num_rows]


def fetch(tree: PyTree) -> PyTree:
    """Brings arrays to the host whole; every process must call this for sharded ones."""

    def get(x: Any) -> np.ndarray:
        if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
            return multihost_utils.process_allgather(x, tiled=True)
        return jax.device_get(x)

    return jax.tree.map(get, tree)
