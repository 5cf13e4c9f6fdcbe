"""What the paper step of cifar_vq compiles to on an H200, counted without one.

    pip install jax-cuda13-plugin==JAX jax-cuda13-pjrt==JAX    # JAX: the installed version of jax
    JAX_PLATFORMS=cpu python benchmarks/gpu_compiled.py [ESTIMATOR]

XLA compiles for a described device as it does for one that is there, short of timing cuDNN's
algorithms. Counted are the multiplications of the convolutions as they reach cuDNN and the bytes
that every kernel reads and writes; the times are floors, at the rates of `gpu.py floors`. A gather
counts the whole of what it reads from.
"""

import argparse
import json
import math
import re
from typing import NamedTuple
from unittest import mock

import jax
from _timing import noise
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from dvae.models import _convolution
from dvae.train import sharding
from dvae.train.state import scan_steps
from dvae.vq import _products
from experiments.cifar_vq import __main__ as cifar_vq
from experiments.cifar_vq import config as vq_config
from experiments.cifar_vq import presets as vq_presets

FLOPS, BYTES = 645e12, 2763e9  # a second, measured: docs/results/gpu.md
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000 l2_cache_size: 62914560 device_memory_size: 150000000000
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H200"
"""
INSTRUCTION = re.compile(r"(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)(.*)")
ARRAY = re.compile(r"\b(pred|(?:bf|f|s|u)\d+)\[([\d,]*)\]")
FREE = {"get-tuple-element", "parameter", "tuple", "constant", "bitcast"}


class Kernel(NamedTuple):
    """One launch."""

    name: str
    flops: float  # of a convolution, otherwise 0
    bytes: int


def arrays(shape: str) -> list[tuple[int, list[int]]]:
    """Returns bytes an element and sizes of every array in HLO's spelling of a shape."""
    shape = re.sub(r"\{[^}]*\}", "", shape)  # layouts
    return [
        (int(re.sub(r"\D", "", kind) or 8) // 8, [int(n) for n in sizes.split(",") if n])
        for kind, sizes in ARRAY.findall(shape)
    ]


def conv_flops(target: str, result: str, operands: list[str]) -> float:
    """Counts two for every output, tap and input channel, of cuDNN's three kinds alike."""
    sizes = [arrays(shape)[0][1] for shape in (result, *operands[:2])]
    # The forward's output and its kernel, output channels first, by what the kind is given.
    output, kernel = {
        "Forward": (sizes[0], sizes[2]),
        "BackwardInput": (sizes[1], sizes[2]),
        "BackwardFilter": (sizes[2], sizes[0]),
    }[target]
    return 2.0 * math.prod(output) * math.prod(kernel[1:])


def kernels(hlo: str) -> list[Kernel]:
    """Lists the launches of the computation that has most of them, the loop's body."""
    bodies = [block.splitlines() for block in hlo.split("\n}\n")]
    body = max(bodies, key=lambda b: sum(" fusion(" in x or " custom-call(" in x for x in b))
    found = [m.groups() for line in body if (m := INSTRUCTION.match(line.strip()))]
    shapes = {name: shape for name, shape, *_ in found}
    launches = []
    for name, shape, operation, arguments, rest in found:
        if operation in FREE:
            continue
        operands = [shapes[x] for x in re.findall(r"%([\w.\-]+)", arguments) if x in shapes]
        moved = sum(
            width * math.prod(sizes) for part in (shape, *operands) for width, sizes in arrays(part)
        )
        conv = re.search(r"__cudnn\$conv(Forward|BackwardInput|BackwardFilter)\"", rest)
        flops = conv_flops(conv[1], shape, operands) if conv else 0.0
        launches.append(Kernel(name, flops, moved))
    return launches


def compile_steps(estimator: str) -> jax.stages.Compiled:
    """Compiles 50 steps of the paper preset for the described device."""
    device = topologies.get_topology_desc(
        platform="cuda", target_config=H200, topology="1x1x1"
    ).devices[0]
    settings = dict(estimator=estimator, num_steps=1_000, log_interval=100)
    config = vq_config.Config(**{**vq_presets.PRESETS["paper"], **settings})
    task = cifar_vq.make_task(config, noise((32, 32, 3), 256, 512), sharding.make_mesh(1))
    inputs = (jax.eval_shape(task.init, task.key_init, task.data), task.data, task.key_train)
    place = SingleDeviceSharding(device)
    described = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), inputs
    )
    # Both speak of the machine that is here: the form of convolutions, the mesh of the batch.
    with (
        mock.patch.object(_convolution, "use_matmul", return_value=False),
        mock.patch.object(_products, "adds_by_product", return_value=True),
        mock.patch.object(sharding, "shard_batch", lambda mesh, batch: batch),
    ):
        traced = jax.jit(scan_steps(task.step, 50)).trace(*described)
    lowered = traced.lower(lowering_platforms=("cuda",))
    return lowered.compile(compiler_options={"xla_gpu_autotune_level": "0"})


def main() -> None:
    """Prints the totals and the largest kernels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("estimator", nargs="?", default="gs_soft")
    parser.add_argument("--largest", type=int, default=20)
    options = parser.parse_args()
    compiled = compile_steps(options.estimator)
    launches = kernels(compiled.as_text())
    flops, moved = sum(k.flops for k in launches), sum(k.bytes for k in launches)
    totals = {
        "estimator": options.estimator,
        "kernels": len(launches),
        "conv_gflop": round(flops / 1e9, 1),
        "conv_floor_ms": round(1e3 * flops / FLOPS, 3),
        "moved_mb": round(moved / 1e6, 1),
        "moved_floor_ms": round(1e3 * moved / BYTES, 3),
        "temporary_mb": round(compiled.memory_analysis().temp_size_in_bytes / 1e6, 1),
    }
    print(json.dumps(totals))
    floor = lambda k: max(k.flops / FLOPS, k.bytes / BYTES)
    for k in sorted(launches, key=floor, reverse=True)[: options.largest]:
        print(
            f"{1e3 * floor(k):7.3f} ms {k.flops / 1e9:8.1f} GFLOP {k.bytes / 1e6:8.1f} MB  {k.name}"
        )


if __name__ == "__main__":
    main()
