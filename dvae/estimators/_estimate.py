"""What the estimators share: result, family of q, checked inputs, the draw and the score term.

Integers count as floats: a black-box f may return them, and a gradient cast to their dtype is zero.
"""

import operator
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dvae import distributions
from dvae._checks import check_static
from dvae._numerics import as_float, upcast


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


def as_logits(
    name: str, logits: jax.typing.ArrayLike, family: Family = distributions.bernoulli
) -> jax.Array:
    """Returns the logits as floats, or raises ValueError if they have no axis of units."""
    logits = as_float(logits)
    if logits.ndim == 0 or jax.eval_shape(family.log_prob, logits, logits).ndim == 0:
        raise ValueError(
            f"{name} needs logits [..., n] of n bits or [..., n, C] of n categorical units (one "
            f"unit: n = 1), got shape {logits.shape}"
        )
    return logits


def evaluate(
    name: str,
    f: Callable[[jax.Array], jax.Array],
    z: jax.Array,
    shape: tuple[int, ...],
    *,
    label: str = "f",
) -> jax.Array:
    """Evaluates f(z), as floats, and raises ValueError unless there is one value an example.

    Args:
        name: of the estimator, for the error.
        f: the function.
        z: [..., n] or [..., n, C], samples.
        shape: of z without the axes of its units.
        label: of the function, for the error.

    Returns:
        [*shape] float.
    """
    values = f(z)
    if not jax.tree_util.all_leaves([values]):
        raise TypeError(
            f"{name} needs one array of values, but {label} returned a {type(values).__name__}"
        )
    if jnp.shape(values) != shape:
        raise ValueError(
            f"{name} needs one value for each example: {label} must map z {z.shape} to {shape} "
            f"(sum over the units), got {jnp.shape(values)}"
        )
    return as_float(values)


def differentiable(
    f: Callable[[jax.Array], jax.Array], what: str, remedy: str
) -> Callable[[jax.Array], jax.Array]:
    """Returns f, raising ValueError where it returns integers, which have no derivative.

    Args:
        f: the function.
        what: says who differentiates it and where, for the error.
        remedy: what to take for an f that counts or compares.
    """

    def checked(z: jax.Array) -> jax.Array:
        values = f(z)
        dtype = getattr(values, "dtype", jnp.float32)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(
                f"{what}: it must return floats, got {dtype}; for an f that counts or compares "
                f"take {remedy}"
            )
        return values

    return checked


def draw(
    key: jax.Array, logits: jax.Array, shape: tuple[int, ...], family: Family
) -> tuple[jax.Array, jax.Array]:
    """Draws z [*shape, *logits.shape] without gradient, and log q(z) [*shape, ...] with it.

    The logits are those that `as_logits` returns.
    """
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
    wide = jnp.where(jnp.isinf(wide), 0, wide)  # of a certain bit: inf - inf is NaN
    return jnp.sum(jax.lax.stop_gradient(gradient) * (wide - jax.lax.stop_gradient(wide)), axis=-1)


def threshold(x: jax.Array) -> jax.Array:
    """Returns 1[x > 0], NaN where x is NaN, in the dtype of x."""
    return jnp.where(jnp.isnan(x), x, (x > 0).astype(x.dtype))


def with_gradient(values: jax.Array, gradient: jax.Array, logits: jax.Array) -> Estimate:
    """Returns the estimate of the mean of values [K, ...], with a gradient in the logits."""
    mean = jnp.mean(upcast(values), axis=0).astype(values.dtype)
    return with_term(mean, logits_term(gradient, logits))


def with_term(values: jax.Array, term: jax.Array) -> Estimate:
    """Returns the estimate of values whose surrogate has the gradient of a term that is 0."""
    return Estimate(values, values + term.astype(values.dtype))


def as_pair(
    name: str, values: jax.typing.ArrayLike, log_q: jax.typing.ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Returns both as floats, or raises ValueError unless there is one log q(z) for each value."""
    if jnp.shape(values) != jnp.shape(log_q):
        raise ValueError(
            f"{name} needs one value for each log q(z), summed over the units: values have shape "
            f"{jnp.shape(values)}, log q(z) has {jnp.shape(log_q)}; f must map z [..., n] to [...]"
        )
    return as_float(values), as_float(log_q)


def as_samples(
    name: str, values: jax.typing.ArrayLike, log_q: jax.typing.ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Returns both as floats, or raises ValueError unless they are [K, ...] of K >= 2 samples."""
    pair = as_pair(name, values, log_q)
    if pair[0].ndim == 0:
        raise ValueError(f"{name} needs values [K, ...] of K samples, got shape ()")
    check_num_samples(name, pair[0].shape[0])
    return pair


def centered(name: str, values: jax.Array, baseline: jax.typing.ArrayLike) -> jax.Array:
    """Returns values - baseline, at least float32, with the gradients of both.

    Raises:
        ValueError: unless the baseline is a scalar or of the shape of values: one of [B, 1] would
            give [B, B].
    """
    if jnp.shape(baseline) not in ((), values.shape):
        raise ValueError(
            f"{name} needs a scalar baseline or one for each value: values have shape "
            f"{values.shape}, the baseline has {jnp.shape(baseline)}; squeeze a trailing axis of 1"
        )
    wide = upcast(values)
    return wide - jnp.asarray(baseline, wide.dtype)


def check_num_samples(name: str, num_samples: int) -> None:
    """Raises ValueError where leaving one sample out would leave none."""
    check_static("num_samples", num_samples)
    try:
        enough = operator.index(num_samples) >= 2
    except TypeError:
        enough = False
    if not enough:
        raise ValueError(
            f"num_samples must be at least 2 for {name} (its baseline leaves one out), and an "
            f"integer, got {num_samples}"
        )
