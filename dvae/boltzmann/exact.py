"""Machines of at most 20 units by enumeration: log Z and moments, the reference for all else."""

from typing import NamedTuple

import jax

from dvae.boltzmann._machine import Machine, check_machine, dtype_of
from dvae.boltzmann.energy import energy
from dvae.rbm._enumeration import MAX_UNITS, log_sum, over_states

__all__ = ["Moments", "log_z", "moments"]


class Moments(NamedTuple):
    """Expectations under the machine, in the dtypes of the parameters."""

    z: jax.Array  # [n] E[z]
    z_z: jax.Array  # [E] E[z_i z_j] of the edges (i, j)


def log_z(params: Machine) -> jax.Array:
    """Evaluates log Z = log sum_z e^{-E(z)}; differentiable.

    Args:
        params: Machine of at most 20 units.

    Returns:
        [] nats.

    Raises:
        ValueError: if there are more than 20 units, or the sizes of the parameters do not fit.
    """
    return _log_z(_check_small(params))


def moments(params: Machine) -> Moments:
    """Evaluates E[z] and E[z_i z_j] of the edges, which are the gradient of log Z.

    Args:
        params: Machine of at most 20 units.

    Returns:
        Moments, each in [0, 1].

    Raises:
        ValueError: if there are more than 20 units, or the sizes of the parameters do not fit.
    """
    gradient = _gradient(_check_small(params))
    return Moments(gradient.bias, gradient.weights)


@jax.jit
def _log_z(params: Machine) -> jax.Array:
    negative = lambda params, z: -energy(params, z)
    return log_sum(over_states(negative, params, params.graph.num_units, dtype_of(params)))


_gradient = jax.jit(jax.grad(_log_z))


def _check_small(params: Machine) -> Machine:
    """Returns the parameters checked; raises ValueError if there are too many states."""
    params = check_machine(params)
    num_units = params.graph.num_units
    if num_units > MAX_UNITS:
        raise ValueError(
            f"enumeration takes at most {MAX_UNITS} units, got {num_units}; larger machines are "
            "for boltzmann.gibbs and boltzmann.ais"
        )
    return params
