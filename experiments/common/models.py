"""The trained models that a run leaves in its folder, one for each seed: see `dvae.trained`."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dvae import rbm, trained
from dvae.data import Dataset
from dvae.train import sharding, status
from dvae.train.best import Best
from dvae.train.state import TrainState
from experiments.common import records
from experiments.common.config import RunConfig

PyTree = Any
_SHARED = ("num_images",)  # numbers of a set of images that are those of all seeds
_PRIOR_RECORD = "prior.json"  # which is there once all of a prior is
_say_once = functools.cache(status.say)  # a run may have several seeds


class Trained(NamedTuple):
    """A model and what is told of it."""

    functions: trained.Functions
    params: PyTree
    card: trained.Card


def of_seeds(
    config: RunConfig,
    functions: trained.Functions,
    arrays: Callable[..., PyTree],
    state: Best | TrainState,
    images: Dataset,
    test: Mapping[str, Any],
    *,
    preparation: str = "",
    log_z: rbm.ais.LogZ | None = None,
) -> list[Trained]:
    """Returns the models of all seeds, on the host.

    Args:
      config: of the run.
      functions: of its models.
      arrays: makes their parameters of (params, model_state), and with a machine of log Z.
      state: of the step that was evaluated.
      images: the data set.
      test: what the summary says of the test images.
      preparation: what was done to images.
      log_z: [S] each, of Boltzmann priors; given labels [S, C].
    """
    params, model_state, steps = sharding.fetch((state.params, state.model_state, state.step))
    models = []
    for index in range(config.num_seeds):
        parts = [_row(tree, config, index) for tree in (params, model_state)]
        if log_z is not None:
            parts.append(np.asarray(log_z.value)[index])
        card = trained.Card(
            dataset=images.name,
            preparation=preparation,
            binarization=images.binarization,
            step=int(np.ravel(steps)[index]),
            seed=config.seed + index,
            metrics=_of_seed(test, config.num_seeds, index),
            log_z=None if log_z is None else _log_z(log_z, index),
        )
        models.append(Trained(functions, arrays(*parts), card))
    return models


def learned_prior(directory: Path, seed: int, num_images: int | None) -> float | None:
    """Returns the test bits/dim under the prior that was learned over the codes of a run's model.

    Args:
      directory: of the run.
      seed: of the model.
      num_images: of the run's own test numbers; None: unknown.

    Returns:
      None where there is no such prior, or it is damaged, or of other codes or images; but for the
      first, a line on stderr says so.
    """
    try:
        folder = trained.find(directory, seed=seed)
    except trained.ModelError:
        return None  # of an older version
    if not (folder / trained.code_prior.PRIOR / _PRIOR_RECORD).exists():
        return None
    try:
        info = trained.load(directory, seed=seed).info
    except trained.ModelError as error:
        _say_once(f"{directory}: its learned prior is left out: {error}")
        return None
    metrics = info.get("prior", {}).get("metrics", {})
    bits, priced = metrics.get("bits_per_dim"), metrics.get("num_images")
    if not isinstance(bits, float):
        return None
    if num_images is None or priced != num_images:
        count = lambda images: "unknown" if images is None else images
        _say_once(
            f"{directory}: its learned prior is left out, whose test images are others "
            f"({count(priced)}) than the run's ({count(num_images)}); give both one "
            "--num_test_images"
        )
        return None
    return bits


def hidden(num_seeds: int, folder: Path) -> str | None:
    """Returns which models in a folder and the ones to be saved there would hide each other.

    `dvae.load` takes models of seeds before a single one, whose seed it would look for among them.

    Args:
      num_seeds: how many models are to be saved.
      folder: of them all.

    Returns:
      A line with the remedy; None: there are none.
    """
    of_seeds = sorted(folder.glob(f"seed_*/{trained.RECORD_FILE}"))
    if num_seeds > 1:
        there, hides = folder / trained.RECORD_FILE, "models of seeds would hide it"
        names = there.name if there.exists() else ""
    else:
        names = ", ".join(path.parent.name for path in of_seeds)
        hides = "they would hide a single model"
    return f"{folder} holds {names}: {hides}; move that away" if names else None


def save(models: Sequence[Trained], folder: Path) -> list[str]:
    """Writes models to a folder, and of several each to a folder of its seed in there.

    Returns:
      The folders, by names below that of the first argument; "" for the folder itself.

    Raises:
      OSError: a file cannot be written.
    """
    several = len(models) > 1
    names = [trained.seed_folder(m.card.seed or 0) if several else "" for m in models]
    for name, model in zip(names, models, strict=True):
        trained.save(folder / name, model.functions, model.params, model.card)
    return names


def _row(tree: PyTree, config: RunConfig, index: int) -> PyTree:
    return tree if config.num_seeds == 1 else jax.tree.map(lambda x: x[index], tree)


def _of_seed(test: Mapping[str, Any], num_seeds: int, index: int) -> dict[str, Any]:
    """Takes the numbers of one seed out of those of all."""
    if num_seeds == 1:
        return dict(test)
    return {
        name: value[index] if isinstance(value, list) and name not in _SHARED else value
        for name, value in test.items()
        if not name.endswith(records.OVER_SEEDS)
    }


def _log_z(log_z: rbm.ais.LogZ, index: int) -> dict[str, Any]:
    value, error, ess = (np.asarray(x, np.float64)[index].tolist() for x in log_z)
    return {"nats": value, "standard_error": error, "effective_samples": ess}
