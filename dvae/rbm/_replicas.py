"""What replicas at all inverse temperatures compute, and how they exchange states."""

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import open_uniform
from dvae.rbm._checks import is_known


def logits(betas: jax.Array, base: jax.Array, bias: jax.Array, fields: jax.Array) -> jax.Array:
    """Evaluates the logits of one side given the other, [chains, T, n], T those of betas [T]."""
    b = betas[None, :, None]
    return (1 - b) * base[None, None] + b * (bias[None, None] + fields)


def log_weights(
    betas: jax.Array, base: jax.Array, bias: jax.Array, fields: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Evaluates `up` and `down`, [chains, T - 1], from the fields W z2 of all replicas."""

    def minus_free_energy(betas: jax.Array, fields: jax.Array) -> jax.Array:
        # Less c2.z2, common to all b; of b (a2 - c2).z2 there remains -b sum (W z2) / 2.
        softplus = jax.nn.softplus(logits(betas, base, bias, fields))
        return jnp.sum(softplus - betas[None, :, None] * fields / 2, axis=-1)

    own = minus_free_energy(betas, fields)
    up = minus_free_energy(betas[1:], fields[:, :-1]) - own[:, :-1]
    down = minus_free_energy(betas[:-1], fields[:, 1:]) - own[:, 1:]
    return up, down


def swaps(key: jax.Array, acceptance: jax.Array, parity: jax.Array) -> jax.Array:
    """Decides which pairs swap, bool [chains, T - 1]; only those of one parity may."""
    num_chains, num_pairs = acceptance.shape
    noise = open_uniform(key, (num_chains, (num_pairs + 1) // 2))
    noise = jnp.repeat(noise, 2, axis=1)[:, :num_pairs]  # pairs 2k and 2k + 1 never compete
    active = jnp.arange(num_pairs) % 2 == parity
    return (noise < acceptance) & active[None]


def exchange(swaps: jax.Array, x: jax.Array) -> jax.Array:
    """Exchanges the entries t and t + 1 of x [chains, T, n] where swaps [chains, t] says so."""
    with_next = jnp.pad(swaps, ((0, 0), (0, 1)))[..., None]
    with_last = jnp.pad(swaps, ((0, 0), (1, 0)))[..., None]
    x_next, x_last = jnp.roll(x, -1, axis=1), jnp.roll(x, 1, axis=1)
    return jnp.where(with_next, x_next, jnp.where(with_last, x_last, x))


def check_ladder(betas: jax.typing.ArrayLike) -> None:
    """Raises ValueError unless betas increase from 0 to 1; of traced ones only the shape counts."""
    shape = np.shape(betas)
    if len(shape) != 1 or shape[0] < 2:
        raise ValueError(f"betas must be [T] with at least 2 temperatures, got shape {shape}")
    if not is_known(betas):
        return
    ladder = np.asarray(betas, np.float32)
    if not (ladder[0] == 0 and ladder[-1] == 1 and np.all(np.diff(ladder) > 0)):
        raise ValueError(f"betas must increase strictly from 0 to 1, got {ladder.tolist()}")
