"""Estimates of log Z from the weights of chains, and where the chains lie."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, Sharding

from dvae._numerics import ArrayLike, upcast


class LogZ(NamedTuple):
    """An estimate of log Z."""

    value: jax.Array  # [] nats
    std_error: jax.Array  # [] nats, of the log of the mean weight (delta method)
    ess: jax.Array  # [] (sum w)^2 / sum w^2, in [1, chains]; near 1 neither number can be trusted


def estimate(log_weights: jax.Array, *, sign: float, log_base: jax.Array) -> LogZ:
    """Turns weights, whose mean is (Z / Z_base)^sign, into log Z and its error."""
    num_chains = log_weights.shape[0]
    relative = jnp.exp(log_weights - jnp.max(log_weights))
    mean = jnp.mean(relative)
    log_mean = jnp.max(log_weights) + jnp.log(mean)
    std_error = jnp.std(relative, ddof=1) / (mean * math.sqrt(num_chains))
    ess = jnp.sum(relative) ** 2 / jnp.sum(relative**2)
    return LogZ(log_base + sign * log_mean, std_error, ess)


def check_log_z(log_z: ArrayLike, *, scalar: bool = True) -> jax.Array:
    """Returns log Z in at least float32.

    Raises:
        ValueError: if it is a whole `LogZ`, whose fields would be read as three numbers, or no
            scalar where one is needed.
    """
    if isinstance(log_z, LogZ):
        raise ValueError("log_z must be nats, got a LogZ with its error: pass log_z.value")
    if scalar and np.ndim(log_z):
        raise ValueError(f"log_z must be one number, that of the RBM, got shape {np.shape(log_z)}")
    return upcast(log_z)


def with_negative_phase(
    log_z: ArrayLike, energies: jax.Array, log_weights: ArrayLike | None
) -> jax.Array:
    """Returns log Z, [] or [C] nats, with the gradient of minus the mean energy of chains.

    Args:
        log_z: [] or [C] nats; receives no gradient.
        energies: [chains] nats, of samples of the machine; receive the gradient.
        log_weights: [chains] or [C, chains], those of each mean; None: equal ones. Receive no
            gradient. A mean without weight, all of them -inf, has the gradient 0.

    Raises:
        ValueError: if there are not as many weights as chains, or means as log Z.
    """
    if log_weights is None:
        negative_phase = -jnp.mean(energies)
    else:
        shape = np.shape(log_weights)
        if shape != (*np.shape(log_z), *energies.shape):
            of_each = f" and log Z {np.shape(log_z)}" if np.shape(log_z) else ""
            raise ValueError(
                f"log_weights must have one entry for each of the {energies.shape} chains"
                f"{of_each}, got shape {shape}"
            )
        log_weights = jax.lax.stop_gradient(upcast(log_weights))
        empty = jnp.max(log_weights, axis=-1, keepdims=True) == -jnp.inf
        # Prevents the NaN of -inf - (-inf).
        weights = jnp.where(empty, 0, jax.nn.softmax(jnp.where(empty, 0, log_weights)))
        negative_phase = -jnp.sum(weights * jnp.broadcast_to(energies, shape), axis=-1)
    # The difference is exactly 0, so it must be formed before it is added.
    return jax.lax.stop_gradient(upcast(log_z)) + (
        negative_phase - jax.lax.stop_gradient(negative_phase)
    )


def place(z: jax.Array, sharding: Sharding | None) -> jax.Array:
    """Shares chains among devices, over mesh axes of any type."""
    if sharding is None:
        return z
    if isinstance(sharding, NamedSharding) and AxisType.Explicit in sharding.mesh.axis_types:
        return jax.sharding.reshard(z, sharding)
    return jax.lax.with_sharding_constraint(z, sharding)
