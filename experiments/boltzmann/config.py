"""The settings of a Boltzmann prior, which the configurations of programs with one inherit."""

from dataclasses import dataclass

from experiments.boltzmann import names
from experiments.common.flag_rules import Alternative, Rules, one_of
from experiments.common.flags import option

# What a field left open is settled to, where there is a machine.
USUAL = {"sampler": names.PCD, "graph": names.COMPLETE}


@dataclass(frozen=True)
class BoltzmannConfig:
    """Groups of bits, of an RBM half of all on each side, and how its chains are run."""

    num_groups: int = option(1, "Groups of latent bits.", minimum=1, group="model")
    num_latents: int = option(200, "Bits of each group.", minimum=1, group="model")
    sampler: str = option(
        "",
        "Negative phase of a Boltzmann prior: Gibbs chains (pcd, the default), parallel "
        "tempering or population annealing.",
        choices=("", *names.SAMPLERS),
        group="objective",
    )
    num_chains: int = option(
        1_000,
        "Persistent chains of a Boltzmann prior; shared by the devices if they divide it.",
        minimum=1,
        group="objective",
    )
    num_sweeps: int = option(
        40, "Gibbs sweeps of every chain in a step.", minimum=1, group="objective"
    )
    num_temperatures: int = option(
        10, "Replicas of a chain, at as many temperatures.", minimum=2, group="objective"
    )
    adapt_interval: int = option(
        0,
        "Steps between adaptations of the ladder of temperatures; 0: none.",
        minimum=0,
        group="objective",
    )
    log_z_interval: int = option(
        1_000, "Steps between estimates of log Z for the training's curve.", minimum=1
    )
    ais_temperatures: int = option(
        1_000, "Temperatures of the annealing that evaluates log Z.", minimum=1
    )
    ais_chains: int = option(1_024, "Chains of the annealing that evaluates log Z.", minimum=2)

    @property
    def machine_graph(self) -> str:
        """The graph of a general machine; empty of an RBM, whose sides say it all."""
        return ""


def rules(machine: Alternative) -> Rules:
    """Returns which fields the machine alone reads, given how it is chosen."""
    tempering = [{**machine, "sampler": one_of(names.TEMPERING)}]
    always = ("sampler", "num_chains", "num_sweeps", "log_z_interval", "ais_temperatures")
    return {
        **{field: [machine] for field in (*always, "ais_chains")},
        "num_temperatures": tempering,
        "adapt_interval": tempering,
    }


def check_sides(config: BoltzmannConfig) -> None:
    """Raises ValueError unless the groups make the two sides of an RBM."""
    if config.num_groups > 1 and config.num_groups % 2:
        raise ValueError(
            f"--num_groups={config.num_groups}: half of the groups form each side of the machine; "
            "use 1 or an even number"
        )
    if config.num_groups == 1 and config.num_latents % 2:
        raise ValueError(
            f"--num_latents={config.num_latents}: a single group is split into two sides of the "
            "machine; use an even number"
        )


def check_sampler(config: BoltzmannConfig) -> None:
    """Raises ValueError unless the sampler can run."""
    if config.adapt_interval and config.sampler != names.TEMPERING:
        raise ValueError(
            f"--adapt_interval={config.adapt_interval} adapts the ladder of --sampler=tempering, "
            f"got --sampler={config.sampler}"
        )
    if config.sampler == names.ANNEALING and config.num_chains < 2:
        raise ValueError(
            f"--num_chains={config.num_chains}: a population needs at least 2 for its weights"
        )
