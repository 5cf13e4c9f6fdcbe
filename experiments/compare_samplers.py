"""Compares the samplers of Boltzmann machines: error of moments and of log Z against sweeps.

    python -m experiments.compare_samplers RUN_DIR [FILE.csv ...] --out=docs/results

The machines are a random one of 8x8 units, whose moments and log Z are known exactly, and the
trained priors of finished runs with `--prior=rbm` or `boltzmann` (the first seed's, given labels
that of the first label), or any machine in an edge list. Theirs are estimated by annealing with
many times the effort, whose own error is in the table. Writes samplers.md,
samplers.json and samplers.png.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dvae._replacing import replace_text
from dvae.analysis import figures, tables
from dvae.models.boltzmann import Machine, library
from dvae.train import checkpoint, paths
from experiments.boltzmann import machines as sampler_machines
from experiments.common import flag_help, flags, records
from experiments.common.flags import option

NUM_REPLICAS = 10  # of tempering
HEADER = ("machine", "sampler", "sweeps", "RMS error of moments", "log Z", "error of log Z", "RMS")


@dataclass(frozen=True)
class Config:
    """How long, how wide and how often."""

    out: str = option("runs/samplers", "Folder of the results.", path=True)
    sweeps: str = option(
        "10,30,100,300,1000", "Sweeps of every chain, multiples of ten with commas."
    )
    num_chains: int = option(1_000, "Chains of every sampler.", minimum=2)
    num_runs: int = option(8, "Independent repetitions, over which errors are averaged.", minimum=2)
    reference_temperatures: int = option(
        5_000,
        "Temperatures of the two annealings that trained machines are compared with.",
        minimum=100,
    )
    reference_chains: int = option(8_000, "Chains of each of the two.", minimum=100)
    small_scale: float = option(1.5, "Standard deviation of the 8x8 machine's couplings.", above=0)
    seed: int = option(0, "Seed of everything random.", minimum=0, maximum=flags.MAX_SEED)

    def __post_init__(self) -> None:
        """Raises ValueError for settings that cannot be measured."""
        flags.check_fields(self)
        self.budgets()

    def budgets(self) -> list[int]:
        """Returns the numbers of sweeps, in ascending order."""
        words = self.sweeps.split(",")
        numbers = [word.strip() for word in words]
        values = sorted({int(n) for n in numbers if n.isdecimal() and len(n) < 10})
        if len(values) < len(set(words)) or not values or any(v % 10 or v < 10 for v in values):
            raise ValueError(
                f"--sweeps={self.sweeps} must be multiples of ten (tempering divides them among "
                f"{NUM_REPLICAS} replicas), such as 10,100,1000"
            )
        return values


class Measured(NamedTuple):
    """Several runs of one sampler."""

    moments: sampler_machines.Moments | None  # [runs, ...]
    log_z: np.ndarray | None  # [runs]


def gibbs(key: jax.Array, params: Machine, sweeps: int, chains: int) -> tuple[Any, Any]:
    """Runs block Gibbs from independent units; it knows nothing of log Z."""
    sampler = library(params).gibbs
    key_init, key_step = jax.random.split(key)
    state = sampler.init(key_init, params, chains)
    state, _ = sampler.step(key_step, params, state, num_sweeps=sweeps)
    return sampler_machines.mean_moments(params, state, jnp.zeros(chains)), None


def tempering(key: jax.Array, params: Machine, sweeps: int, chains: int) -> tuple[Any, Any]:
    """Runs parallel tempering: ten replicas share the sweeps; log Z is that of the second half."""
    sampler = library(params).tempering
    key_init, key_burn, key_step = jax.random.split(key, 3)
    state = sampler.init(key_init, params, chains, num_temperatures=NUM_REPLICAS)
    each = sweeps // NUM_REPLICAS
    if each > 1:
        state, _ = sampler.step(key_burn, params, state, num_sweeps=each // 2)
    state, info = sampler.step(key_step, params, state, num_sweeps=each - each // 2)
    return sampler_machines.mean_moments(params, state, jnp.zeros(chains)), info.log_z


def annealing(key: jax.Array, params: Machine, sweeps: int, chains: int) -> tuple[Any, Any]:
    """Runs population annealing, one sweep a temperature."""
    sampler = library(params).annealing
    state, info = sampler.anneal(key, params, chains, num_temperatures=sweeps)
    return sampler_machines.mean_moments(params, state, state.log_weights), info.log_z


def ais(key: jax.Array, params: Machine, sweeps: int, chains: int) -> tuple[Any, Any]:
    """Runs annealed importance sampling, one sweep a temperature, for log Z alone."""
    log_z = library(params).ais.log_z
    return None, log_z(key, params, num_temperatures=sweeps, num_chains=chains).value


SAMPLERS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "Gibbs": gibbs,
    "tempering": tempering,
    "annealing": annealing,
    "AIS": ais,
}


def measure(
    config: Config, machine: sampler_machines.Machine, name: str, sweeps: int, key: jax.Array
) -> Measured:
    """Runs a sampler several times, one after the other."""
    run = jax.jit(lambda key, p: SAMPLERS[name](key, p, sweeps, config.num_chains))
    results = [
        jax.device_get(run(jax.random.fold_in(key, i), machine.params))
        for i in range(config.num_runs)
    ]
    moments = [m for m, _ in results]
    log_z = [value for _, value in results]
    return Measured(
        None if moments[0] is None else jax.tree.map(lambda *x: np.stack(x), *moments),
        None if log_z[0] is None else np.asarray(log_z, np.float64),
    )


def record(
    machine: sampler_machines.Machine, name: str, sweeps: int, found: Measured
) -> dict[str, Any]:
    """Returns the errors of one sampler; root mean squares over runs (and over moments)."""
    errors: dict[str, Any] = {"machine": machine.name, "sampler": name, "sweeps": sweeps}
    if found.moments is not None:
        squared = [
            ((a - np.asarray(b)[None]) ** 2).ravel()
            for a, b in zip(found.moments, machine.moments, strict=True)
        ]
        errors["moments_rms"] = float(np.sqrt(np.concatenate(squared).mean()))
    if found.log_z is not None:
        off = found.log_z - machine.log_z
        errors |= {
            "log_z": float(found.log_z.mean()),
            "log_z_bias": float(off.mean()),
            "log_z_bias_standard_error": float(off.std(ddof=1) / math.sqrt(len(off))),
            "log_z_rms": float(np.sqrt((off**2).mean())),
        }
    return errors


def row(errors: dict[str, Any]) -> list[object]:
    """Returns one row of the table."""
    has_log_z = "log_z" in errors
    bias = (
        f"{errors['log_z_bias']:+.3f} ± {errors['log_z_bias_standard_error']:.3f}"
        if has_log_z
        else ""
    )
    return [
        errors["machine"],
        errors["sampler"],
        errors["sweeps"],
        f"{errors['moments_rms']:.4f}" if "moments_rms" in errors else "",
        f"{errors['log_z']:.3f}" if has_log_z else "",
        bias,
        f"{errors['log_z_rms']:.3f}" if has_log_z else "",
    ]


def curves(comparisons: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Sorts the errors for the figure: quantity, machine, sampler -> sweeps and errors."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for quantity, name in (
        ("RMS error of moments", "moments_rms"),
        ("RMS error of log Z, nats", "log_z_rms"),
    ):
        for errors in comparisons:
            if errors.get(name):
                by_sampler = found.setdefault(quantity, {}).setdefault(errors["machine"], {})
                x, y = by_sampler.setdefault(errors["sampler"], ([], []))
                x.append(errors["sweeps"])
                y.append(errors[name])
    return found


def compare(config: Config, directories: list[Path]) -> str:
    """Measures everything, writes the files and returns the table."""
    names = sampler_machines.name_directories(directories)
    # All are read before anything is measured.
    read = [sampler_machines.read(directory) for directory in directories]
    try:
        Path(config.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write to {config.out} ({error.strerror}); try --out") from error
    key_reference, key_runs = jax.random.split(jax.random.key(config.seed))
    machines = [sampler_machines.small(config.seed, config.small_scale)]
    for i, ((params, given), name) in enumerate(zip(read, names, strict=True)):
        print(f"reference of {directories[i]}", file=sys.stderr, flush=True)
        key = jax.random.fold_in(key_reference, i)
        machines.append(
            sampler_machines.trained(
                params,
                name + given,
                key,
                num_temperatures=config.reference_temperatures,
                num_chains=config.reference_chains,
            )
        )
    comparisons = []
    for m, machine in enumerate(machines):
        for s, name in enumerate(SAMPLERS):
            for sweeps in config.budgets():
                # A number of its own for each machine, sampler and budget.
                number = (m * len(SAMPLERS) + s) * 10**6 + sweeps
                key = jax.random.fold_in(key_runs, number)
                errors_of_runs = measure(config, machine, name, sweeps, key)
                comparisons.append(record(machine, name, sweeps, errors_of_runs))
            print(f"{machine.name}: {name}", file=sys.stderr, flush=True)
    table = tables.markdown(HEADER, [row(errors) for errors in comparisons])
    notes = [
        f"{config.num_chains:,} chains, {config.num_runs} runs of each; {NUM_REPLICAS} replicas of "
        "tempering share a row's sweeps, so every row moves as many bits. Errors are root mean "
        "squares over the runs, those of moments over the E[z_i] of all units and the "
        "E[z_i z_j] of all couplings; the error of log Z is its mean with the standard error over "
        "runs.",
        *(
            f"{m.name}: log Z {m.log_z:.3f}"
            + (f" ± {m.log_z_error:.3f}" if m.log_z_error else "")
            + f", moments {f'± {m.moments_error:.4f} ' if m.moments_error else ''}by {m.source}."
            for m in machines
        ),
        f"Hardware: {records.describe_hardware()}.",
    ]
    out = Path(config.out)
    replace_text(
        out / "samplers.md", "\n\n".join(["# All numbers of the samplers", table, *notes]) + "\n"
    )
    references = {
        m.name: {
            "log_z": m.log_z,
            "log_z_error": m.log_z_error,
            "moments_error": m.moments_error,
            "source": m.source,
        }
        for m in machines
    }
    checkpoint.write_json(out / "samplers.json", {"references": references, "records": comparisons})
    figures.save(
        figures.convergence(curves(comparisons), xlabel="sweeps a chain"), out / "samplers.png"
    )
    return table


def main(arguments: list[str]) -> None:
    """Compares on the machines of the command line."""
    with flags.setup():
        config = flags.parse(Config)
        if len(arguments) == 1:
            flags.refuse(
                ("reference_temperatures", "reference_chains"),
                "goes with run directories, whose machines it is a reference of; name one",
            )
        directories = [paths.local(argument, "RUN_DIR") for argument in arguments[1:]]
        flag_help.tell(compare(config, directories))
    flag_help.tell(f"\nwritten to {config.out}: samplers.md, samplers.json, samplers.png")


if __name__ == "__main__":
    flags.define(Config)
    flags.run(main)
