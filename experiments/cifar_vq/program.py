"""What other tools know of `cifar_vq`."""

from experiments.cifar_vq.config import Config
from experiments.cifar_vq.presets import PRESETS
from experiments.common.program import Program

_SIZES = ("num_latents", "features", "crop", "batch_size")
PROGRAM = Program(
    "cifar_vq",
    Config,
    PRESETS,
    records=("cifar10_vq/results.json",),
    metric="bits_per_dim",
    unit="bits/dim",
    costs=("estimator", "codebook_size", "levels", "num_stages", *_SIZES),
    sizes=_SIZES,
)
