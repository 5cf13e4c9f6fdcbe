"""What other tools know of `dvaepp`."""

from experiments.common.program import Program
from experiments.dvaepp.config import Config
from experiments.dvaepp.presets import PRESETS

_SIZES = ("local_groups", "local_size", "features", "batch_size")
PROGRAM = Program(
    "dvaepp",
    Config,
    PRESETS,
    records=("table3.json",),
    metric="nll_nats",
    unit="nats NLL",
    costs=("global_latents", "graph", "local_latents", *_SIZES, "decoder"),
    sizes=_SIZES,
)
