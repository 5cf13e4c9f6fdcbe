"""What the paper step of cifar_vq compiles to on an H200, counted without one.

    pip install jax-cuda13-plugin==JAX jax-cuda13-pjrt==JAX    # JAX: the installed version of jax
    JAX_PLATFORMS=cpu python benchmarks/gpu_compiled.py [ESTIMATOR] [--out=FILE]

XLA compiles for a described device as it does for one that is there, short of timing cuDNN's
algorithms. Counted are the kernels, the multiplications of the convolutions as they reach cuDNN and
the bytes that every kernel reads and writes, in all and for each line of our code. A gather counts
the whole of what it reads from. The times are floors, at the rates of `gpu.py floors` and, for
kernels with few blocks of threads, at the rate of a block. `--out` adds the counts to a file.
"""

import argparse
import collections
import json
import math
import re
import tempfile
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import jax
from _timing import noise
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from dvae.data import batches
from dvae.models import _convolution, _gpu
from dvae.train import sharding
from dvae.vq import _products
from experiments.cifar_vq import __main__ as cifar_vq
from experiments.cifar_vq import config as vq_config
from experiments.cifar_vq import presets as vq_presets

FLOPS, BYTES = 645e12, 2763e9  # a second, measured: docs/results/gpu.md
# A second of one block of 1,024 threads, from a profile of an H100: two of them add columns of 2.1
# MB in 18 us, of 8.4 MB in 60.
BLOCK_BYTES = 65e9
ROOT = Path(__file__).parents[1]
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
    line: str  # of our code, the innermost one that called for it
    flops: float  # of a convolution, otherwise 0
    bytes: int
    blocks: int | None  # of threads; None where the compiler's dump does not tell

    def floor(self) -> float:
        """The least time, in seconds."""
        rate = min(BYTES, BLOCK_BYTES * self.blocks) if self.blocks else BYTES
        return max(self.flops / FLOPS, self.bytes / rate)


class Sources:
    """The lines of our code in a module's table of stack frames."""

    def __init__(self, hlo: str) -> None:
        self._files = {n: row.strip('"') for n, row in self._table(hlo, "FileNames")}
        numbers = lambda row: [int(x) for x in re.findall(r"=(\d+)", row)]
        self._locations = {n: numbers(row) for n, row in self._table(hlo, "FileLocations")}
        self._frames = {n: numbers(row) for n, row in self._table(hlo, "StackFrames")}

    @staticmethod
    def _table(hlo: str, title: str) -> list[tuple[int, str]]:
        rows = hlo.split(f"\n{title}\n")[1].split("\n\n")[0].splitlines()
        return [(int(number), row) for number, row in (row.split(" ", 1) for row in rows)]

    def line(self, instruction: str) -> str:
        """Returns FILE:LINE of an instruction in HLO's spelling, or nothing: the loop's own."""
        frame = re.search(r"stack_frame_id=(\d+)", instruction)
        number = int(frame[1]) if frame else 0
        while number:
            location, parent = self._frames[number]
            file, _, line = self._locations[location][:3]
            path = Path(self._files[file])
            if parent > 1 and path.is_relative_to(ROOT) and path.name != "_bilinear.py":
                return f"{path.relative_to(ROOT)}:{line}"
            number = parent - 1
        return ""


def blocks_of(dump: Path) -> dict[str, int]:
    """Returns the blocks of threads of the kernels whose code XLA has dumped."""
    found = {}
    for path in dump.glob("*.ir-no-opt.ll"):
        text = path.read_text()
        for name, code in re.findall(r"define ptx_kernel void @([\w.]+)\((.*?)\n}\n", text, re.S):
            index = re.search(r"ctaid\.x\(\), !range (!\d+)", code)
            limit = index and re.search(rf"^{index[1]} = !{{i32 0, i32 (\d+)}}", text, re.M)
            found[name] = int(limit[1]) if limit else 1
    return found


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


def kernels(hlo: str, blocks: dict[str, int]) -> list[Kernel]:
    """Lists the launches of the computation that has most of them, the loop's body."""
    bodies = [block.strip().splitlines() for block in hlo.split("\n}\n")]
    body = max(bodies, key=lambda b: sum(" fusion(" in x or " custom-call(" in x for x in b))
    sources, computations = Sources(hlo), {b[0].split(" ")[0]: b for b in bodies if b}
    found = [m.groups() for line in body if (m := INSTRUCTION.match(line.strip()))]
    shapes = {name: shape for name, shape, *_ in found}
    spelled = lambda name: re.sub(r"\W", "_", name)
    group = lambda name, rest: (re.findall(r'deduplicated_name="([^"]+)"', rest) or [name])[0]
    of_group = {
        group(name, rest): blocks[spelled(name)]
        for name, _, _, _, rest in found
        if spelled(name) in blocks
    }
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
        called = re.search(r"calls=(%[\w.\-]+)", rest)
        inner = [
            line
            for x in computations.get(called[1] if called else "", [])
            if (line := sources.line(x))
        ]
        line = sources.line(rest) or (collections.Counter(inner).most_common(1) or [("", 0)])[0][0]
        is_ours = re.search(r"kind=k(Loop|Input)", rest)
        launches.append(
            Kernel(name, line, flops, moved, of_group.get(group(name, rest)) if is_ours else None)
        )
    return launches


def compile_steps(estimator: str, dump: Path) -> jax.stages.Compiled:
    """Compiles 50 steps of the paper preset for the described device; its code goes to `dump`."""
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
    # All speak of the machine that is here: forms of convolutions and sums, the batch's mesh.
    with (
        mock.patch.object(_convolution, "use_matmul", return_value=False),
        mock.patch.object(_products, "adds_by_product", return_value=True),
        mock.patch.object(_gpu, "has_kernels", return_value=True),
        mock.patch.object(batches, "_unrolls", return_value=True),
        mock.patch.object(sharding, "shard_batch", lambda mesh, batch: batch),
    ):
        traced = jax.jit(task.call(50)).trace(*described)
    lowered = traced.lower(lowering_platforms=("cuda",))
    options = {"xla_gpu_autotune_level": "0", "xla_dump_to": str(dump)}
    return lowered.compile(compiler_options=options)


def count(launches: list[Kernel]) -> dict[str, float]:
    """Sums kernels, arithmetic, bytes and the least times."""
    flops, moved = sum(k.flops for k in launches), sum(k.bytes for k in launches)
    return {
        "kernels": len(launches),
        "conv_gflop": round(flops / 1e9, 1),
        "conv_floor_ms": round(1e3 * flops / FLOPS, 3),
        "moved_mb": round(moved / 1e6, 1),
        "moved_floor_ms": round(1e3 * moved / BYTES, 3),
        "floor_ms": round(1e3 * sum(k.floor() for k in launches), 3),
    }


def by_line(launches: list[Kernel]) -> dict[str, dict[str, float]]:
    """Counts the kernels of each line of our code, the costliest first."""
    lines = collections.defaultdict(list)
    for kernel in launches:
        lines[kernel.line].append(kernel)
    counts = {line or "(no line)": count(found) for line, found in lines.items()}
    return dict(sorted(counts.items(), key=lambda x: -x[1]["floor_ms"]))


def main() -> None:
    """Prints the totals and the largest kernels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("estimator", nargs="?", default="gs_soft")
    parser.add_argument("--largest", type=int, default=20)
    parser.add_argument("--out", type=Path, help="JSON file, one entry an estimator")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compiled = compile_steps(options.estimator, Path(folder))
        launches = kernels(compiled.as_text(), blocks_of(Path(folder)))
    temporary = round(compiled.memory_analysis().temp_size_in_bytes / 1e6, 1)
    totals = {**count(launches), "temporary_mb": temporary, "jax": jax.__version__}
    lines = by_line(launches)
    print(json.dumps({"estimator": options.estimator, **totals}))
    for line, found in list(lines.items())[: options.largest]:
        print(
            f"{found['floor_ms']:7.3f} ms {found['kernels']:4d} kernels "
            f"{found['conv_gflop']:8.1f} GFLOP {found['moved_mb']:8.1f} MB  {line}"
        )
    print()
    for k in sorted(launches, key=Kernel.floor, reverse=True)[: options.largest]:
        print(
            f"{1e3 * k.floor():7.3f} ms {k.blocks or '?':>6} blocks {k.flops / 1e9:8.1f} GFLOP "
            f"{k.bytes / 1e6:8.1f} MB  {k.name}  {k.line}"
        )
    if options.out:
        entries = json.loads(options.out.read_text()) if options.out.exists() else {}
        short = ("kernels", "conv_gflop", "moved_mb", "floor_ms")
        kept = {
            line: {name: found[name] for name in short}
            for line, found in list(lines.items())[: options.largest]
        }
        entries[options.estimator] = {**totals, "lines": kept}
        options.out.write_text(json.dumps(entries, indent=1) + "\n")


if __name__ == "__main__":
    main()
