"""Restricted Boltzmann machines: parameters, energy, conditionals and free energies.

    E(z1, z2) = -a1.z1 - a2.z2 - z1^T W z2,    p(z1, z2) = e^{-E(z1, z2)} / Z,

bits z1 [..., n1] on the left side and z2 [..., n2] on the right. Vahdat et al., "DVAE++" (2018),
sec. 5. Everything is linear in one side given the other, so each function also takes relaxed bits
or mean values.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import as_float, upcast
from dvae.rbm._rbm import RBM, check_rbm, dtype_of, product

__all__ = [
    "RBM",
    "centered_biases",
    "energy",
    "free_energy_1",
    "free_energy_2",
    "logits_1",
    "logits_2",
]


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
    params = check_rbm(params)
    z2 = upcast(_side("z2", z2, params.bias2))
    fields = logits_2(params, z1)  # a2 + W^T z1
    z1 = upcast(z1)
    batch = jnp.broadcast_shapes(z1.shape[:-1], z2.shape[:-1])
    linear = jnp.broadcast_to(product(z1, upcast(params.bias1)), batch)
    fields = jnp.broadcast_to(fields, (*batch, fields.shape[-1]))
    return -linear - jnp.sum(fields * jnp.broadcast_to(z2, fields.shape), axis=-1)


def logits_1(params: RBM, z2: jax.Array) -> jax.Array:
    """Evaluates the logits of p(z1 | z2), a1 + W z2.

    Args:
        params: RBM.
        z2: [..., n2] bits, or any numbers.

    Returns:
        [..., n1], at least float32.

    Raises:
        ValueError: if the sizes do not fit.
    """
    params = check_rbm(params)
    z2 = _side("z2", z2, params.bias2)
    return _logits(z2, params.weights.T, params.bias1)


def logits_2(params: RBM, z1: jax.Array) -> jax.Array:
    """Evaluates the logits of p(z2 | z1), a2 + W^T z1.

    Args:
        params: RBM.
        z1: [..., n1] bits, or any numbers.

    Returns:
        [..., n2], at least float32.

    Raises:
        ValueError: if the sizes do not fit.
    """
    params = check_rbm(params)
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
    return -product(upcast(z1), upcast(params.bias1)) - right


def free_energy_2(params: RBM, z2: jax.Array) -> jax.Array:
    """Evaluates -log sum_{z1} e^{-E(z1, z2)} = -a2.z2 - sum_i softplus((a1 + W z2)_i).

    Args:
        params: RBM.
        z2: [..., n2] float.

    Returns:
        [...] nats, at least float32; p(z2) = e^{-free energy} / Z.

    Raises:
        ValueError: if the sizes do not fit.
    """
    left = jax.nn.softplus(logits_1(params, z2)).sum(-1)
    return -product(upcast(z2), upcast(params.bias2)) - left


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
    params = check_rbm(params)
    a1, a2, w = (upcast(p).astype(dtype_of(params)) for p in params)
    return a1 + w.sum(1) / 2, a2 + w.sum(0) / 2


def _logits(z: jax.Array, weights: jax.Array, bias: jax.Array) -> jax.Array:
    fields = product(z, weights)
    return fields + jnp.broadcast_to(upcast(bias), fields.shape)


def _side(name: str, z: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns the bits of a side as floats; raises ValueError if they are not its units."""
    shape = np.shape(z)
    if shape[-1:] != bias.shape:
        raise ValueError(f"{name} must end in an axis of {bias.shape[0]} units, got shape {shape}")
    return as_float(z)
