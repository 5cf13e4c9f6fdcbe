"""Weak scaling on paper: what a step of `cifar_vq --preset=paper` computes and what it all-reduces.

    python benchmarks/weak_scaling.py

Operations are those XLA counts in the train step, bytes those of the gradients and of the batch;
rates are the vendors'. Writes docs/results/weak_scaling.json and .md.
"""

import dataclasses
import json
import math
from pathlib import Path

import jax

from dvae import data
from dvae.analysis import tables
from dvae.train import sharding
from experiments.cifar_vq import __main__ as cifar_vq
from experiments.cifar_vq import config as vq_config
from experiments.cifar_vq import presets as vq_presets

OUT = Path(__file__).parents[1] / "docs" / "results" / "weak_scaling"
CHIPS = (8, 16, 32, 64, 128, 256)
PER_CHIP = 64  # images a chip, the preset's batch
SHARE_OF_PEAK = 0.4  # of the matrix units' peak that a convolutional step reaches; an assumption
HOP_SECONDS = 2e-6  # latency of a step of the all-reduce from chip to chip; an assumption
IMAGE_BYTES = 32 * 32 * 3


@dataclasses.dataclass(frozen=True)
class Machine:
    """A chip and what connects many of them."""

    name: str
    flops: float  # bfloat16, a second, the vendor's peak
    bandwidth: float  # bytes a second through the narrowest place of an all-reduce
    inside: float  # the same within the first 8 chips
    torus: bool  # steps from chip to chip: around a square torus, or up and down a tree
    link: str

    def hops(self, chips: int) -> float:
        """Steps one after the other, twice through all chips."""
        return 2 * (2 * math.sqrt(chips) / 2 if self.torus else math.log2(chips))


_NODE = "a node of 8 GPUs, which NVLink connects at 450 GB/s each way"
MACHINES = (
    Machine("TPU v5e", 197e12, 180e9, 180e9, True, "four ICI links a chip, 45 GB/s each way"),
    Machine("H100, InfiniBand", 989e12, 400e9, 450e9, False, f"8 NICs of 400 Gbit/s {_NODE}"),
    Machine("H100, Ethernet", 989e12, 12.5e9, 450e9, False, f"one NIC of 100 Gbit/s {_NODE}"),
)


def step_costs() -> tuple[float, int]:
    """Returns operations an image and bytes of gradients of the paper preset's train step."""
    images = data.load("patches")
    images = images._replace(train=images.train[:8], num_train_of_all=8)
    flops = {}
    # Beyond four images the likelihood loops over them, and XLA counts a loop's body once.
    for batch_size in (2, 4):
        config = vq_config.Config(**{**vq_presets.PRESETS["paper"], "batch_size": batch_size})
        task = cifar_vq.make_task(config, images, sharding.make_mesh(1))
        state = jax.eval_shape(task.init, task.key_init, task.data)
        lowered = jax.jit(task.step).lower(state, task.data, task.key_train)
        flops[batch_size] = lowered.cost_analysis()["flops"]
    gradients = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.params))
    return (flops[4] - flops[2]) / 2, gradients


def efficiency(machine: Machine, chips: int, flops: float, num_bytes: float) -> dict[str, float]:
    """Times of a ring's all-reduce and of the arithmetic, and the share that is arithmetic."""
    compute = flops / (SHARE_OF_PEAK * machine.flops)
    moved = 2 * (chips - 1) / chips * num_bytes
    bandwidth = machine.inside if chips <= 8 else machine.bandwidth
    reduce = moved / bandwidth + machine.hops(chips) * HOP_SECONDS
    return {
        "chips": chips,
        "compute_ms": 1e3 * compute,
        "all_reduce_ms": 1e3 * reduce,
        "efficiency": compute / (compute + reduce),
    }


def main() -> None:
    """Computes the table and writes it."""
    per_image, gradients = step_costs()
    flops = PER_CHIP * per_image
    records, rows = {}, []
    for machine in MACHINES:
        found = [
            efficiency(machine, n, flops, gradients + n * PER_CHIP * IMAGE_BYTES) for n in CHIPS
        ]
        records[machine.name] = {**dataclasses.asdict(machine), "scaling": found}
        cells = [f"{100 * r['efficiency']:.0f} %" for r in found]
        times = f"{found[0]['compute_ms']:.2f}", f"{found[-1]['all_reduce_ms']:.2f}"
        rows.append([machine.name, *times, *cells])
    header = ("machine", "arithmetic, ms", f"all-reduce at {CHIPS[-1]}, ms", *map(str, CHIPS))
    links = "\n".join(f"- {m.name}: {m.link}." for m in MACHINES)
    batch_mb = CHIPS[-1] * PER_CHIP * IMAGE_BYTES / 1e6
    text = f"""# Weak scaling on paper

`cifar_vq --preset=paper` with {PER_CHIP} images a chip, computed by
`python benchmarks/weak_scaling.py`; nothing is measured. An image is {per_image / 1e9:.2f} billion
operations (forward and backward, as XLA counts the step), a chip's {PER_CHIP} are
{flops / 1e12:.3f} trillion; the gradients are {gradients / 1e6:.1f} MB of float32. A step
all-reduces them, and the batch that is gathered out of the sharded data set
({PER_CHIP * IMAGE_BYTES / 1e3:.0f} kB a chip, of all n chips): 2 (n - 1) / n of both through the
narrowest place, plus {HOP_SECONDS * 1e6:.0f} microseconds a hop. Arithmetic runs at
{100 * SHARE_OF_PEAK:.0f} % of the vendor's bfloat16 peak (an assumption). Efficiency is
arithmetic / (arithmetic + all-reduce), as if nothing overlapped; XLA overlaps part of it.

{tables.markdown(header, rows)}

{links}

- The gradients' part of the all-reduce does not grow with the number of chips, the gathered
  batch's does: at {CHIPS[-1]} chips it is {batch_mb:.0f} MB, as much as the gradients. Beyond,
  each process should draw from its own rows (another order of the images than now), or the next
  batch should be gathered during the step.
- Over one Ethernet link a node, scaling stops at the first node. What to change there: more images
  a chip (the gradients are the same for any number of them), gradients reduced in bfloat16 (half
  the bytes), or local steps between reductions.
- The statistical limit comes first: {CHIPS[-1]} chips with {PER_CHIP} images each are a batch of
  {CHIPS[-1] * PER_CHIP:,}, {45_000 // (CHIPS[-1] * PER_CHIP)} steps an epoch of CIFAR-10. The
  published batch is 64; larger ones need another learning rate and were not tried.
"""
    OUT.with_suffix(".md").write_text(text)
    record = {"flops_per_image": per_image, "gradient_bytes": gradients, "machines": records}
    OUT.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
