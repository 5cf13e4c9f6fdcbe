"""`binary_vae` under Boltzmann priors: objectives against enumeration, chains, mistakes."""

import dataclasses
import itertools

import command_line
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import data, rbm
from dvae.distributions import bernoulli
from dvae.train import sharding
from experiments import (
    binary_evaluation,
    binary_model,
    binary_prior,
    binary_report,
    binary_vae,
    boltzmann_objectives,
)
from experiments import binary_names as names
from experiments.binary_config import Config
from experiments.binary_presets import PRESETS

TINY = {
    **PRESETS["smoke"],
    "prior": names.BOLTZMANN,
    "num_latents": 4,
    "num_chains": 16,
    "num_sweeps": 2,
    "ais_temperatures": 50,
    "ais_chains": 64,
}
METHODS = {
    "dvae": dict(method=names.DVAE, num_groups=2, num_latents=2),
    "dvaepp": dict(method=names.DVAEPP, num_groups=2, num_latents=2, smoothing="power"),
    "dvaes": dict(method=names.DVAES, bound=names.IW, num_samples=3, num_groups=2, num_latents=2),
    "gaussian_integral": dict(method=names.DVAES, smoothing=names.GAUSSIAN_INTEGRAL, beta=30.0),
}


@pytest.fixture(name="images", scope="module")
def load_images():
    return data.load("digits")


def start(config, images, num_devices=1):
    """The state before the first step, with a prior that has couplings."""
    mesh = sharding.make_mesh(num_devices)
    task = binary_vae.make_task(config, images, mesh)
    everywhere = sharding.replicated(mesh)
    first = jax.jit(task.init, out_shardings=everywhere)(
        task.key_init, jax.device_put(task.data, everywhere)
    )
    key = jax.random.key(7)
    prior = jax.tree.map(
        lambda p: 0.5 * jax.random.normal(jax.random.fold_in(key, p.ndim), p.shape),
        first.params["prior"],
    )
    return task, first, prior


def bits_of(num_units):
    return np.array(list(itertools.product((0.0, 1.0), repeat=num_units)), np.float32)


def exact_bound(config, model, prior, num_images):
    """The ELBO of a posterior of one group, by enumeration; [images]."""
    states = bits_of(config.num_latents)
    logits = model.posterior_logits([])
    z = jnp.broadcast_to(states[:, None], (len(states), num_images, states.shape[1]))
    log_q = bernoulli.log_prob(z, jnp.broadcast_to(logits, z.shape)).sum(-1)
    log_p = binary_prior.log_prob(prior, rbm.exact.log_z(prior), [z])
    return (jnp.exp(log_q) * (model.log_likelihood([z]) + log_p - log_q)).sum(0)


@pytest.mark.parametrize(
    "settings",
    [
        dict(method=names.DVAE),
        dict(method=names.DVAEPP),
        dict(method=names.DVAES),
        dict(method=names.DVAES, smoothing=names.GAUSSIAN_INTEGRAL),
    ],
    ids=lambda s: "-".join(s.values()),
)
def test_sharp_objectives_approach_the_enumerated_bound(images, settings) -> None:
    # The mean field of dvaes is exact once every zeta gives its bit away.
    config = Config(**{**TINY, **settings, "beta": 300.0})
    _, first, prior = start(config, images)
    x = jnp.asarray(images.test[:6].reshape(6, -1), jnp.float32)
    model = binary_model.bind(
        config.model(64), first.params["network"], first.model_state["mean"], x
    )
    inputs = (model, config, prior, rbm.exact.log_z(prior))
    given = dict(step=jnp.int32(0), kl_weight=1.0)

    def objective(key):
        if config.method == names.DVAES:
            components = first.params.get("components")
            return boltzmann_objectives.relaxed(
                key, *inputs, components=components, **given
            ).objective
        return boltzmann_objectives.analytic(key, *inputs, **given).objective

    found = np.asarray(jax.jit(jax.vmap(objective))(jax.random.split(jax.random.key(3), 4_000)))
    expected = exact_bound(config, model, prior, 6)
    error = found.std(0) / np.sqrt(len(found))
    assert (error < 0.1).all()
    # A bit's relaxation is off by 1/300, which moves the likelihood's mean by about as much.
    np.testing.assert_array_less(abs(found.mean(0) - expected), 5 * error + 0.05)


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_moves(images, name) -> None:
    config = Config(**{**TINY, **METHODS[name], "weight_decay": 1e-4})
    task, first, _ = start(config, images)
    after = first
    step = jax.jit(task.step)
    for _ in range(2):
        after, metrics = step(after, task.data, task.key_train)
    assert all(np.isfinite(value) for value in metrics.values())
    paths = jax.tree_util.tree_leaves_with_path(after.params)
    for (path, a), b in zip(paths, jax.tree.leaves(first.params), strict=True):
        assert not np.array_equal(a, b), jax.tree_util.keystr(path)


@pytest.mark.parametrize("sampler", [names.PCD, names.TEMPERING, names.ANNEALING])
def test_log_z_is_estimated_now_and_then(images, sampler) -> None:
    settings = {"sampler": sampler, "num_chains": 1_000, "num_latents": 8, "log_z_interval": 3}
    config = Config(**{**TINY, **settings})
    _, first, prior = start(config, images)
    phase = jax.jit(binary_prior.negative_phase, static_argnames="config")
    chains, log_z = first.model_state["chains"], first.model_state["log_z"]
    np.testing.assert_allclose(log_z, rbm.exact.log_z(first.params["prior"]), rtol=1e-6)
    keys = jax.random.split(jax.random.key(1), 30)
    for step in range(3, 33):
        moved = phase(keys[step - 3], config, prior, chains, log_z, jnp.int32(step))
        assert (moved.last_log_z != log_z) == (step % 3 == 0)
        assert moved.log_z == moved.last_log_z == moved.metrics["log_z"]
        chains, log_z = moved.chains, moved.last_log_z
    np.testing.assert_allclose(log_z, rbm.exact.log_z(prior), atol=0.1)
    assert abs(rbm.exact.log_z(prior) - first.model_state["log_z"]) > 0.5
    np.testing.assert_allclose(
        moved.metrics["coupling_norm"], np.linalg.norm(prior.weights), rtol=1e-5
    )
    if sampler != names.PCD:  # on a machine that stays, the samplers know log Z themselves
        np.testing.assert_allclose(moved.metrics["sampler_log_z"], rbm.exact.log_z(prior), atol=0.2)


def test_the_ladder_is_adapted_on_request(images) -> None:
    settings = {"sampler": names.TEMPERING, "num_chains": 200, "adapt_interval": 2}
    config = Config(**{**TINY, **settings})
    _, first, prior = start(config, images)
    strong = prior._replace(weights=8 * prior.weights)
    phase = jax.jit(binary_prior.negative_phase, static_argnames="config")
    chains, log_z = first.model_state["chains"], first.model_state["log_z"]
    ladders = []
    for step in (1, 2):
        key = jax.random.fold_in(jax.random.key(0), step)
        moved = phase(key, config, strong, chains, log_z, jnp.int32(step))
        ladders.append(np.array(moved.chains.betas))
    np.testing.assert_array_equal(ladders[0], chains.betas)
    assert not np.allclose(ladders[1], chains.betas, atol=1e-3)
    assert (ladders[1][0], ladders[1][-1]) == (0, 1)


@pytest.mark.parametrize("sampler", [names.PCD, names.ANNEALING])
def test_gradient_of_the_prior_is_that_of_its_likelihood(images, sampler) -> None:
    config = Config(**{**TINY, "sampler": sampler, "num_chains": 20_000, "num_sweeps": 30})
    _, first, prior = start(config, images)

    def log_z(prior):
        state = first.model_state
        inputs = (config, prior, state["chains"], state["log_z"], jnp.int32(1))
        return binary_prior.negative_phase(jax.random.key(0), *inputs).log_z

    found = jax.jit(jax.grad(log_z))(prior)
    for a, b in zip(found, rbm.exact.moments(prior), strict=True):
        np.testing.assert_allclose(a, b, atol=5 * 0.5 / np.sqrt(20_000) * 1.5)


def test_evaluation_approaches_the_enumerated_log_likelihood(images) -> None:
    config = Config(**{**TINY, "num_groups": 2, "num_latents": 2, "normalization": names.BATCH})
    _, first, prior = start(config, images)
    params = {**first.params, "prior": prior}
    x = images.test[:12]
    evaluator = binary_evaluation.Evaluator(config, 64, sharding.make_mesh(1))
    found = evaluator.evaluate(params, first.model_state, x, num_samples=2_000)
    pixels = jnp.asarray(x.reshape(12, -1), jnp.float32)
    state = first.model_state
    model = binary_model.bind(
        config.model(64), params["network"], state["mean"], pixels, state["batch_stats"]
    )
    states = bits_of(4)
    z = [jnp.broadcast_to(g[:, None], (16, 12, 2)) for g in np.split(states, 2, 1)]
    log_p = binary_prior.log_prob(prior, rbm.exact.log_z(prior), z)
    exact = jax.nn.logsumexp(model.log_likelihood(z) + log_p, 0)
    log_z_error = float(found.log_z.value[0] - rbm.exact.log_z(prior))
    assert abs(log_z_error) < 5 * found.log_z.std_error[0]
    np.testing.assert_allclose(found.log_likelihood[0] + log_z_error, exact, atol=0.1)
    assert found.kl.shape == (1, 1)
    assert set(found.means()) >= {"nll", "elbo", "kl", "active_units", "log_z", "log_z_ess"}


def test_pictures_of_the_prior_come_from_its_chains(images) -> None:
    config = Config(**{**TINY, "num_chains": 40})
    _, first, prior = start(config, images)
    sure = prior._replace(bias1=jnp.full(2, 30.0), bias2=jnp.full(2, -30.0))
    chains = first.model_state["chains"]
    bits = binary_prior.sample(jax.random.key(0), config, sure, chains, 50)
    np.testing.assert_array_equal(bits[0], np.tile([1.0, 1.0, 0.0, 0.0], (50, 1)))


def test_batch_norm_learns_its_averages_and_devices_agree(images) -> None:
    config = Config(**{**TINY, **METHODS["dvaes"], "normalization": names.BATCH})
    after = {}
    for num_devices in (1, 8):
        task, state, _ = start(config, images, num_devices)
        averages = state.model_state["batch_stats"]
        step = jax.jit(task.step)
        data = jax.device_put(task.data, jax.tree.leaves(state)[0].sharding)
        for _ in range(2):
            state, _ = step(state, data, task.key_train)
        assert step._cache_size() == 1  # the shared chains come back as they went in
        after[num_devices] = state
    moved = after[1].model_state["batch_stats"]
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(averages), strict=True):
        assert not np.array_equal(a, b)
    one, eight = (jax.tree.leaves((s.params, s.model_state)) for s in after.values())
    for a, b in zip(one, eight, strict=True):
        # Adam's first steps are of one size however small a gradient, rounding included.
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=5e-4)


def test_seeds_trained_together_are_those_trained_alone(images) -> None:
    settings = {**TINY, **METHODS["dvaepp"], "sampler": names.ANNEALING}
    found = []
    for seeds in (dict(num_seeds=2, seed=3), dict(seed=4)):
        task = binary_vae.make_task(Config(**{**settings, **seeds}), images, sharding.make_mesh(1))
        state = jax.jit(task.init)(task.key_init, task.data)
        found.append(jax.jit(task.step)(state, task.data, task.key_train)[0])
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-3, atol=2e-5)


def test_a_collapsed_log_z_is_reported() -> None:
    config = Config(**TINY)
    empty = np.zeros((1, 3), np.float32)
    log_z = rbm.ais.LogZ(np.float32([5.0]), np.float32([0.9]), np.float32([1.2]))
    evaluation = binary_evaluation.Evaluation(empty, empty, empty, empty, empty, log_z)
    record = binary_report.log_z_record(config, evaluation)["log_z"]
    assert "is to be trusted" in record["warning"]
    sound = evaluation._replace(log_z=log_z._replace(ess=np.float32([60.0])))
    assert "warning" not in binary_report.log_z_record(config, sound)["log_z"]
    assert binary_report.log_z_record(config, evaluation._replace(log_z=None)) == {}


def test_weight_decay_spares_biases(images) -> None:
    config = Config(**{**TINY, "weight_decay": 0.5})
    _, first, prior = start(config, images)
    params = {**first.params, "prior": prior}
    zeros = jax.tree.map(jnp.zeros_like, params)
    optimizer = config.optimizer()
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        name = jax.tree_util.keystr(path)
        assert bool(jnp.any(update != 0)) == ("kernel" in name or "weights" in name), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--bound=iw",), "--method=dvaepp trains by the ELBO alone"),
        (("--method=dvae", "--bound=iw"), "use --method=dvaes, or --bound=elbo"),
        (("--method=dvae", "--smoothing=power"), "takes --smoothing=spike_exp, got power"),
        (("--smoothing=spike_exp",), "use --method=dvae for spike_exp"),
        (("--bound=marginal",), "use --bound=elbo or iw"),
        (("--estimator=nvil",), "with --prior=rbm choose --method and --smoothing"),
        (("--num_groups=3",), "use 1 or an even number"),
        (("--num_latents=7",), "--num_latents=7: a single group is split into two sides"),
        (("--num_chains=0",), "--num_chains=0 must be at least 1"),
        (("--sampler=annealing", "--num_chains=1"), "needs at least 2 for its weights"),
        (("--prior=directed", "--smoothing=power"), "use --estimator=power"),
        (("--prior=directed", "--bound=iw"), "goes with --prior=rbm"),
        (("--structure=linear", "--normalization=batch"), "use --structure=nonlinear"),
        (
            ("--prior=directed", "--estimator=nvil", "--normalization=batch"),
            "which biases --estimator=nvil",
        ),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, tuple) else "",
)
def test_mistakes_end_in_one_line(tmp_path, monkeypatch, capsys, arguments, message) -> None:
    given = ["--preset=smoke", "--prior=rbm", f"--workdir={tmp_path / 'run'}", *arguments]
    error = command_line.error_of(monkeypatch, capsys, binary_vae, Config, PRESETS, given)
    assert message in error
    assert not (tmp_path / "run").exists()


def test_open_choices_are_settled_in_the_record() -> None:
    assert Config().bound == names.JOINT
    assert Config(prior=names.BOLTZMANN).bound == names.ELBO
    assert Config(prior=names.BOLTZMANN, method=names.DVAE).smoothing == names.SPIKE_EXP
    settled = dataclasses.asdict(Config(prior=names.BOLTZMANN))
    assert Config(**settled) == Config(prior=names.BOLTZMANN)
