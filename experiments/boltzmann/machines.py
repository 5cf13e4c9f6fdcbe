"""The machines of `compare_samplers`: a small random one, and trained priors of finished runs."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dvae import rbm
from experiments.common import groups as run_groups
from experiments.common import records


class Machine(NamedTuple):
    """A machine and what is known of it."""

    name: str
    params: rbm.RBM
    moments: rbm.exact.Moments
    moments_error: float  # root mean square; 0 where they are exact
    log_z: float
    log_z_error: float  # likewise
    source: str


def mean_moments(z1: jax.Array, z2: jax.Array, log_weights: jax.Array) -> rbm.exact.Moments:
    """Estimates the moments from weighted chains."""
    w = jax.nn.softmax(log_weights)
    return rbm.exact.Moments(w @ z1, w @ z2, (w[:, None] * z1).T @ z2)


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


def read_prior(directory: Path) -> list[np.ndarray]:
    """Reads the biases and weights of a trained prior, of several seeds the first's.

    Raises:
      ValueError: the directory holds no Boltzmann prior; one line says what it holds.
    """
    path = directory / records.PRIOR_FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[name] for name in rbm.RBM._fields]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"{run_groups.what_is(directory)}; experiments.compare_samplers takes finished runs of "
            "binary_vae --prior=rbm and of dvaepp --global_latents=rbm or rbm_rolfe"
        ) from error
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): it must hold {', '.join(rbm.RBM._fields)}"
        ) from error
    return [array[0] if arrays[0].ndim == 2 else array for array in arrays]


def trained(
    directory: Path, name: str, key: jax.Array, *, num_temperatures: int, num_chains: int
) -> Machine:
    """Estimates the moments and log Z of a trained prior with many times the effort.

    Raises:
      ValueError: the directory holds no Boltzmann prior.
    """
    params = rbm.RBM(*map(jnp.asarray, read_prior(directory)))
    steps, chains = num_temperatures, num_chains

    def anneal(key: jax.Array) -> tuple[rbm.exact.Moments, jax.Array]:
        state, info = rbm.annealing.anneal(key, params, chains, num_temperatures=steps)
        return mean_moments(state.z1, state.z2, state.log_weights), info.log_z

    one, other = (jax.device_get(jax.jit(anneal)(k)) for k in jax.random.split(key))
    # The mean of two is off by as much as they are from each other, over two.
    mean, half = (jax.tree.map(f, one, other) for f in (_mean, _half_difference))
    n1, n2 = params.weights.shape
    return Machine(
        f"{n1}x{n2}, {name}",
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
