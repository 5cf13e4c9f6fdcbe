"""The measured bias and variance against those enumerated over all bits."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_binary_objectives as binary_cases

from dvae.distributions import bernoulli
from dvae.models import binary as binary_model
from dvae.train import sharding
from experiments.binary_vae import names
from experiments.binary_vae import task as binary_vae_task
from experiments.common import flags
from experiments.gradient_variance import __main__ as program
from experiments.gradient_variance import config as gradient_variance_config
from experiments.gradient_variance import measurement as gradient_measurement
from experiments.gradient_variance import report as gradient_variance_report
from experiments.gradient_variance import task as gradient_variance
from experiments.gradient_variance.config import Config
from experiments.gradient_variance.measurement import SIDES

NUM_PIXELS = 5
TINY = Config(num_latents=3, hidden_units=4, batch_size=2, num_draws=200, tune_steps=300)
X = np.random.default_rng(0).integers(0, 2, (TINY.batch_size, NUM_PIXELS)).astype(np.float32)
MEAN = np.full(NUM_PIXELS, 0.4, np.float32)
STATE = {"mean": MEAN, "batch_stats": {}, "signal": ()}


def loss_of(config, **settings):
    return gradient_variance.loss_of(config, NUM_PIXELS, settings)


@functools.cache
def network():
    """Parameters away from their symmetric start."""
    params, _ = binary_vae_task.init_fn(TINY.experiment(), MEAN)(jax.random.key(3), X)
    leaves, tree = jax.tree.flatten(params["network"])
    rng = np.random.default_rng(4)
    noisy = [leaf + 0.5 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(tree, noisy)


@functools.cache
def exact_gradient():
    """The ELBO and, by side, minus its gradient."""
    exact = gradient_measurement.exact_fn(loss_of(TINY, estimator=names.EXACT))
    return jax.jit(exact)({"network": network()}, STATE, X)


@functools.cache
def compiled(estimator, num_draws):
    return jax.jit(gradient_measurement.draw_fn(loss_of(TINY, estimator=estimator), num_draws))


def measured(estimator, auxiliary=None, *, num_draws=TINY.num_draws):
    _, exact = exact_gradient()
    params = {"network": network(), **(auxiliary or {})}
    sums = compiled(estimator, num_draws)(params, STATE, X, exact, jax.random.key(7))
    return {side: gradient_measurement.summarize(*sums[side], exact[side]) for side in SIDES}


def test_enumeration_has_neither_bias_nor_variance():
    for error in measured(names.EXACT).values():
        assert abs(error.bias) < 1e-9
        assert error.variance < 1e-9


@pytest.mark.thorough
def test_reinforce_has_the_enumerated_variance_and_no_bias():
    module = TINY.experiment().model(NUM_PIXELS)
    elbo, exact = exact_gradient()
    bits = np.array(list(itertools.product((0.0, 1.0), repeat=3)), np.float32)
    # All pairs of states of the two images, [64, 2, 3].
    states = np.stack([np.repeat(bits, 8, axis=0), np.tile(bits, (8, 1))], axis=1)

    def terms(params, z):
        model = binary_model.bind(module, params, MEAN, X)
        logits = model.posterior_logits([])
        log_q = bernoulli.log_prob(z, logits).sum(-1)
        log_p = bernoulli.log_prob(z, jnp.broadcast_to(model.prior_logits([]), z.shape)).sum(-1)
        kl = bernoulli.kl(logits, jnp.broadcast_to(model.prior_logits([]), z.shape)).sum(-1)
        return model.log_likelihood([z]), log_q, log_p, kl

    def surrogate(params, z):
        f, log_q, _, kl = terms(params, z)
        return -(jax.lax.stop_gradient(f) * log_q + f - kl).mean()

    gradient = lambda z: gradient_measurement.split(jax.grad(surrogate)(network(), z))
    gradients = jax.jit(jax.vmap(gradient))(states)
    f, log_q, log_p, _ = jax.jit(jax.vmap(lambda z: terms(network(), z)))(states)
    weight = np.exp(np.asarray(log_q.sum(-1), np.float64))
    np.testing.assert_allclose(weight @ np.asarray(f + log_p - log_q).mean(-1), elbo, rtol=1e-5)
    errors = measured(names.REINFORCE, num_draws=2_000)
    for side in SIDES:
        offsets = np.asarray(gradients[side], np.float64) - np.asarray(exact[side])
        np.testing.assert_allclose(weight @ offsets, 0.0, atol=1e-4)
        variance = weight @ (offsets**2).sum(-1) / np.sum(np.asarray(exact[side]) ** 2)
        assert abs(errors[side].variance - variance) < 5 * errors[side].variance_error
        assert errors[side].variance_error < 0.1 * variance
        assert abs(errors[side].bias) < 5 * errors[side].bias_error


@pytest.mark.thorough
def test_estimators_of_the_bound_of_two_samples_have_no_bias():
    """Their target is enumerated over pairs of states, here by NumPy too."""
    exact_bound = gradient_measurement.exact_bound_fn(TINY.experiment(), NUM_PIXELS)
    value, exact = jax.jit(exact_bound)({"network": network()}, STATE, X)
    wanted = binary_cases.enumerated(TINY.experiment(), network(), 2).mean()
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    variances = {}
    for name in names.BOUND_OF_SAMPLES:
        loss = loss_of(TINY, estimator=name, num_samples=2)
        draw = jax.jit(gradient_measurement.draw_fn(loss, 2_000))
        sums = draw({"network": network()}, STATE, X, exact, jax.random.key(7))
        errors = {s: gradient_measurement.summarize(*sums[s], exact[s]) for s in SIDES}
        assert all(abs(error.bias) < 5 * error.bias_error for error in errors.values())
        variances[name] = errors["phi"].variance
    assert variances[names.LOCAL_DISARM] < variances[names.VIMCO]


def test_straight_through_is_biased():
    error = measured(names.STRAIGHT_THROUGH, num_draws=1_000)["phi"]
    assert error.bias > 5 * error.bias_error


@pytest.mark.thorough
def test_tuning_lowers_the_variance_and_leaves_the_model():
    loss = loss_of(TINY, estimator=names.REBAR)
    tune = jax.jit(gradient_measurement.tune_fn(loss, TINY.tune_steps))
    # Far from the best weight of the control variate.
    start = {"control": {"eta": jnp.asarray(-1.0), "log_temperature": jnp.asarray(-1.0)}}
    tuned, _ = tune({"network": network(), **start}, STATE, X, jax.random.key(8))
    for a, b in zip(*map(jax.tree.leaves, (network(), tuned.pop("network"))), strict=True):
        np.testing.assert_array_equal(a, b)
    before, after = (measured(names.REBAR, auxiliary)["phi"] for auxiliary in (start, tuned))
    assert after.variance + 5 * after.variance_error < before.variance


@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_bias_is_unbiased_and_its_error_is_not_too_small(bias):
    rng = np.random.default_rng(0)
    scale = np.array([1.0, 0.5, 0.2, 0.1])
    exact = np.array([2.0, 0.0, 0.0, 0.0])
    draws = bias / 2 + scale * rng.normal(size=(2_000, gradient_measurement.NUM_GROUPS, 4))
    ones = np.ones(gradient_measurement.NUM_GROUPS)
    estimates = [gradient_measurement.summarize(means, ones, exact) for means in draws]
    values = np.array([error.bias for error in estimates])
    errors = np.array([error.bias_error for error in estimates])
    true = 4 * (bias / 2) ** 2 / 4
    assert abs(values.mean() - true) < 5 * values.std() / np.sqrt(len(values))
    assert 0.95 < np.sqrt(np.mean(errors**2)) / values.std() < 1.4
    assert np.mean(values - true > 3 * errors) < 0.005
    assert estimates[0].variance == 0.25


def test_every_estimator_is_a_case_of_its_own():
    config = Config()
    cases = gradient_variance_config.cases(config)
    assert len({case.label for case in cases}) == len(cases)
    assert {case.settings["estimator"] for case in cases} == set(names.ESTIMATORS) - {names.EXACT}
    assert {case.settings["estimator"] for case in cases if case.of_bound} == {
        names.VIMCO,
        names.LOCAL_DISARM,
    }
    larger = gradient_variance_config.cases(Config(num_latents=13))
    assert [case for case in cases if not case.of_bound] == larger
    bounds = {(case.settings["estimator"], case.settings.get("bound", "joint")) for case in cases}
    assert {name for name, bound in bounds if bound == "marginal"} == set(names.WITH_DENSITY)
    for case in cases:
        config.experiment(**case.settings)  # which checks them


@pytest.mark.thorough
def test_report_of_a_small_run(tmp_path):
    config = Config(
        num_latents=4, hidden_units=8, batch_size=8, num_draws=200, train_steps=500, tune_steps=20,
        estimators="nvil", train_estimator=names.REINFORCE_LOO,
    )  # fmt: skip
    images = binary_vae_task.prepare(config.experiment())
    measurement = gradient_variance.measure(config, images, sharding.make_mesh(1))
    before, after = measurement.stages
    assert after.elbo > before.elbo + 1
    record = gradient_variance.record(config, measurement, 1.0)
    table = gradient_variance_report.write(record, tmp_path)
    labels = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert labels == ["nvil, tuned", "nvil, tuned, not rescaled"]
    assert {p.name for p in tmp_path.iterdir()} == {
        "report.md", "results.json", "bias_and_variance.png",
    }  # fmt: skip
    assert json.loads((tmp_path / "results.json").read_text()) == record
    text = (tmp_path / "report.md").read_text()
    assert table in text
    assert "--num_draws=200" in text
    assert record["config"]["out"] == "", "where results were written is of no use elsewhere"
    published, free = (row["stages"] for row in record["estimators"])
    assert published[0]["tuned"]["scale"] > 1
    assert free[0]["tuned"]["scale"] == 1


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"num_latents": 19}, "--num_latents=19 must be at most 18"),
        ({"num_draws": 300}, "--num_draws=300 must be a multiple of 200"),
        ({"train_steps": 10}, "--train_steps=10 must be a multiple of 500"),
        ({"estimators": "rebar,exact"}, "--estimators=exact must be all or some of"),
        ({"estimators": "coupled"}, "--num_classes=2"),
        ({"num_classes": 1}, "--num_classes=1 must be at least 2"),
        ({"num_classes": 8, "num_latents": 7}, "have more than 262,144 states"),
        ({"num_classes": 8, "num_latents": 4, "estimators": "disarm"}, "with --num_classes=8"),
        (
            {"num_classes": 8, "num_latents": 4, "train_estimator": "disarm"},
            "--train_estimator=disarm must be one of coupled",
        ),
        ({"estimators": "rebar,vimco", "num_latents": 13}, "of at most --num_latents=12, got 13"),
        ({"betas": "4,-1"}, "--betas=4,-1 must be positive numbers"),
        ({"temperatures": "warm"}, "--temperatures=warm must be positive numbers"),
        (
            {"train_estimator": "exact", "num_latents": 18},
            "--train_estimator=exact decodes all 2^n states",
        ),
        ({"batch_size": 0}, "--batch_size=0 must be at least 1"),
        ({"batch_size": 2_000}, "--batch_size=2000 must be at most 1297"),
        ({"out": "{file}"}, "cannot write to"),
    ],
)
def test_bad_flags_end_in_one_line(tmp_path, monkeypatch, capsys, settings, text):
    (tmp_path / "file").write_text("")
    settings = {"out": str(tmp_path / "out"), **settings}
    settings["out"] = settings["out"].format(file=tmp_path / "file" / "out")
    monkeypatch.setattr(flags, "parse", lambda config_class: config_class(**settings))
    with pytest.raises(SystemExit) as stopped:
        program.main(["gradient_variance"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert text in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("num_classes", [2, 3])
def test_every_choice_has_a_case(num_classes) -> None:
    config = Config(num_latents=4, num_classes=num_classes)
    found = {case.settings["estimator"] for case in gradient_variance_config.cases(config)}
    assert found == set(config.selection())


def test_an_estimator_without_a_case_is_named(monkeypatch) -> None:
    measured = (*gradient_variance_config.MEASURED, "newcomer")
    monkeypatch.setattr(gradient_variance_config, "MEASURED", measured)
    for chosen in ({}, {"estimators": "disarm,newcomer"}):
        with pytest.raises(ValueError, match=r"config\.py has no Case of newcomer; add one"):
            gradient_variance_config.cases(Config(**chosen))
