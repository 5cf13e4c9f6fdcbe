"""Labels that a model is given beside its images: rows of pixels that end in a label.

Training images, batches and what evaluations read have the label as last columns, so that whatever
moves rows moves labels with them: uint8 [N, D + 1] of a model with integer labels, [N, D + 4 C] of
one with real vectors, whose C float32 are 4 C bytes in the machine's order; else [N, D].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

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


class Condition(NamedTuple):
    """What the model is given beside an image; by default nothing."""

    size: int = 0  # how many labels there are, or numbers in a vector; 0: it is given none
    one_hot: bool = True  # labels are integers, else real vectors, given as they are

    @property
    def num_classes(self) -> int:
        """How many integer labels there are; 0: it is given none, or vectors."""
        return self.size if self.one_hot else 0

    @property
    def num_bytes(self) -> int:
        """How many columns of a row are its label."""
        return min(self.size, 1) if self.one_hot else 4 * self.size


NOTHING = Condition()


@dataclass(frozen=True)
class ConditionConfig(LikelihoodConfig):
    """What the model is given beside an image; at the default nothing."""

    condition: str = option(
        names.NONE,
        "What encoder, decoder and prior are given beside an image or its bits: nothing, or its "
        "label, one-hot, or where labels are real vectors, as it is.",
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


def condition_of(config: ConditionConfig, images: Dataset) -> Condition:
    """Returns what the model is given: as many labels as the largest and one more, or vectors.

    Raises:
      ValueError: images have no labels, or one and the same, or other integers than small ones from
        0 on.
    """
    if not config.has_labels:
        return NOTHING
    labels = [getattr(images, f"{split}_labels") for split in _SPLITS]
    if any(of_split is None for of_split in labels):
        raise ValueError(
            f"--condition={names.LABELS}: {images.name} has no labels; use a data set that has, "
            f"such as mnist_dynamic, or --condition={names.NONE}"
        )
    if (labels[0] == labels[0][:1]).all():
        raise ValueError(
            f"--condition={names.LABELS}: all training images of {images.name} have one label; use "
            f"--condition={names.NONE}"
        )
    if not images.has_classes:
        return Condition(labels[0].shape[1], one_hot=False)
    low, high = (int(f([f(of_split) for of_split in labels])) for f in (np.min, np.max))
    if low < 0 or high >= MAX_LABELS:
        raise ValueError(
            f"--condition={names.LABELS}: labels must be numbers from 0 to {MAX_LABELS - 1}, "
            f"{images.name} has {low} to {high}"
        )
    return Condition(high + 1)


def check_prior(condition: Condition, prior: str) -> None:
    """Raises ValueError for real vectors under a prior that is a Boltzmann machine."""
    if prior != names.DIRECTED and not condition.one_hot:
        raise ValueError(
            f"--prior={prior} takes no real vectors as labels, under each of which log Z would be "
            f"another; use --prior={names.DIRECTED}, or bins of them as integer labels"
        )


def rows(pixels: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """Returns images [N, ...] as rows [N, D], or rows that end in the bytes of their labels.

    Args:
      pixels: uint8, or 0 and 1 of another dtype.
      labels: int [N], float [N, C] or None.
    """
    flat = pixels.reshape(len(pixels), -1)
    if labels is None:
        return flat
    if labels.ndim == 1:
        return np.concatenate([flat, labels[:, None].astype(np.uint8)], axis=1)
    vectors = np.ascontiguousarray(labels, np.float32)
    return np.concatenate([flat, vectors.view(np.uint8)], axis=1)


def split(x: jax.Array, condition: Condition) -> tuple[jax.Array, jax.Array | None]:
    """Returns pixels [B, D] and labels of rows of a batch; None where there are none.

    Labels are int32 [B], or float32 [B, C], bit by bit those that `rows` was given.
    """
    if not condition.size:
        return x, None
    pixels, last = x[:, : -condition.num_bytes], x[:, -condition.num_bytes :]
    if condition.one_hot:
        return pixels, last[:, 0].astype(jnp.int32)
    of_numbers = last.astype(jnp.uint8).reshape(len(x), condition.size, 4)
    return pixels, jax.lax.bitcast_convert_type(of_numbers, jnp.float32)


def seen(labels: jax.Array | None, condition: Condition) -> jax.Array | None:
    """Returns the labels of `split` as the networks see them, float [B, C]."""
    if labels is None or not condition.one_hot:
        return labels
    return jax.nn.one_hot(labels, condition.size)


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
