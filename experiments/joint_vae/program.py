"""What other tools know of `joint_vae`."""

from experiments.common.program import Program
from experiments.joint_vae.config import PRESETS, Config

_SIZES = ("image_size", "features", "batch_size")
PROGRAM = Program(
    "joint_vae",
    Config,
    PRESETS,
    records=("joint_vae.json",),
    metric="accuracy",
    unit="accuracy",
    costs=_SIZES,
    sizes=_SIZES,
)
