"""`dvaepp`: likelihood against enumeration, objectives, devices, resumed runs, mistakes."""

import itertools
import json
import math

import command_line
import cut_runs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trained_runs

import dvae
from dvae import data, rbm
from dvae.boltzmann import edge_lists
from dvae.distributions import bernoulli
from dvae.models import boltzmann, dvaepp_latents
from dvae.models import dvaepp as networks
from dvae.train import sharding
from experiments.dvaepp import __main__ as dvaepp
from experiments.dvaepp import evaluation as dvaepp_evaluation
from experiments.dvaepp import latents
from experiments.dvaepp import task as dvaepp_task
from experiments.dvaepp.config import Config
from experiments.dvaepp.presets import PRESETS, ROWS

TINY = PRESETS["smoke"]


@pytest.fixture(name="images", scope="module")
def load_images():
    return data.load("digits")


def start(config, images, num_devices=1, spread=0.2):
    """The task and its first state, parameters moved off the zeros that some start at."""
    mesh = sharding.make_mesh(num_devices)
    everywhere = sharding.replicated(mesh)
    task = dvaepp.make_task(config, images, mesh)
    state = jax.jit(task.init, out_shardings=everywhere)(task.key_init, images.train)
    leaves, tree = jax.tree.flatten(state.params)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    moved = [
        leaf + spread * jax.random.normal(key, leaf.shape)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return task, state._replace(params=jax.tree.unflatten(tree, moved))


def check_moved(first, after, metrics) -> None:
    assert all(np.isfinite(value) for value in metrics.values())
    paths = jax.tree_util.tree_leaves_with_path(after.params)
    for (path, a), b in zip(paths, jax.tree.leaves(first.params), strict=True):
        assert not np.array_equal(a, b), jax.tree_util.keystr(path)
    assert {"kl_global", "kl_local_1", "kl_local_2", "objective"} <= set(metrics)


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in ROWS if row != "rbm_normal"])
def test_every_parameter_moves(images, row) -> None:
    task, first = start(Config(**{**TINY, **ROWS[row]}), images)
    check_moved(first, *jax.jit(task.step)(first, task.data, task.key_train))


def bits_of(num_units):
    return np.array(list(itertools.product((0.0, 1.0), repeat=num_units)), np.float32)


def exact_log_likelihood(config, module, params, x):
    """log sum over all bits of p(z) p(h | z) p(x | z, h), each image by itself."""
    run = dvaepp_task.bind(module, params["network"])
    num_global = config.num_groups * config.num_latents
    sides = module.config.local_sides
    num_local = math.prod(sides) * config.local_size
    states = bits_of(num_global + config.local_groups * num_local)
    z, rest = states[:, :num_global], states[:, num_global:]
    groups = np.split(z, config.num_groups, axis=1)
    log_p = boltzmann.log_prob(params["prior"], rbm.exact.log_z(params["prior"]), groups)
    h = rest.reshape(len(states), config.local_groups, *sides, config.local_size)
    # Fixed values instead of draws: a group is known by the key that it is given.
    key_groups = jax.random.key(0)
    folded = [jax.random.fold_in(key_groups, j) for j in range(config.local_groups)]
    keys = jax.random.key_data(jnp.stack(folded))

    def fixed(key, q, p):
        group = jnp.argmax((keys == jax.random.key_data(key)[None]).all(-1))
        bits = jnp.take(jnp.asarray(h), group, axis=1)
        return 2 * bits - 1, bernoulli.log_prob(bits, p).sum((1, 2, 3))

    context = run(networks.DVAEPP.expand, [2 * g - 1 for g in groups])
    context, local = run(networks.DVAEPP.local_groups, key_groups, context, None, fixed)
    values = []
    for image in x:
        repeated = jnp.broadcast_to(image[None], (len(states), *image.shape))
        log_px = run(networks.DVAEPP.log_likelihood, context, repeated)
        values.append(jax.nn.logsumexp(log_p + local.sum(0) + log_px))
    return np.array(values)


GRAPH = {"global_latents": "boltzmann", "graph": "four_partite"}
ENUMERABLE = {
    **TINY,
    **ROWS["rbm_bernoulli"],
    "num_latents": 2,
    "local_size": 1,
    "ais_temperatures": 400,
    "ais_chains": 500,
}


@pytest.mark.thorough
def test_evaluation_approaches_the_enumerated_log_likelihood(images) -> None:
    small = images._replace(test=images.test[:4, 2:6, 2:6], train=images.train[:, 2:6, 2:6])
    config = Config(**ENUMERABLE)
    _, state = start(config, small._replace(validation=small.test))
    module = config.model((4, 4, 1))
    exact = exact_log_likelihood(config, module, state.params, small.test)
    evaluator = dvaepp_evaluation.Evaluator(config, small, sharding.make_mesh(1))
    results = evaluator.evaluate(state.params, {}, small.test, num_samples=4_000)
    prior = state.params["prior"]
    log_z_error = float(results.log_z.value[0] - rbm.exact.log_z(prior))
    assert abs(log_z_error) < 5 * results.log_z.std_error[0] + 1e-5
    # The log of a mean of weights is off by one over the root of their effective number.
    off = results.log_likelihood[0] + log_z_error - exact
    assert (np.abs(off) < 5 / np.sqrt(results.ess[0])).all()
    assert (results.ess[0] > 100).all()
    assert results.kl.shape == (1, 4, 3)


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
        log_z = boltzmann.library(prior).exact.log_z(prior)
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


@pytest.mark.thorough
def test_samples_share_their_global_variables(images) -> None:
    config = Config(**{**TINY, "global_latents": "normal", "local_groups": 0})
    _, state = start(config, images)
    evaluator = dvaepp_evaluation.Evaluator(config, images, sharding.make_mesh(1))
    samples = evaluator.sample_prior(state.params, {}, 6, num_each=2)
    assert samples.shape == (6, 8, 8, 1)
    # Without local variables a draw of the global ones decides the picture.
    np.testing.assert_array_equal(samples[::2], samples[1::2])
    assert not np.array_equal(samples[0], samples[2])


def test_bernoulli_prior_samples_follow_their_logits() -> None:
    config = Config(**{**TINY, "global_latents": "bernoulli"})
    prior = jnp.array([[30.0, -30.0], [-30.0, 30.0]])
    seen = dvaepp_latents.prior_globals(jax.random.key(0), config, prior, None, 5)
    np.testing.assert_array_equal(seen[0], np.tile([1.0, -1.0], (5, 1)))
    np.testing.assert_array_equal(seen[1], np.tile([-1.0, 1.0], (5, 1)))


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_a_run_under_a_machine_on_a_graph_is_recorded(tmp_path) -> None:
    summary = dvaepp.run(Config(**{**TINY, **GRAPH, "num_seeds": 2}, workdir=str(tmp_path)))
    trained_runs.check(tmp_path, summary, data.load("digits").test)
    assert summary["latents"] == "Boltzmann, four_partite + normal"
    for seed in range(2):
        folder = tmp_path / "model" / f"seed_{seed}"
        machine, params = edge_lists.read(folder / "machine.csv"), dvae.load(folder).params
        np.testing.assert_array_equal(machine.weights, params["prior"].weights)
        assert machine.graph.num_edges == 6


@pytest.mark.thorough
def test_a_run_is_recorded(tmp_path) -> None:
    summary = dvaepp.run(Config(**TINY, workdir=str(tmp_path)))
    trained_runs.check(tmp_path, summary, data.load("digits").test)
    files = {p.name for p in tmp_path.iterdir()}
    pictures = ("reconstructions", "samples", "kl_per_group", "bounds")
    assert files >= {"summary.json", "prior.npz", *(f"{name}.png" for name in pictures)}
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["latents"] == "RBM + normal"
    assert len(summary["test"]["kl_local_nats"]) == 2
    assert summary["test"]["num_images"] == 16
    assert "effective_samples" in summary["log_z"]
    assert summary["chosen_by"] == "lowest validation nll of steps whose log Z is to be trusted"


@pytest.mark.slow
def test_an_interrupted_run_ends_like_a_whole_one(tmp_path, monkeypatch) -> None:
    whole = dvaepp.run(Config(**TINY, workdir=str(tmp_path / "whole")))
    cut = Config(**TINY, workdir=str(tmp_path / "cut"))
    cut_runs.until_second_evaluation(monkeypatch, dvaepp, cut)
    resumed = dvaepp.run(cut)
    for name in ("validation", "test", "evaluated_step", "log_z"):
        assert resumed[name] == whole[name]


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_color_images_by_scales(tmp_path) -> None:
    settings = {**TINY, "dataset": "patches", "decoder": "conditional", "num_mixtures": 2}
    summary = dvaepp.run(Config(**{**settings, "workdir": str(tmp_path), "num_seeds": 2}))
    nll = np.array(summary["test"]["nll_nats"])
    np.testing.assert_allclose(summary["test"]["bits_per_dim"], nll / 3072 / np.log(2), rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--decoder=conditional", "--num_scales=1"], "at least 2 scales"),
        (["--num_scales=3"], "goes with --decoder=conditional"),
        (["--decoder=conditional", "--num_scales=5"], "--num_scales=5 must be at most 4"),
        (["--local_latents=bernoulli", "--local_groups=0"], "needs --local_groups of at least 1"),
        (["--num_groups=3"], "use 1 or an even number"),
        (["--num_groups=1", "--num_latents=5"], "use an even number"),
        (["--global_latents=normal", "--sampler=pcd"], "goes with --global_latents=rbm"),
        (["--graph=complete"], "goes with --global_latents=boltzmann, got --global_latents=rbm"),
        (["--global_latents=boltzmann", "--graph=zephyr:1"], "has 48 units, and the model 4 bits"),
        (["--kl_warmup_steps=9"], "exceeds --num_steps=8"),
        (["--beta=0"], "greater than 0"),
        (["--num_chains=0"], "at least 1"),
        (["--smoothing=spike_exp"], "must be one of"),
    ],
)
def test_mistakes_end_in_one_line(monkeypatch, capsys, arguments, message) -> None:
    given = ["--preset=smoke", *arguments]
    error = command_line.error_of(monkeypatch, capsys, dvaepp, Config, PRESETS, given)
    assert message in error


def test_images_without_a_coarser_scale() -> None:
    config = Config(**{**TINY, "decoder": "conditional"})
    with pytest.raises(ValueError, match="no coarser scale"):
        config.model((4, 4, 1))
    with pytest.raises(ValueError, match="8x4 pixels has no coarser scale"):
        config.model((8, 4, 1))
    assert config.model((32, 16, 1)).config.decoder.num_scales == 3
    assert config.model((28, 28, 1)).config.decoder.num_scales == 3
    assert config.model((32, 32, 3)).config.decoder.num_scales == 4
