"""A causal transformer over the codes of a grid (Vaswani et al. 2017, layers normalized first).

Code t = (row w + column) n + latent is read off the sum of two vectors: one for the code before it,
one for its place. Each layer adds attention to the places up to t, then a map of each place alone.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from dvae.models._code_embedding import CodeEmbedding, CodeLogits, check_codes


class Cache(NamedTuple):
    """What the codes before left: L layers, T = h w n codes, H heads of F / H features."""

    codes: jax.Array  # int32 [B, h, w, n]
    # One array a layer, heads before places: a product then reads what lies together. XLA copied
    # an array of all layers, and transposed each, for every code.
    keys: tuple[jax.Array, ...]  # L of [B, H, T, F / H]
    values: tuple[jax.Array, ...]  # L of [B, H, T, F / H]
    last: jax.Array  # [B, F], the embedded code before, a learned vector before the first


class Block(nn.Module):
    """Attention and two dense layers, each added to its input."""

    features: int
    num_heads: int
    dropout: float
    dtype: DTypeLike

    def setup(self) -> None:
        """Makes the products, the norms and the dropout."""
        dense = lambda size: nn.Dense(size, dtype=self.dtype)
        self.norm, self.mlp_norm = nn.LayerNorm(), nn.LayerNorm()
        self.projection, self.out = dense(3 * self.features), dense(self.features)
        self.wide, self.narrow = dense(4 * self.features), dense(self.features)
        self.drop = nn.Dropout(self.dropout)

    def project(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Maps floats [B, T, F] to queries, keys and values [B, T, H, F / H]."""
        parts = jnp.split(self.projection(self.norm(x)), 3, axis=-1)
        shape = (*x.shape[:-1], self.num_heads, self.features // self.num_heads)
        query, key, value = (part.reshape(shape) for part in parts)
        return query, key, value

    def add(self, x: jax.Array, attended: jax.Array, *, deterministic: bool = True) -> jax.Array:
        """Adds what was attended to, [B, T, H, F / H], and a map of each place."""
        y = self.out(attended.reshape(x.shape))
        x = x + self.drop(y, deterministic=deterministic)
        y = self.narrow(nn.gelu(self.wide(self.mlp_norm(x))))
        return x + self.drop(y, deterministic=deterministic)


class Transformer(nn.Module):
    """Logits of codes given those before; see `code_prior.CodePriorConfig` for the fields."""

    grid: tuple[int, int]
    num_latents: int
    codebook_size: int
    features: int
    num_layers: int
    num_heads: int
    dropout: float
    dtype: DTypeLike

    def setup(self) -> None:
        """Makes embeddings, layers, and what turns features into logits."""
        n, size, features = self.num_latents, self.codebook_size, self.features
        length, normal = self.grid[0] * self.grid[1] * n, nn.initializers.normal
        self.embedding = CodeEmbedding(n, size, features)
        self.first = self.param("first", normal(1.0), (features,), jnp.float32)
        self.places = self.param("places", normal(0.5), (length, features), jnp.float32)
        self.blocks = [
            Block(features, self.num_heads, self.dropout, self.dtype)
            for _ in range(self.num_layers)
        ]
        self.norm = nn.LayerNorm()
        self.logits = CodeLogits(n, size, features, self.dtype)

    def __call__(self, codes: jax.Array, *, deterministic: bool = True) -> jax.Array:
        """Maps codes int [B, h, w, n] of the grid to logits float32 [B, h, w, n, C]."""
        check_codes(codes, self.grid, self.num_latents, self.codebook_size)
        before = self.embedding(codes).reshape(len(codes), -1, self.features)[:, :-1]
        first = jnp.broadcast_to(self.first, (len(codes), 1, self.features))
        x = jnp.concatenate([first, before], axis=1) + self.places[None]
        for block in self.blocks:
            query, key, value = block.project(x)
            attended = jax.nn.dot_product_attention(query, key, value, is_causal=True)
            x = block.add(x, attended, deterministic=deterministic)
        return self.logits(self.norm(x).reshape(*codes.shape, self.features))

    def start(self, num_samples: int) -> Cache:
        """Returns the cache before the first code."""
        codes = jnp.zeros((num_samples, *self.grid, self.num_latents), jnp.int32)
        shape = (num_samples, self.num_heads, len(self.places), self.features // self.num_heads)
        seen = (jnp.zeros(shape, self.dtype),) * self.num_layers
        first = jnp.broadcast_to(self.first, (num_samples, self.features))
        return Cache(codes, seen, seen, first)

    def enter_row(self, cache: Cache, row: jax.Array) -> Cache:
        """Returns the cache: a row is nothing new to attention."""
        return cache

    def enter_position(self, cache: Cache, row: jax.Array, column: jax.Array) -> Cache:
        """Returns the cache: nor is a position."""
        return cache

    def next_logits(
        self, cache: Cache, row: jax.Array, column: jax.Array, latent: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """Returns the logits [B, C] of a latent variable of the position, and what it leaves."""
        place = (row * self.grid[1] + column) * self.num_latents + latent
        x = (cache.last + self.places[place][None])[:, None]
        is_seen = (jnp.arange(len(self.places)) <= place)[None, None]
        keys, values = [], []
        for block, old_keys, old_values in zip(self.blocks, cache.keys, cache.values, strict=True):
            query, key, value = block.project(x)
            keys.append(old_keys.at[:, :, place].set(key[:, 0]))
            values.append(old_values.at[:, :, place].set(value[:, 0]))
            x = block.add(x, _attend(query[:, 0], keys[-1], values[-1], is_seen)[:, None])
        logits = self.logits.of(latent, self.norm(x)[:, 0])
        return logits, cache._replace(keys=tuple(keys), values=tuple(values))

    def take(self, cache: Cache, code: jax.Array, latent: jax.Array) -> Cache:
        """Makes a code int [B] what the next one is read off."""
        return cache._replace(last=self.embedding.of(latent, code))


def _attend(query: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array) -> jax.Array:
    """Attends from one place, [B, H, D], to those that a mask [B, H, T] has; softmax in float32."""
    scores = jnp.einsum("bhd,bhtd->bht", query, keys, preferred_element_type=jnp.float32)
    scores = jnp.where(mask, scores * query.shape[-1] ** -0.5, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    return jnp.einsum("bht,bhtd->bhd", weights, values)
