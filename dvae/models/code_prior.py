"""Autoregressive priors over grids of codes (van den Oord et al. 2016; Vaswani et al. 2017).

    log p(z) = sum_t log p(z_t | z_1 .. z_{t-1})

t goes over rows, columns and, at a position, its n latent variables in turn. Two networks give the
terms: GATED, masked convolutions in a vertical and a horizontal stack, and TRANSFORMER, causal
attention over all h w n codes. Codes are int32 [B, h, w, n], one of each of n codebooks.

    config = code_prior.CodePriorConfig((8, 8), num_latents=4, codebook_size=64)
    module = code_prior.make(config)
    params = module.init(key, codes)["params"]
    log_p = code_prior.log_prob(module, params, codes)                  # [B] nats
    new = code_prior.sample(module, params, key, num_samples=16)        # [16, h, w, n]

At first every term is softmax(bias_n), whatever the codes before: with the logits of a factorial
prior as `bias` training starts at that prior.

`sample` computes each term once, from what the terms before it left in a cache. `start` and
`advance` are its parts, for who wants to see how far it is.
"""

import functools
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from dvae.distributions import categorical
from dvae.models import checks
from dvae.models._causal_attention import Transformer
from dvae.models._gated_convolution import GatedConvolutions

__all__ = [
    "GATED",
    "TRANSFORMER",
    "CodePriorConfig",
    "advance",
    "log_prob",
    "make",
    "sample",
    "start",
]

PyTree = Any
GATED, TRANSFORMER = "gated", "transformer"


@dataclass(frozen=True)
class CodePriorConfig:
    """Sizes of a prior over codes."""

    grid: tuple[int, int]  # rows and columns
    num_latents: int  # n, at a position
    codebook_size: int  # C, of each
    network: str = GATED
    features: int = 64
    num_layers: int = 6
    num_heads: int = 4  # of the transformer
    dropout: float = 0.1  # share of what a layer adds, in training
    dtype: DTypeLike = jnp.float32  # of products; sums, logits and parameters are float32

    def __post_init__(self) -> None:
        """Raises ValueError for sizes that make no model."""
        if len(self.grid) != 2:
            raise ValueError(f"grid must be rows and columns, got {self.grid}")
        checks.check_sizes(
            rows=self.grid[0],
            columns=self.grid[1],
            num_latents=self.num_latents,
            codebook_size=self.codebook_size,
            features=self.features,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
        )
        if self.network not in (GATED, TRANSFORMER):
            raise ValueError(f"network must be {GATED} or {TRANSFORMER}, got {self.network}")
        if self.network == TRANSFORMER and self.features % self.num_heads:
            raise ValueError(
                f"features must be a multiple of num_heads={self.num_heads}, got {self.features}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")


def make(config: CodePriorConfig) -> nn.Module:
    """Returns the network, whose `apply` maps codes int [B, h, w, n] to logits [B, h, w, n, C].

    Those of one code depend on the codes before it alone. In training `apply` takes
    `deterministic=False` and a key, `rngs={"dropout": key}`.

    Args:
        config: sizes.
    """
    if config.network == TRANSFORMER:
        return Transformer(
            config.grid,
            config.num_latents,
            config.codebook_size,
            config.features,
            config.num_layers,
            config.num_heads,
            config.dropout,
            config.dtype,
        )
    return GatedConvolutions(
        config.grid,
        config.num_latents,
        config.codebook_size,
        config.features,
        config.num_layers,
        config.dropout,
        config.dtype,
    )


def log_prob(
    module: nn.Module, params: PyTree, codes: jax.Array, *, key: jax.Array | None = None
) -> jax.Array:
    """Evaluates log p(z) = sum_t log p(z_t | z_1 .. z_{t-1}).

    Args:
        module: of `make`.
        params: its parameters.
        codes: int [B, h, w, n], each in 0 .. C-1.
        key: typed PRNG key of the dropout; None: there is none.

    Returns:
        [B] float32 nats.

    Raises:
        ValueError: codes have another shape or dtype, or a known code is out of range.
    """
    rngs = {} if key is None else {"dropout": key}
    logits = module.apply({"params": params}, codes, deterministic=key is None, rngs=rngs)
    assert isinstance(logits, jax.Array)
    return categorical.log_prob_of_codes(codes, logits).sum((-3, -2, -1))


def start(module: nn.Module, params: PyTree, num_samples: int) -> PyTree:
    """Returns the cache of `advance` before the first position; its `codes` are all 0.

    Args:
        module: of `make`.
        params: its parameters.
        num_samples: B, at least 1.
    """
    checks.check_sizes(num_samples=num_samples)
    return module.apply({"params": params}, num_samples, method="start")


def advance(
    module: nn.Module, params: PyTree, cache: PyTree, key: jax.Array, position: jax.Array
) -> PyTree:
    """Draws the n codes of one position, given those before it.

    Code t = position n + k is drawn with `fold_in(key, t)`, so that the draws are those of a
    sampler that evaluates the whole network for each code.

    Args:
        module: of `make`.
        params: its parameters.
        cache: of `start`, or of the call at the position before.
        key: typed PRNG key, the same at all positions.
        position: int [] in 0 .. h w - 1, row by row.

    Returns:
        The cache, with the codes of that position in `codes` [B, h, w, n].
    """
    run = lambda method, *args: module.apply({"params": params}, *args, method=method)
    columns, num_latents = cache.codes.shape[2:]
    row, column = position // columns, position % columns
    is_first = column == 0
    enter = functools.partial(run, "enter_row")
    cache = lax.cond(is_first, enter, lambda cache, _: cache, cache, row)
    cache = run("enter_position", cache, row, column)

    def turn(latent: jax.Array, cache: PyTree) -> PyTree:
        logits, cache = run("next_logits", cache, row, column, latent)
        code = categorical.sample_codes(
            jax.random.fold_in(key, position * num_latents + latent), logits
        )
        codes = cache.codes.at[:, row, column, latent].set(code)
        return run("take", cache._replace(codes=codes), code, latent)

    return lax.fori_loop(0, num_latents, turn, cache)


def sample(module: nn.Module, params: PyTree, key: jax.Array, *, num_samples: int) -> jax.Array:
    """Draws codes from the prior, position by position.

    Args:
        module: of `make`.
        params: its parameters.
        key: typed PRNG key.
        num_samples: B, at least 1.

    Returns:
        int32 [B, h, w, n].
    """
    cache = start(module, params, num_samples)
    rows, columns = cache.codes.shape[1:3]
    step = lambda position, cache: advance(module, params, cache, key, position)
    return lax.fori_loop(0, rows * columns, step, cache).codes
