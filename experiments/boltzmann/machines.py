"""The machines of `compare_samplers`: a small random one, and trained ones of runs and files."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dvae import boltzmann, rbm
from dvae import trained as trained_models
from dvae.boltzmann import edge_lists
from dvae.models import boltzmann as machines
from dvae.models import labeled_machine
from experiments.common import records, whose

Moments = rbm.exact.Moments | boltzmann.exact.Moments
_FILES = (".csv", ".npz")  # of edge lists


class Machine(NamedTuple):
    """A machine and what is known of it."""

    name: str
    params: machines.Machine
    moments: Moments
    moments_error: float  # root mean square; 0 where they are exact
    log_z: float
    log_z_error: float  # likewise
    source: str


def mean_moments(params: machines.Machine, state: Any, log_weights: jax.Array) -> Moments:
    """Estimates the moments from a sampler's state, whose chains have weights."""
    w, bits = jax.nn.softmax(log_weights), machines.bits_of(state)
    if isinstance(params, rbm.RBM):
        z1, z2 = bits
        return rbm.exact.Moments(w @ z1, w @ z2, (w[:, None] * z1).T @ z2)
    (z,), (i, j) = bits, params.graph.edges.T
    return boltzmann.exact.Moments(w @ z, w @ (z[:, i] * z[:, j]))


def small(seed: int, scale: float) -> Machine:
    """Makes the 8x8 machine, with no preference for either value of a unit."""
    rng = np.random.default_rng(seed)
    weights = (scale * rng.normal(size=(8, 8))).astype(np.float32)
    bias1, bias2 = (
        jnp.asarray(0.3 * rng.normal(size=8) - weights.sum(1 - side) / 2, jnp.float32)
        for side in (0, 1)
    )
    params = rbm.RBM(bias1, bias2, jnp.asarray(weights))
    log_z = float(rbm.exact.log_z(params))
    moments = rbm.exact.moments(params)
    return Machine("8x8, random", params, moments, 0.0, log_z, 0.0, "enumeration")


def name_directories(directories: Sequence[Path]) -> list[str]:
    """Returns as many of a path's last parts as tell it from the others.

    Raises:
      ValueError: a directory is named twice.
    """
    paths = [directory.resolve() for directory in directories]
    if doubles := [
        str(d) for d, path in zip(directories, paths, strict=True) if paths.count(path) > 1
    ]:
        raise ValueError(f"{' and '.join(doubles)} are one directory: name it once")
    names = []
    for path in paths:
        ends = lambda count: [other.parts[-count:] for other in paths]
        count = next(
            n for n in range(1, 1 + len(path.parts)) if ends(n).count(path.parts[-n:]) == 1
        )
        names.append("/".join(path.parts[-count:]))
    return names


def read(place: Path) -> tuple[machines.Machine, str]:
    """Reads the trained machine of a run, of several seeds the first's, or an edge list.

    Args:
      place: the folder of the run, or a .csv or .npz file.

    Returns:
      The machine, and what it is given: of a run with labels it is that of the bits at the first.

    Raises:
      ValueError: there is no machine; one line says what there is.
    """
    if place.suffix.lower() in _FILES:
        return _read_file(place), ""
    path = place / records.PRIOR_FILE
    if not path.exists() and (lists := sorted(place.glob("model/**/machine.npz"), key=_seed)):
        params = _read_file(lists[0])
        if num_labels := _num_labels(lists[0].with_name(trained_models.RECORD_FILE)):
            return labeled_machine.given(params, 0, num_labels)[0], " given label 0"
        return params, ""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[name] for name in rbm.RBM._fields]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"{whose.what_is(place)}; experiments.compare_samplers takes finished runs of "
            "binary_vae --prior=rbm or boltzmann and of dvaepp --global_latents=rbm, rbm_rolfe or "
            "boltzmann, and edge lists"
        ) from error
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): it must hold {', '.join(rbm.RBM._fields)}"
        ) from error
    first = [array[0] if arrays[0].ndim == 2 else array for array in arrays]
    return rbm.RBM(*map(jnp.asarray, first)), ""


def _seed(path: Path) -> tuple[int, str]:
    """Orders the files of seeds by number: seed_10 comes after seed_9."""
    number = path.parent.name.rpartition("_")[2]
    return int(number) if number.isdecimal() else -1, str(path)


def _num_labels(path: Path) -> int:
    """Returns how many labels a model's machine is given, as its record says; 0 without one."""
    if not path.exists():
        return 0
    try:
        return int(
            json.loads(path.read_text(encoding="utf-8"))["settings"]["network"]["num_labels"]
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): it says what labels there are"
        ) from None


def _read_file(path: Path) -> boltzmann.Machine:
    try:
        return jax.tree.map(jnp.asarray, edge_lists.read(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def trained(
    params: machines.Machine, name: str, key: jax.Array, *, num_temperatures: int, num_chains: int
) -> Machine:
    """Estimates the moments and log Z of a trained machine with many times the effort."""
    steps, chains = num_temperatures, num_chains
    annealing = machines.library(params).annealing

    def anneal(key: jax.Array) -> tuple[Moments, jax.Array]:
        state, info = annealing.anneal(key, params, chains, num_temperatures=steps)
        return mean_moments(params, state, state.log_weights), info.log_z

    one, other = (jax.device_get(jax.jit(anneal)(k)) for k in jax.random.split(key))
    # The mean of two is off by as much as they are from each other, over two.
    mean, half = (jax.tree.map(f, one, other) for f in (_mean, _half_difference))
    return Machine(
        f"{_sizes(params)}, {name}",
        params,
        mean[0],
        float(np.sqrt(np.concatenate([x.ravel() ** 2 for x in half[0]]).mean())),
        float(mean[1]),
        float(abs(half[1])),
        f"two population annealings, {steps:,} temperatures x {chains:,} chains",
    )


def _sizes(params: machines.Machine) -> str:
    if isinstance(params, rbm.RBM):
        return "x".join(map(str, params.weights.shape))
    return f"{params.graph.num_units} units, {params.graph.num_edges} edges"


def _mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a + b) / 2


def _half_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a - b) / 2
