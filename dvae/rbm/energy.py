"""Restricted Boltzmann machines: parameters, energy, conditionals and free energies.

    E(z1, z2) = -a1.z1 - a2.z2 - z1^T W z2,    p(z1, z2) = e^{-E(z1, z2)} / Z,

bits z1 [..., n1] on the left side and z2 [..., n2] on the right. Vahdat et al., "DVAE++" (2018),
sec. 5. Everything is linear in one side given the other, so each function also takes relaxed bits
or mean values.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import as_float, upcast, wide_dtype
from dvae.rbm._checks import check_finite


class RBM(NamedTuple):
    """Parameters of a restricted Boltzmann machine."""

    bias1: jax.Array  # [n1] a1, of the left side
    bias2: jax.Array  # [n2] a2, of the right side
    weights: jax.Array  # [n1, n2] W


def check(params: RBM) -> RBM:
    """Returns the parameters as arrays of floating dtypes; integers become the default one.

    Raises:
        ValueError: if their sizes do not fit, a side has no unit, or known values are not finite.
    """
    shapes = tuple(np.shape(p) for p in params)
    if len(shapes[0]) != 1 or len(shapes[1]) != 1 or shapes[2] != shapes[0] + shapes[1]:
        raise ValueError(
            "an RBM has bias1 [n1], bias2 [n2] and weights [n1, n2], got shapes "
            f"{shapes[0]}, {shapes[1]} and {shapes[2]}"
        )
    if 0 in shapes[2]:
        raise ValueError(
            f"an RBM needs at least one unit on each side, got {shapes[2][0]} and {shapes[2][1]}"
        )
    for name, value in zip(RBM._fields, params, strict=True):
        check_finite(f"{name} of the RBM", value)
    return RBM(*map(as_float, params))


def dtype_of(params: RBM) -> jnp.dtype:
    """Returns the dtype of sums over the machine's units: at least float32."""
    return functools.reduce(jnp.promote_types, map(wide_dtype, params))


def energy(params: RBM, z1: jax.Array, z2: jax.Array) -> jax.Array:
    """Evaluates E(z1, z2) = -a1.z1 - a2.z2 - z1^T W z2.

    Args:
        params: RBM.
        z1: [..., n1] float.
        z2: [..., n2] float; the leading axes broadcast.

    Returns:
        [...] nats, at least float32.

    Raises:
        ValueError: if the sizes do not fit.
    """
    params = check(params)
    z2 = upcast(_side("z2", z2, params.bias2))
    fields = logits_2(params, z1)  # a2 + W^T z1
    z1 = upcast(z1)
    batch = jnp.broadcast_shapes(z1.shape[:-1], z2.shape[:-1])
    linear = jnp.broadcast_to(z1 @ upcast(params.bias1), batch)
    fields = jnp.broadcast_to(fields, (*batch, fields.shape[-1]))
    return -linear - jnp.sum(fields * jnp.broadcast_to(z2, fields.shape), axis=-1)


def logits_1(params: RBM, z2: jax.Array) -> jax.Array:
    """Evaluates the logits of p(z1 | z2), a1 + W z2: [..., n2] to [..., n1], at least float32."""
    params = check(params)
    z2 = _side("z2", z2, params.bias2)
    return _logits(z2, params.weights.T, params.bias1)


def logits_2(params: RBM, z1: jax.Array) -> jax.Array:
    """Evaluates the logits of p(z2 | z1), a2 + W^T z1: [..., n1] to [..., n2], at least float32."""
    params = check(params)
    z1 = _side("z1", z1, params.bias1)
    return _logits(z1, params.weights, params.bias2)


def free_energy_1(params: RBM, z1: jax.Array) -> jax.Array:
    """Evaluates -log sum_{z2} e^{-E(z1, z2)} = -a1.z1 - sum_j softplus((a2 + W^T z1)_j).

    Args:
        params: RBM.
        z1: [..., n1] float.

    Returns:
        [...] nats, at least float32; p(z1) = e^{-free energy} / Z.

    Raises:
        ValueError: if the sizes do not fit.
    """
    right = jax.nn.softplus(logits_2(params, z1)).sum(-1)
    return -upcast(z1) @ upcast(params.bias1) - right


def free_energy_2(params: RBM, z2: jax.Array) -> jax.Array:
    """Evaluates -log sum_{z1} e^{-E(z1, z2)}: `free_energy_1` with the sides exchanged."""
    left = jax.nn.softplus(logits_1(params, z2)).sum(-1)
    return -upcast(z2) @ upcast(params.bias2) - left


def transpose(params: RBM) -> RBM:
    """Exchanges the two sides."""
    return RBM(params.bias2, params.bias1, params.weights.T)


def centered_biases(params: RBM) -> tuple[jax.Array, jax.Array]:
    """Evaluates c1 = a1 + W 1/2 and c2 = a2 + W^T 1/2, where annealing and tempering start.

    Up to a constant E = -c1.z1 - c2.z2 - (z1 - 1/2)^T W (z2 - 1/2), so that taking the last term
    away favors neither value of a unit. The biases alone may: where they balance large weights
    (a2 = -W^T 1/2) they hold all units at 0, and a path from there never sees the mode near 1.

    Returns:
        [n1] and [n2], at least float32.

    Raises:
        ValueError: if the sizes of the parameters do not fit.
    """
    params = check(params)
    a1, a2, w = (upcast(p).astype(dtype_of(params)) for p in params)
    return a1 + w.sum(1) / 2, a2 + w.sum(0) / 2


def product(z: jax.Array, weights: jax.Array) -> jax.Array:
    """Multiplies bits [..., n] by weights [n, m], with sums in at least float32."""
    if z.dtype != weights.dtype:
        z, weights = upcast(z), upcast(weights)
    return jnp.matmul(z, weights, preferred_element_type=wide_dtype(z, weights))


def _logits(z: jax.Array, weights: jax.Array, bias: jax.Array) -> jax.Array:
    fields = product(z, weights)
    return fields + jnp.broadcast_to(upcast(bias), fields.shape)


def _side(name: str, z: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns the bits of a side as floats; raises ValueError if they are not its units."""
    shape = np.shape(z)
    if shape[-1:] != bias.shape:
        raise ValueError(f"{name} must end in an axis of {bias.shape[0]} units, got shape {shape}")
    return as_float(z)
