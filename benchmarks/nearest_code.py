"""Nearest code of every vector, and a k-means of all pixels of a photograph.

    python benchmarks/nearest_code.py

Ours against `argmin` over the distances, and k-means against scikit-learn's: seeded as ours is, by
one draw a code, and as it does by default, by the best of six.
"""

import jax
import jax.numpy as jnp
import numpy as np
from _timing import Comparison, compare, show
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.datasets import load_sample_image

from dvae import vq

NUM_VECTORS, NUM_CODES, DIM = 32_768, 512, 64
COLORS, ITERATIONS = 64, 5


def comparisons() -> list[Comparison]:
    """Times both."""
    keys = jax.random.split(jax.random.key(0), 3)
    vectors = jax.random.normal(keys[0], (NUM_VECTORS, DIM))
    codebook = jax.random.normal(keys[1], (NUM_CODES, DIM))
    ours = jax.jit(vq.nearest_code)
    plain = jax.jit(lambda v, m: jnp.argmin((m**2).sum(-1)[None] - 2 * v @ m.T, axis=-1))
    title = f"nearest code, {NUM_VECTORS} vectors, {NUM_CODES} codes, {DIM} dimensions"
    calls = {
        "vq.nearest_code": lambda: ours(vectors, codebook),
        "argmin": lambda: plain(vectors, codebook),
    }
    codes = compare(title, calls)

    pixels = load_sample_image("china.jpg").reshape(-1, 3).astype(np.float32)
    points = jnp.asarray(pixels)
    fit = jax.jit(lambda p: vq.kmeans(keys[2], p, num_codes=COLORS, num_iters=ITERATIONS))
    options = dict(n_init=1, max_iter=ITERATIONS, tol=0, random_state=0)

    def seeded() -> float:
        first, _ = kmeans_plusplus(pixels, COLORS, n_local_trials=1, random_state=0)
        return float(KMeans(COLORS, init=first, **options).fit(pixels).inertia_)

    title = f"k-means, {len(pixels)} pixels, {COLORS} colors, {ITERATIONS} iterations, seeding"
    calls = {
        "vq.kmeans": lambda: fit(points),
        "scikit-learn": seeded,
        "scikit-learn, six draws a code": lambda: KMeans(COLORS, **options).fit(pixels).inertia_,
    }
    return [codes, compare(title, calls, repeats=3)]


if __name__ == "__main__":
    show(comparisons())
