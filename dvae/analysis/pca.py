"""Principal components of codebooks, by a singular value decomposition in float64.

With m the rows of the codebook minus their mean and m = U S V^T, component i is column i of V, the
coordinates are m V, and component i explains the fraction S_i^2 / sum_j S_j^2 of the variance.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["explained_variance", "project"]


def explained_variance(codebook: ArrayLike) -> NDArray[np.float64]:
    """Computes the fraction of the variance that each principal component explains.

    Args:
        codebook: [C, D], one code a row.

    Returns:
        [min(C, D)], descending, in [0, 1], with sum 1; all zero if all codes are equal.

    Raises:
        ValueError: if `codebook` is not a matrix with at least one row and column, or not finite.
    """
    singular_values, _, _ = _decompose(codebook)
    variances = singular_values**2
    total = variances.sum()
    # Equal codes have no variance to explain: 0 / 0 = NaN.
    return variances / total if total > 0 else np.zeros_like(variances)


def project(codebook: ArrayLike, num_components: int = 3) -> NDArray[np.float64]:
    """Projects the centered codes onto the first principal components.

    A component is defined up to its sign; here its entry of largest magnitude is positive.

    Args:
        codebook: [C, D], one code a row.
        num_components: number of coordinates a code; those beyond min(C, D) are zero.

    Returns:
        [C, num_components], in the unit of the codebook; all zero if all codes are equal.

    Raises:
        ValueError: if `num_components` is below 1, or `codebook` as for `explained_variance`.
    """
    if num_components < 1:
        raise ValueError(f"num_components must be at least 1, got {num_components}")
    singular_values, components, centered = _decompose(codebook)
    largest = components[np.arange(len(components)), np.abs(components).argmax(axis=1)]
    directions = components * np.where(largest < 0, -1.0, 1.0)[:, None]
    # Without variance the directions are arbitrary, and the coordinates rounding noise.
    coordinates = centered @ directions.T * (singular_values > 0)
    padding = max(0, num_components - len(components))
    return np.pad(coordinates[:, :num_components], ((0, 0), (0, padding)))


def _decompose(
    codebook: ArrayLike,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Returns singular values, components (one a row) and the centered codebook."""
    codes = np.asarray(codebook, dtype=np.float64)
    if codes.ndim != 2 or codes.size == 0:
        raise ValueError(f"codebook must be [C, D] with C, D >= 1, got shape {codes.shape}")
    if not np.isfinite(codes).all():
        raise ValueError("codebook must be finite, got NaN or infinite entries")
    centered = codes - codes.mean(axis=0)
    _, singular_values, components = np.linalg.svd(centered, full_matrices=False)
    # What rounding in the mean and in the decomposition can leave of an exact zero.
    noise = np.finfo(np.float64).eps * max(codes.shape) * np.abs(codes).max() * np.sqrt(len(codes))
    return np.where(singular_values > noise, singular_values, 0.0), components, centered
