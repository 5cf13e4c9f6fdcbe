"""Codes drawn from a transformer prior, against the same transformer in PyTorch.

    python benchmarks/code_sampling.py
    python benchmarks/code_sampling.py --grid=4 --num_layers=2    # whether it runs

Both keep keys and values of the codes before. PyTorch attends to the places that are filled, ours
to all places under a mask. Parameters are the same, and so are logits of the same codes, which is
checked first. Random numbers differ.
"""

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from _timing import Comparison, compare, show

from dvae.models import code_prior

NUM_SAMPLES = 16
CONFIG = code_prior.CodePriorConfig(
    (8, 8), num_latents=4, codebook_size=512, network=code_prior.TRANSFORMER
)


class Peer:
    """The network of `code_prior` by its parameters, a code at a time."""

    def __init__(self, config: code_prior.CodePriorConfig, params: Any) -> None:
        self.config = config
        to_torch = lambda x: torch.from_numpy(np.array(x))
        self.table, self.first = to_torch(params["embedding"]["table"]), to_torch(params["first"])
        self.places = to_torch(params["places"])
        dense = lambda p: (to_torch(p["kernel"]).T.contiguous(), to_torch(p["bias"]))
        norm = lambda p: (to_torch(p["scale"]), to_torch(p["bias"]))
        self.norm = norm(params["norm"])
        self.layers = [
            {name: (norm if "norm" in name else dense)(p) for name, p in layer.items()}
            for layer in (params[f"blocks_{i}"] for i in range(config.num_layers))
        ]
        kernels, biases = (to_torch(params["logits"][name]) for name in ("kernel", "bias"))
        transposed = (kernel.T.contiguous() for kernel in kernels)
        self.logits = list(zip(transposed, biases, strict=True))

    def start(self, num_samples: int) -> list[torch.Tensor]:
        """Makes keys and values of all layers."""
        heads = self.config.num_heads
        shape = (2, num_samples, heads, len(self.places), self.config.features // heads)
        return [torch.zeros(shape) for _ in self.layers]

    def step(self, last: torch.Tensor, place: int, seen: list[torch.Tensor]) -> torch.Tensor:
        """Maps the embedded code before [B, F] to logits [B, C] of a place."""
        size = self.config.features
        normalize = lambda x, p: F.layer_norm(x, (size,), *p, eps=1e-6)
        x = last + self.places[place]
        for layer, kept in zip(self.layers, seen, strict=True):
            parts = F.linear(normalize(x, layer["norm"]), *layer["projection"])
            query, key, value = parts.view(len(x), 3, self.config.num_heads, -1).unbind(1)
            kept[0, :, :, place], kept[1, :, :, place] = key, value
            attended = F.scaled_dot_product_attention(
                query[:, :, None], kept[0, :, :, : place + 1], kept[1, :, :, : place + 1]
            )
            x = x + F.linear(attended.reshape(len(x), -1), *layer["out"])
            wide = F.linear(normalize(x, layer["mlp_norm"]), *layer["wide"])
            x = x + F.linear(F.gelu(wide, approximate="tanh"), *layer["narrow"])
        return F.linear(normalize(x, self.norm), *self.logits[place % self.config.num_latents])

    def walk(self, num_samples: int, choose: Callable[[int, torch.Tensor], torch.Tensor]) -> None:
        """Goes over all places; `choose` gives the codes [B] of one by its logits."""
        seen, last = self.start(num_samples), self.first.expand(num_samples, -1)
        for place in range(len(self.places)):
            codes = choose(place, self.step(last, place, seen))
            last = self.table[place % self.config.num_latents, codes]

    @torch.inference_mode()
    def sample(self, num_samples: int) -> torch.Tensor:
        """Draws codes [B, T]."""
        drawn = torch.empty(num_samples, len(self.places), dtype=torch.int64)

        def choose(place: int, logits: torch.Tensor) -> torch.Tensor:
            noise = -torch.empty_like(logits).exponential_().log()
            drawn[:, place] = (logits + noise).argmax(-1)
            return drawn[:, place]

        self.walk(num_samples, choose)
        return drawn

    @torch.inference_mode()
    def logits_of(self, codes: np.ndarray) -> np.ndarray:
        """Returns the logits [B, T, C] of given codes [B, T]."""
        given, found = torch.from_numpy(codes.astype(np.int64)), list[torch.Tensor]()

        def choose(place: int, logits: torch.Tensor) -> torch.Tensor:
            found.append(logits)
            return given[:, place]

        self.walk(len(codes), choose)
        return torch.stack(found, 1).numpy()


def make(config: code_prior.CodePriorConfig) -> tuple[Any, Any, Peer]:
    """Returns our network, random parameters, and the peer that has them."""
    module = code_prior.make(config)
    codes = jnp.zeros((1, *config.grid, config.num_latents), jnp.int32)
    params = jax.jit(module.init)(jax.random.key(0), codes)["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(tree, moved)
    return module, params, Peer(config, params)


def comparisons(config: code_prior.CodePriorConfig = CONFIG) -> list[Comparison]:
    """Times the samplers."""
    module, params, peer = make(config)
    ours = jax.jit(lambda key: code_prior.sample(module, params, key, num_samples=NUM_SAMPLES))
    codes = np.array(ours(jax.random.key(2)))
    expected = jax.jit(module.apply)({"params": params}, codes)
    expected = expected.reshape(NUM_SAMPLES, -1, config.codebook_size)
    found = peer.logits_of(codes.reshape(NUM_SAMPLES, -1))
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
    rows, columns = config.grid
    return [
        compare(
            f"{NUM_SAMPLES} samples of {rows}x{columns}x{config.num_latents} codes,"
            f" transformer of {config.num_layers} layers and {config.features} features",
            {
                "code_prior.sample": lambda: ours(jax.random.key(3)),
                "PyTorch, eager": lambda: peer.sample(NUM_SAMPLES),
            },
            repeats=5,
        )
    ]


def main() -> None:
    """Prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=int, default=8)
    parser.add_argument("--num_layers", type=int, default=6)
    given = parser.parse_args()
    grid = (given.grid, given.grid)
    show(comparisons(dataclasses.replace(CONFIG, grid=grid, num_layers=given.num_layers)))


if __name__ == "__main__":
    main()
