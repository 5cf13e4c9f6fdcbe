"""Encodes a whole data set by a trained model, for whoever trains a prior or a classifier on codes.

    python -m experiments.encode runs/x cifar10 --out=codes.npz
    python -m experiments.encode runs/x digits --codes=sample --seed=3 --split=test

The file has an array for each split, named train, validation and test, and train_labels, ... where
the data set has labels: int32 [N, h, w, n] of cifar_vq and bits uint8 [N, n] of binary_vae. The
others have two kinds of variables: train_classes and train_continuous of joint_vae, train_global
and train_local of dvaepp. Images are prepared as they were for the run; gray levels that it samples
are sampled once. The same command writes the same file.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dvae import data, trained
from dvae._replacing import replacing
from dvae.data import batches
from dvae.train import checkpoint, paths, status
from experiments import programs
from experiments.common import flag_help, flags, saved
from experiments.common.flags import option

SPLITS = ("train", "validation", "test")
MODE, SAMPLE = "mode", "sample"


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of an encoding."""

    out: str = option("codes.npz", "File of the codes, .npz.", path=True)
    split: str = option("", "Split that is encoded; empty: all.", choices=("", *SPLITS))
    codes: str = option(
        MODE, "Codes: the posterior's mode, or a sample.", choices=(MODE, SAMPLE), group="run"
    )
    seed: int = option(
        0,
        "Seed of sampled codes, and of gray levels that are sampled to bits.",
        minimum=0,
        maximum=flags.MAX_SEED,
    )
    batch_size: int = option(100, "Images encoded at once; samples depend on it.", minimum=1)
    model_seed: str = option("", "Seed of the model, of a run that trained several; empty: one.")
    data_dir: str = option(
        "", "Folder of prepared data sets. Empty: the one that the run names.", path=True
    )
    image_size: int = option(
        0, "Side in pixels that images are resized to; 0: as the run had it.", minimum=0
    )
    test_share: float = option(
        0.0,
        "Share of own images set apart for the test, of those without a test split; 0: as the run "
        "had it, where the data set is its own.",
        minimum=0,
    )

    def __post_init__(self) -> None:
        """Raises ValueError for a setting outside its range."""
        flags.check_fields(self)
        if self.model_seed and not self.model_seed.isdecimal():
            raise ValueError(f"--model_seed={self.model_seed} must be a number")
        if not self.out.endswith(".npz"):
            raise ValueError(f"--out={self.out} must be a file named *.npz")


def encode(config: Config, model: trained.Model, images: data.Dataset) -> dict[str, np.ndarray]:
    """Returns the arrays of the file.

    Args:
      config: which split, and how.
      model: encodes.
      images: as the model takes them, but for gray levels that are to be sampled.

    Raises:
      ValueError: the model does not take such images, or there are none of the split.
    """
    arrays: dict[str, np.ndarray] = {}
    for role, split in enumerate(SPLITS):
        if config.split not in ("", split):
            continue
        rows = getattr(images, split)
        if not len(rows):
            if config.split:
                raise ValueError(f"--split={split}: {images.name} has no such images in this run")
            continue
        key = jax.random.fold_in(jax.random.key(config.seed), role)
        dynamic = images.binarization == "dynamic" and split == "train"
        with status.phase(f"encoding {len(rows):,} {split} images"):
            labels = getattr(images, f"{split}_labels") if _has_labels(model) else None
            parts = list(_batches(config, model, rows, labels, key, dynamic=dynamic))
        joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
        fields = getattr(joined, "_asdict", lambda joined=joined: {"": joined})()
        for name, values in fields.items():
            arrays["_".join(filter(None, (split, name.rstrip("_"))))] = values
        labels = getattr(images, f"{split}_labels")
        if labels is not None:
            arrays[f"{split}_labels"] = labels
    return arrays


def _has_labels(model: trained.Model) -> bool:
    """Tells whether a model encodes images with their labels."""
    functions = model.functions
    return isinstance(functions, trained.binary_vae.Functions) and functions.num_labels > 0


def _batches(
    config: Config,
    model: trained.Model,
    rows: np.ndarray,
    labels: np.ndarray | None,
    key: jax.Array,
    *,
    dynamic: bool,
) -> Iterator[Any]:
    """Yields the codes of one batch after the other, on the host."""
    size = min(config.batch_size, len(rows))
    padded = None
    if labels is not None:
        padded = np.pad(labels, [(0, -len(labels) % size), *[(0, 0)] * (labels.ndim - 1)])
    for index, (batch, mask) in enumerate(batches.padded_batches(rows, size)):
        key_pixels, key_codes = jax.random.split(jax.random.fold_in(key, index))
        batch = np.asarray(batch)  # of --data_on=files it is still to be decoded
        if dynamic:
            batch = np.asarray(batches.binarize(key_pixels, jnp.asarray(batch)))
        given = None if padded is None else padded[index * size : (index + 1) * size]
        codes = model.encode(key_codes if config.codes == SAMPLE else None, batch, labels=given)
        yield jax.tree.map(lambda x, mask=mask: np.asarray(x)[mask], codes)


def prepare(config: Config, directory: Path, dataset: str) -> tuple[trained.Model, data.Dataset]:
    """Loads the model of a run and a data set in the form in which that run would have it.

    Raises:
      ValueError: there is no run or no model of it, or the data set does not suit it.
    """
    names = ("data_dir", "image_size", "test_share")
    changes = {name: value for name in names if (value := getattr(config, name))}
    run_config: Any = saved.read_config(directory, programs.PROGRAMS, dataset=dataset, **changes)
    own = checkpoint.read_config(directory / checkpoint.CONFIG_FILE).get("dataset")
    if run_config.dataset != own and not config.test_share:
        # The share was of other images; these may have a test split.
        run_config = dataclasses.replace(run_config, test_share=0.0)
    model = trained.load(directory, seed=int(config.model_seed) if config.model_seed else None)
    with status.phase("loading the data"):
        images = programs.room(run_config.program, "task").prepare(run_config)
    model.functions.check_images(images.test)
    return model, images


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz file that is either complete or not there.

    Raises:
      ValueError: it cannot be written.
    """
    try:
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}; choose another --out") from error


def main(arguments: list[str]) -> None:
    """Encodes the data set of the command line."""
    with flags.setup():
        if len(arguments) != 3:
            raise ValueError(
                "name a run and a data set: python -m experiments.encode RUN_DIR DATASET; got "
                f"{' '.join(arguments[1:]) or 'none'}"
            )
        config = flags.parse(Config)
        path = Path(config.out)
        if not path.absolute().parent.is_dir():
            raise ValueError(f"--out={path}: the folder {path.parent} does not exist; make it")
        model, images = prepare(config, paths.local(arguments[1], "RUN_DIR"), arguments[2])
        arrays = encode(config, model, images)
        save(path, arrays)
    for name, values in arrays.items():
        flag_help.tell(f"{name:<22} {values.dtype} {values.shape}")
    flag_help.tell(f"wrote {path}")


if __name__ == "__main__":
    flags.define(Config)
    flags.run(main)
