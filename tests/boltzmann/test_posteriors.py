"""The KL on graphs against sums over all bits and integrals over zeta: value and gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sparse import by_lists, by_products, minus_energy, on, states, table

from dvae import boltzmann, rbm, relax
from dvae.boltzmann import Graph, exact, graphs, kl
from dvae.distributions import bernoulli
from dvae.rbm.ais import LogZ

BETA = 3.0
LOGITS = np.array([0.7, -1.2, 0.3, 1.1], np.float32)  # of the covered bits, group after group
MIX = np.array([1.4, -0.8, 0.6, 1.9], np.float32)  # how later logits depend on earlier zeta
BITS = np.float32(states(4))
NODES = {0: 1, 1: 40, 2: 24, 3: 14}  # of each bit, for a number of bits whose zeta is known
DIAMOND = Graph(4, [(0, 1), (2, 1), (3, 2), (0, 3), (2, 0)])  # odd cycles, edges in any direction
# Graph, and groups of its units.
LAYOUTS = {
    "unequal groups": (DIAMOND, ((2,), (3, 0, 1))),
    "three groups": (DIAMOND, ((3,), (0, 2), (1,))),
    "complete": (graphs.complete(4), ((1,), (3,), (0, 2))),
    "an empty group": (graphs.grid(2, 2), ((0, 3), (), (2, 1))),
}


def nodes(groups):
    """Noise of four bits and weights of a quadrature; that of the last group is not used."""
    conditioned = 4 - len(groups[-1])
    x, w = np.polynomial.legendre.leggauss(NODES[conditioned])
    grids = np.meshgrid(*[x / 2 + 0.5] * conditioned, indexing="ij")
    weights = functools.reduce(np.multiply.outer, [w / 2] * conditioned, np.ones(()))
    noise = np.full((weights.size, 4), 0.5)
    for bit, grid in enumerate(grids):
        noise[:, bit] = np.ravel(grid)
    return noise.astype(np.float32), weights.ravel().astype(np.float32)


def groups_of(logits, mix, groups, shape, zeta_of):
    """Logits and zetas of the groups, at `shape`; zeta_of(slice, logits) makes a zeta."""
    all_logits, zetas, shift, start = [], [], jnp.zeros((*shape, 1)), 0
    for units in groups:
        part = slice(start, start + len(units))
        expand = lambda x, part=part: x[part].reshape((1,) * len(shape) + (-1,))
        all_logits.append(expand(logits) + shift * expand(mix))
        zetas.append(zeta_of(part, all_logits[-1]))
        shift, start = shift + zetas[-1].sum(-1, keepdims=True), part.stop
    return all_logits, zetas


def free_energy(params, v, groups):
    """-log sum_h e^{-E(v, h)} of covered bits v [16, 4], group after group; all hidden states."""
    clamp = kl.coverage(params.graph, groups)
    hidden = np.float32(states(int((~clamp).sum())))
    z = jnp.zeros((len(v), len(hidden), params.graph.num_units))
    z = z.at[..., np.flatnonzero(~clamp)].set(hidden[None])
    z = z.at[..., np.concatenate(groups).astype(int)].set(v[:, None])
    return -jax.nn.logsumexp(-boltzmann.energy(params, z), axis=1)


def exact_kl(params, logits, mix, groups):
    """Sums over z, and integrates over zeta of r(zeta|z), q(z | zeta) (log q(z | zeta) + F(z))."""
    u, weights = nodes(groups)
    z = jnp.broadcast_to(BITS[:, None], (16, len(u), 4))
    # With a known bit the quantile of zeta does not depend on the logits.
    zeta = relax.exponential.icdf(jnp.broadcast_to(u, z.shape), 160.0 * z - 80.0, BETA)
    found, _ = groups_of(logits, mix, groups, z.shape[:2], lambda part, _: zeta[..., part])
    log_q = bernoulli.log_prob(z, jnp.concatenate(found, -1)).sum(-1)
    total = jnp.exp(log_q) * (log_q + free_energy(params, BITS, groups)[:, None])
    return (total @ weights).sum() + exact.log_z(params)


def arrays_at_nodes(logits, mix, groups):
    rho, weights = nodes(groups)
    zeta_of = lambda part, logits: relax.exponential.icdf(rho[:, part], logits, BETA)
    all_logits, zetas = groups_of(logits, mix, groups, rho.shape[:1], zeta_of)
    return all_logits, [relax.exponential.log_ratio(zeta, BETA) for zeta in zetas], weights


def mean_kl(params, logits, mix, groups):
    """The mean over all noise of the analytic KL at zeta = F^{-1}(noise)."""
    all_logits, ratios, weights = arrays_at_nodes(logits, mix, groups)
    log_z = exact.log_z(params)
    return kl.hierarchical(params, all_logits, ratios, log_z, groups=groups) @ weights


def assert_equal_with_gradients(f, g, params, rtol=1e-4, atol=1e-4):
    found, expected = (
        jax.jit(jax.value_and_grad(h, (0, 1, 2)))(params, LOGITS, MIX) for h in (f, g)
    )
    assert float(expected[0]) > 0.1
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@pytest.mark.many_cases
@pytest.mark.parametrize(
    ("name", "form"),
    [("three groups", by_lists), *((name, by_products) for name in LAYOUTS)],
)
def test_value_and_gradient_are_those_of_the_enumerated_kl(name, form, monkeypatch):
    form(monkeypatch)
    graph, groups = LAYOUTS[name]
    f, g = (functools.partial(f, groups=groups) for f in (mean_kl, exact_kl))
    assert_equal_with_gradients(f, g, on(graph, seed=1, scale=1.5))


@pytest.mark.parametrize("logit", [-18.0, 18.0])
def test_nearly_certain_bits_keep_the_gradient_of_the_prior(logit):
    """(l - b) s(l) s(-l) for a bit of its own: with s (1 - s) the prior's part would be lost."""
    bias = np.sign(logit) * 30
    params = boltzmann.Machine(jnp.float32([bias, 0]), jnp.zeros(1), graphs.grid(2))
    of_logit = lambda x: kl.hierarchical(params, [jnp.append(x, 0.0)], [jnp.zeros(2)], 1.0)
    expected = (logit - bias) * np.exp(-np.abs(logit)) / (1 + np.exp(-np.abs(logit))) ** 2
    np.testing.assert_allclose(jax.grad(of_logit)(jnp.float32(logit)), expected, rtol=1e-4)


def test_a_bipartite_graph_with_its_sides_as_groups_has_the_kl_of_the_rbm():
    rng = np.random.default_rng(0)
    params = rbm.RBM(*(jnp.float32(rng.normal(size=s)) for s in (4, 6, (4, 6))))
    for sizes in ((4, 6), (3, 2, 5)):  # with a group on both sides
        logits = [jnp.float32(rng.normal(size=(5, n))) for n in sizes]
        ratios = [jnp.float32(rng.normal(size=(5, n))) for n in sizes]
        f = lambda p, x, r: kl.hierarchical(boltzmann.from_rbm(p), x, r, 2.0).sum()
        g = lambda p, x, r: rbm.kl.hierarchical(p, x, r, 2.0).sum()
        found, expected = (
            jax.jit(jax.value_and_grad(h, (0, 1, 2)))(params, logits, ratios) for h in (f, g)
        )
        for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


# Two hidden units: without an edge of their own, and with one.
APART = Graph(6, [(0, 1), (4, 1), (2, 3), (0, 4), (5, 3), (2, 5), (5, 1)])
JOINED = Graph(6, [*APART.edges.tolist(), (4, 5)])
COVERED = ((1,), (3, 0, 2))


def conditional(params, v):
    """p(h | v) of the four states of units 4 and 5, float64 [16, 4]."""
    z = np.repeat(v[:, None], 4, 1)
    z[..., 4:] = states(2)
    negative = minus_energy(params, z.reshape(-1, 6)).reshape(16, 4)
    p = np.exp(negative)
    return p / p.sum(1, keepdims=True)


def quantiles(params, v, num_samples):
    """Samples of the hidden units whose frequencies are p(h | v), up to 1 / S: [16, S, 6]."""
    cumulative = conditional(params, v).cumsum(1)
    teeth = (np.arange(num_samples) + 0.5) / num_samples
    index = (teeth[None, :, None] > cumulative[:, None, :3]).sum(-1)
    z = np.repeat(v[:, None], num_samples, 1)
    z[..., 4:] = states(2)[index]
    return z


def mean_hidden_kl(params, logits, mix, *, known, num_samples):
    """Sums over the bits that `sample_bits` may draw; the hidden units at quantiles of p(h | v).

    Less the mean entropy of unit 5 given v, if it is drawn while unit 4 is summed out.
    """
    all_logits, ratios, weights = arrays_at_nodes(logits, mix, COVERED)
    after = jnp.concatenate([all_logits[0] + ratios[0], all_logits[1]], -1)
    q = jax.lax.stop_gradient(jnp.exp(bernoulli.log_prob(BITS[:, None], after[None]).sum(-1)))
    v = np.zeros((16, 6), np.float32)
    v[:, np.concatenate(COVERED)] = BITS
    shape = (num_samples, len(weights), 6)
    samples = [jnp.broadcast_to(z[:, None], shape) for z in quantiles(known, v, num_samples)]
    values = [
        kl.hierarchical(params, all_logits, ratios, 0.0, groups=COVERED, samples=z) for z in samples
    ]
    p = conditional(known, v)[:, [1, 3]].sum(1) if params.graph is JOINED else np.zeros(16)
    entropy = np.float32(-xlogy(p, p) - xlogy(1 - p, 1 - p))
    return ((jnp.stack(values) - entropy[:, None]) * q @ weights).sum() + exact.log_z(params)


def xlogy(x, y):
    return np.where(x == 0, 0, x * np.log(np.where(x == 0, 1, y)))


@pytest.mark.thorough
@pytest.mark.parametrize(("graph", "num_samples"), [(APART, 1), (JOINED, 2_000)])
def test_hidden_units_are_summed_over(graph, num_samples):
    params = on(graph, seed=2, scale=1.5)
    f = functools.partial(mean_hidden_kl, known=params, num_samples=num_samples)
    g = functools.partial(exact_kl, groups=COVERED)
    # Frequencies of quantiles are off by 1 / S.
    tolerance = 1e-4 if num_samples == 1 else 2e-3
    assert_equal_with_gradients(f, g, params, rtol=tolerance, atol=tolerance)


def test_bits_to_be_clamped_have_the_probabilities_given_zeta():
    params, n = on(JOINED), 20_000
    logits = [jnp.float32([[0.5]]), jnp.float32([[-1.0, 1.0, -2.0]])]
    ratios = [jnp.float32([[1.0]]), jnp.full((1, 3), jnp.nan)]
    wide = lambda xs: [jnp.broadcast_to(x, (n, x.shape[1])) for x in xs]
    z = kl.sample_bits(jax.random.key(0), params, wide(logits), wide(ratios), groups=COVERED)
    clamp = kl.coverage(JOINED, COVERED)
    np.testing.assert_array_equal(clamp, [True] * 4 + [False] * 2)
    np.testing.assert_array_equal(z[:, ~clamp], 0)
    expected = jax.nn.sigmoid(jnp.concatenate([logits[0] + ratios[0], logits[1]], -1))[0]
    found = np.asarray(z, np.float64).mean(0)[[1, 3, 0, 2]]
    assert np.all(np.abs(found - expected) < 5 * 0.5 / np.sqrt(n))


def test_log_z_has_the_gradient_of_its_samples():
    params, n = on(DIAMOND), 20_000
    p, _, z = table(params)
    samples = np.float32(z[np.random.default_rng(0).choice(16, n, p=p)])
    f = lambda params: kl.log_z_with_gradient(params, jnp.float32(7.5), samples)
    value, gradient = jax.jit(jax.value_and_grad(f))(params)
    assert value == 7.5
    for found, expected in zip(gradient[:2], exact.moments(params), strict=True):
        error = np.sqrt(np.maximum(expected * (1 - expected), 1e-4) / n)
        assert np.all(np.abs(found - expected) < 5 * error)
    # Of a population: states with the weights of the machine.
    g = lambda params: kl.log_z_with_gradient(params, 7.5, np.float32(z), np.float32(np.log(p)))
    gradient = jax.jit(jax.grad(g))(params)
    for found, expected in zip(gradient[:2], exact.moments(params), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.isnan(kl.log_z_with_gradient(params, 7.5, np.float32(z) / 2))
    # A value of clamped units that no chain has.
    weights = np.float32([np.log(p), np.full(16, -np.inf)])
    of_each = lambda params: kl.log_z_with_gradient(params, np.float32([1, 2]), z, weights)
    np.testing.assert_array_equal(of_each(params), [1, 2])
    first, none = (jax.grad(lambda x, c=c: of_each(x)[c])(params)[:2] for c in range(2))
    for found, expected, zero in zip(first, gradient[:2], none, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        np.testing.assert_array_equal(zero, 0)


def test_half_precision_is_summed_in_float32():
    rng = np.random.default_rng(0)
    graph = graphs.grid(20, 20)
    half = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.bfloat16)
    params = boltzmann.Machine(half(400), half(graph.num_edges), graph)
    logits, ratios = ([half(5, size) for size in (150, 250)] for _ in range(2))
    wide = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float32), tree)
    f = jax.jit(kl.hierarchical)
    found = f(params, logits, ratios, jnp.bfloat16(300.0))
    expected = f(wide(params), wide(logits), wide(ratios), 300.0)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_mistakes_are_named():
    params, group = on(DIAMOND), lambda n: jnp.zeros((5, n))
    call = functools.partial(kl.hierarchical, params)
    two = [group(1), group(3)]
    with pytest.raises(ValueError, match=r"got groups of \[1, 2\] and 4 units; pass groups="):
        call([group(1), group(2)], [group(1), group(2)], 0.0)
    with pytest.raises(ValueError, match="log_ratios need one entry for each group, got 2 and 1"):
        call(two, [group(1)], 0.0)
    with pytest.raises(ValueError, match="log_ratios the shape of their group"):
        call(two, [group(2), group(3)], 0.0)
    with pytest.raises(ValueError, match="equal leading axes in all groups"):
        call([group(1), jnp.zeros((4, 3))], two, 0.0)
    for groups, match in (
        (((0,), (1, 2)), r"got groups of \[1, 2\] units and bits of \[1, 3\]"),
        (((0,), (1, 2, 4)), "groups have unit 4, outside of the units 0 to 3"),
        (((0,), (1, 2, 0)), "groups have unit 0 2 times"),
    ):
        with pytest.raises(ValueError, match=match):
            call(two, two, 0.0, groups=groups)
    covered = {"groups": ((1,), (3,))}
    part = [group(1), group(1)]
    with pytest.raises(ValueError, match="units 0, 2 are hidden, in no group: pass samples="):
        call(part, part, 0.0, **covered)
    with pytest.raises(
        ValueError, match=r"samples must be \[S, 5, 4\], S at least 1, got .*\(5, 4"
    ):
        call(part, part, 0.0, **covered, samples=group(4))
    no_bits = jnp.full((1, 5, 4), 0.5)
    with pytest.raises(ValueError, match="samples must be bits, 0 or 1"):
        call(part, part, 0.0, **covered, samples=no_bits)
    traced = jax.jit(lambda z: call(part, part, 0.0, **covered, samples=z))
    assert np.isnan(traced(no_bits)).all()
    assert np.isfinite(traced(jnp.zeros((1, 5, 4)))).all()
    with pytest.raises(ValueError, match="the groups cover all units: leave them"):
        call(two, two, 0.0, samples=group(4)[None])
    with pytest.raises(ValueError, match=r"logits must list .*shape \(4, 1\)"):
        call(jnp.zeros((4, 1)), jnp.zeros((4, 1)), 0.0)
    whole = LogZ(*jnp.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"pass log_z\.value"):
        call(two, two, whole)
    with pytest.raises(ValueError, match=r"pass log_z\.value"):
        kl.log_z_with_gradient(params, whole, jnp.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"z must be \[chains, 4\], at least 1 chain"):
        kl.log_z_with_gradient(params, 0.0, jnp.zeros((0, 4)))
    with pytest.raises(ValueError, match=r"each of the \(3,\) chains, got shape \(2,\)"):
        kl.log_z_with_gradient(params, 0.0, jnp.zeros((3, 4)), jnp.zeros(2))
