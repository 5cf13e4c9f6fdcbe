"""Sizes of the codebooks that are grids: levels of components, and signs."""

import math

from experiments.common.flags import MAX_INT


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
