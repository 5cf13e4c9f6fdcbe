"""gradient_variance of categorical variables against what NumPy enumerates over all states."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.train import sharding
from experiments.binary_vae import names
from experiments.binary_vae import task as binary_vae_task
from experiments.gradient_variance import categorical, measurement, report, task
from experiments.gradient_variance import config as gradient_variance_config
from experiments.gradient_variance.config import COUPLED, Config
from experiments.gradient_variance.measurement import SIDES

NUM_PIXELS, NUM_LATENTS, NUM_CLASSES = 5, 2, 3
TINY = Config(
    num_latents=NUM_LATENTS, num_classes=NUM_CLASSES, hidden_units=4, batch_size=2, num_draws=200
)
X = np.random.default_rng(0).integers(0, 2, (TINY.batch_size, NUM_PIXELS)).astype(np.float32)
MEAN = np.full(NUM_PIXELS, 0.4, np.float32)
STATE = {"mean": MEAN}


@functools.cache
def network():
    """Parameters away from their symmetric start."""
    leaves, tree = jax.tree.flatten(categorical.init(TINY, MEAN, jax.random.key(3)))
    rng = np.random.default_rng(4)
    noisy = [leaf + 0.5 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(tree, noisy)


@functools.cache
def exact_gradient():
    loss = categorical.loss_fn(TINY, NUM_PIXELS, {"estimator": names.EXACT})
    return jax.jit(measurement.exact_fn(loss))({"network": network()}, STATE, X)


def measured(num_draws=2_000, **settings):
    loss = categorical.loss_fn(TINY, NUM_PIXELS, settings)
    draw = jax.jit(measurement.draw_fn(loss, num_draws))
    _, exact = exact_gradient()
    sums = draw({"network": network()}, STATE, X, exact, jax.random.key(7))
    return {side: measurement.summarize(*sums[side], exact[side]) for side in SIDES}


def layers(params, x):
    """An `Mlp` of one layer, by NumPy."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    hidden = np.tanh(x @ params["hidden_0"]["kernel"] + params["hidden_0"]["bias"])
    return hidden @ params["output"]["kernel"] + params["output"]["bias"]


def test_exact_elbo_is_that_of_numpy() -> None:
    elbo, _ = exact_gradient()
    logits = layers(network()["encoders_0"], X - MEAN).reshape(-1, NUM_LATENTS, NUM_CLASSES)
    log_softmax = lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))
    log_q, log_p = map(log_softmax, (logits, np.asarray(network()["prior_logits"], np.float64)))
    expected = np.zeros(len(X))
    for codes in itertools.product(range(NUM_CLASSES), repeat=NUM_LATENTS):
        one_hot = np.eye(NUM_CLASSES)[list(codes)]
        pixels = layers(network()["decoder"], one_hot.ravel())
        log_likelihood = (X * pixels - np.logaddexp(0, pixels)).sum(-1)
        of_states = (log_q * one_hot).sum((-1, -2))
        expected += np.exp(of_states) * (log_likelihood + (log_p * one_hot).sum() - of_states)
    np.testing.assert_allclose(elbo, expected.mean(), rtol=1e-5)


def test_enumeration_has_neither_bias_nor_variance() -> None:
    for error in measured(200, estimator=names.EXACT).values():
        assert abs(error.bias) < 1e-9
        assert error.variance < 1e-9


@pytest.mark.parametrize(
    "settings",
    [
        {"estimator": names.REINFORCE},
        {"estimator": names.REINFORCE_LOO, "num_samples": 2},
        {"estimator": COUPLED},
    ],
)
def test_estimators_by_samples_have_no_bias(settings) -> None:
    for error in measured(**settings).values():
        assert abs(error.bias) < 5 * error.bias_error
        assert error.variance > 0


def test_straight_through_is_biased() -> None:
    error = measured(estimator=names.STRAIGHT_THROUGH)["phi"]
    assert error.bias > 5 * error.bias_error


def test_every_estimator_is_a_case_of_its_own() -> None:
    cases = gradient_variance_config.cases(TINY)
    assert len({case.label for case in cases}) == len(cases)
    assert {case.settings["estimator"] for case in cases} == set(
        gradient_variance_config.CATEGORICAL
    )
    assert set(gradient_variance_config.CATEGORICAL) | {names.EXACT} == set(categorical.ESTIMATORS)
    for case in cases:
        loss = categorical.loss_fn(TINY, NUM_PIXELS, case.settings)
        at = {"network": network()}, STATE, jnp.asarray(X), jax.random.key(0), jnp.int32(0)
        assert jax.eval_shape(loss, *at)[0].shape == ()


@pytest.mark.thorough
@pytest.mark.parametrize("trainer", gradient_variance_config.TRAIN_CATEGORICAL)
def test_report_of_a_small_run(tmp_path, trainer) -> None:
    config = dataclasses.replace(
        TINY, batch_size=8, train_steps=500, estimators=f"{COUPLED},gs_soft",
        train_estimator=trainer,
    )  # fmt: skip
    images = binary_vae_task.prepare(config.experiment())
    found = task.measure(config, images, sharding.make_mesh(1))
    before, after = found.stages
    assert after.elbo > before.elbo + 1
    record = task.record(config, found, 1.0)
    table = report.write(record, tmp_path)
    labels = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert labels == ["coupled", "gs_soft, τ = 0.5", "gs_soft, τ = 0.2"]
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "2 variables of 3 classes" in text
    assert "--num_classes=3" in text
    assert ("--train_estimator" in text) == (trainer != COUPLED)
