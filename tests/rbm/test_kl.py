"""The analytic KL against sums over all bits on a grid of zeta: value and gradient."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_energy_and_exact import machine

from dvae import rbm, relax
from dvae.distributions import bernoulli
from dvae.rbm import exact, kl

BETA = 5.0
LOGITS = np.array([0.7, -1.2, 0.3, 1.1], np.float32)
MIX = np.array([1.4, -0.8, 0.6, 1.9], np.float32)  # how later logits depend on earlier zeta


def grid(num_groups):
    """Noise of every group but the last on midpoints, [points, groups - 1]."""
    sizes = {1: 1, 2: 4_000, 4: 24}
    rho = (np.arange(sizes[num_groups], dtype=np.float32) + 0.5) / sizes[num_groups]
    axes = [rho] * max(num_groups - 1, 1)
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


def posterior(logits, mix, num_groups, smoothing):
    """Logits of all groups and log-ratios, at every point of the grid; groups of 4 / G bits.

    For one and two groups a second bit shares the noise of the first, which changes no KL that is
    linear in it only through its own nu: the sums below use the same nu.
    """
    noise = grid(num_groups)
    size = len(LOGITS) // num_groups
    groups, ratios, shift = [], [], jnp.zeros((len(noise), 1))
    for g in range(num_groups):
        part = slice(g * size, (g + 1) * size)
        groups.append(logits[part][None] + shift * mix[part][None])
        rho = jnp.broadcast_to(noise[:, min(g, noise.shape[1] - 1)][:, None], groups[-1].shape)
        zeta = smoothing.icdf(rho, groups[-1], BETA)
        ratios.append(smoothing.log_ratio(zeta, BETA))
        shift = shift + zeta.sum(-1, keepdims=True)
    return groups, ratios


def enumerated(params, groups, ratios, log_z):
    """Mean over the grid of sum_z q(z|zeta) (log q(z_g|zeta_<g) + E(z)) + log Z."""
    states = np.array(list(itertools.product((0.0, 1.0), repeat=4)), np.float32)[:, None]
    mu = jnp.concatenate(groups, -1)
    nu = mu
    if len(groups) > 1:
        # Each group given its own zeta as well, but the last, on whose zeta nothing depends.
        known = [g + r for g, r in zip(groups[:-1], ratios[:-1], strict=True)] + [groups[-1]]
        nu = jnp.concatenate(known, -1)
    bits = jnp.broadcast_to(states, (16, *mu.shape))
    weights = jnp.exp(bernoulli.log_prob(bits, jnp.broadcast_to(nu, bits.shape)).sum(-1))
    log_q = bernoulli.log_prob(bits, jnp.broadcast_to(mu, bits.shape)).sum(-1)
    total = log_q + rbm.energy(params, bits[..., :2], bits[..., 2:])
    return jnp.sum(weights * total, 0).mean() + log_z


@pytest.mark.parametrize("num_groups", [1, 2, 4])
def test_value_and_gradient_are_those_of_the_enumerated_kl(num_groups):
    params = machine(2, 2)
    smoothing = relax.exponential

    def analytic(params, logits, mix):
        groups, ratios = posterior(logits, mix, num_groups, smoothing)
        return kl.hierarchical(params, groups, ratios, exact.log_z(params)).mean()

    def reference(params, logits, mix):
        groups, ratios = posterior(logits, mix, num_groups, smoothing)
        return enumerated(params, groups, ratios, exact.log_z(params))

    both = [
        jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))(params, LOGITS, MIX)
        for f in (analytic, reference)
    ]
    # The grid's error: E[nu] = mu holds for the integral only.
    tolerance = {1: 1e-5, 2: 2e-3, 4: 3e-2}[num_groups]
    assert float(both[1][0]) > 0.1
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_kl_is_zero_at_the_machine_itself():
    params = machine(2, 2)._replace(weights=jnp.zeros((2, 2)))
    logits = jnp.concatenate(params[:2])
    found = kl.hierarchical(params, [logits], [jnp.zeros(4)], exact.log_z(params))
    np.testing.assert_allclose(found, 0, atol=1e-5)


def test_log_z_has_the_gradient_of_its_samples():
    params = machine(3, 4)
    num_samples = 40_000
    z1, z2 = exact.sample(jax.random.key(0), params, num_samples)
    f = lambda params: kl.log_z_with_gradient(params, jnp.float32(7.5), z1, z2)
    value, gradient = jax.jit(jax.value_and_grad(f))(params)
    assert value == 7.5
    for found, expected in zip(gradient, exact.moments(params), strict=True):
        error = np.sqrt(np.maximum(expected * (1 - expected), 1e-4) / num_samples)
        assert np.all(np.abs(found - expected) < 5 * error)


def test_mistakes_are_named():
    params = machine(2, 2)
    group = lambda n: jnp.zeros((5, n))
    with pytest.raises(ValueError, match=r"got groups of \[2, 1\] and an RBM of 2 x 2"):
        kl.hierarchical(params, [group(2), group(1)], [group(2), group(1)], 0.0)
    with pytest.raises(ValueError, match="one entry for each group, got 2 and 1"):
        kl.hierarchical(params, [group(2), group(2)], [group(2)], 0.0)
    with pytest.raises(ValueError, match=r"even number of which the first half has 2 units"):
        kl.hierarchical(params, [group(1), group(3)], [group(1), group(3)], 0.0)
