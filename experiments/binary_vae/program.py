"""What other tools know of `binary_vae`."""

from experiments.binary_vae import names
from experiments.binary_vae.config import Config
from experiments.binary_vae.presets import PRESETS
from experiments.common.program import Program

PROGRAM = Program(
    "binary_vae",
    Config,
    PRESETS,
    records=("table1.json", "table2.json", "boltzmann.json", "disarm_table.json"),
    metric="nll_nats",
    unit="nats NLL",
    costs=(
        *("prior", "graph", "method", "estimator", "bound", "structure", "num_groups"),
        *("num_samples", "num_chains", "num_sweeps", "batch_size", "test_samples"),
    ),
    sizes=("prior", "num_groups", "num_chains", "num_sweeps", "batch_size"),
    before={"latent_inputs": names.BITS},
)
