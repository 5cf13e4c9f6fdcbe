"""Sizes of codebooks: levels of components, signs, and what would not fit into memory."""

import math
from typing import Any

from dvae.models import vq_conv
from experiments.cifar_vq import names
from experiments.common.flags import MAX_INT

MAX_GIGABYTES = 32  # of a single array


def levels_of(text: str) -> tuple[int, ...]:
    """Returns the levels of the components; ValueError for what is no list of such numbers."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and len(word) < 10 and int(word) >= 2 for word in words):
        raise ValueError(
            f"--levels={text} must list the levels of every component, 2 or more, such as 8,5,5,5"
        )
    levels = tuple(map(int, words))
    if (size := math.prod(levels)) > MAX_INT:
        raise ValueError(f"--levels={text} make {size} codes; they must be at most {MAX_INT}")
    return levels


def bits_of(estimator: str, codebook_size: int) -> int:
    """Returns how many signs tell so many codes apart; ValueError unless that is exact."""
    bits = codebook_size.bit_length() - 1
    if codebook_size != 2**bits:
        raise ValueError(
            f"--codebook_size={codebook_size} must be a power of 2 for {estimator}, whose codes "
            f"are signs; use {2**bits} or {2 ** (bits + 1)}"
        )
    return bits


def check_memory(config: Any) -> None:
    """Raises ValueError for more codes than a device is to be asked for.

    Args:
      config: of `cifar_vq`.
    """
    of_fsq = config.estimator == names.FSQ
    named = f"--levels={config.levels}" if of_fsq else f"--codebook_size={config.codebook_size}"
    num_books = config.num_latents
    if config.estimator == names.RESIDUAL:
        num_books *= config.num_stages
    _check_array(named, "codebooks", num_books, config.num_codes, config.vector_dim)
    if config.estimator not in names.GRIDS:  # which compute no distances
        side = max(1, (config.crop or config.image_size) // vq_conv.DOWNSAMPLING)  # 1: not known
        num_vectors = config.batch_size * side * side * config.num_latents
        _check_array(named, "distances to codes", num_vectors, config.num_codes)


def _check_array(named: str, floats: str, *axes: int) -> None:
    gigabytes = 4 * math.prod(axes) / 1e9
    if gigabytes > MAX_GIGABYTES:
        raise ValueError(
            f"{named} makes {floats} of {' x '.join(map(str, axes))} float32 numbers, "
            f"{gigabytes:,.0f} GB, and {MAX_GIGABYTES} GB is the most; take fewer codes"
        )
