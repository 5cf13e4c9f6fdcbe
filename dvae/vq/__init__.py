"""Vector quantization: nearest codes, codebooks by EMA and k-means, and quantizers beyond.

One step of a VQ-VAE quantizes first and updates the codebook afterwards, so that the
reconstruction, the losses and the moving averages all see the same codes:

    codes = vq.nearest_code(vectors, state.codebook)
    quantized = vq.lookup(codes, state.codebook)
    decoder_input = vq.straight_through(vectors, quantized)    # or vq.rotation_trick
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

Other quantizers, one module each, with the same functions `quantize` -> (q, codes), `lookup` of
codes and, where there are any, `losses`; q is exact, and passes its gradient on to v:

    module    q                                      codes     trained by
    fsq       components rounded to L_i levels       prod L_i  reconstruction alone
    lfq       signs                                  2^d       commitment, entropies
    bsq       signs of v / |v|, over sqrt d          2^d       entropies
    cosine    nearest by angle, of length 1          C         codebook, commitment
    simvq     nearest row of M W, M fixed            C         codebook, commitment
    residual  sum of R nearest codes                 C^R       codebook, commitment, of each stage

`losses` are means over positions, those of `mask` where one is passed, without weights. Entropies
are in nats. Usage of masked positions is that of `mask_codes(codes, mask)`.

Codes of several components have two forms, turned into each other by `pack_digits` and
`unpack_codes`: one integer, below 2^31, and a digit for each component on the last axis, of any
number.
"""

from dvae.vq import bsq, cosine, fsq, lfq, residual, simvq
from dvae.vq._common import Quantized, QuantizedDigits, VQLosses
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
from dvae.vq.digits import digit_usage, mask_codes, pack_digits, unpack_codes
from dvae.vq.ema import EMAState, ema_init, ema_update, restart_dead_codes
from dvae.vq.kmeans import kmeans, kmeans_plus_plus
from dvae.vq.rotation import rotation_trick

__all__ = [
    "EMAState",
    "Quantized",
    "QuantizedDigits",
    "VQLosses",
    "bsq",
    "codebook_loss",
    "commitment_loss",
    "cosine",
    "digit_usage",
    "ema_init",
    "ema_update",
    "fsq",
    "kmeans",
    "kmeans_plus_plus",
    "lfq",
    "lookup",
    "mask_codes",
    "nearest_code",
    "num_dead",
    "pack_digits",
    "perplexity",
    "residual",
    "restart_dead_codes",
    "rotation_trick",
    "simvq",
    "squared_distances",
    "straight_through",
    "unpack_codes",
    "usage",
]
