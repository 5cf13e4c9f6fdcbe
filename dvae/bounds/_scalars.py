"""What the bounds share: checked weights and the progress of a schedule."""

import jax
import jax.numpy as jnp
import numpy as np

from dvae._checks import check_static

MAX_STEPS = 2**64 - 1  # of a uint64; below it no float32 overflows, and no weight underflows to 0


def check_scalar(name: str, value: jax.typing.ArrayLike, remedy: str) -> None:
    """Raises ValueError unless the value is a scalar and, if it is a number, at least 0."""
    if jnp.ndim(value) != 0:
        raise ValueError(f"{name} must be a scalar, got shape {jnp.shape(value)}; {remedy}")
    if isinstance(value, int | float | np.number) and not value >= 0:
        raise ValueError(f"{name} must be at least 0 (0: none), got {value}")


def check_num_steps(num_steps: int, minimum: int, remedy: str) -> None:
    """Raises ValueError unless a schedule may have this length."""
    check_static("num_steps", num_steps)
    if not minimum <= num_steps <= MAX_STEPS:
        raise ValueError(
            f"num_steps must be below 2^64 and at least {minimum}, got {num_steps}; {remedy}"
        )


def as_steps(step: jax.typing.ArrayLike) -> jax.Array:
    """Returns a number of updates as float32, where adding 1 or dividing cannot wrap around.

    A negative number, of which a counter that has overflowed is one, gives NaN in an array; as a
    Python or NumPy number it is refused.

    Raises:
        ValueError: if step is a Python or NumPy number outside of 0..2^64 - 1.
    """
    if isinstance(step, int | float | np.number):
        if not 0 <= step <= MAX_STEPS:
            raise ValueError(f"step must be at least 0 and below 2^64, got {step}")
        return jnp.asarray(float(step), jnp.float32)
    steps = jnp.asarray(step).astype(jnp.float32)
    return jnp.where(steps >= 0, steps, jnp.nan)
