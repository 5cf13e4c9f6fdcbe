"""Restricted Boltzmann machines: parameters, energy, conditionals and free energies.

    E(z1, z2) = -a1.z1 - a2.z2 - z1^T W z2,    p(z1, z2) = e^{-E(z1, z2)} / Z,

bits z1 [..., n1] on the left side and z2 [..., n2] on the right. Vahdat et al., "DVAE++" (2018),
sec. 5. Everything is linear in one side given the other, so each function also takes relaxed bits
or mean values.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dvae._numerics import upcast


class RBM(NamedTuple):
    """Parameters of a restricted Boltzmann machine."""

    bias1: jax.Array  # [n1] a1, of the left side
    bias2: jax.Array  # [n2] a2, of the right side
    weights: jax.Array  # [n1, n2] W


def check(params: RBM) -> None:
    """Raises ValueError unless the sizes of the parameters fit, and known values are finite."""
    shapes = params.bias1.shape, params.bias2.shape, params.weights.shape
    if len(shapes[0]) != 1 or len(shapes[1]) != 1 or shapes[2] != shapes[0] + shapes[1]:
        raise ValueError(
            "an RBM has bias1 [n1], bias2 [n2] and weights [n1, n2], got shapes "
            f"{shapes[0]}, {shapes[1]} and {shapes[2]}"
        )
    for name, value in zip(RBM._fields, params, strict=True):
        # Traced values, and those on other hosts, can only be checked by whoever reads the result.
        traced = isinstance(value, jax.core.Tracer)
        if traced or not getattr(value, "is_fully_addressable", True):
            continue
        bad = np.size(value) - np.isfinite(np.asarray(value, np.float32)).sum()
        if bad:
            raise ValueError(
                f"{name} of the RBM has {bad} entries that are NaN or infinite: did its training "
                "diverge? Start from the last checkpoint before that"
            )


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
    check(params)
    _check_side("z1", z1, params.bias1)
    _check_side("z2", z2, params.bias2)
    fields = logits_2(params, z1)  # a2 + W^T z1
    z1, z2 = upcast(z1), upcast(z2)
    batch = jnp.broadcast_shapes(z1.shape[:-1], z2.shape[:-1])
    linear = jnp.broadcast_to(z1 @ params.bias1, batch)
    fields = jnp.broadcast_to(fields, (*batch, fields.shape[-1]))
    return -linear - jnp.sum(fields * jnp.broadcast_to(z2, fields.shape), axis=-1)


def logits_1(params: RBM, z2: jax.Array) -> jax.Array:
    """Evaluates the logits of p(z1 | z2), a1 + W z2: [..., n2] to [..., n1], at least float32."""
    return logits_2(transpose(params), z2)


def logits_2(params: RBM, z1: jax.Array) -> jax.Array:
    """Evaluates the logits of p(z2 | z1), a2 + W^T z1: [..., n1] to [..., n2], at least float32."""
    wide = jnp.promote_types(jnp.result_type(z1, params.weights), jnp.float32)
    fields = jnp.matmul(z1, params.weights, preferred_element_type=wide)
    return fields + jnp.broadcast_to(params.bias2, fields.shape)


def free_energy_1(params: RBM, z1: jax.Array) -> jax.Array:
    """Evaluates -log sum_{z2} e^{-E(z1, z2)} = -a1.z1 - sum_j softplus((a2 + W^T z1)_j).

    Args:
        params: RBM.
        z1: [..., n1] float.

    Returns:
        [...] nats; p(z1) = e^{-free energy} / Z.
    """
    return -upcast(z1) @ params.bias1 - jax.nn.softplus(logits_2(params, z1)).sum(-1)


def free_energy_2(params: RBM, z2: jax.Array) -> jax.Array:
    """Evaluates -log sum_{z1} e^{-E(z1, z2)}: `free_energy_1` with the sides exchanged."""
    return -upcast(z2) @ params.bias2 - jax.nn.softplus(logits_1(params, z2)).sum(-1)


def transpose(params: RBM) -> RBM:
    """Exchanges the two sides."""
    return RBM(params.bias2, params.bias1, params.weights.T)


def centered_biases(params: RBM) -> tuple[jax.Array, jax.Array]:
    """Evaluates c1 = a1 + W 1/2 and c2 = a2 + W^T 1/2, where annealing and tempering start.

    Up to a constant E = -c1.z1 - c2.z2 - (z1 - 1/2)^T W (z2 - 1/2), so that taking the last term
    away favors neither value of a unit. The biases alone may: where they balance large weights
    (a2 = -W^T 1/2) they hold all units at 0, and a path from there never sees the mode near 1.

    Returns:
        [n1] and [n2] float32.
    """
    a1, a2, w = (p.astype(jnp.float32) for p in params)
    return a1 + w.sum(1) / 2, a2 + w.sum(0) / 2


def _check_side(name: str, z: jax.Array, bias: jax.Array) -> None:
    if z.ndim < 1 or z.shape[-1] != bias.shape[0]:
        raise ValueError(
            f"{name} must end in an axis of {bias.shape[0]} units, got shape {z.shape}"
        )
