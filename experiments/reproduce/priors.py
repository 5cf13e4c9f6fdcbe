"""Boltzmann priors of 200 units on graphs from sparse to complete, trained alike."""

from collections.abc import Iterator

from experiments import table2
from experiments.binary_vae import presets as binary_presets
from experiments.binary_vae.program import PROGRAM
from experiments.reproduce.cells import CPU, PAPER, Cell, Recipe, Settings

TABLE = table2.TABLE._replace(
    name="boltzmann", heading="Boltzmann machines by graph", published={}, source=""
)
# As long as Table 2 of DVAE++ trains RBMs, with as many chains and sweeps.
_PAPER: Settings = dict(
    num_steps=1_000_000, num_chains=1_000, num_sweeps=40, kl_warmup_steps=300_000
)


def boltzmann() -> Iterator[Cell]:
    """Yields NLLs on static MNIST by the graph of the machine; nobody published them."""
    for graph in binary_presets.BOLTZMANN_GRAPHS:
        preset = f"boltzmann_mnist_{graph}"
        yield Cell(
            f"mnist_static_{graph}",
            PROGRAM,
            "mnist_static",
            {PAPER: Recipe(preset, _PAPER), CPU: Recipe(preset, {})},
            "in no paper: machines on graphs alike",
        )
