"""The arrays of a Boltzmann prior among a trained model's parameters."""

from typing import Any

import jax
import jax.numpy as jnp

from dvae import rbm
from dvae.models import boltzmann

__all__ = ["abstract_machine", "check_chains"]


def check_chains(num_chains: int, *, needed: bool) -> None:
    """Raises ValueError unless there are chains where a machine needs them, and nowhere else."""
    if num_chains < 0 or needed != (num_chains > 0):
        wanted = "at least 1 with a Boltzmann prior" if needed else "0 without a Boltzmann prior"
        raise ValueError(f"num_chains must be {wanted}, got {num_chains}")


def abstract_machine(num_units: int, num_chains: int, *, weighted: bool) -> dict[str, Any]:
    """Returns shapes and dtypes of machine, log Z and chains; half of the units are on each side.

    Args:
        num_units: of both sides.
        num_chains: at least 1.
        weighted: whether chains have weights.
    """

    def make() -> dict[str, Any]:
        n = num_units // 2
        side = jnp.zeros((num_chains, n))
        log_weights = jnp.zeros(num_chains) if weighted else None
        return {
            "prior": rbm.RBM(jnp.zeros(n), jnp.zeros(n), jnp.zeros((n, n))),
            "log_z": jnp.zeros(()),
            "chains": boltzmann.Chains(side, side, log_weights),
        }

    return jax.eval_shape(make)
