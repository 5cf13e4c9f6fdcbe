"""The analytic KL against sums over all bits and integrals over zeta: value and gradient."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_energy_and_exact import machine

from dvae import rbm, relax
from dvae.distributions import bernoulli
from dvae.rbm import ais, exact, kl, rolfe

BETA = 3.0
LOGITS = np.array([0.7, -1.2, 0.3, 1.1], np.float32)
MIX = np.array([1.4, -0.8, 0.6, 1.9], np.float32)  # how later logits depend on earlier zeta
Z_STATES = np.array(list(itertools.product((0.0, 1.0), repeat=4)), np.float32)
NUM_NODES = 14
# Sides, and groups that end at them or do not, on one side or on both.
LAYOUTS = [
    ((2, 2), (2, 2)),
    ((2, 2), (1, 2, 1)),
    ((1, 3), (4,)),
    ((1, 3), (2, 2)),
    ((1, 3), (1, 2, 1)),
    ((3, 1), (2, 0, 2)),
    ((3, 1), (3, 1)),
]


def nodes(groups):
    """Noise of the four bits and weights of a quadrature, [points, 4] and [points].

    The last group's noise is not used; it gets one node.
    """
    x, w = np.polynomial.legendre.leggauss(NUM_NODES)
    conditioned = 4 - groups[-1]
    grids = np.meshgrid(*[x / 2 + 0.5] * conditioned, indexing="ij")
    weights = functools.reduce(np.multiply.outer, [w / 2] * conditioned, np.ones(()))
    noise = np.full((weights.size, 4), 0.5)
    for bit, grid in enumerate(grids):
        noise[:, bit] = np.ravel(grid)
    return noise.astype(np.float32), weights.ravel().astype(np.float32)


def groups_of(logits, mix, groups, shape, zeta_of):
    """Logits and zetas of the groups, at `shape`; zeta_of(slice, logits) makes a zeta."""
    all_logits, zetas, shift = [], [], jnp.zeros((*shape, 1))
    for start, size in zip(np.cumsum([0, *groups[:-1]]), groups, strict=True):
        part = slice(start, start + size)
        expand = lambda x, part=part: x[part].reshape((1,) * len(shape) + (-1,))
        all_logits.append(expand(logits) + shift * expand(mix))
        zetas.append(zeta_of(part, all_logits[-1]))
        shift = shift + zetas[-1].sum(-1, keepdims=True)
    return all_logits, zetas


def exact_kl(params, logits, mix, groups):
    """Sums over z, and integrates over zeta of r(zeta|z), q(z | zeta) (log q(z | zeta) + E(z))."""
    u, weights = nodes(groups)
    z = jnp.broadcast_to(Z_STATES[:, None], (16, len(u), 4))
    # With a known bit the quantile of zeta does not depend on the logits.
    zeta = relax.exponential.icdf(jnp.broadcast_to(u, z.shape), 160.0 * z - 80.0, BETA)
    found, _ = groups_of(logits, mix, groups, z.shape[:2], lambda part, _: zeta[..., part])
    log_q = bernoulli.log_prob(z, jnp.concatenate(found, -1)).sum(-1)
    n1 = params.bias1.shape[0]
    total = jnp.exp(log_q) * (log_q + rbm.energy(params, z[..., :n1], z[..., n1:]))
    return (total @ weights).sum() + exact.log_z(params)


def mean_kl(params, logits, mix, groups):
    """The mean over all noise of the analytic KL at zeta = F^{-1}(noise)."""
    rho, weights = nodes(groups)
    zeta_of = lambda part, logits: relax.exponential.icdf(rho[:, part], logits, BETA)
    all_logits, zetas = groups_of(logits, mix, groups, rho.shape[:1], zeta_of)
    ratios = [relax.exponential.log_ratio(zeta, BETA) for zeta in zetas]
    return kl.hierarchical(params, all_logits, ratios, exact.log_z(params)) @ weights


@pytest.mark.many_cases
@pytest.mark.parametrize(("sides", "groups"), LAYOUTS)
def test_value_and_gradient_are_those_of_the_enumerated_kl(sides, groups):
    params = machine(*sides, scale=1.5)
    found, expected = (
        jax.jit(jax.value_and_grad(functools.partial(f, groups=groups), (0, 1, 2)))(
            params, LOGITS, MIX
        )
        for f in (mean_kl, exact_kl)
    )
    assert float(expected[0]) > 0.1
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.many_cases
@pytest.mark.parametrize("groups", [(400,), (200, 200), (150, 250)])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_summed_in_float32(groups, dtype):
    rng = np.random.default_rng(0)
    half = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    params = rbm.RBM(half(200), half(200), half(200, 200) / 8)
    logits = [half(5, size) for size in groups]
    ratios = [half(5, size) for size in groups]
    wide = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float32), tree)
    found = jax.jit(kl.hierarchical)(params, logits, ratios, jnp.asarray(300.0, dtype))
    expected = jax.jit(kl.hierarchical)(wide(params), wide(logits), wide(ratios), 300.0)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("value", [kl.hierarchical, rolfe.kl_surrogate])
@pytest.mark.parametrize("logit", [-25.0, -18.0, 18.0, 25.0])
def test_nearly_certain_bits_keep_the_gradient_of_the_prior(value, logit):
    """(l - a) s(l) s(-l) for a bit of its own: with s (1 - s) the prior's part would be lost."""
    bias = np.sign(logit) * 30
    params = rbm.RBM(jnp.float32([bias]), jnp.zeros(1), jnp.zeros((1, 1)))
    of_logit = lambda x: value(params, [jnp.append(x, 0.0)], [jnp.zeros(2)], 1.0)
    expected = (logit - bias) * np.exp(-np.abs(logit)) / (1 + np.exp(-np.abs(logit))) ** 2
    np.testing.assert_allclose(jax.grad(of_logit)(jnp.float32(logit)), expected, rtol=1e-4)


@pytest.mark.thorough
def test_what_is_documented_as_unused_is_unused():
    params, logits = machine(2, 2), [jnp.ones((3, 1)), jnp.ones((3, 2)), jnp.zeros((3, 1))]
    nan = jnp.full(7, jnp.nan)
    one = kl.hierarchical(params, [jnp.concatenate(logits, -1)], [nan], 1.0)
    assert np.all(np.isfinite(one))
    ratios = [jnp.ones((3, 1)), jnp.zeros((3, 2)), nan]
    assert np.all(np.isfinite(kl.hierarchical(params, logits, ratios, 1.0)))
    known = [jnp.full((3, 1), jnp.nan), *ratios[1:]]
    assert np.all(np.isnan(kl.hierarchical(params, logits, known, 1.0)))


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


def test_weights_of_samples_receive_no_gradient():
    params, log_weights = machine(2, 2), jnp.asarray([0.3, -1.0, 0.2])
    z = jnp.asarray([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    f = lambda w: kl.log_z_with_gradient(params, 1.0, z, z, w)
    np.testing.assert_array_equal(jax.grad(f)(log_weights), 0)


def test_mistakes_are_named():
    params = machine(2, 2)
    group = lambda n: jnp.zeros((5, n))
    with pytest.raises(ValueError, match=r"got groups of \[2, 1\] and an RBM of 2 x 2"):
        kl.hierarchical(params, [group(2), group(1)], [group(2), group(1)], 0.0)
    with pytest.raises(ValueError, match="log_ratios need one entry for each group, got 2 and 1"):
        kl.hierarchical(params, [group(2), group(2)], [group(2)], 0.0)
    with pytest.raises(ValueError, match=r"log_ratios the shape of .* and \[\(5, 1\), \(5, 2\)\]"):
        kl.hierarchical(params, [group(2), group(2)], [group(1), group(2)], 0.0)
    with pytest.raises(ValueError, match="equal leading axes in all groups"):
        kl.hierarchical(params, [group(2), jnp.zeros((4, 2))], [group(2), group(2)], 0.0)
    with pytest.raises(ValueError, match=r"at least one sample .* got shapes \(0, 2\)"):
        kl.log_z_with_gradient(params, 0.0, jnp.zeros((0, 2)), jnp.zeros((0, 2)))
    for sides, found in (((10, 5), "10 and 5"), ((10, 1), "10 and 1")):
        with pytest.raises(ValueError, match=f"hold as many chains, got {found}: pass both sides"):
            kl.log_z_with_gradient(params, 0.0, *(jnp.zeros((n, 2)) for n in sides))
    with pytest.raises(ValueError, match=r"as many chains, got 10 and \(\): "):
        kl.log_z_with_gradient(params, 0.0, jnp.zeros((10, 2)), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"each of the \(3,\) chains, got shape \(2,\)"):
        kl.log_z_with_gradient(params, 0.0, jnp.zeros((3, 2)), jnp.zeros((3, 2)), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"logits must list .* \(2, 2\); .* pass \[logits\]"):
        kl.hierarchical(params, jnp.zeros((2, 2)), jnp.zeros((2, 2)), 0.0)
    whole, two = ais.LogZ(*jnp.zeros((3, 1))), [group(2), group(2)]
    for log_z, match in ((whole, r"pass log_z\.value"), (jnp.zeros(5), r"one number, .*\(5,\)")):
        with pytest.raises(ValueError, match=match):
            kl.hierarchical(params, two, two, log_z)
        with pytest.raises(ValueError, match=match):
            kl.log_z_with_gradient(params, log_z, group(2), group(2))
        with pytest.raises(ValueError, match=match):
            rolfe.kl_surrogate(params, two, two, log_z)
