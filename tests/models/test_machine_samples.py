"""Samples of a trained machine's chains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import rbm
from dvae.models import boltzmann


@pytest.mark.parametrize(("log_weight", "share"), [(0.0, 0.5), (np.log(9.0), 0.9)])
def test_few_samples_of_a_population_are_of_all_of_it(log_weight, share) -> None:
    """Two modes that sweeps don't leave, each half of the chains, as annealing orders them."""
    n, num_chains, count = 10, 1_000, 64
    params = rbm.RBM(jnp.full(n, -20.0), jnp.full(n, -20.0), jnp.full((n, n), 4.0))
    upper = jnp.arange(num_chains) >= num_chains // 2
    side = jnp.tile(upper[:, None].astype(jnp.float32), (1, n))
    chains = boltzmann.Chains(side, side, jnp.where(upper, log_weight, 0.0))
    (bits,) = boltzmann.sample(jax.random.key(0), params, chains, count, num_groups=1)
    found = bits.mean(-1)
    assert set(np.unique(found)) <= {0.0, 1.0}
    error = np.sqrt(share * (1 - share) / count)
    assert abs(found.mean() - share) < 4 * error
