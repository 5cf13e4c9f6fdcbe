"""Gated convolutions over a grid of codes, masked by shifts (van den Oord et al. 2016).

Two stacks see what comes before a position: the vertical one all rows above, the horizontal one
the codes to the left, and through the vertical one the rows above. Both inputs are shifted by one,
down and to the right, so that every layer may see its own position.

    vertical    v' = v + gate(W_v [rows r-1, r; columns c-1 .. c+1 of v])
    horizontal  h' = h + W_o gate(W_h [columns c-1, c of h] + W_d W_v [...])
    gate(a, b) = tanh(a) sigmoid(b)

A convolution is one product of windows and a matrix, so that one position costs what its share of
the whole does. The n latent variables of a position see h and, each, the sum of the embedded codes
of those before it.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from dvae.models._code_embedding import CodeEmbedding, CodeLogits, check_codes


class Cache(NamedTuple):
    """What the positions before left: L layers, F features."""

    codes: jax.Array  # int32 [B, h, w, n]
    vertical: jax.Array  # [L, B, 1 + h, w, F], inputs of the vertical layers under a row of zeros
    gates: jax.Array  # [L, B, w, 2 F], of the vertical layers in this row
    left: jax.Array  # [L, B, F], inputs of the horizontal layers in the column before
    context: jax.Array  # [B, F], what the horizontal stack says of this position
    said: jax.Array  # [B, F], the sum of the embedded codes of this position so far


class GatedLayer(nn.Module):
    """One layer of both stacks."""

    features: int
    dropout: float
    dtype: DTypeLike

    def setup(self) -> None:
        """Makes the four products and the dropout."""
        dense = lambda size: nn.Dense(size, dtype=self.dtype)
        self.vertical, self.horizontal = dense(2 * self.features), dense(2 * self.features)
        self.down, self.out = dense(2 * self.features), dense(self.features)
        self.drop = nn.Dropout(self.dropout)

    def rise(self, v: jax.Array, windows: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps v [..., F] and its windows [..., 6 F] to the next v and the gates [..., 2 F]."""
        gates = self.vertical(windows)
        return v + _gated(gates), gates

    def cross(
        self, h: jax.Array, windows: jax.Array, gates: jax.Array, *, deterministic: bool = True
    ) -> jax.Array:
        """Maps h [..., F], its windows [..., 2 F] and the vertical gates to the next h."""
        y = _gated(self.horizontal(windows) + self.down(gates))
        return h + self.out(self.drop(y, deterministic=deterministic))


class GatedConvolutions(nn.Module):
    """Logits of codes given those before; see `code_prior.CodePriorConfig` for the fields."""

    grid: tuple[int, int]
    num_latents: int
    codebook_size: int
    features: int
    num_layers: int
    dropout: float
    dtype: DTypeLike

    def setup(self) -> None:
        """Makes embeddings, layers, and what turns features into logits."""
        n, size, features = self.num_latents, self.codebook_size, self.features
        self.embedding = CodeEmbedding(n, size, features)
        self.blocks = [
            GatedLayer(features, self.dropout, self.dtype) for _ in range(self.num_layers)
        ]
        self.said_embedding = CodeEmbedding(n, size, features)
        self.turn = self.param("turn", nn.initializers.zeros, (n, features), jnp.float32)
        self.hidden = nn.Dense(features, dtype=self.dtype)
        self.logits = CodeLogits(n, size, features, self.dtype)

    def __call__(self, codes: jax.Array, *, deterministic: bool = True) -> jax.Array:
        """Maps codes int [B, h, w, n], of any grid, to logits float32 [B, h, w, n, C]."""
        check_codes(codes, ("h", "w"), self.num_latents, self.codebook_size)
        x = self.embedding(codes).sum(-2)
        v, h = _shift(x, 1), _shift(x, 2)
        for block in self.blocks:
            after, gates = block.rise(v, _windows(v, above=1, left=1, right=1))
            beside = _windows(h, above=0, left=1, right=0)
            h = block.cross(h, beside, gates, deterministic=deterministic)
            v = after
        # The sum of codes before, without the code itself: its rounding, too, would be told.
        earlier = jnp.cumsum(self.said_embedding(codes), axis=-2)[..., :-1, :]
        said = jnp.pad(earlier, [(0, 0)] * (earlier.ndim - 2) + [(1, 0), (0, 0)])
        turn = self.turn.reshape((1,) * (said.ndim - 2) + self.turn.shape)
        return self.logits(self._hidden(h[..., None, :] + said + turn))

    def _hidden(self, x: jax.Array) -> jax.Array:
        return nn.relu(self.hidden(nn.relu(x)))

    def start(self, num_samples: int) -> Cache:
        """Returns the cache before the first row."""
        (rows, columns), layers, features = self.grid, self.num_layers, self.features
        zeros = lambda *shape: jnp.zeros((*shape, features), jnp.float32)
        return Cache(
            jnp.zeros((num_samples, rows, columns, self.num_latents), jnp.int32),
            zeros(layers, num_samples, 1 + rows, columns),
            jnp.zeros((layers, num_samples, columns, 2 * features), jnp.float32),
            zeros(layers, num_samples),
            zeros(num_samples),
            zeros(num_samples),
        )

    def enter_row(self, cache: Cache, row: jax.Array) -> Cache:
        """Runs the vertical stack over a row, whose rows above are there."""
        before = jax.lax.dynamic_index_in_dim(cache.codes, jnp.maximum(row - 1, 0), 1, False)
        v = jnp.where(row > 0, self.embedding(before).sum(-2), 0)
        vertical, of_row = cache.vertical, []
        for i, block in enumerate(self.blocks):
            vertical = vertical.at[i, :, row + 1].set(v)
            both = jax.lax.dynamic_slice_in_dim(vertical[i], row, 2, axis=1)
            v, gates = block.rise(v, _windows(both, above=1, left=1, right=1)[:, 1])
            of_row.append(gates)
        return cache._replace(
            vertical=vertical,
            gates=jnp.stack(of_row).astype(cache.gates.dtype),
            left=jnp.zeros_like(cache.left),
        )

    def enter_position(self, cache: Cache, row: jax.Array, column: jax.Array) -> Cache:
        """Runs the horizontal stack at a position, whose row was entered."""
        before = cache.codes[:, row, jnp.maximum(column - 1, 0)]
        h = jnp.where(column > 0, self.embedding(before).sum(-2), 0)
        inputs = []
        for i, block in enumerate(self.blocks):
            inputs.append(h)
            beside = jnp.concatenate([cache.left[i], h], axis=-1)
            h = block.cross(h, beside, cache.gates[i, :, column])
        said = jnp.zeros_like(cache.said)
        return cache._replace(left=jnp.stack(inputs), context=h, said=said)

    def next_logits(
        self, cache: Cache, row: jax.Array, column: jax.Array, latent: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """Returns the logits [B, C] of a latent variable of the position."""
        x = self._hidden(cache.context + cache.said + self.turn[latent][None])
        return self.logits.of(latent, x), cache

    def take(self, cache: Cache, code: jax.Array, latent: jax.Array) -> Cache:
        """Adds a code int [B] of the position to what its next latent variables see."""
        return cache._replace(said=cache.said + self.said_embedding.of(latent, code))


def _gated(gates: jax.Array) -> jax.Array:
    a, b = jnp.split(gates, 2, axis=-1)
    return jnp.tanh(a) * nn.sigmoid(b)


def _shift(x: jax.Array, axis: int) -> jax.Array:
    """Moves [B, h, w, F] on by one along an axis, with zeros behind."""
    padding = [(1 if i == axis else 0, 0) for i in range(x.ndim)]
    return jax.lax.slice_in_dim(jnp.pad(x, padding), 0, x.shape[axis], axis=axis)


def _windows(x: jax.Array, *, above: int, left: int, right: int) -> jax.Array:
    """Returns what lies around each position of [B, h, w, F], side by side as features."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, [(0, 0), (above, 0), (left, right), (0, 0)])
    parts = [
        padded[:, i : i + height, j : j + width]
        for i in range(above + 1)
        for j in range(left + right + 1)
    ]
    return jnp.concatenate(parts, axis=-1)
