"""Training images on the devices, in host memory and in a mapped file: images/s of each.

    python benchmarks/host_streaming.py            # prints the table, writes nothing

The train step of `binary_vae` on sampled noise of 28x28 pixels, the same batches for all three.
"""

import dataclasses
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from _timing import noise

from dvae import data
from dvae.analysis import tables
from dvae.data import Dataset
from dvae.train import sharding
from experiments.binary_vae import __main__ as binary_vae
from experiments.binary_vae.config import Config
from experiments.common import records

NUM_TRAIN = 50_000
STEPS_PER_CALL, CALLS, REPEATS = 20, 10, 5
SETTINGS = dict(dataset="mnist_dynamic", batch_size=100, steps_per_call=STEPS_PER_CALL)


def speeds(config: Config, images: Dataset) -> list[float]:
    """Returns images/s of several runs of some calls each, after a first call."""
    mesh = sharding.make_mesh()
    task = binary_vae.make_task(config, images, mesh)
    whole = sharding.replicated(mesh)
    train_state = jax.jit(task.init, out_shardings=whole)(task.key_init, task.data)
    steps = jax.jit(task.call(STEPS_PER_CALL), donate_argnums=0, out_shardings=whole)
    feed = task.feed(0, STEPS_PER_CALL) if task.feed else itertools.repeat(task.data)
    found = []
    for repeat in range(REPEATS + 1):
        began = time.perf_counter()
        for _ in range(CALLS if repeat else 1):
            train_state, _ = steps(train_state, next(feed), task.key_train)
            if sharding.must_wait(mesh):
                jax.block_until_ready(train_state)
        jax.block_until_ready(train_state)
        found.append(CALLS * STEPS_PER_CALL * config.batch_size / (time.perf_counter() - began))
    return found[1:]


def main() -> None:
    """Measures all three and prints the table."""
    images = data.binarized(noise((28, 28, 1), 256, NUM_TRAIN))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.npy"
        np.save(path, images.train)
        mapped = images._replace(train=np.load(path, mmap_mode="r"))
        rows = []
        for place, source in (("device", images), ("host", images), ("files", mapped)):
            config = dataclasses.replace(Config(**SETTINGS), data_on=place)
            values = speeds(config, source)
            median = statistics.median(values)
            rows.append([place, f"{median:,.0f}", f"{min(values):,.0f} to {max(values):,.0f}"])
    print(f"{records.describe_hardware()}, {jax.default_backend()}")
    print(tables.markdown(("--data_on", "images/s, median", "range"), rows))


if __name__ == "__main__":
    main()
