"""Settings of published protocols in `binary_vae`: what each changes, and that the defaults do not.

The models are those of `test_binary_objectives`: three bits, five pixels, two images.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_binary_objectives import NUM_PIXELS, TINY, X, bind, make

from dvae import estimators, relax
from experiments.binary_vae import names, optimizers, protocol, task
from experiments.binary_vae.config import Config

FIELDS = [field.name for field in dataclasses.fields(protocol.ProtocolConfig)]
OWN = [name for name in FIELDS if name in protocol.ProtocolConfig.__annotations__]


def step_of(config, params, state, seed=0):
    """The loss, its gradients and metrics at one step."""
    grad_fn = jax.value_and_grad(task.loss_fn(config, NUM_PIXELS), has_aux=True)
    (loss, (_, metrics)), grads = jax.jit(grad_fn)(
        params, state, X, jax.random.key(seed), jnp.int32(0)
    )
    return float(loss), grads, metrics


@functools.cache
def usual(name):
    """An estimator with its defaults: configuration, parameters, state, and the step of them."""
    config = Config(**{**TINY, "estimator": name})
    params, state = make(config)
    return config, params, state, step_of(config, params, state)


def assert_close(ours, expected, rtol=1e-4):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-5)


# The loss and the sum of the gradients' absolute values, written before there was any of the flags.
BEFORE = {
    names.CONCRETE: (3.39274645, 11.1300607),
    names.NVIL: (2.45745754, 244.048585),
    names.MUPROP: (8.66999054, 451.689567),
    names.REBAR: (5.69015789, 17.7530930),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", BEFORE)
def test_defaults_are_what_they_were(name):
    loss, grads, _ = usual(name)[-1]
    total = sum(np.abs(np.float64(leaf)).sum() for leaf in jax.tree.leaves(grads))
    np.testing.assert_allclose((loss, total), BEFORE[name], rtol=2e-5)


def test_runs_that_are_older_than_a_field_have_its_default():
    for field in dataclasses.fields(Config):
        if field.name in OWN:
            assert field.metadata["former"] == field.default, field.name
    assert len(OWN) == 15


@pytest.mark.thorough
def test_sampled_kl_of_concrete_takes_bernoullis_at_the_relaxed_sample():
    """Value and gradient of log p(x|zeta) - sum zeta (l - a) - softplus(l) + softplus(a)."""
    analytic, params, state, (of_analytic, _, _) = usual(names.CONCRETE)
    config = dataclasses.replace(analytic, concrete_kl=names.SAMPLE)

    def objective(network):
        model, _, _ = bind(config, {"network": network}, state)
        (key,) = jax.random.split(jax.random.key(0), 1)  # one of each group
        q = model.posterior_logits([])
        p = jnp.broadcast_to(model.prior_logits([]), q.shape)
        zeta = jax.nn.sigmoid(relax.binary_concrete.sample_logit(key, q, config.temperature))
        kl = jnp.sum(zeta * (q - p) - jnp.log1p(jnp.exp(q)) + jnp.log1p(jnp.exp(p)), -1)
        return jnp.mean(model.log_likelihood([zeta]) - kl), kl.mean()

    (value, kl), gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))(params["network"])
    loss, grads, metrics = step_of(config, params, state)
    np.testing.assert_allclose(-loss, value, rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], kl, rtol=1e-4)
    assert_close(jax.tree.map(jnp.negative, grads["network"]), gradient)
    assert abs(of_analytic - loss) > 0.01  # at this temperature it is another one


@pytest.mark.thorough
@pytest.mark.parametrize("kl", [names.ANALYTIC, names.SAMPLE])
def test_scaled_logits_of_concrete_are_those_of_its_sample_alone(kl):
    usual_config, params, state, _ = usual(names.CONCRETE)
    config = dataclasses.replace(usual_config, concrete_scale=names.MUPROP, concrete_kl=kl)
    t = config.temperature
    factor = (t**2 + t + 1) / (t + 1)

    def objective(network):
        model, _, _ = bind(config, {"network": network}, state)
        (key,) = jax.random.split(jax.random.key(0), 1)  # one of each group
        q = model.posterior_logits([])
        p = jnp.broadcast_to(model.prior_logits([]), q.shape)
        zeta = jax.nn.sigmoid(relax.binary_concrete.sample_logit(key, factor * q, t))
        weight = jax.nn.sigmoid(q) if kl == names.ANALYTIC else zeta
        divergence = jnp.sum(weight * (q - p) - jax.nn.softplus(q) + jax.nn.softplus(p), -1)
        return jnp.mean(model.log_likelihood([zeta]) - divergence)

    value, gradient = jax.jit(jax.value_and_grad(objective))(params["network"])
    loss, grads, _ = step_of(config, params, state)
    np.testing.assert_allclose(-loss, value, rtol=1e-5)
    assert_close(jax.tree.map(jnp.negative, grads["network"]), gradient)
    plain = dataclasses.replace(config, concrete_scale=names.NONE)
    assert abs(step_of(plain, params, state)[0] - loss) > 1e-3


@pytest.mark.thorough
def test_nvil_without_a_scale_keeps_the_factor():
    """The signal's gradient is larger by the running standard deviation, that of f the same."""
    signal = estimators.NvilState(jnp.float32(-4.0), jnp.float32(9.0), jnp.int32(9))
    config, params, state, _ = usual(names.NVIL)
    state = {**state, "signal": signal}
    scaled = step_of(config, params, state)[1]
    whole = step_of(dataclasses.replace(config, nvil_scale=names.NONE), params, state)[1]
    times_3 = jax.tree.map(lambda g: 3 * g, scaled["network"]["encoders_0"])
    assert_close(whole["network"]["encoders_0"], times_3)
    assert_close(whole["network"]["decoder"], scaled["network"]["decoder"])
    assert_close(whole["baseline"], scaled["baseline"])


@pytest.mark.thorough
def test_scales_of_muprop_are_one_at_first_and_descend_the_residual():
    fixed, params, state, (_, expected, _) = usual(names.MUPROP)
    learned = dataclasses.replace(fixed, muprop_scales=names.LEARNED)
    pre = jnp.zeros(2)
    _, grads, metrics = step_of(learned, {**params, "scales": pre}, state)
    assert_close(grads["network"], expected["network"])
    assert_close(grads["baseline"], expected["baseline"])
    assert metrics["scale"] == metrics["slope_scale"] == 1

    def squares(pre):
        model, _, batch = bind(learned, params, state)
        logits = model.posterior_logits([])
        f = lambda z: model.log_likelihood([z])
        residual = estimators.muprop_residual(
            jax.random.key(0), f, logits, scales=tuple(2 / (1 + jnp.exp(-pre)))
        )
        baseline = task.objectives.predict(params["baseline"], batch.x)
        return jnp.mean((residual - jax.lax.stop_gradient(baseline)) ** 2)

    assert_close(grads["scales"], jax.jit(jax.grad(squares))(pre))
    assert np.all(np.asarray(grads["scales"]) != 0)


@pytest.mark.thorough
@pytest.mark.parametrize("scale", [names.NONE, names.MUPROP])
def test_an_eta_for_each_variable_is_the_shared_one_where_all_are_alike(scale):
    plain, params, state, (_, expected, _) = usual(names.REBAR)
    shared = dataclasses.replace(plain, rebar_scale=scale)
    if scale != names.NONE:
        of_plain, (_, expected, _) = expected, step_of(shared, params, state)
        moved = lambda name: expected["network"][name]["output"]["kernel"]
        np.testing.assert_array_equal(
            moved("decoder"), of_plain["network"]["decoder"]["output"]["kernel"]
        )
        of_encoder = of_plain["network"]["encoders_0"]["output"]["kernel"]
        assert np.all(np.abs(moved("encoders_0") - of_encoder) > 1e-4)
    several = dataclasses.replace(shared, rebar_eta=names.VARIABLES)
    eta = params["control"]["eta"]
    pre = jnp.log(eta / (2 - eta))  # 2 sigmoid of it is eta
    etas = jax.tree.map(lambda _: pre, params["network"])
    control = {**params["control"], "eta": etas}
    _, grads, metrics = step_of(several, {**params, "control": control}, state)
    np.testing.assert_allclose(metrics["eta"], eta, rtol=1e-5)
    assert_close(grads["network"]["encoders_0"], expected["network"]["encoders_0"])
    assert_close(grads["network"]["prior_logits"], expected["network"]["prior_logits"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads["control"]):
        # The prior's logits are not in f, so that they have no part in the control variate.
        of_prior = "prior_logits" in jax.tree_util.keystr(path)
        assert (leaf == 0) == of_prior, path


@pytest.mark.thorough
def test_the_baseline_of_rebar_begins_at_zero_and_learns():
    none, params, state, (_, expected, _) = usual(names.REBAR)
    learned = dataclasses.replace(none, rebar_baseline=names.LEARNED)
    auxiliary = task.objectives.init_auxiliary(
        jax.random.key(1), learned, NUM_PIXELS, params["network"]
    )
    baseline = auxiliary["control"]["baseline"]
    control = {**params["control"], "baseline": baseline}
    _, grads, _ = step_of(learned, {**params, "control": control}, state)
    assert_close(grads["network"], expected["network"])
    of_baseline = grads["control"].pop("baseline")
    assert np.all(np.asarray(of_baseline["output"]["kernel"]) != 0)
    assert_close(grads["control"], expected["control"], rtol=1e-3)


@pytest.mark.thorough
def test_first_kernels_have_the_variance_that_was_asked_for():
    usual, larger = (
        make_first(Config(**{**TINY, "num_latents": 40, "initial_variance": variance}))
        for variance in (1.0, 2.0)
    )
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(larger), jax.tree.leaves(usual), strict=True
    ):
        factor = np.sqrt(2) if path[-1].key == "kernel" else 1
        np.testing.assert_allclose(a, factor * b, rtol=1e-6)
    kernel = np.asarray(larger["encoders_0"]["hidden_0"]["kernel"])
    square = np.square(kernel) * kernel.shape[0]  # of mean 2
    assert abs(square.mean() - 2) < 5 * square.std() / np.sqrt(square.size)


@pytest.mark.thorough
def test_pairs_of_disarm_are_averaged():
    """The gradient is the mean of those that single pairs have under the split keys."""
    one, params, state, _ = usual(names.DISARM)
    two = dataclasses.replace(one, disarm_pairs=2)

    def objective(network, key):
        model, _, batch = bind(one, {**params, "network": network}, state)
        return task.ESTIMATORS[names.DISARM](key, model, None, batch, one).surrogate.mean()

    keys = jax.random.split(jax.random.key(0), 2)
    of_keys = jax.jit(jax.vmap(jax.value_and_grad(objective), (None, 0)))
    values, gradients = of_keys(params["network"], keys)
    loss, grads, _ = step_of(two, params, state)
    np.testing.assert_allclose(-loss, values.mean(), rtol=1e-5)
    assert_close(grads["network"], jax.tree.map(lambda g: -g.mean(0), gradients))


def test_leaky_units_keep_three_tenths_of_what_is_negative():
    leaky = Config(**TINY, activation="leaky_relu").model(NUM_PIXELS)
    units = task.binary_model.mlp.ACTIVATIONS[leaky.config.activation]
    np.testing.assert_allclose(units(jnp.array([-2.0, 0.0, 3.0])), [-0.6, 0.0, 3.0], rtol=1e-6)
    params = leaky.init(jax.random.key(0), jnp.zeros((1, NUM_PIXELS)))
    encoder = jax.tree.map(np.asarray, params["params"]["encoders_0"])
    x = np.linspace(-1, 1, NUM_PIXELS, dtype=np.float32)[None]
    hidden = x @ encoder["hidden_0"]["kernel"]
    hidden = np.where(hidden > 0, hidden, 0.3 * hidden)
    logits = leaky.apply(params, x, [], method=type(leaky).posterior_logits)
    np.testing.assert_allclose(logits, hidden @ encoder["output"]["kernel"], rtol=1e-5, atol=1e-6)


def test_the_logits_of_the_prior_may_descend_by_sgd():
    config = Config(
        **{**TINY, "estimator": names.NVIL, "baseline_learning_rate": 1e-2},
        learning_rate=1e-3,
        schedule="constant",
        prior_learning_rate=0.5,
        weight_decay=0.1,
    )
    network = {"decoder": {"kernel": jnp.ones(3)}, "prior_logits": jnp.ones(2)}
    params = {"network": network, "baseline": jnp.ones(2)}
    grads = jax.tree.map(lambda x: 2 * x, params)
    optimizer = optimizers.optimizer(config)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(updates["network"]["prior_logits"], -1.0)  # 0.5 times 2
    np.testing.assert_allclose(updates["network"]["decoder"]["kernel"], -1e-3, rtol=1e-4)
    np.testing.assert_allclose(updates["baseline"], -1e-2, rtol=1e-4)


def make_first(config):
    mean = np.full(200, 0.4, np.float32)
    return jax.jit(task.init_fn(config, mean))(jax.random.key(3), X)[0]["network"]


@pytest.mark.parametrize(
    ("settings", "network_rate", "baseline_rate"),
    [
        (dict(), 1e-3, 1e-3),
        (dict(adam_b2=0.9), 1e-3, 1e-3),
        (dict(baseline_learning_rate=1e-2, adam_b2=0.9, adam_eps=1e-3), 1e-3, 1e-2),
    ],
)
def test_the_optimizer_has_its_settings_and_baselines_their_rate(
    settings, network_rate, baseline_rate
):
    config = Config(
        **{**TINY, "estimator": names.MUPROP, "muprop_scales": names.LEARNED, **settings},
        learning_rate=1e-3,
        schedule="constant",
    )
    params = {name: jnp.arange(3.0) for name in ("network", "baseline", "scales")}
    first = {name: x - 1 for name, x in params.items()}
    grads = [first, {name: -3 * x for name, x in first.items()}]
    ours, b2 = optimizers.optimizer(config), settings.get("adam_b2", 0.999)
    rates = {"network": network_rate, "baseline": baseline_rate, "scales": baseline_rate}
    state = ours.init(params)
    adams = {n: optax.adam(r, b2=b2, eps=config.adam_eps) for n, r in rates.items()}
    states = {name: adam.init(params[name]) for name, adam in adams.items()}
    for grad in grads:
        updates, state = ours.update(grad, state, params)
        for name, adam in adams.items():
            expected, states[name] = adam.update(grad[name], states[name])
            np.testing.assert_allclose(updates[name], expected, rtol=1e-6)


def test_with_the_rate_of_the_model_the_state_of_the_optimizer_is_one_adam():
    """As it was, so that checkpoints go on."""
    config = Config(**{**TINY, "estimator": names.NVIL})
    params = {"network": jnp.ones(2), "baseline": jnp.ones(2)}
    usual = optax.adam(optax.constant_schedule(1e-3)).init(params)
    assert jax.tree.structure(optimizers.optimizer(config).init(params)) == jax.tree.structure(
        usual
    )
