"""What an accelerator reaches: train steps against its measured rates of arithmetic and copying.

    python benchmarks/gpu.py vq                # one row: floors, vq, seeds or dvaepp
    python benchmarks/gpu.py vq --trace=DIR    # with a profile of the step, for ui.perfetto.dev
    python benchmarks/gpu.py vq --peer         # beside the same gs_soft model in PyTorch

Prints one line of JSON a measurement; `--out=FILE` appends it there. `--smoke` runs tiny sizes, to
try the program anywhere.
"""

import argparse
import importlib.util
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from _timing import noise

from dvae.train import sharding
from dvae.train.loop import Task
from experiments.binary_vae import __main__ as binary_vae
from experiments.binary_vae import config as binary_config
from experiments.cifar_vq import __main__ as cifar_vq
from experiments.cifar_vq import config as vq_config
from experiments.cifar_vq import presets as vq_presets
from experiments.common import records
from experiments.dvaepp import __main__ as dvaepp
from experiments.dvaepp import config as dvaepp_config
from experiments.dvaepp import presets as dvaepp_presets

REPEATS = 7
# Images a second of the paper preset of cifar_vq on an H100.
MARKS = {"gs_soft": 32_000, "vq_ema": 40_000, "vimco": 16_000}
Record = dict[str, Any]


def median_seconds(call: Callable[[], Any]) -> float:
    """Returns the median time of a warmed-up call."""
    times = []
    for _ in range(REPEATS + 2):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def floors(smoke: bool, trace: str) -> Iterator[Record]:
    """Rates of a bfloat16 product and of a copy."""
    del trace
    n = 256 if smoke else 8192
    a, b = jax.random.normal(jax.random.key(0), (2, n, n), jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    seconds = median_seconds(lambda: product(a, b))
    yield {"row": "floors", "what": f"bfloat16 product of {n}", "tflops": 2e-12 * n**3 / seconds}
    words = 2**20 if smoke else 2**29
    x = jnp.ones(words, jnp.float32)
    increment = jax.jit(lambda x: x + 1)
    seconds = median_seconds(lambda: increment(x))
    yield {"row": "floors", "what": "copy, read and written", "gb_per_s": 8e-9 * words / seconds}


def timed(task: Task, num_steps: int, trace: str = "") -> Record:
    """Compiles `num_steps` steps as one call; time, images a second and memory."""
    state = jax.jit(task.init)(task.key_init, task.data)
    began = time.perf_counter()
    steps = jax.jit(task.call(num_steps))
    compiled = steps.lower(state, task.data, task.key_train).compile()
    compile_seconds = time.perf_counter() - began
    run = lambda: compiled(state, task.data, task.key_train)
    seconds = median_seconds(run) / num_steps
    if trace:
        with jax.profiler.trace(trace, create_perfetto_trace=True):
            jax.block_until_ready(run())
    return {
        "steps_a_call": num_steps,
        "compile_seconds": round(compile_seconds, 1),
        "step_ms": round(1e3 * seconds, 4),
        "images_per_s": round(task.images_per_step / seconds),
        "temporary_mb": round(compiled.memory_analysis().temp_size_in_bytes / 1e6, 1),
    }


def vq_config_of(estimator: str, smoke: bool) -> vq_config.Config:
    """The paper preset, or the smallest one."""
    preset = vq_presets.PRESETS["smoke" if smoke else "paper"]
    overrides = dict(estimator=estimator, num_steps=1_000, log_interval=100)
    return vq_config.Config(**{**preset, **overrides})


def vq(smoke: bool, trace: str) -> Iterator[Record]:
    """The paper preset of cifar_vq."""
    rules = MARKS if not trace else ("gs_soft",)
    for estimator in rules:
        images = noise((32, 32, 3), 256, 50_000 if not smoke else 64)
        config = vq_config_of(estimator, smoke)
        task = cifar_vq.make_task(config, images, sharding.make_mesh(1))
        found = timed(task, 4 if smoke else 50, trace)
        yield {
            "row": "vq",
            "estimator": estimator,
            **found,
            "of_mark": found["images_per_s"] / MARKS[estimator],
        }


def vq_peer(smoke: bool) -> Iterator[Record]:
    """The gs_soft step of that preset in PyTorch."""
    import cifar_vq_torch

    images = noise((32, 32, 3), 256, 50_000 if not smoke else 64).train
    for compiled in (False, True) if not smoke else (False,):
        config = vq_config_of("gs_soft", smoke)
        found = cifar_vq_torch.timed(config, images, 4 if smoke else 50, compiled=compiled)
        yield {"row": "vq", "estimator": "gs_soft", **found}


def seeds(smoke: bool, trace: str) -> Iterator[Record]:
    """The nonlinear binary VAE of Table 1: one seed, and five together."""
    for count in (1, 5):
        config = binary_config.Config(
            dataset="mnist_static",
            structure="nonlinear",
            estimator="exponential",
            bound="joint",
            num_steps=10_000,
            steps_per_call=10 if smoke else 500,
            log_interval=1_000,
            num_seeds=count,
        )
        task = binary_vae.make_task(config, noise((28, 28, 1), 2, 1_000), sharding.make_mesh(1))
        yield {"row": "seeds", "seeds": count, **timed(task, config.steps_per_call, trace)}


def groups(smoke: bool, trace: str) -> Iterator[Record]:
    """DVAE++ at full size, its groups kept or recomputed."""
    for preset, shape, levels in (
        ("table3_rbm_normal", (28, 28, 1), 2),
        ("cifar10", (32, 32, 3), 256),
    ):
        for remat in ("off", "on"):
            small = dict(features=2, local_groups=2, hidden_units=8) if smoke else {}
            settings = {**dvaepp_presets.PRESETS[preset], **small, "remat": remat}
            config = dvaepp_config.Config(**settings)
            task = dvaepp.make_task(config, noise(shape, levels, 1_000), sharding.make_mesh(1))
            found = timed(task, 1 if smoke else 10, trace)
            yield {"row": "dvaepp", "preset": preset, "remat": remat, **found}


def main() -> None:
    """Measures one row."""
    rows = {
        "floors": floors,
        "vq": vq,
        "seeds": seeds,
        "dvaepp": groups,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", choices=rows)
    parser.add_argument("--out", type=Path, default=Path("/dev/null"))
    parser.add_argument("--trace", default="", help="folder for a profile")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--peer", action="store_true", help="vq: PyTorch too")
    options = parser.parse_args()
    if options.peer and options.row != "vq":
        parser.error(f"--peer is read with vq, got {options.row}")
    if options.peer and importlib.util.find_spec("torch") is None:
        parser.error("--peer needs PyTorch: pip install torch")
    hardware = records.describe_hardware()
    found = rows[options.row](options.smoke, options.trace)
    for record in itertools.chain(found, vq_peer(options.smoke) if options.peer else ()):
        line = json.dumps({**record, "hardware": hardware, "jax": jax.__version__})
        print(line, flush=True)
        with options.out.open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
