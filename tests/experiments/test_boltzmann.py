"""`binary_vae` under Boltzmann priors: training, evaluation, records, mistakes."""

import dataclasses

import command_line
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boltzmann_cases import TINY, bits_of, start

from dvae import rbm
from dvae.models import binary as binary_model
from dvae.models import boltzmann
from dvae.train import best, sharding, status
from experiments.binary_vae import __main__ as binary_vae
from experiments.binary_vae import evaluation as binary_evaluation
from experiments.binary_vae import names, optimizers
from experiments.binary_vae.config import Config
from experiments.binary_vae.presets import PRESETS
from experiments.boltzmann import evaluation as boltzmann_evaluation
from experiments.boltzmann import prior as boltzmann_prior
from experiments.boltzmann import report as boltzmann_report
from experiments.boltzmann.names import ANNEALING
from experiments.common import schedules

METHODS = {
    "dvae": dict(method=names.DVAE, num_groups=2, num_latents=2),
    "dvaepp": dict(method=names.DVAEPP, num_groups=2, num_latents=2, smoothing="power"),
    "dvaes": dict(method=names.DVAES, bound=names.IW, num_samples=3, num_groups=2, num_latents=2),
    "gaussian_integral": dict(method=names.DVAES, smoothing=names.GAUSSIAN_INTEGRAL, beta=30.0),
}


def test_a_summary_says_where_no_log_z_was_to_be_trusted(images) -> None:
    config = Config(**{**TINY, "eval_interval": 2})
    _, first, _ = start(config, images)
    chosen = lambda value: boltzmann_report._chosen_by(
        config, config, best.init(first)._replace(value=np.float32(value))
    )
    assert chosen(90.0) == "lowest validation nll of steps whose log Z is to be trusted"
    assert chosen(boltzmann_evaluation.UNTRUSTED).endswith(
        "the last validation where there is none"
    )


def test_several_seeds_without_trusted_log_z_have_a_finite_mean() -> None:
    ones = np.ones((2, 3), np.float32)
    log_z = rbm.ais.LogZ(ones[:, 0], ones[:, 0], ones[:, 0])
    results = boltzmann_evaluation.Evaluation(
        ones, ones, ones, ones[..., None], log_z, np.zeros(2, bool)
    )
    values = results.means()["trusted_nll"]
    with np.errstate(over="raise"):
        assert np.isfinite(np.mean(values))
    assert (np.float32(values) == boltzmann_evaluation.UNTRUSTED).all()


def test_log_z_takes_as_long_for_any_images() -> None:
    config = Config(**TINY)
    mesh, before = sharding.make_mesh(1), status.fixed_seconds()
    likelihood = boltzmann_evaluation.Likelihood(config, config, lambda *_: (), mesh)
    likelihood.log_z({"prior": boltzmann_prior.init(config)})
    assert status.fixed_seconds() > before


@pytest.mark.thorough
@pytest.mark.many_cases
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


@pytest.mark.thorough
def test_evaluation_approaches_the_enumerated_log_likelihood(images) -> None:
    config = Config(**{**TINY, "num_groups": 2, "num_latents": 2, "normalization": names.BATCH})
    _, first, prior = start(config, images)
    params = {**first.params, "prior": prior}
    x = images.test[:12]
    evaluator = binary_evaluation.Evaluator(config, images, sharding.make_mesh(1))
    results = evaluator.evaluate(params, first.model_state, x, num_samples=2_000)
    pixels = jnp.asarray(x.reshape(12, -1), jnp.float32)
    state = first.model_state
    model = binary_model.bind(
        config.model(64), params["network"], state["mean"], pixels, state["batch_stats"]
    )
    states = bits_of(4)
    z = [jnp.broadcast_to(g[:, None], (16, 12, 2)) for g in np.split(states, 2, 1)]
    log_p = boltzmann.log_prob(prior, rbm.exact.log_z(prior), z)
    exact = jax.nn.logsumexp(model.log_likelihood(z) + log_p, 0)
    log_z_error = float(results.log_z.value[0] - rbm.exact.log_z(prior))
    assert abs(log_z_error) < 5 * results.log_z.std_error[0]
    np.testing.assert_allclose(results.log_likelihood[0] + log_z_error, exact, atol=0.1)
    assert results.kl.shape == (1, 12, 1)
    assert results.reliable.tolist() == [True]
    assert set(results.means()) >= {"nll", "elbo", "kl", "active_units", "log_z", "log_z_ess"}


@pytest.mark.thorough
def test_pictures_of_the_prior_come_from_its_chains(images) -> None:
    config = Config(**{**TINY, "num_chains": 40})
    _, first, prior = start(config, images)
    sure = prior._replace(bias1=jnp.full(2, 30.0), bias2=jnp.full(2, -30.0))
    chains = first.model_state["chains"]
    bits = boltzmann.sample(jax.random.key(0), sure, boltzmann.chains_of(chains), 50, num_groups=1)
    np.testing.assert_array_equal(bits[0], np.tile([1.0, 1.0, 0.0, 0.0], (50, 1)))


@pytest.mark.slow
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
        # Adam's first steps are of one size however small a gradient, and rounding may decide on
        # the sign of a very small one: two steps one way, two the other.
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=4 * config.learning_rate)
        assert np.isclose(b, a, rtol=1e-3, atol=5e-4).mean() > 0.99


@pytest.mark.slow
def test_seeds_trained_together_are_those_trained_alone(images) -> None:
    settings = {**TINY, **METHODS["dvaepp"], "sampler": ANNEALING}
    found = []
    for seeds in (dict(num_seeds=2, seed=3), dict(seed=4)):
        task = binary_vae.make_task(Config(**{**settings, **seeds}), images, sharding.make_mesh(1))
        state = jax.jit(task.init)(task.key_init, task.data)
        found.append(jax.jit(task.step)(state, task.data, task.key_train)[0])
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-3, atol=2e-5)


def test_a_collapsed_log_z_is_reported() -> None:
    config = Config(**TINY)
    zeros, kl = np.zeros((1, 3), np.float32), np.zeros((1, 3, 1), np.float32)
    log_z = rbm.ais.LogZ(np.float32([5.0]), np.float32([0.9]), np.float32([1.2]))
    evaluation = binary_evaluation.Evaluation(
        zeros, zeros, zeros, kl, log_z, np.array([False]), unit_variance=zeros
    )
    record = boltzmann_report.log_z_record(config, log_z)["log_z"]
    assert "is to be trusted" in record["warning"]
    assert not boltzmann_evaluation.reliable(config, log_z).any()
    many = log_z._replace(ess=np.float32([60.0]))
    assert boltzmann_evaluation.reliable(config, many).all()
    assert "warning" not in boltzmann_report.log_z_record(config, many)["log_z"]
    sound = dataclasses.replace(evaluation, reliable=np.array([True]))
    # Its likelihood looks the better the more log Z falls short, and must not be chosen for it.
    assert evaluation.means()["trusted_nll"] > 1e30
    assert sound.means()["trusted_nll"] == sound.means()["nll"]


@pytest.mark.thorough
def test_weight_decay_spares_biases(images) -> None:
    config = Config(**{**TINY, "weight_decay": 0.5, "normalization": names.BATCH})
    _, first, prior = start(config, images)
    params = {**first.params, "prior": prior}
    zeros = jax.tree.map(jnp.zeros_like, params)
    optimizer = optimizers.optimizer(config)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        name = jax.tree_util.keystr(path)
        decays = any(part in name for part in ("kernel", "weights", "scale"))
        assert bool(jnp.any(update != 0)) == decays, name


def test_staircase_of_the_learning_rate() -> None:
    settings = {"schedule": "staircase", "num_steps": 1_000, "steps_per_call": 1}
    config = Config(**{**TINY, **settings, "learning_rate": 3e-3})
    rates = schedules.learning_rates(config.schedule, config.learning_rate, config.num_steps)
    steps = {0: 0.1, 19: 0.1, 20: 1, 599: 1, 600: 1 / 3, 750: 0.1, 950: 1 / 33, 999: 1 / 33}
    for step, share in steps.items():
        np.testing.assert_allclose(rates(step), 3e-3 * share, rtol=1e-5, err_msg=str(step))


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
        (("--prior=directed", "--smoothing=power"), "--estimator names the smoothing"),
        (("--prior=directed", "--method=dvaes"), "--method=dvaes goes with --prior=rbm"),
        (("--prior=directed", "--sampler=pcd"), "--sampler=pcd goes with --prior=rbm"),
        (("--adapt_interval=5",), "adapts the ladder of --sampler=tempering, got --sampler=pcd"),
        (("--kl_warmup_steps=9",), "--kl_warmup_steps=9 exceeds --num_steps=8"),
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
    assert Config(prior=names.BOLTZMANN).method == names.DVAEPP
    assert Config(prior=names.BOLTZMANN, method=names.DVAES).bound == names.IW
    assert Config(prior=names.BOLTZMANN, method=names.DVAE).smoothing == names.SPIKE_EXP
    settled = dataclasses.asdict(Config(prior=names.BOLTZMANN))
    assert Config(**settled) == Config(prior=names.BOLTZMANN)
