"""The mean of every estimator's draws is the exact gradient, and its variance is what it promises.

One problem for all: a small network on four interacting bits, with an ELBO's -log q(z) switched on
or off by a weight. Gradients are compared in the logits and in the network's parameters.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import distributions, estimators

NUM_DRAWS = 20_000
RNG = np.random.default_rng(0)
LOGITS, WEIGHTS, BIAS, OUTPUT = (
    np.float32(RNG.normal(size=shape)) for shape in [(2, 4), (4, 3), (2, 3), (3,)]
)
PARAMS = (LOGITS, (WEIGHTS, BIAS, OUTPUT))


def objective(logits, theta, log_q_weight):
    """A decoder with a bias for each example, as its data would give; f closes over everything."""
    weights, bias, output = theta

    def f(z):
        hidden = jnp.tanh(z @ weights + bias)
        log_q = distributions.bernoulli.log_prob(z, logits).sum(-1)
        return hidden @ output + hidden.sum(-1) ** 2 - log_q_weight * log_q

    return f


def rebar(temperature, eta, toward_mean=False):
    options = dict(temperature=temperature, eta=eta, toward_mean=toward_mean)
    return lambda key, f, logits: estimators.rebar(key, f, logits, **options)


def relax(key, f, logits):
    def control_variate(z):
        interaction = jnp.sin(z[..., 0]) * jnp.tanh(z[..., 1] + z[..., 3])
        return 0.7 * f(jax.nn.sigmoid(z / 0.5)) + interaction + 0.1 * jnp.sum(z**2, axis=-1)

    return estimators.relax(key, f, logits, control_variate=control_variate)


def adapted_nvil(key, f, logits):
    """NVIL after batches whose signal spreads by 0.7 nats about 1.5."""
    state = estimators.nvil_init()
    for _ in range(3):
        signal = jnp.float32([0.8, 2.2])
        _, state = estimators.nvil_surrogate(signal, jnp.zeros(2), state)
    return estimators.nvil(key, f, logits, state, baseline=jnp.float32([0.3, -0.4]))[0]


def reinforce_loo(key, f, logits):
    """The bias has the shape of one batch, so the samples are mapped."""
    return estimators.reinforce_loo(key, jax.vmap(f), logits, num_samples=2)


ESTIMATORS = {
    "reinforce": estimators.reinforce,
    "reinforce_loo": reinforce_loo,
    "nvil": adapted_nvil,
    "muprop": estimators.muprop,
    "rebar cold": rebar(0.1, 0.5),
    "rebar": rebar(0.5, 0.9),
    "rebar warm": rebar(2.0, 1.5),
    "rebar toward the mean": rebar(2.0, 0.9, toward_mean=True),
    "relax": relax,
    "disarm": estimators.disarm,
}


@functools.cache
def draws(name):
    """Gradients of single draws: a tree like PARAMS for each weight of log q, [2, draws, ...]."""

    def one(key, log_q_weight):
        def total(logits, theta):
            f = objective(logits, theta, log_q_weight)
            return ESTIMATORS[name](key, f, logits).surrogate.sum()

        return jax.grad(total, (0, 1))(*PARAMS)

    keys = jax.random.split(jax.random.key(1), (2, NUM_DRAWS))
    many = jax.jit(jax.vmap(jax.vmap(one, (0, None))))
    return jax.tree.map(np.asarray, many(keys, np.float32([0.0, 1.0])))


@functools.cache
def exact():
    def one(log_q_weight):
        def total(logits, theta):
            f = jax.vmap(objective(logits, theta, log_q_weight))  # over the states
            return estimators.exact(f, logits).sum()

        return jax.grad(total, (0, 1))(*PARAMS)

    return jax.jit(jax.vmap(one))(np.float32([0.0, 1.0]))


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("name", ESTIMATORS)
def test_mean_is_the_exact_gradient(name):
    leaves = zip(jax.tree.leaves(draws(name)), jax.tree.leaves(exact()), strict=True)
    for ours, oracle in leaves:
        mean, spread = ours.mean(1, dtype=np.float64), ours.std(1, dtype=np.float64)
        error = np.abs(mean - oracle)
        assert np.all(error < 5 * spread / np.sqrt(NUM_DRAWS) + 1e-5)
        # A bound that wide must still tell this gradient from none.
        assert np.max(np.abs(oracle)) > 10 * 5 * np.min(spread) / np.sqrt(NUM_DRAWS)


def variance(name, log_q_weight):
    """Summed over the logits."""
    return draws(name)[0][log_q_weight].var(0, dtype=np.float64).sum()


@pytest.mark.parametrize("log_q_weight", [0, 1])
@pytest.mark.parametrize(
    ("name", "factor"), [("rebar", 0.35), ("muprop", 0.35), ("relax", 0.8), ("nvil", 0.9)]
)
def test_variance_is_below_that_of_reinforce(name, factor, log_q_weight):
    assert variance(name, log_q_weight) < factor * variance("reinforce", log_q_weight)


@pytest.mark.parametrize("log_q_weight", [0, 1])
def test_an_antithetic_pair_beats_two_independent_samples(log_q_weight):
    assert variance("disarm", log_q_weight) < 0.9 * variance("reinforce", log_q_weight) / 2
    assert variance("disarm", log_q_weight) < 0.9 * variance("reinforce_loo", log_q_weight)
