"""Labels that a model is given beside its images: rows of pixels that end in a label.

Training images, batches and what evaluations read have the label as a last column, so that whatever
moves rows moves labels with them: uint8 [N, D + 1] where the model has labels, else [N, D].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dvae.data import Dataset
from experiments.binary_vae import names
from experiments.boltzmann.names import PCD
from experiments.common.config import FILES, LikelihoodConfig
from experiments.common.flags import option

MAX_LABELS = 256  # of one byte
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class ConditionConfig(LikelihoodConfig):
    """What the model is given beside an image; at the default nothing."""

    condition: str = option(
        names.NONE,
        "What encoder, decoder and prior are given beside an image or its bits: nothing, or its "
        "label, one-hot.",
        choices=(names.NONE, names.LABELS),
        group="model",
        former=names.NONE,
    )

    @property
    def has_labels(self) -> bool:
        """Whether the model is given labels."""
        return self.condition == names.LABELS

    def check_condition(self, prior: str, sampler: str = "") -> None:
        """Raises ValueError for what cannot be conditioned on labels.

        Args:
          prior: its kind.
          sampler: of a Boltzmann prior; empty: the default.
        """
        if not self.has_labels:
            return
        wanted = f"--condition={names.LABELS}"
        if prior == names.BOLTZMANN:
            raise ValueError(
                f"{wanted} makes units of the labels, and --prior={prior} has two sides of bits; "
                f"use --prior={names.GENERAL} --graph=bipartite, the same machine"
            )
        if prior == names.GENERAL and sampler not in ("", PCD):
            raise ValueError(
                f"{wanted} goes with --sampler={PCD}, whose chains each have one label, got "
                f"--sampler={sampler}"
            )
        if self.data_on == FILES:
            raise ValueError(
                f"{wanted} keeps labels beside the images, which --data_on={FILES} leaves in their "
                "files; use --data_on=host"
            )
        if self.coordinator:
            raise ValueError(f"{wanted} is of one process, got --coordinator={self.coordinator}")


def num_labels(config: ConditionConfig, images: Dataset) -> int:
    """Returns how many labels the model knows: one more than the largest; 0: it is given none.

    Raises:
      ValueError: images have no labels, or one and the same, or other ones than small numbers from
        0 on.
    """
    if not config.has_labels:
        return 0
    labels = [getattr(images, f"{split}_labels") for split in _SPLITS]
    if any(of_split is None for of_split in labels):
        raise ValueError(
            f"--condition={names.LABELS}: {images.name} has no labels; use a data set that has, "
            f"such as mnist_dynamic, or --condition={names.NONE}"
        )
    low, high = (int(f([f(of_split) for of_split in labels])) for f in (np.min, np.max))
    if low < 0 or high >= MAX_LABELS:
        raise ValueError(
            f"--condition={names.LABELS}: labels must be numbers from 0 to {MAX_LABELS - 1}, "
            f"{images.name} has {low} to {high}"
        )
    if len(np.unique(labels[0])) < 2:
        raise ValueError(
            f"--condition={names.LABELS}: all training images of {images.name} have one label; use "
            f"--condition={names.NONE}"
        )
    return high + 1


def rows(pixels: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """Returns images [N, ...] as rows [N, D], or with labels [N] as rows uint8 [N, D + 1]."""
    flat = pixels.reshape(len(pixels), -1)
    if labels is None:
        return flat
    return np.concatenate([flat, labels[:, None].astype(np.uint8)], axis=1)


def split(x: jax.Array, num_labels: int) -> tuple[jax.Array, jax.Array | None]:
    """Returns pixels [B, D] and labels int32 [B] of rows of a batch; None where there are none."""
    return (x[:, :-1], x[:, -1].astype(jnp.int32)) if num_labels else (x, None)


def labels_of(
    config: ConditionConfig, images: Dataset, split: str, chosen: np.ndarray
) -> Mapping[str, Any]:
    """Returns what an evaluation is told of some images beside their pixels.

    Args:
      config: whether the model has labels.
      images: the data set.
      split: its part.
      chosen: indices of the images in it.
    """
    return {"labels": getattr(images, f"{split}_labels")[chosen]} if config.has_labels else {}
