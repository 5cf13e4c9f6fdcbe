"""Each objective's value and gradient against the bound enumerated over all bits."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import estimators
from dvae.distributions import bernoulli
from dvae.models import binary as binary_model
from experiments.binary_vae import boltzmann_objectives, names, objectives
from experiments.binary_vae import task as binary_vae_task
from experiments.binary_vae.config import Config

NUM_PIXELS = 5
TINY = dict(dataset="digits", num_latents=3, hidden_units=4, hidden_layers=1, num_steps=10)
TINY |= dict(steps_per_call=1, log_interval=1, eval_interval=0, checkpoint_interval=0)
X = np.random.default_rng(0).integers(0, 2, (2, NUM_PIXELS)).astype(np.float32)
MEAN = np.full(NUM_PIXELS, 0.4, np.float32)
NUM_DRAWS = 2_000


def make(config):
    """Parameters away from their symmetric start, and the model's state."""
    params, state = jax.jit(binary_vae_task.init_fn(config, MEAN))(jax.random.key(3), X)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(4), len(leaves))
    noisy = [
        leaf + 0.5 * jax.random.normal(key, leaf.shape)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, noisy), state


def enumerated(config, network, num_samples=1):
    """The exact E[log 1/K sum_k w_k] of every image, over all bits of all samples and groups."""
    model = binary_model.bind(config.model(NUM_PIXELS), network, MEAN, X)
    bits = config.num_latents * config.num_groups
    states = np.array(list(itertools.product((0.0, 1.0), repeat=bits)), np.float32)
    groups = [
        jnp.broadcast_to(part[:, None], (len(states), len(X), config.num_latents))
        for part in np.split(states, config.num_groups, axis=-1)
    ]
    log_q, log_p = 0.0, 0.0
    for g, z in enumerate(groups):
        for side, logits in (("q", model.posterior_logits(groups[:g])), ("p", None)):
            logits = model.prior_logits(groups[:g]) if logits is None else logits
            term = bernoulli.log_prob(z, jnp.broadcast_to(logits, z.shape)).sum(-1)
            log_q, log_p = (log_q + term, log_p) if side == "q" else (log_q, log_p + term)
    log_weights = model.log_likelihood(groups) + log_p - log_q  # [states, B]
    if num_samples == 1:
        return jnp.sum(jnp.exp(log_q) * log_weights, 0)
    pairs = jnp.logaddexp(log_weights[:, None], log_weights[None]) - np.log(2)
    return jnp.sum(jnp.exp(log_q[:, None] + log_q[None]) * pairs, (0, 1))


def draws(config, params, state):
    """Objective [draws] and network gradients [draws, ...] of the loss under many keys."""
    loss = binary_vae_task.loss_fn(config, NUM_PIXELS)

    def one(key):
        grad_fn = jax.value_and_grad(loss, has_aux=True)
        (_, (_, metrics)), grads = grad_fn(params, state, X, key, jnp.int32(0))
        return metrics["objective"], grads["network"]

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(5), NUM_DRAWS))


def assert_mean(samples, expected, name):
    samples = np.asarray(samples, np.float64)
    error = samples.std(0, ddof=1) / np.sqrt(len(samples)) + 1e-6
    ratio = np.max(np.abs(samples.mean(0) - np.asarray(expected)) / error)
    assert ratio < 5, f"{name}: {ratio:.1f} standard errors"


UNBIASED = [
    dict(estimator=names.REINFORCE),
    dict(estimator=names.REBAR),
    dict(estimator=names.VIMCO, num_samples=2),
    dict(estimator=names.REINFORCE_LOO, num_groups=2, num_latents=2, num_samples=2),
]
# The same code with other estimators, which tests/estimators check by themselves.
MORE = [
    dict(estimator=name) for name in (names.REINFORCE_LOO, names.MUPROP, names.RELAX, names.DISARM)
]
MORE += [
    dict(estimator=names.REBAR, rebar_eta=names.VARIABLES, rebar_baseline=names.LEARNED),
    dict(estimator=names.MUPROP, muprop_scales=names.LEARNED),
]
MORE += [dict(estimator=name, num_samples=3) for name in (names.ARMS, names.DOUBLE_CV, names.RODEO)]
MORE += [dict(estimator=names.LOCAL_DISARM, num_samples=2)]
MORE += [
    dict(estimator=name, num_groups=2, num_latents=2, num_samples=2)
    for name in (names.REINFORCE, names.VIMCO)
]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "settings",
    [*UNBIASED, *(pytest.param(more, marks=pytest.mark.slow) for more in MORE)],
    ids=lambda s: f"{s['estimator']}-{s.get('num_groups', 1)}",
)
def test_gradient_of_unbiased_estimators_is_that_of_the_exact_bound(settings):
    config = Config(**{**TINY, **settings})
    params, state = make(config)
    num_samples = config.num_samples if config.estimator in names.BOUND_OF_SAMPLES else 1
    exact = lambda network: enumerated(config, network, num_samples).mean()
    value, gradient = jax.jit(jax.value_and_grad(exact))(params["network"])
    values, gradients = draws(config, params, state)
    assert_mean(values, value, "objective")
    paths = jax.tree_util.tree_leaves_with_path(gradients)
    for (path, samples), expected in zip(paths, jax.tree.leaves(gradient), strict=True):
        assert_mean(-samples, expected, jax.tree_util.keystr(path))


@pytest.mark.thorough
def test_enumerating_estimator_is_exact():
    config = Config(**{**TINY, "estimator": names.EXACT})
    params, state = make(config)
    exact = lambda network: enumerated(config, network).mean()
    value, gradient = jax.jit(jax.value_and_grad(exact))(params["network"])
    loss = jax.jit(jax.value_and_grad(binary_vae_task.loss_fn(config, NUM_PIXELS), has_aux=True))
    (mean, _), grads = loss(params, state, X, jax.random.key(0), jnp.int32(0))
    np.testing.assert_allclose(-mean, value, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(grads["network"]), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(-a, b, rtol=2e-4, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("num_groups", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_nvil_is_unbiased_while_its_signal_is_not_rescaled(num_groups):
    # A state whose variance is below one: the signal is centered, not rescaled.
    config = Config(**{**TINY, "estimator": names.NVIL, "num_groups": num_groups, "num_latents": 2})
    params, state = make(config)
    signal = estimators.NvilState(jnp.float32(-4.0), jnp.float32(0.5), jnp.int32(9))
    exact = lambda network: enumerated(config, network).mean()
    gradient = jax.jit(jax.grad(exact))(params["network"])
    _, gradients = draws(config, params, {**state, "signal": signal})
    for samples, expected in zip(
        jax.tree.leaves(gradients), jax.tree.leaves(gradient), strict=True
    ):
        assert_mean(-samples, expected, "nvil")


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name",
    [
        "exponential",
        pytest.param(names.CONCRETE, marks=pytest.mark.slow),
        pytest.param(names.STRAIGHT_THROUGH, marks=pytest.mark.slow),
    ],
)
def test_sharp_relaxations_have_the_value_of_the_exact_bound(name):
    # At beta = 100 the exponential's zeta is within 1/100 of its bit.
    sharp = dict(beta=100.0, beta_final=100.0, temperature=0.01)
    config = Config(**{**TINY, "estimator": name, **sharp})
    params, state = make(config)
    values, _ = draws(config, params, state)
    exact = enumerated(config, params["network"]).mean()
    error = np.std(values, ddof=1) / np.sqrt(NUM_DRAWS)
    bias = {"exponential": 0.1, names.STRAIGHT_THROUGH: 0.0}.get(name, 0.02)
    assert abs(np.mean(values) - exact) < 5 * error + bias


@pytest.mark.thorough
def test_marginal_bound_is_above_the_joint_one():
    values = {}
    for bound in (names.JOINT, names.MARGINAL):
        settings = dict(estimator="exponential", bound=bound, beta=4.0, num_groups=2)
        config = Config(**{**TINY, **settings})
        params, state = make(config)
        values[bound] = draws(config, params, state)[0]
    gain = values[names.MARGINAL] - values[names.JOINT]  # at the same zeta
    assert np.mean(gain) > 5 * np.std(gain, ddof=1) / np.sqrt(NUM_DRAWS)


def test_surrogates_of_rodeo_are_those_of_their_network():
    """By NumPy, a layer and an affine map at asinh of the two numbers."""
    rng = np.random.default_rng(0)
    width = objectives.SURROGATE_UNITS
    shapes = {"hidden_0": (2, width), "output": (width, 2)}
    params = {
        name: {"kernel": rng.normal(size=shape), "bias": rng.normal(size=shape[1])}
        for name, shape in shapes.items()
    }
    values, slopes = 10 * rng.normal(size=(3, 2, 1)), rng.normal(size=(3, 2, 5))
    x = np.stack(np.broadcast_arrays(np.arcsinh(values), np.arcsinh(slopes)), axis=-1)
    for layer in params.values():
        x = x @ layer["kernel"] + layer["bias"]
        x = np.tanh(x) if layer is params["hidden_0"] else x
    found = objectives.surrogates(
        jax.tree.map(jnp.float32, params), *map(jnp.float32, (values, slopes))
    )
    expected = slopes * (1 + x[..., 0]), slopes * (0.5 + x[..., 1])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_beta_moves_linearly_and_stops():
    config = Config(**{**TINY, "beta": 5.0, "beta_final": 13.0, "beta_steps": 8})
    betas = [float(objectives.beta_at(config, jnp.int32(t))) for t in (0, 4, 8, 9)]
    np.testing.assert_allclose(betas, [5, 9, 13, 13])
    constant = Config(**{**TINY, "beta": 5.0})
    assert float(objectives.beta_at(constant, jnp.int32(7))) == 5


def bind(config, params, state):
    """The networks at the images, and the batch of the first step."""
    stats = state["batch_stats"]
    model, averages = binary_model.bind_training(
        config.model(NUM_PIXELS), params["network"], MEAN, X, stats
    )
    return model, averages, objectives.Batch(X - MEAN, jnp.int32(0), jnp.ones(()))


@pytest.mark.thorough
@pytest.mark.parametrize("name", [pytest.param(names.REBAR, marks=pytest.mark.slow), names.RELAX])
def test_the_variance_moves_only_the_control_variate(name):
    config = Config(**{**TINY, "estimator": name})
    params, state = make(config)

    def auxiliary_loss(params):
        model, _, batch = bind(config, params, state)
        networks = lambda network: binary_model.bind(config.model(NUM_PIXELS), network, MEAN, X)
        auxiliary = objectives.Auxiliary(params, state["signal"], networks)
        objective = binary_vae_task.ESTIMATORS[name]
        return objective(jax.random.key(0), model, auxiliary, batch, config).auxiliary_loss

    grads = jax.jit(jax.grad(auxiliary_loss))(params)
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(grads["network"]))
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads["control"]):
        # A constant added to the control variate cancels.
        constant = jax.tree_util.keystr(path) == "['free']['output']['bias']"
        assert constant or np.any(np.asarray(leaf) != 0), path


@pytest.mark.thorough
@pytest.mark.parametrize("normalization", [names.NONE, names.BATCH])
def test_the_frozen_likelihood_has_a_gradient_in_the_latents_alone(normalization):
    config = Config(**{**TINY, "normalization": normalization})
    params, state = make(config)
    zeta = np.full((len(X), config.num_latents), 0.3, np.float32)

    def likelihoods(params, zeta):
        model, averages, _ = bind(config, params, state)
        frozen = model.frozen_log_likelihood([zeta])
        untouched = jax.tree.map(jnp.array, averages())
        return frozen.sum(), (frozen, untouched, model.log_likelihood([zeta]), averages())

    gradients, results = jax.jit(jax.grad(likelihoods, (0, 1), has_aux=True))(params, zeta)
    frozen, untouched, usual, moving = results
    np.testing.assert_array_equal(frozen, usual)
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(gradients[0]))
    assert np.any(np.asarray(gradients[1]) != 0)
    first = state["batch_stats"]
    assert bool(first) == (normalization == names.BATCH)
    for a, b in zip(*map(jax.tree.leaves, (first, untouched)), strict=True):
        np.testing.assert_array_equal(a, b)
    decoders = (jax.tree.leaves(stats.get("decoder", {})) for stats in (first, moving))
    assert all(np.any(np.asarray(a) != np.asarray(b)) for a, b in zip(*decoders, strict=True))


def test_every_estimator_is_an_objective_of_its_own():
    assert set(binary_vae_task.ESTIMATORS) == set(names.ESTIMATORS)
    assert set(boltzmann_objectives.METHODS) == set(names.SMOOTHINGS_OF)
    functions = {
        name: function
        for name, function in binary_vae_task.ESTIMATORS.items()
        if name not in names.SMOOTHINGS  # which share an equation
    }
    assert {function.__name__ for function in functions.values()} == set(functions)
    for table in (binary_vae_task.ESTIMATORS, boltzmann_objectives.METHODS):
        assert len({str(inspect.signature(function)) for function in table.values()}) == 1


@pytest.mark.thorough
@pytest.mark.parametrize("name", [names.RELAX, names.EXPONENTIAL])
def test_the_networks_are_made_once(name, monkeypatch):
    config = Config(**{**TINY, "estimator": name})
    params, state = make(config)
    made = []
    model = Config.model
    counted = lambda *args, **sizes: made.append(args) or model(*args, **sizes)
    monkeypatch.setattr(Config, "model", counted)
    loss = binary_vae_task.loss_fn(config, NUM_PIXELS)
    assert len(made) == 1
    for _ in range(2):
        jax.eval_shape(jax.grad(loss, has_aux=True), params, state, X, jax.random.key(0), 0)
    assert len(made) == 1
