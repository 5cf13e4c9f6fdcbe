"""Vector quantization: nearest codes, straight-through gradients, EMA codebooks and k-means.

One step of a VQ-VAE quantizes first and updates the codebook afterwards, so that the
reconstruction, the losses and the moving averages all see the same codes:

    codes = vq.nearest_code(vectors, state.codebook)
    quantized = vq.lookup(codes, state.codebook)
    decoder_input = vq.straight_through(vectors, quantized)
    loss = reconstruction(decoder_input) + 0.25 * vq.commitment_loss(vectors, quantized).mean()
    # ... gradients and the optimizer step; then, with the codes of this very step:
    state = vq.ema_update(state, vectors, codes, decay=0.99)
    state = vq.restart_dead_codes(key, state, vectors, threshold=1e-2)

The order is the caller's: nothing here quantizes and updates in one call. Without moving averages
the codebook is an ordinary parameter, trained by adding `vq.codebook_loss`.

n latent variables with a codebook each are a `jax.vmap` over a leading axis: codebooks [n, C, D],
vectors [n, N, D], and EMA states likewise. No function builds an array of N x C x D, or a one-hot
of N x C.

A vector that is not finite gets code C, and a position that does not count may be marked by a code
of -1: `lookup` gives NaN there and passes no gradient, `usage` and `ema_update` leave both out.

Under `jax.jit`, or on mesh axes that are explicit, vectors and codes may be sharded over devices,
with the codebook on all of them. The sums of `ema_update` are then global, and every device holds
the same codebook. Inside `jax.shard_map` each device sees its own shard only: there, gather the
vectors and codes before the update.
"""

from dvae.vq.codebook import (
    codebook_loss,
    commitment_loss,
    lookup,
    nearest_code,
    squared_distances,
    straight_through,
    usage,
)
from dvae.vq.counts import num_dead, perplexity
from dvae.vq.ema import EMAState, ema_init, ema_update, restart_dead_codes
from dvae.vq.kmeans import kmeans, kmeans_plus_plus

__all__ = [
    "EMAState",
    "codebook_loss",
    "commitment_loss",
    "ema_init",
    "ema_update",
    "kmeans",
    "kmeans_plus_plus",
    "lookup",
    "nearest_code",
    "num_dead",
    "perplexity",
    "restart_dead_codes",
    "squared_distances",
    "straight_through",
    "usage",
]
