"""Machines given a label, against sums over all bits: log Z, density, KL, gradient, samples."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import boltzmann, relax
from dvae.boltzmann import Graph, graphs
from dvae.models import boltzmann as machines
from dvae.models import labeled_machine

N, C = 4, 3
BITS = np.array(list(itertools.product((0.0, 1.0), repeat=N)), np.float32)
GRAPHS = {"complete": graphs.complete(N), "sparse": Graph(N, [(0, 1), (2, 1), (3, 2)])}
LABELS = np.array([2, 0, 2, 2, 0])  # of a batch; one label has no image
RNG = np.random.default_rng(5)
LOGITS = RNG.normal(size=(len(LABELS), N)).astype(np.float32)


def make(name):
    graph = graphs.with_labels(GRAPHS[name], C)
    rng = np.random.default_rng(0)
    draw = lambda size: jnp.asarray(rng.normal(size=size), jnp.float32)
    return boltzmann.Machine(draw(N + C), draw(graph.num_edges), graph)


def minus_energies(params):
    """-E(z, y) by loops over units and edges, [C, 16]."""
    rows = []
    for label in range(C):
        z = np.concatenate([BITS, np.tile(np.eye(C)[label], (len(BITS), 1))], axis=1)
        total = sum(params.bias[i] * z[:, i] for i in range(N + C))
        for (i, j), weight in zip(params.graph.edges.tolist(), params.weights, strict=True):
            total = total + weight * z[:, i] * z[:, j]
        rows.append(total)
    return jnp.stack(rows)


def log_z(params):
    return jax.nn.logsumexp(minus_energies(params), axis=1)


def table(params):
    """p(z | y), [C, 16]."""
    return np.asarray(jax.nn.softmax(minus_energies(params), axis=1), np.float64)


def enumerated_kl(params, logits):
    """sum_z q log q / p(z | y) of each image, and its mean."""
    z, q = BITS[None], logits[:, None]
    log_q = (z * jax.nn.log_sigmoid(q) + (1 - z) * jax.nn.log_sigmoid(-q)).sum(-1)
    log_p = (minus_energies(params) - log_z(params)[:, None])[LABELS]
    each = (jnp.exp(log_q) * (log_q - log_p)).sum(-1)
    return each.mean(), each


@pytest.mark.parametrize("name", GRAPHS)
def test_log_z_and_density_are_those_of_enumeration(name):
    params = make(name)
    exact = np.asarray(log_z(params))
    assert np.ptp(exact) > 0.5
    for label in range(C):
        machine, constant = labeled_machine.given(params, label, C)
        assert machine.graph.num_units == N
        np.testing.assert_allclose(boltzmann.exact.log_z(machine) - constant, exact[label], 1e-5)
    key = jax.random.key(0)
    found = labeled_machine.log_z(key, params, num_labels=C, num_temperatures=100, num_chains=500)
    assert found.value.shape == found.std_error.shape == found.ess.shape == (C,)
    assert np.all(np.abs(found.value - exact) < 5 * found.std_error)
    assert np.all(found.std_error < 0.05)
    # Of all states and images of all labels at once, the bits in two groups.
    groups = [jnp.repeat(x[:, None], C, 1) for x in np.split(BITS, [1], axis=1)]
    log_p = labeled_machine.log_prob(params, jnp.asarray(exact), groups, jnp.arange(C))
    np.testing.assert_allclose(np.exp(log_p), table(params).T, rtol=1e-4)
    np.testing.assert_allclose(np.exp(log_p).sum(0), 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_divergence_of_a_mixed_batch_and_its_gradient_are_those_of_enumeration(name):
    params = make(name)
    # Every state with every label; of the chains of a label the weights are p(z | y).
    states = np.concatenate([np.tile(BITS, (C, 1)), np.repeat(np.eye(C), len(BITS), 0)], axis=1)
    log_p = np.where(np.repeat(np.eye(C), len(BITS), 1), np.log(table(params)).ravel(), -np.inf)

    def found(params, logits):
        value = jax.lax.stop_gradient(log_z(params))
        normalizer = boltzmann.kl.log_z_with_gradient(
            params, value, np.float32(states), np.float32(log_p)
        )
        # Of one group no zeta is needed.
        ratios = [jnp.full(logits.shape, jnp.nan)]
        each = labeled_machine.kl(params, [logits], ratios, normalizer, jnp.asarray(LABELS))
        return each.mean(), each

    ours, expected = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True))(params, LOGITS)
        for f in (found, enumerated_kl)
    )
    np.testing.assert_allclose(ours[0][1], expected[0][1], rtol=1e-5)
    (machine, logits), (machine_expected, logits_expected) = ours[1], expected[1]
    np.testing.assert_allclose(logits, logits_expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(machine.bias, machine_expected.bias, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(machine.weights, machine_expected.weights, rtol=1e-4, atol=1e-6)
    assert np.abs(machine_expected.bias[:N]).min() > 0.01
    # A label's bias is in the energy and in log Z(y) alike; an absent label moves no weight.
    np.testing.assert_allclose(machine.bias[N:], 0, atol=1e-6)
    of_absent = params.graph.edges[:, 1] == N + 1
    assert np.all(np.asarray(machine.weights)[of_absent] == 0)
    assert np.abs(np.asarray(machine.weights)[~of_absent]).min() > 1e-4


def test_each_label_has_the_gradient_of_its_own_chains():
    params, labels = make("sparse"), np.array([1, 0, 2, 1, 1, 0])
    chains = np.float32(RNG.integers(0, 2, (6, N)))
    z = np.concatenate([chains, np.eye(C, dtype=np.float32)[labels]], axis=1)
    value = jnp.asarray([1.0, 2.0, 3.0])
    f = lambda params: labeled_machine.log_z_with_gradient(params, value, z)
    np.testing.assert_array_equal(f(params), value)
    gradients = jax.jit(jax.jacobian(f))(params)
    for label in range(C):
        own = z[labels == label]
        i, j = params.graph.edges.T
        np.testing.assert_allclose(gradients.bias[label], own.mean(0), atol=1e-6)
        np.testing.assert_allclose(gradients.weights[label], (own[:, i] * own[:, j]).mean(0), 1e-6)


def test_two_groups_have_the_enumerated_divergence_in_the_mean():
    params, beta, num = make("complete"), 3.0, 40_000
    logits = np.split(LOGITS, 2, axis=1)
    keys = jax.random.split(jax.random.key(1), num)

    def one(key):
        zeta = relax.exponential.sample(key, jnp.asarray(logits[0]), beta)
        ratios = [relax.exponential.log_ratio(zeta, beta), jnp.zeros_like(logits[1])]
        return labeled_machine.kl(params, logits, ratios, log_z(params), jnp.asarray(LABELS))

    values = np.asarray(jax.jit(jax.vmap(one))(keys), np.float64)
    error = values.std(0) / np.sqrt(num)
    # The second group does not look at zeta here, so that all bits are independent.
    expected = np.asarray(enumerated_kl(params, LOGITS)[1])
    assert np.all(np.abs(values.mean(0) - expected) < 5 * error)
    assert error.max() < 0.01 * np.abs(expected).max()


def test_chains_hold_their_labels_and_samples_have_the_law_of_their_label():
    params = make("complete")
    held = labeled_machine.clamp(params, C)
    np.testing.assert_array_equal(held, [False] * N + [True] * C)
    keys = jax.random.split(jax.random.key(2), 3)
    values = labeled_machine.values(params, 200, C)
    chains = boltzmann.gibbs.init(keys[0], params, 200, clamp=held, values=values)
    chains, _ = boltzmann.gibbs.step(keys[1], params, chains, num_sweeps=5, clamp=held)
    found = labeled_machine.labels_of(chains.z, C)
    np.testing.assert_array_equal(found, np.arange(200) % C)
    np.testing.assert_array_equal(chains.z[:, N:], np.eye(C)[found])
    labels = np.random.default_rng(3).choice(C, 3_000, p=(0.2, 0.3, 0.5))
    groups = labeled_machine.sample(
        keys[2], params, machines.chains_of(chains), labels, num_labels=C, num_groups=2
    )
    assert [g.shape for g in groups] == [(3_000, 2)] * 2
    state = (np.concatenate(groups, -1) @ 2.0 ** np.arange(N)[::-1]).astype(int)
    probabilities = table(params)
    for label in range(C):
        own = state[labels == label]
        frequency = np.bincount(own, minlength=len(BITS)) / len(own)
        for y in range(C):
            p = probabilities[y]
            error = np.sqrt(p * (1 - p) / len(own))
            fits = np.all(np.abs(frequency - p) < 5 * error + 1 / len(own))
            assert fits == (y == label), (label, y)


def test_samples_start_from_chains_of_their_label_in_turn():
    of_chains = jnp.asarray([2, 0, 2, 0, 2, 2])
    labels = jnp.asarray([0, 2, 2, 0, 0, 2, 2, 2])
    found = labeled_machine._start(of_chains, labels, C)
    np.testing.assert_array_equal(found, [1, 0, 2, 3, 1, 4, 5, 0])
    # Without a chain of label 1 it is another one, whose label the sweeps then hold.
    assert 0 <= labeled_machine._start(of_chains, jnp.asarray([1]), C)[0] < 6
    params = make("sparse")
    chains = machines.GraphChains(jnp.zeros((1, N + C)).at[0, N].set(1), None)
    sure = params._replace(weights=params.weights.at[-2 * N : -N].set(60.0))
    groups = labeled_machine.sample(
        jax.random.key(0), sure, chains, np.array([1]), num_labels=C, num_groups=1
    )
    np.testing.assert_array_equal(groups[0], 1)


def test_labels_may_be_bytes():
    graph = graphs.with_labels(Graph(300, [(0, 299)]), C)
    draw = lambda size: jnp.asarray(RNG.normal(size=size), jnp.float32)
    params = boltzmann.Machine(draw(300 + C), draw(graph.num_edges), graph)
    found, constant = labeled_machine.given(params, np.uint8(2), C)
    np.testing.assert_allclose(found.bias, params.bias[:300] + params.weights[-300:], rtol=1e-6)
    np.testing.assert_allclose(constant, -params.bias[-1], rtol=1e-6)


def test_mistakes_are_named():
    params = make("complete")
    for count in (0, N + C):
        with pytest.raises(ValueError, match=f"from 1 to 6, the machine has 7 .* got {count}"):
            labeled_machine.given(params, 0, count)
    bits, chains = [jnp.zeros((2, N))], machines.GraphChains(jnp.zeros((1, N + C)), None)
    calls = {
        "density": lambda y: labeled_machine.log_prob(params, jnp.zeros(C), bits, y),
        "kl": lambda y: labeled_machine.kl(params, bits, bits, jnp.zeros(C), y),
    }
    samples = lambda y: labeled_machine.sample(
        jax.random.key(0), params, chains, y, num_labels=C, num_groups=1
    )
    for wrong in (3, -1):
        labels = jnp.array([0, wrong])
        for call in (*calls.values(), samples, lambda y: labeled_machine.given(params, y[1], C)):
            with pytest.raises(ValueError, match=f"labels must be from 0 to 2, got {wrong}"):
                call(labels)
        for call in calls.values():  # traced
            np.testing.assert_array_equal(np.isnan(jax.jit(call)(labels)), [False, True])
    with pytest.raises(ValueError, match=r"as the machine has units, 7, got \[2, 3\]"):
        labeled_machine.log_prob(params, jnp.zeros(C), [jnp.zeros((5, 2))], jnp.zeros(5, int))
    with pytest.raises(ValueError, match="units 5, 6 are hidden, in no group"):
        labeled_machine.kl(
            params, [jnp.zeros((5, 2))], [jnp.zeros((5, 2))], jnp.zeros(C), jnp.zeros(5, int)
        )
    with pytest.raises(ValueError, match=r"each of the \(5,\) chains and log Z \(2,\), got"):
        boltzmann.kl.log_z_with_gradient(params, jnp.zeros(2), jnp.zeros((5, 7)), jnp.zeros((3, 5)))
