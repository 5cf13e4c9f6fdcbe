"""Compares the samplers of Boltzmann machines: error of moments and of log Z against sweeps.

    python -m experiments.compare_samplers RUN_DIR [RUN_DIR ...] --out=docs/results

The machines are a random one of 8x8 units, whose moments and log Z are known exactly, and the
trained priors of finished `binary_vae --prior=rbm` runs (the first seed's). Theirs are estimated by
annealing with many times the effort, whose own error is in the table. Writes samplers.md,
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

from dvae import rbm
from dvae.analysis import figures, tables
from dvae.train import checkpoint, paths
from experiments import flags, run_record
from experiments.flags import option

NUM_REPLICAS = 10  # of tempering
HEADER = ("machine", "sampler", "sweeps", "RMS error of moments", "log Z", "error of log Z", "RMS")


@dataclass(frozen=True)
class Config:
    """How long, how wide and how often."""

    out: str = option("runs/samplers", "Directory of the results.", path=True)
    sweeps: str = option("10,30,100,300,1000", "Sweeps of every chain, each a multiple of ten.")
    num_chains: int = option(1_000, "Chains of every sampler.", minimum=2)
    num_runs: int = option(8, "Independent repetitions, over which errors are averaged.", minimum=2)
    reference_temperatures: int = option(
        5_000, "Of the two annealings that large machines are compared with.", minimum=100
    )
    reference_chains: int = option(8_000, "Of each of the two.", minimum=100)
    small_scale: float = option(1.5, "Standard deviation of the 8x8 machine's couplings.", above=0)
    seed: int = option(0, "Of everything random.", minimum=0, maximum=flags.MAX_SEED)

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


class Machine(NamedTuple):
    """A machine and what is known of it."""

    name: str
    params: rbm.RBM
    moments: rbm.exact.Moments
    moments_error: float  # root mean square; 0 where they are exact
    log_z: float
    log_z_error: float  # likewise
    source: str


class Measured(NamedTuple):
    """Several runs of one sampler."""

    moments: rbm.exact.Moments | None  # [runs, ...]
    log_z: np.ndarray | None  # [runs]


def mean_moments(z1: jax.Array, z2: jax.Array, log_weights: jax.Array) -> rbm.exact.Moments:
    """Estimates the moments from weighted chains."""
    w = jax.nn.softmax(log_weights)
    return rbm.exact.Moments(w @ z1, w @ z2, (w[:, None] * z1).T @ z2)


def gibbs(key: jax.Array, params: rbm.RBM, sweeps: int, chains: int) -> tuple[Any, Any]:
    """Block Gibbs from independent units; knows nothing of log Z."""
    key_init, key_step = jax.random.split(key)
    state = rbm.gibbs.init(key_init, params, chains)
    state, _ = rbm.gibbs.step(key_step, params, state, num_sweeps=sweeps)
    return mean_moments(state.z1, state.z2, jnp.zeros(chains)), None


def tempering(key: jax.Array, params: rbm.RBM, sweeps: int, chains: int) -> tuple[Any, Any]:
    """Ten replicas share the sweeps; log Z is that of the second half."""
    key_init, key_burn, key_step = jax.random.split(key, 3)
    state = rbm.tempering.init(key_init, params, chains, num_temperatures=NUM_REPLICAS)
    each = sweeps // NUM_REPLICAS
    if each > 1:
        state, _ = rbm.tempering.step(key_burn, params, state, num_sweeps=each // 2)
    state, info = rbm.tempering.step(key_step, params, state, num_sweeps=each - each // 2)
    return mean_moments(state.z1, state.z2, jnp.zeros(chains)), info.log_z


def annealing(key: jax.Array, params: rbm.RBM, sweeps: int, chains: int) -> tuple[Any, Any]:
    """Population annealing, one sweep a temperature."""
    state, info = rbm.annealing.anneal(key, params, chains, num_temperatures=sweeps)
    return mean_moments(state.z1, state.z2, state.log_weights), info.log_z


def ais(key: jax.Array, params: rbm.RBM, sweeps: int, chains: int) -> tuple[Any, Any]:
    """Annealed importance sampling, one sweep a temperature; used for log Z alone."""
    return None, rbm.ais.log_z(key, params, num_temperatures=sweeps, num_chains=chains).value


SAMPLERS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "Gibbs": gibbs,
    "tempering": tempering,
    "annealing": annealing,
    "AIS": ais,
}


def small_machine(config: Config) -> Machine:
    """Makes the 8x8 machine, with no preference for either value of a unit."""
    rng = np.random.default_rng(config.seed)
    weights = (config.small_scale * rng.normal(size=(8, 8))).astype(np.float32)
    bias1, bias2 = (
        jnp.asarray(0.3 * rng.normal(size=8) - weights.sum(1 - side) / 2, jnp.float32)
        for side in (0, 1)
    )
    params = rbm.RBM(bias1, bias2, jnp.asarray(weights))
    log_z = float(rbm.exact.log_z(params))
    moments = rbm.exact.moments(params)
    return Machine("8x8, random", params, moments, 0.0, log_z, 0.0, "enumeration")


def trained_machine(config: Config, directory: Path, key: jax.Array) -> Machine:
    """Reads a trained prior and estimates its moments and log Z with many times the effort.

    Raises:
      ValueError: the directory holds no Boltzmann prior.
    """
    path = directory / run_record.PRIOR_FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[name] for name in rbm.RBM._fields]
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read: is it a finished run of binary_vae --prior=rbm?"
        ) from error
    if arrays[0].ndim == 2:
        arrays = [array[0] for array in arrays]  # of several seeds the first
    params = rbm.RBM(*map(jnp.asarray, arrays))
    steps, chains = config.reference_temperatures, config.reference_chains

    def anneal(key: jax.Array) -> tuple[rbm.exact.Moments, jax.Array]:
        state, info = rbm.annealing.anneal(key, params, chains, num_temperatures=steps)
        return mean_moments(state.z1, state.z2, state.log_weights), info.log_z

    one, other = (jax.device_get(jax.jit(anneal)(k)) for k in jax.random.split(key))
    # The mean of two is off by as much as they are from each other, over two.
    mean, half = (jax.tree.map(f, one, other) for f in (_mean, _half_difference))
    n1, n2 = params.weights.shape
    return Machine(
        f"{n1}x{n2}, {directory.name}",
        params,
        mean[0],
        float(np.sqrt(np.concatenate([x.ravel() ** 2 for x in half[0]]).mean())),
        float(mean[1]),
        float(abs(half[1])),
        f"two population annealings, {steps:,} temperatures x {chains:,} chains",
    )


def _mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a + b) / 2


def _half_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a - b) / 2


def measure(config: Config, machine: Machine, name: str, sweeps: int, key: jax.Array) -> Measured:
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


def record(machine: Machine, name: str, sweeps: int, found: Measured) -> dict[str, Any]:
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
    """One row of the table."""
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


def curves(records: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Sorts the errors for the figure: quantity, machine, sampler -> sweeps and errors."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for quantity, name in (("RMS error of moments", "moments_rms"), ("RMS of log Z", "log_z_rms")):
        for errors in records:
            if errors.get(name):
                by_sampler = found.setdefault(quantity, {}).setdefault(errors["machine"], {})
                x, y = by_sampler.setdefault(errors["sampler"], ([], []))
                x.append(errors["sweeps"])
                y.append(errors[name])
    return found


def compare(config: Config, directories: list[Path]) -> str:
    """Measures everything, writes the files and returns the table."""
    try:
        Path(config.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write to {config.out} ({error.strerror}); try --out") from error
    key_reference, key_runs = jax.random.split(jax.random.key(config.seed))
    machines = [small_machine(config)]
    for i, directory in enumerate(directories):
        print(f"reference of {directory}", file=sys.stderr, flush=True)
        machines.append(trained_machine(config, directory, jax.random.fold_in(key_reference, i)))
    records = []
    for m, machine in enumerate(machines):
        for s, name in enumerate(SAMPLERS):
            for sweeps in config.budgets():
                # A number of its own for each machine, sampler and budget.
                number = (m * len(SAMPLERS) + s) * 10**6 + sweeps
                key = jax.random.fold_in(key_runs, number)
                found = measure(config, machine, name, sweeps, key)
                records.append(record(machine, name, sweeps, found))
            print(f"{machine.name}: {name}", file=sys.stderr, flush=True)
    table = tables.markdown(HEADER, [row(errors) for errors in records])
    notes = [
        f"{config.num_chains:,} chains, {config.num_runs} runs of each; {NUM_REPLICAS} replicas of "
        "tempering share a row's sweeps, so every row moves as many bits. Errors are root mean "
        "squares over the runs, those of moments over all E[z1], E[z2] and E[z1 z2^T]; the error "
        "of log Z is its mean with the standard error over runs.",
        *(
            f"{m.name}: log Z {m.log_z:.3f}"
            + (f" ± {m.log_z_error:.3f}" if m.log_z_error else "")
            + f", moments {f'± {m.moments_error:.4f} ' if m.moments_error else ''}by {m.source}."
            for m in machines
        ),
        f"Hardware: {run_record.describe_hardware()}.",
    ]
    out = Path(config.out)
    (out / "samplers.md").write_text(table + "\n\n" + "\n\n".join(notes) + "\n", encoding="utf-8")
    references = {
        m.name: {
            "log_z": m.log_z,
            "log_z_error": m.log_z_error,
            "moments_error": m.moments_error,
            "source": m.source,
        }
        for m in machines
    }
    checkpoint.write_json(out / "samplers.json", {"references": references, "records": records})
    figures.save(
        figures.convergence(curves(records), xlabel="sweeps a chain"), out / "samplers.png"
    )
    return table


def main(arguments: list[str]) -> None:
    """Compares on the machines of the command line."""
    with flags.setup():
        config = flags.parse(Config)
        directories = [paths.local(argument, "RUN_DIR") for argument in arguments[1:]]
        print(compare(config, directories))
    print(f"\nwritten to {config.out}: samplers.md, samplers.json, samplers.png")


if __name__ == "__main__":
    flags.define(Config)
    flags.run(main)
