"""`dvaepp`: objectives, schedules, balancing, devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dvaepp_cases import GRAPH, TINY, check_moved, start

from dvae import boltzmann, rbm
from dvae.models import boltzmann as machines
from dvae.train import sharding
from experiments.dvaepp import evaluation as dvaepp_evaluation
from experiments.dvaepp import latents
from experiments.dvaepp import task as dvaepp_task
from experiments.dvaepp.config import Config
from experiments.dvaepp.presets import ROWS


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in ROWS if row != "rbm_normal"])
def test_every_parameter_moves(images, row) -> None:
    task, first = start(Config(**{**TINY, **ROWS[row]}), images)
    check_moved(first, *jax.jit(task.step)(first, task.data, task.key_train))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "row",
    [
        "rbm_normal",
        pytest.param("graph", marks=pytest.mark.slow),
        pytest.param("bernoulli_bernoulli", marks=pytest.mark.slow),
    ],
)
def test_a_sharp_objective_is_the_elbo(images, row) -> None:
    """Training's objective, at a beta where relaxed bits are bits, against the evaluation's."""
    kinds = GRAPH if row == "graph" else ROWS[row]
    settings = {"beta": 300.0, "kl_warmup_steps": 0, "log_z_interval": 1}
    config = Config(**{**TINY, **kinds, **settings, "ais_temperatures": 400, "ais_chains": 500})
    _, state = start(config, images, spread=0.05)
    shape = images.train.shape[1:]
    loss = dvaepp_task.loss_fn(config, config.model(shape))
    x = jnp.asarray(images.test[:8])
    objective = lambda key: loss(state.params, state.model_state, x, key, jnp.int32(1))[1][1]
    keys = jax.random.split(jax.random.key(0), 300)
    metrics = jax.jit(lambda k: jax.lax.map(objective, k))(keys)
    log_z = 0.0
    if not row.startswith("bernoulli"):
        prior = state.params["prior"]
        log_z = machines.library(prior).exact.log_z(prior)
    # The curve's log Z is an old one; its error is taken out.
    trained = metrics["objective"] + (metrics.get("log_z", 0.0) - log_z)
    evaluator = dvaepp_evaluation.Evaluator(config, images, sharding.make_mesh(1))
    one = lambda key: evaluator._batch(state.params, {}, log_z, key, x, num_samples=1)[2].mean()
    evaluated = jax.jit(lambda k: jax.lax.map(one, k))(jax.random.split(jax.random.key(1), 300))
    error = np.sqrt((np.var(trained) + np.var(evaluated)) / 300)
    assert abs(np.mean(trained) - np.mean(evaluated)) < 5 * error
    assert error < 1


def test_beta_moves_where_it_is_told_to() -> None:
    beta = lambda step, **moves: latents.beta_at(Config(beta=5.0, **moves), jnp.int32(step))
    moving = {"beta_final": 13.0, "beta_steps": 8}
    assert [float(beta(step, **moving)) for step in (0, 4, 8, 9)] == [5, 9, 13, 13]
    assert float(beta(250_000, beta_final=13.0)) == 9, "over the whole run"
    # A constant of the program, as in runs that are older than the flag.
    assert (beta(4), beta(4, beta_final=5.0)) == (5.0, 5.0)
    assert isinstance(beta(4), float)


@pytest.mark.slow
@pytest.mark.parametrize("row", ["rbm_bernoulli", "rolfe_normal"])
def test_a_step_has_the_loss_of_its_beta(images, row) -> None:
    settings = {**TINY, **ROWS[row], "kl_warmup_steps": 0}
    moving = Config(**{**settings, "beta": 5.0, "beta_final": 13.0, "beta_steps": 8})
    _, state = start(moving, images)
    x = jnp.asarray(images.test[:8])
    losses = []
    for config, step in ((moving, 4), (Config(**{**settings, "beta": 9.0}), 4), (moving, 0)):
        loss = dvaepp_task.loss_fn(config, config.model(images.train.shape[1:]))
        value_and_grad = jax.jit(jax.value_and_grad(loss, has_aux=True))
        key = jax.random.key(1)
        losses.append(value_and_grad(state.params, state.model_state, x, key, jnp.int32(step)))
    (at_nine, _), gradient = losses[0]
    (constant, _), expected = losses[1]
    np.testing.assert_allclose(at_nine, constant, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    assert abs(losses[2][0][0] - at_nine) > 1e-3


def test_sizes_of_groups_count_their_positions() -> None:
    config = Config(**TINY)
    sizes = dvaepp_task.group_sizes(config, config.model((8, 12, 1)).config)
    assert sizes == [config.num_groups * config.num_latents] + 2 * [2 * 3 * config.local_size]


@pytest.mark.thorough
def test_balancing_is_over_after_the_warm_up(images) -> None:
    config = Config(**{**TINY, "global_latents": "normal", "kl_warmup_steps": 4})
    _, state = start(config, images)
    loss = jax.jit(dvaepp_task.loss_fn(config, config.model((8, 8, 1))))
    x = jnp.asarray(images.test[:8])
    for step, balanced in ((1, True), (4, False)):
        value, (_, m) = loss(state.params, {}, x, jax.random.key(1), jnp.int32(step))
        np.testing.assert_allclose(m["kl_weight"], 0.5 if balanced else 1.0)
        kls = np.array([m["kl_global"], m["kl_local_1"], m["kl_local_2"]])
        scores = kls * np.array([4, 8, 8])  # 2 layers of 2 variables; groups of 2x2 of 2 channels
        gamma = scores / scores.mean() if balanced else 1.0
        expected = m["distortion"] + m["kl_weight"] * (gamma * kls).sum()
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        np.testing.assert_allclose(m["kl"], kls.sum(), rtol=1e-5)


@pytest.mark.parametrize("row", ["rbm_normal", "boltzmann"])
def test_the_carried_log_z_does_not_balance(images, row) -> None:
    """The global KL has log Z in it, and a stale one could close all groups or that one."""
    settings = GRAPH if row == "boltzmann" else ROWS[row]
    config = Config(**{**TINY, **settings, "kl_warmup_steps": 4})
    _, state = start(config, images)
    loss = jax.jit(
        jax.value_and_grad(dvaepp_task.loss_fn(config, config.model((8, 8, 1))), has_aux=True)
    )
    x = jnp.asarray(images.test[:8])

    def at(log_z):
        model_state = {**state.model_state, "log_z": jnp.float32(log_z)}
        return loss(state.params, model_state, x, jax.random.key(1), jnp.int32(1))

    (value, (_, metrics)), gradient = at(3.0)
    (other, _), expected = at(-50.0)
    np.testing.assert_allclose(value, other, rtol=1e-5)
    assert metrics["kl_global"] > 0
    for a, b in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [latents.MAX_EXACT, latents.MAX_EXACT + 1])
@pytest.mark.parametrize("kind", ["rbm", "graph"])
def test_the_value_of_log_z_is_of_now_where_it_is_enumerated(kind, size) -> None:
    """Its gradient is that of the carried one in any case: once, and none of the machine."""
    zeros = lambda *shape: np.zeros(shape, np.float32)
    if kind == "rbm":
        machine, units = rbm.RBM(zeros(size), zeros(13), zeros(size, 13)), size + 13
    else:
        graph = boltzmann.graphs.grid(size)
        machine, units = boltzmann.Machine(zeros(size), zeros(graph.num_edges), graph), size
    value, (of_machine, of_log_z) = jax.value_and_grad(latents.current_log_z, argnums=(0, 1))(
        machine, 3.0
    )
    exact = units * np.log(2)  # of no energy
    np.testing.assert_allclose(value, 3.0 if size > latents.MAX_EXACT else exact, rtol=1e-5)
    assert of_log_z == 1
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_machine))


@pytest.mark.thorough
def test_eight_devices_train_like_one_and_every_parameter_moves(images) -> None:
    config = Config(**{**TINY, **ROWS["rbm_normal"]})
    found = []
    for num_devices in (1, 8):
        task, state = start(config, images, num_devices)
        where = jax.tree.leaves(state)[0].sharding
        found.append(jax.jit(task.step)(state, jax.device_put(task.data, where), task.key_train))
        check_moved(state, *found[-1])
    for name, value in found[0][1].items():
        np.testing.assert_allclose(found[1][1][name], value, rtol=2e-4, atol=1e-5, err_msg=name)
