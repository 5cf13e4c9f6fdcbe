"""Batches that come from the host while a run trains, made ahead of the steps that need them.

A `Task` with a `feed` draws nothing on the device: each call of its step is given the data of its
own steps. What a step sees is a function of its number alone, so that a resumed run sees what an
uninterrupted one would have.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dvae.train.sharding import AXIS

__all__ = ["ahead", "feed_rows", "host_device", "positions_of"]

_T = TypeVar("_T")
_DEPTH = 2  # values that are made before they are asked for


def ahead(make: Callable[[int], _T], *, depth: int = _DEPTH) -> Iterator[_T]:
    """Yields make(0), make(1), ... without an end, each made in another thread before it is due.

    Args:
        make: what the thread calls, one call after the other; its errors are raised here.
        depth: values that may wait, at least 1.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    pool = ThreadPoolExecutor(1, thread_name_prefix="feed")
    try:
        pending = deque(pool.submit(make, number) for number in range(depth))
        number = depth
        while True:
            value = pending.popleft().result()
            pending.append(pool.submit(make, number))
            number += 1
            yield value
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def host_device() -> jax.Device:
    """Returns a device that waits for no accelerator: a CPU, or else the first one."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX was told to use an accelerator alone
        return jax.local_devices()[0]


def feed_rows(
    rows: Any,
    indices: Callable[[jax.Array], jax.Array],
    mesh: Mesh,
    *,
    step: int,
    num_steps: int,
) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Yields the training images of one call of the step after the other.

    They come with the positions by which a step gathers them, as it would from all images, so that
    the programs that XLA makes of both differ, and round, as little as can be.

    Args:
        rows: [N, ...], indexed by int arrays: NumPy's, memory-mapped, or read from files.
        indices: number of a step, int32 [] -> int32 [..., B], which rows it sees; pure, jittable.
        mesh: the devices that share each batch, all of this process.
        step: the first one.
        num_steps: of a call.

    Returns:
        Iterator over images [num_steps, M, ...] and positions int32 [num_steps, ..., B] in them,
        without the first axis for a call of one step; M counts the images of all `...` together,
        which the devices share.
    """
    of_steps = jax.jit(jax.vmap(indices))
    cpu = host_device()

    def make(call: int) -> tuple[jax.Array, jax.Array]:
        first = step + call * num_steps
        numbers = np.arange(first, first + num_steps, dtype=np.int32)
        chosen = np.asarray(of_steps(jax.device_put(numbers, cpu)))
        if num_steps == 1:
            chosen = chosen[0]
        lead = chosen.shape[: num_steps > 1]
        batch = np.asarray(rows[chosen.reshape(*lead, -1)])
        positions = np.broadcast_to(positions_of(chosen.shape[len(lead) :]), chosen.shape)
        place = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
        return place(batch, *[None] * len(lead), AXIS), place(positions)

    return ahead(make)


def positions_of(shape: tuple[int, ...]) -> np.ndarray:
    """Returns the numbers from 0 on, int32 of a shape."""
    return np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
