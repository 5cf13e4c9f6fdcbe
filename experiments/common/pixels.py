"""Binary pixels, of the programs whose models have them."""

from dvae import data
from experiments.common.config import FILES, RunConfig

BINARIZATIONS = AS_STORED, DYNAMIC, ONCE, THRESHOLD = "as_stored", "dynamic", "once", "threshold"


def published(dataset: str) -> str:
    """Returns the binarization of a set in published tables.

    There OMNIGLOT's training images are sampled once (Tucker et al., 2017; Vahdat et al., 2018,
    sections 7.1 and 7.3), where the set as we have it is sampled each time an image is seen.
    """
    return ONCE if dataset == "omniglot" else AS_STORED


def load(config: RunConfig, dataset: str, binarization: str, keep: data.KeepRows) -> data.Dataset:
    """Loads a data set and makes binary pixels of its levels, where that was asked for.

    Args:
      config: how it is loaded.
      dataset: its name or place.
      binarization: AS_STORED: pixels are what `data.load` makes of them; DYNAMIC: levels are
        sampled each time an image is seen; ONCE: they are sampled now; THRESHOLD: they are cut
        at 127.
      keep: which training images, of how many there are.

    Raises:
      ValueError: pixels that were to be sampled are binary already.
      DataUnavailableError: see `data.load`.
    """
    if binarization in (ONCE, THRESHOLD):
        if config.data_on == FILES:
            raise ValueError(
                f"--binarization={binarization} changes all training images, which "
                f"--data_on={FILES} leaves in their files; use --data_on=host"
            )
        changed: data.Binarization = "once" if binarization == ONCE else "threshold"
        return config.load(dataset, keep, binarization=changed)
    images = config.load(dataset, keep)
    if binarization == DYNAMIC:
        if images.binarization == "static":
            raise ValueError(
                f"--binarization={DYNAMIC}: the pixels of {images.name} are 0 or 1 already; "
                f"use --binarization={AS_STORED}"
            )
        if images.binarization == "none":
            images = data.binarized(images)
    return images
