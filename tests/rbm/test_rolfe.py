"""The hand-made gradient against autodiff of the KL summed over all bits, in which none is needed.

Given z, the law of a spike-and-exponential zeta does not depend on the logits: zeta = 0, or the
quantile of a fixed exponential at u. The exact KL is therefore a smooth function of the weights
q(z | x, zeta(z, u)), with u on the nodes of a quadrature; autodiff of it uses no surrogate at all.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_energy_and_exact import machine
from test_kl import LAYOUTS, LOGITS, MIX, Z_STATES, groups_of, nodes

from dvae import relax
from dvae.distributions import bernoulli
from dvae.rbm import kl, rolfe
from dvae.rbm.energy import energy

BETA = 3.0
LOG_Z = jnp.float32(0)
FREE = np.zeros(4, np.float32)  # later logits that do not depend on earlier zeta
PARAMS = machine(2, 2, scale=1.5)


def split(params, z):
    n1 = params.bias1.shape[0]
    return z[..., :n1], z[..., n1:]


def log_z(params):
    return jax.nn.logsumexp(-energy(params, *split(params, Z_STATES)))


def exact_kl(params, logits, mix, groups):
    """Sums over z and u of q(z | zeta) (log q(z | zeta) + E(z)), plus log Z."""
    u, weights = nodes(groups)
    z = jnp.broadcast_to(Z_STATES[:, None], (16, len(u), 4))
    quantile = jnp.log1p(u * jnp.expm1(BETA)) / BETA
    zeta = z * quantile[None]
    found, _ = groups_of(logits, mix, groups, z.shape[:2], lambda part, _: zeta[..., part])
    log_q = bernoulli.log_prob(z, jnp.concatenate(found, -1)).sum(-1)
    total = jnp.exp(log_q) * (log_q + energy(params, *split(params, z)))
    return (total @ weights).sum() + log_z(params)


def mean_surrogate(params, logits, mix, groups, estimate):
    """The mean over all rho of what is estimated from zeta = F^{-1}(rho), one stratum a z.

    rho is uniform on [0, 1-q] given z = 0 and on [1-q, 1] given z = 1, and q(z) of the strata are
    constants of the quadrature: no gradient flows but that of the estimate.
    """
    u, weights = nodes(groups)
    z = jnp.broadcast_to(Z_STATES[:, None], (16, len(u), 4))

    def zeta_of(part, logits):
        q = jax.lax.stop_gradient(jax.nn.sigmoid(logits))
        rho = jnp.where(z[..., part] > 0, 1 - q + q * u[None, :, part], (1 - q) * u[None, :, part])
        return relax.spike_exp.icdf(rho, logits, BETA)

    all_logits, zetas = groups_of(logits, mix, groups, z.shape[:2], zeta_of)
    strata = jnp.exp(bernoulli.log_prob(z, jnp.concatenate(all_logits, -1)).sum(-1))
    found = estimate(params, all_logits, zetas, log_z(params))
    return ((jax.lax.stop_gradient(strata) * found) @ weights).sum()


@functools.cache
def value_and_gradient(estimate, groups):
    """Compiles value and gradient in params, logits and mix; estimate None is the exact KL."""
    f = exact_kl if estimate is None else functools.partial(mean_surrogate, estimate=estimate)
    return jax.jit(jax.value_and_grad(functools.partial(f, groups=groups), (0, 1, 2)))


def assert_close(found, expected, atol=1e-4):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("mix", [FREE, MIX], ids=["independent", "hierarchical"])
@pytest.mark.parametrize(("sides", "groups"), LAYOUTS)
def test_mean_of_value_and_gradient_are_those_of_the_exact_kl(sides, groups, mix):
    params = machine(*sides, scale=1.5)
    found = value_and_gradient(rolfe.kl_surrogate, groups)(params, LOGITS, mix)
    expected = value_and_gradient(None, groups)(params, LOGITS, mix)
    assert float(expected[0]) > 0.1
    assert_close(found, expected)


def test_one_group_is_the_analytic_kl():
    logits = [jnp.asarray(LOGITS)[None]]
    zetas = [jnp.ones((1, 4))]
    found, expected = (
        jax.jit(jax.value_and_grad(lambda *args, f=f: f(*args, zetas, LOG_Z).sum(), (0, 1)))(
            PARAMS, logits
        )
        for f in (rolfe.kl_surrogate, kl.hierarchical)
    )
    assert_close(found, expected, atol=1e-6)


def test_one_sample_has_the_gradient_of_the_formula():
    rng = np.random.default_rng(1)
    l1, l2 = rng.normal(size=(2, 6, 2)).astype(np.float32)
    zeta = (rng.uniform(size=(6, 2)) * rng.integers(0, 2, (6, 2))).astype(np.float32)
    f = lambda l1, l2: rolfe.kl_surrogate(PARAMS, (l1, l2), (zeta, zeta), LOG_Z).sum()
    found = jax.jit(jax.grad(f, (0, 1)))(l1, l2)
    a1, a2, w = map(np.float64, PARAMS)
    l1, l2, z1 = np.float64(l1), np.float64(l2), np.float64(zeta > 0)
    q1, q2 = 1 / (1 + np.exp(-l1)), 1 / (1 + np.exp(-l2))
    left = (l1 - a1[None] - (q2 @ w.T) * (1 - z1) / (1 - q1)) * q1 * (1 - q1)
    right = (l2 - a2[None] - z1 @ w) * q2 * (1 - q2)
    assert_close(found, (left, right), atol=1e-5)


def test_cap_keeps_the_share_it_promises_and_everything_finite():
    # The mean of the factor is (1 - q) / (1 - cap) instead of 1 beyond the cap.
    cap, logits = 0.6, np.array([-1.2, 2.0, 0.3, 1.1], np.float32)
    capped = functools.partial(rolfe.kl_surrogate, max_probability=cap)
    found = value_and_gradient(capped, (2, 2))(PARAMS, logits, FREE)
    expected = value_and_gradient(None, (2, 2))(PARAMS, logits, FREE)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    q = 1 / (1 + np.exp(-np.float64(logits)))
    coupling = PARAMS.weights @ q[2:] * q[:2] * (1 - q[:2])
    lost = coupling * (1 - np.minimum((1 - q[:2]) / (1 - cap), 1))
    difference = np.float64(found[1][1] - expected[1][1])
    np.testing.assert_allclose(difference, [*lost, 0, 0], atol=1e-4)
    assert abs(lost[1]) > 0.01

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=0)
    def at(logits, zeta):
        groups = jnp.split(logits, 2, axis=-1)
        return rolfe.kl_surrogate(PARAMS, groups, [zeta, zeta], LOG_Z).sum()

    for extreme, zeta in itertools.product((80.0, -80.0, 1e4), (0.0, 1.0)):
        value, gradient = at(jnp.full((1, 4), extreme), jnp.full((1, 2), zeta))
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_log_z_brings_its_own_gradient_and_half_precision_is_kept_in_the_logits():
    z1, z2 = Z_STATES[3:9, :2], Z_STATES[3:9, 2:]
    logits = jnp.asarray(LOGITS, jnp.bfloat16).reshape(2, 1, 2)
    zetas = jnp.asarray([[[0.0, 0.4]], [[0.3, 0.0]]], jnp.bfloat16)

    def f(params, logits):
        log_z = kl.log_z_with_gradient(params, jnp.float32(1.5), z1, z2)
        return rolfe.kl_surrogate(params, list(logits), list(zetas), log_z).sum()

    value, (by_params, by_logits) = jax.jit(jax.value_and_grad(f, (0, 1)))(PARAMS, logits)
    assert value.dtype == jnp.float32
    assert by_logits.dtype == jnp.bfloat16
    q = np.asarray(jax.nn.sigmoid(logits.astype(jnp.float32)))[:, 0]
    expected = z1.mean(0) - q[0], z2.mean(0) - q[1], z1.T @ z2 / 6 - np.outer([0.0, 1.0], q[1])
    assert_close(by_params, expected)


@pytest.mark.thorough
def test_a_zeta_that_is_nan_stays_visible():
    group, nan = jnp.zeros((5, 2)), jnp.full((5, 2), jnp.nan)
    assert np.all(np.isnan(rolfe.kl_surrogate(PARAMS, [group, group], [nan, group], 0.0)))
    assert np.all(np.isfinite(rolfe.kl_surrogate(PARAMS, [group, group], [group, nan], 0.0)))


def test_mistakes_are_named():
    group = lambda n: jnp.zeros((5, n))
    short = [group(2), group(1)]
    with pytest.raises(ValueError, match=r"got groups of \[2, 1\] and an RBM of 2 x 2"):
        rolfe.kl_surrogate(PARAMS, short, short, 0.0)
    pair = [group(2), group(2)]
    with pytest.raises(ValueError, match="logits and zetas need one entry for each group, got 2"):
        rolfe.kl_surrogate(PARAMS, pair, pair[:1], 0.0)
    with pytest.raises(ValueError, match=r"zetas the shape of .* and \[\(5, 1\), \(5, 2\)\]"):
        rolfe.kl_surrogate(PARAMS, pair, short[::-1], 0.0)
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1.0: it keeps 1 / \(1 - q\)"):
        rolfe.kl_surrogate(PARAMS, pair, pair, 0.0, max_probability=1.0)
