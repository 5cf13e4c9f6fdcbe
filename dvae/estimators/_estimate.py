"""What the estimators share: their result, the family of q, the draw and the score term."""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dvae._numerics import upcast


class Estimate(NamedTuple):
    """An objective and the expression whose gradient estimates the objective's gradient."""

    value: jax.Array  # [...] the objective: f at the sample, or the K-sample bound
    surrogate: jax.Array  # [...] equal to value; differentiate the mean of this one


class Family(Protocol):
    """A module of `dvae.distributions`: units along the last axis of `log_prob`'s result."""

    def sample(
        self, key: jax.Array, logits: jax.Array, shape: tuple[int, ...] = ()
    ) -> jax.Array: ...

    def log_prob(self, z: jax.Array, logits: jax.Array) -> jax.Array: ...

    def support(self, logits: jax.Array) -> jax.Array: ...


def draw(
    key: jax.Array, logits: jax.Array, shape: tuple[int, ...], family: Family
) -> tuple[jax.Array, jax.Array]:
    """Draws z [*shape, *logits.shape] without gradient, and log q(z) [*shape, ...] with it."""
    z = jax.lax.stop_gradient(family.sample(key, logits, shape))
    return z, joint_log_prob(z, logits, family)


def joint_log_prob(z: jax.Array, logits: jax.Array, family: Family) -> jax.Array:
    """Sums log q(z) over the units, in float32: each unit's term is small, their sum is not."""
    return family.log_prob(upcast(z), upcast(logits)).sum(axis=-1)


def score_term(signal: jax.Array, log_q: jax.Array) -> jax.Array:
    """Returns 0 with gradient signal * grad log q; no gradient enters the signal."""
    signal = jax.lax.stop_gradient(signal)
    return signal * (log_q - jax.lax.stop_gradient(log_q)).astype(signal.dtype)


def logits_term(gradient: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns 0 [...] with the given gradient [..., n] in the logits; none enters `gradient`."""
    wide = upcast(logits)
    return jnp.sum(jax.lax.stop_gradient(gradient) * (wide - jax.lax.stop_gradient(wide)), axis=-1)


def check_reduced(name: str, values: jax.Array, logits: jax.Array) -> None:
    """Raises ValueError unless f reduced z, of the logits' shape, to one value an example."""
    if values.shape != logits.shape[:-1]:
        raise ValueError(
            f"{name} needs one value for each example: f must map z {logits.shape} to "
            f"{logits.shape[:-1]} (sum over the units), got {values.shape}"
        )


def check_shapes(name: str, values: jax.Array, log_q: jax.Array) -> None:
    """Raises ValueError unless there is one log q(z) for each value."""
    if values.shape != log_q.shape:
        raise ValueError(
            f"{name} needs one value for each log q(z), summed over the units: values have shape "
            f"{values.shape}, log q(z) has {log_q.shape}; f must map z [..., n] to [...]"
        )


def check_num_samples(name: str, num_samples: int) -> None:
    """Raises ValueError where leaving one sample out would leave none."""
    if num_samples < 2:
        raise ValueError(
            f"num_samples must be at least 2 for {name} (its baseline leaves one out), "
            f"got {num_samples}"
        )
