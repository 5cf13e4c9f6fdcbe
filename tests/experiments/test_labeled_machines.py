"""`binary_vae --prior=boltzmann --condition=labels`: loss, training, evaluation by enumeration."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boltzmann_cases import TINY, bits_of, start

from dvae import boltzmann, rbm
from dvae.boltzmann import edge_lists, graphs
from dvae.models import binary as binary_model
from dvae.models import labeled_machine
from dvae.train import sharding
from experiments.binary_vae import conditions, task
from experiments.binary_vae import evaluation as binary_evaluation
from experiments.binary_vae.conditions import Condition
from experiments.binary_vae.config import Config
from experiments.boltzmann import evaluation as boltzmann_evaluation
from experiments.boltzmann import machines
from experiments.boltzmann import report as boltzmann_report

C, N = 10, 4
LABELED = {**TINY, "prior": "boltzmann", "graph": "complete", "condition": "labels"}
CONFIG = Config(**LABELED)


def minus_energies(machine):
    """-E(z, y) of all states, [C, 16]; by a loop over the edges."""
    states = bits_of(N)
    seen = np.concatenate([np.tile(states, (C, 1)), np.repeat(np.eye(C), len(states), 0)], axis=1)
    total = jnp.asarray(seen, jnp.float32) @ machine.bias
    for (i, j), weight in zip(machine.graph.edges.tolist(), machine.weights, strict=True):
        total = total + weight * seen[:, i] * seen[:, j]
    return total.reshape(C, len(states))


def log_z_of(machine):
    return jax.nn.logsumexp(minus_energies(machine), axis=1)


@pytest.mark.thorough
def test_divergence_and_gradient_of_a_step_are_those_of_enumeration(images):
    """Of one group the divergence of a mixed batch is exact; chains make the gradient."""
    config = dataclasses.replace(CONFIG, num_chains=10_000, num_sweeps=10)
    _, first, machine = start(config, images)
    assert first.params["prior"].graph == graphs.with_labels(graphs.complete(N), C)
    np.testing.assert_allclose(first.model_state["log_z"], np.full(C, N * np.log(2)), rtol=1e-6)
    labels = np.array([3, 3, 8, 1, 3, 0])
    x = images.test[: len(labels)].reshape(len(labels), -1)
    rows = jnp.asarray(conditions.rows(x, labels), jnp.float32)
    loss = task.loss_fn(config, 64, condition=Condition(C))
    state = {**first.model_state, "log_z": log_z_of(machine)}

    def evaluate(machine, state):
        params = {**first.params, "prior": machine}
        value, (after, metrics) = loss(params, state, rows, jax.random.key(1), jnp.int32(1))
        return value, (after, metrics)

    gradient, (after, metrics) = jax.jit(jax.grad(evaluate, has_aux=True))(machine, state)
    one_hot, mean = jax.nn.one_hot(labels, C), first.model_state["mean"]
    pixels = jnp.asarray(x, jnp.float32)
    model = binary_model.bind(
        config.model(64, condition=Condition(C)),
        first.params["network"],
        mean,
        pixels,
        labels=one_hot,
    )
    q = np.asarray(jax.nn.sigmoid(model.posterior_logits([])), np.float64)[:, None]
    weights = np.prod(np.where(bits_of(N)[None] == 1, q, 1 - q), axis=-1)

    def enumerated(machine):
        log_p = minus_energies(machine) - log_z_of(machine)[:, None]
        return (weights * (np.log(weights) - log_p[labels])).sum(-1).mean()

    expected, exact = jax.value_and_grad(enumerated)(machine)
    np.testing.assert_allclose(metrics["kl"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["log_z"], log_z_of(machine).mean(), rtol=1e-6)
    # A thousand chains of each label, whose gradients are averaged with the batch's shares.
    shares = np.bincount(labels) / len(labels)
    atol = 5 * 0.5 * np.sqrt((shares**2).sum() / 1_000)
    np.testing.assert_allclose(gradient.weights, exact.weights, atol=atol)
    np.testing.assert_allclose(gradient.bias[:N], exact.bias[:N], atol=atol)
    np.testing.assert_array_equal(gradient.bias[N:], 0)
    absent = np.isin(machine.graph.edges[:, 1] - N, [2, 4, 5, 6, 7, 9])
    np.testing.assert_array_equal(np.asarray(gradient.weights)[absent], 0)
    assert np.abs(np.asarray(exact.weights)[~absent]).max() > 3 * atol
    np.testing.assert_array_equal(
        labeled_machine.labels_of(after["chains"].z, C), np.arange(10_000) % C
    )
    # Within each label chains forget where they were; over all labels energies go on to differ.
    assert abs(metrics["autocorrelation"]) < 0.1


@pytest.mark.slow
def test_devices_and_seeds_agree_and_every_parameter_moves(images):
    config = dataclasses.replace(CONFIG, num_seeds=2, log_z_interval=2)
    found = []
    for devices, settings in ((1, {}), (8, {}), (1, {"num_seeds": 1, "seed": 1})):
        own = dataclasses.replace(config, **settings)
        run, state, _ = start(own, images, devices)
        step = jax.jit(run.step)
        everywhere = jax.tree.leaves(state)[0].sharding
        for _ in range(3):
            state, metrics = step(state, jax.device_put(run.data, everywhere), run.key_train)
        assert step._cache_size() == 1
        assert all(np.all(np.isfinite(value)) for value in metrics.values())
        assert metrics["log_z"].shape == (() if own.num_seeds == 1 else (2,))
        found.append(jax.tree.leaves((state.params, state.model_state)))
    np.testing.assert_array_equal(state.params["prior"].bias[N:], 0)
    bias, weights = (np.abs(x) > 0 for x in state.params["prior"][:2])  # they began at 0
    assert bias[:N].all()
    assert weights[:6].all()  # of pairs of bits
    assert weights[6:].mean() > 0.5  # of labels that were in one of three batches
    assert state.model_state["log_z"].shape == (C,)
    for one, eight, alone in zip(*found, strict=True):
        np.testing.assert_allclose(eight, one, rtol=1e-3, atol=4 * config.learning_rate)
        np.testing.assert_allclose(one[1], alone, rtol=1e-3, atol=4 * config.learning_rate)


@pytest.mark.thorough
def test_evaluation_approaches_the_enumerated_log_likelihood_of_the_label(images):
    config = dataclasses.replace(CONFIG, ais_temperatures=200, ais_chains=512)
    _, first, machine = start(config, images)
    params = {**first.params, "prior": machine}
    x, labels = images.test[:12], images.test_labels[:12]
    evaluator = binary_evaluation.Evaluator(config, images, sharding.make_mesh(1))
    results = evaluator.evaluate(params, first.model_state, x, num_samples=1_000, labels=labels)
    exact = np.asarray(log_z_of(machine))
    assert results.log_z.value.shape == (1, C)
    off = np.asarray(results.log_z.value[0]) - exact
    assert np.all(np.abs(off) < 5 * results.log_z.std_error[0])
    pixels, states = jnp.asarray(x.reshape(12, -1), jnp.float32), bits_of(N)
    model = binary_model.bind(
        config.model(64, condition=Condition(C)),
        params["network"],
        first.model_state["mean"],
        pixels,
        labels=jax.nn.one_hot(labels, C),
    )
    z = jnp.broadcast_to(states[:, None], (16, 12, N))
    log_p = (minus_energies(machine) - exact[:, None])[labels].T
    expected = jax.nn.logsumexp(model.log_likelihood([z]) + log_p, 0)
    np.testing.assert_allclose(results.log_likelihood[0] + off[labels], expected, atol=0.1)
    assert results.reliable.tolist() == [True]
    means = results.means()
    assert means["log_z"] == pytest.approx(np.mean(results.log_z.value), rel=1e-6)
    assert means["log_z_ess"] == results.log_z.ess.min()
    shape = evaluator.sample_prior(
        params, first.model_state, 5, labels=np.array([1, 1, 9, 0, 1])
    ).shape
    assert shape == (5, *images.test.shape[1:])


def test_one_collapsed_label_makes_a_seed_unreliable_and_summaries_list_labels():
    zeros, kl = np.zeros((2, 3), np.float32), np.zeros((2, 3, 1), np.float32)
    ess = np.array([[60.0, 50.0, 40.0], [60.0, 1.2, 40.0]])
    log_z = rbm.ais.LogZ(np.array([[1.0, 2.0, 6.0], [4.0, 5.0, 9.0]]), 0.1 * ess, ess)
    sound = boltzmann_evaluation.reliable(CONFIG, log_z).all(-1)
    results = binary_evaluation.Evaluation(
        zeros, zeros, zeros, kl, log_z, sound, unit_variance=zeros
    )
    averages = results.averages()
    np.testing.assert_array_equal(averages["log_z"], [3.0, 6.0])
    np.testing.assert_array_equal(averages["log_z_ess"], [40.0, 1.2])
    np.testing.assert_array_equal(averages["trusted_nll"] > 1e30, [False, True])
    record = boltzmann_report.log_z_record(CONFIG, log_z)["log_z"]
    assert record["nats"] == [[1.0, 2.0, 6.0], [4.0, 5.0, 9.0]]
    assert record["is"].startswith("one of each label, annealed importance sampling")
    assert "of some label: neither" in record["warning"]
    first = rbm.ais.LogZ(*(x[:1] for x in log_z))
    alone = boltzmann_report.log_z_record(CONFIG, first)["log_z"]
    assert (alone["nats"], "warning" in alone) == ([1.0, 2.0, 6.0], False)
    of_set = {"nll_nats": 0.0, "elbo_nats": 0.0}
    for log_z, seeds, mean, fewest in ((record, [0, 1], [3, 6], [40, 1.2]), (alone, [0], 3, 40)):
        test = of_set | {"nll_nats_mean_over_seeds": 0.0, "nll_nats_std_over_seeds": 0.0}
        test |= {f"nll_nats{ending}": 0.0 for ending in boltzmann_report.records.OVER_SEEDS}
        summary = {"config": dataclasses.asdict(CONFIG), "validation": test, "test": test}
        rows = boltzmann_report.rows(summary | {"seeds": seeds, "log_z": log_z}, lambda _: [])
        found = {label.strip(): value for label, value, _ in rows}
        np.testing.assert_array_equal(found["log Z"], mean)
        np.testing.assert_array_equal(found["samples"], fewest)


def test_each_label_needs_a_chain():
    with pytest.raises(ValueError, match="--num_chains=9: each of the 10 labels needs a chain"):
        task.prepare(dataclasses.replace(CONFIG, num_chains=9))


def test_samplers_are_compared_on_the_machine_of_the_first_label(tmp_path):
    graph = graphs.with_labels(graphs.complete(3), 2)
    rng = np.random.default_rng(0)
    bias, weights = (np.float32(rng.normal(size=s)) for s in (5, graph.num_edges))
    machine = boltzmann.Machine(bias, weights, graph)
    folder = tmp_path / "run" / "model"
    folder.mkdir(parents=True)
    edge_lists.write(folder / "machine.npz", machine)
    assert machines.read(tmp_path / "run")[1] == ""
    for count, given, units in ((2, " given label 0", 3), (0, "", 5)):
        settings = {"settings": {"network": {"num_labels": count}}}
        (folder / "model.json").write_text(json.dumps(settings))
        found, name = machines.read(tmp_path / "run")
        assert (name, found.graph.num_units) == (given, units)
        if count:
            np.testing.assert_allclose(found.bias, bias[:3] + weights[3:6], rtol=1e-6)
    (folder / "model.json").write_text("{")
    with pytest.raises(ValueError, match=r"model\.json cannot be read"):
        machines.read(tmp_path / "run")
