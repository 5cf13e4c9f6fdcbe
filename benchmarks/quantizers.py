"""Quantizers of 32,768 vectors, codes and gradients, against vector-quantize-pytorch.

    python benchmarks/quantizers.py
    python benchmarks/quantizers.py --num_vectors=256    # whether it runs

The loss is a weighted sum of q with the losses of the method; gradients go to the vectors and to
what is learned. The peers' codebooks of moving averages are frozen (by angle) or learned. Memory
is what XLA plans beside arguments and results, and the peak of what PyTorch allocates beside what
it had before.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import vector_quantize_pytorch as peer
from _timing import Comparison, compare, show

from dvae import vq

NUM_VECTORS, NUM_CODES, DIM = 32_768, 512, 64
LEVELS, NUM_BITS = (8, 5, 5, 5), 10
NUM_STAGES = 4
BATCH = 32  # images, of a sequence of vectors each
BETA = 100.0  # inverse temperature of the soft assignments

Ours = Callable[[jax.Array, Any], tuple[jax.Array, jax.Array]]  # vectors, learned -> q, loss


def binary(module: Any) -> Ours:
    """lfq or bsq with its entropies."""

    def ours(v: jax.Array, _: Any) -> tuple[jax.Array, jax.Array]:
        found = module.losses(v, inverse_temperature=BETA)
        entropies = found.conditional_entropy - found.marginal_entropy
        return module.quantize(v).q, 0.25 * found.commitment + 0.1 * entropies

    return ours


def rotation(v: jax.Array, codebook: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Nearest codes with rotated gradients."""
    q = vq.lookup(vq.nearest_code(v, codebook), codebook)
    losses = vq.codebook_loss(v, q) + 0.25 * vq.commitment_loss(v, q)
    return vq.rotation_trick(v, q), losses.mean()


def cosine(v: jax.Array, codebook: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Codes by angle."""
    q, codes = vq.cosine.quantize(v, codebook)
    return q, vq.cosine.losses(v, codes, jax.lax.stop_gradient(codebook)).commitment


def simvq(v: jax.Array, learned: vq.simvq.SimVQ) -> tuple[jax.Array, jax.Array]:
    """Codes of a learned matrix."""
    q, codes = vq.simvq.quantize(v, *learned)
    losses = vq.simvq.losses(v, codes, *learned)
    return q, losses.codebook + 0.25 * losses.commitment


def residual(v: jax.Array, codebooks: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Stages of codes."""
    q, codes = vq.residual.quantize(v, codebooks)
    losses = vq.residual.losses(v, codes, codebooks)
    return q, losses.codebook.sum() + 0.25 * losses.commitment.sum()


def quantizers() -> dict[str, tuple[int, Ours, Any, torch.nn.Module]]:
    """Title -> dimensions, ours, what is learned, and the peer."""
    draw = lambda *shape: jax.random.normal(jax.random.key(1), shape)
    sizes = dict(dim=DIM, codebook_size=NUM_CODES)
    plain = lambda **settings: peer.VectorQuantize(**sizes, commitment_weight=0.25, **settings)
    learned = dict(learnable_codebook=True, ema_update=False)
    signs = lambda **settings: peer.LFQ(
        dim=NUM_BITS, codebook_size=2**NUM_BITS, commitment_loss_weight=0.25, **settings
    )
    bits = f"{NUM_BITS} bits"
    codes = f"{NUM_CODES} codes, {DIM} dimensions"
    return {
        f"fsq, levels {LEVELS}": (
            *(len(LEVELS), lambda v, _: (vq.fsq.quantize(v, LEVELS).q, 0.0), None),
            peer.FSQ(list(LEVELS)),
        ),
        f"lfq, {bits}": (NUM_BITS, binary(vq.lfq), None, signs()),
        f"bsq, {bits}": (NUM_BITS, binary(vq.bsq), None, signs(spherical=True)),
        f"rotation trick, {codes}": (
            *(DIM, rotation, draw(NUM_CODES, DIM)),
            plain(rotation_trick=True, **learned),
        ),
        f"cosine, {codes}": (
            *(DIM, cosine, draw(NUM_CODES, DIM)),
            plain(use_cosine_sim=True, freeze_codebook=True, rotation_trick=False),
        ),
        f"simvq, {codes}": (
            *(DIM, simvq, vq.simvq.init(jax.random.key(1), num_codes=NUM_CODES, dim=DIM)),
            peer.SimVQ(**sizes, rotation_trick=False),
        ),
        f"residual, {NUM_STAGES} stages of {codes}": (
            *(DIM, residual, draw(NUM_STAGES, NUM_CODES, DIM)),
            peer.ResidualVQ(num_quantizers=NUM_STAGES, **sizes, rotation_trick=False, **learned),
        ),
    }


def of_pytorch(module: torch.nn.Module, vectors: np.ndarray, weights: np.ndarray) -> Callable:
    """A call that returns the gradient of the vectors."""
    v = torch.from_numpy(vectors.reshape(BATCH, -1, vectors.shape[-1])).requires_grad_()
    w = torch.from_numpy(weights)
    module.train()

    def call() -> torch.Tensor:
        v.grad = None
        module.zero_grad()
        q, *rest = module(v)
        loss = (q @ w).mean()
        for term in rest:
            if torch.is_tensor(term) and term.is_floating_point():
                loss = loss + term.sum()
        loss.backward()
        return v.grad

    return call


def peak_megabytes(call: Callable) -> float:
    """Most that PyTorch has allocated at once during a call, beside what it had before."""
    call()
    settings = dict(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    with torch.profiler.profile(**settings) as profile:
        call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return 1e-6 * float(np.max(np.cumsum(sizes), initial=0.0))


def comparisons(num_vectors: int = NUM_VECTORS) -> list[Comparison]:
    """Times each with its peer."""
    found = []
    for title, (dim, ours, learned, module) in quantizers().items():
        vectors = jax.random.normal(jax.random.key(0), (num_vectors, dim))
        weights = jax.random.normal(jax.random.key(2), (dim,))

        def loss(v: jax.Array, learned: Any, ours: Ours = ours, weights=weights) -> jax.Array:
            q, penalty = ours(v, learned)
            return jnp.mean(q @ weights) + penalty

        run = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(vectors, learned).compile()
        theirs = of_pytorch(module, np.array(vectors), np.array(weights))
        calls = {"dvae": lambda r=run, v=vectors, m=learned: r(v, m), "PyTorch": theirs}
        megabytes = {
            "dvae": 1e-6 * run.memory_analysis().temp_size_in_bytes,
            "PyTorch": peak_megabytes(theirs),
        }
        found.append(
            compare(
                f"{title}; {num_vectors} vectors, codes and gradients",
                calls,
                repeats=5,
                mark="1.5 times PyTorch",
                megabytes=megabytes,
            )
        )
    return found


def main() -> None:
    """Times all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_vectors", type=int, default=NUM_VECTORS, help="a multiple of 32")
    show(comparisons(parser.parse_args().num_vectors))


if __name__ == "__main__":
    main()
