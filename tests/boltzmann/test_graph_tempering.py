"""Tempering on graphs: the exact law at every temperature, swap rates and log Z by enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from sparse import assert_law, by_lists, by_products, prism, states, table

from dvae import boltzmann
from dvae.boltzmann import exact, tempering

NUM_CHAINS = 20_000


def law(params, beta):
    """p_t of all states."""
    p, log_z, z = table(params)
    c = np.float64(boltzmann.centered_bias(params))
    negative = beta * (np.log(p) + log_z) + (1 - beta) * (z @ c)
    q = np.exp(negative - negative.max())
    return q / q.sum()


@pytest.mark.thorough
@pytest.mark.parametrize("form", [by_lists, by_products])
def test_tempering_leaves_every_law_invariant_and_estimates_log_z(form, monkeypatch):
    form(monkeypatch)
    params, betas = prism(scale=1.5), [0.0, 0.2, 0.5, 1.0]
    rng, z = np.random.default_rng(0), states(6)
    replicas = [z[rng.choice(64, NUM_CHAINS, p=law(params, b))] for b in betas]
    state = tempering.TemperingState(
        jnp.float32(np.stack(replicas, 1)), jnp.float32(betas), jnp.int32(0)
    )
    for key in jax.random.split(jax.random.key(3), 2):
        state, info = tempering.step(key, params, state)
        for t, beta in enumerate(betas):
            assert_law(law(params, beta), state.replicas[:, t])
        # Of the marginals without the first color, the rates are known.
        rest = z[:, params.graph.colors > 0] @ 2 ** np.arange(4)
        margins = [np.bincount(rest.astype(int), law(params, b)) for b in betas]
        for (p, q), found in zip(itertools.pairwise(margins), info.swap_rates, strict=True):
            rate = np.minimum(np.outer(p, q), np.outer(q, p)).sum()
            assert abs(found - rate) < 5 * 0.5 / np.sqrt(NUM_CHAINS)
        overlap = [np.sqrt(p * q).sum() for p, q in itertools.pairwise(margins)]
        error = np.sqrt(sum(2 * (1 / o**2 - 1) for o in overlap) / NUM_CHAINS)
        assert abs(info.log_z - exact.log_z(params)) < 5 * error
    assert state.parity == 0
    moved = tempering.adapt(state, info.swap_rates)
    assert np.all(np.diff(moved.betas) > 0)
    np.testing.assert_array_equal(moved.z, state.replicas[:, -1])


def test_without_weights_all_replicas_are_alike():
    params = boltzmann.Machine(jnp.linspace(-2, 2, 6), jnp.zeros(9), prism().graph)
    state = tempering.init(jax.random.key(0), params, 40, num_temperatures=4)
    after, info = tempering.step(jax.random.key(1), params, state, num_sweeps=3)
    np.testing.assert_allclose(info.swap_rates, 1, atol=1e-5)
    np.testing.assert_allclose(info.log_z, exact.log_z(params), rtol=1e-5)
    assert after.parity == 1


def test_swap_rates_and_log_z_are_means_over_sweeps_and_chains():
    params, betas = prism(scale=1.5), np.float64([0.0, 0.2, 0.5, 1.0])
    state = tempering.init(jax.random.key(5), params, 16, betas=betas)
    # The first of the sweeps draws the same bits whatever their number.
    later, _ = tempering.step(jax.random.key(6), params, state, num_sweeps=1)
    _, info = tempering.step(jax.random.key(6), params, state, num_sweeps=2)
    p, log_z, z = table(params)
    negative, base = np.log(p) + log_z, z @ np.float64(boltzmann.centered_bias(params))
    is_rest = params.graph.colors > 0  # what is left with the first color summed out
    place = np.where(is_rest, 2 ** np.arange(6), 0)
    same = (z @ place)[:, None] == (z @ place)[None]
    minus_f = [logsumexp(b * negative + (1 - b) * base, b=same, axis=1) for b in betas]
    minus_f = np.stack(minus_f)
    both = np.concatenate([x.replicas for x in (state, later)]).astype(int)
    index, t = both @ 2 ** np.arange(6)[::-1], np.arange(3)
    up = (minus_f[1:] - minus_f[:-1])[t, index[:, :-1]]
    down = (minus_f[:-1] - minus_f[1:])[t, index[:, 1:]]
    rates = np.minimum(np.exp(up + down), 1).mean(0)
    np.testing.assert_allclose(info.swap_rates, rates, rtol=1e-4)
    ratios = logsumexp(up / 2, axis=0) - logsumexp(down / 2, axis=0)
    np.testing.assert_allclose(info.log_z, logsumexp(base) + ratios.sum(), rtol=1e-5)
