"""Estimates of log Z from the weights of chains, and where the chains lie."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, Sharding


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


def place(z: jax.Array, sharding: Sharding | None) -> jax.Array:
    """Shares chains among devices, over mesh axes of any type."""
    if sharding is None:
        return z
    if isinstance(sharding, NamedSharding) and AxisType.Explicit in sharding.mesh.axis_types:
        return jax.sharding.reshard(z, sharding)
    return jax.lax.with_sharding_constraint(z, sharding)
