"""Models with labels: at each they are a model without, whose biases hold the label."""

import copy
import itertools
import json
import re

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest

from dvae import boltzmann, trained
from dvae.models import labeled_machine, mlp

NUM_LABELS = 3
SIZES = dict(group_sizes=(2, 2), hidden=(3,), num_pixels=6)
LABELED = trained.binary_vae.Functions(
    mlp.BinaryVAEConfig(**SIZES, num_labels=NUM_LABELS), (3, 2, 1)
)
REAL = trained.binary_vae.Functions(
    mlp.BinaryVAEConfig(**SIZES, num_labels=NUM_LABELS, real_labels=True), (3, 2, 1)
)
PLAIN = trained.binary_vae.Functions(mlp.BinaryVAEConfig(**SIZES), (3, 2, 1))
IMAGES = models.images_of("directed")


def make(functions):
    rng = np.random.default_rng(0)
    draw = lambda like: jnp.asarray(rng.normal(size=like.shape), like.dtype)
    params = jax.tree.map(draw, functions.abstract_params())
    return trained.Model(functions, params, {"dataset": "noise"})


@pytest.fixture(name="labeled", scope="module")
def make_labeled():
    return make(LABELED)


@pytest.fixture(name="real", scope="module")
def make_real():
    return make(REAL)


def at_label(model, y):
    """The same model without labels, for images of one label alone, as networks see it."""
    params = copy.deepcopy(jax.tree.map(np.asarray, model.params))
    network = params["network"]
    network["prior_logits"] = y @ network["prior_logits"] + network.pop("prior_bias", 0)
    for name, first in (("encoders_0", 6), ("encoders_1", 6), ("priors_0", 0), ("decoder", 0)):
        layer = network[name]["hidden_0"]
        layer["bias"] = layer["bias"] + y @ layer["kernel"][first : first + NUM_LABELS]
        layer["kernel"] = np.delete(layer["kernel"], range(first, first + NUM_LABELS), axis=0)
    return trained.Model(PLAIN, params, {"dataset": "noise"})


REAL_LABELS = np.array([[0, 0, 0], [-1.5, 0.25, 1.0], [0.5, 2.0, -0.75]], np.float32)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["labeled", "real"])
def test_every_function_is_that_of_the_model_at_the_label(request, kind):
    labeled, key = request.getfixturevalue(kind), jax.random.key(1)
    for label, real in enumerate(REAL_LABELS):
        y = np.eye(NUM_LABELS, dtype=np.float32)[label] if kind == "labeled" else real
        plain, value = at_label(labeled, y), label if kind == "labeled" else y
        labels = np.stack([value] * len(IMAGES))
        codes = plain.encode(jax.random.clone(key), IMAGES)
        np.testing.assert_array_equal(
            labeled.encode(jax.random.clone(key), IMAGES, labels=labels), codes
        )
        for ours, expected in (
            (labeled.decode(codes, labels=labels), plain.decode(codes)),
            (
                labeled.sample(jax.random.clone(key), 3, labels=labels),
                plain.sample(jax.random.clone(key), 3),
            ),
        ):
            np.testing.assert_allclose(np.int32(ours), np.int32(expected), atol=1)
        ours = labeled.log_likelihood(jax.random.clone(key), IMAGES, num_samples=4, labels=labels)
        expected = plain.log_likelihood(jax.random.clone(key), IMAGES, num_samples=4)
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
        elbo = labeled.elbo(jax.random.clone(key), IMAGES, labels=labels)
        np.testing.assert_allclose(elbo, plain.elbo(jax.random.clone(key), IMAGES), rtol=1e-5)


def test_labels_that_are_missing_in_vain_or_unknown_are_refused(labeled):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"trained with labels 0 to 2; give labels=, one an image"):
        labeled.encode(key, IMAGES)
    assert labeled.sample(key, 3, labels=range(3)).shape == (3, 3, 2, 1)
    with pytest.raises(ValueError, match="trained with labels 0 to 2, got 0 to 3"):
        labeled.elbo(key, IMAGES, labels=[0, 1, 3])
    with pytest.raises(ValueError, match=r"must be integers \[5\], got int64 \(3,\)"):
        labeled.sample(key, 5, labels=np.arange(3))
    with pytest.raises(ValueError, match=r"must be integers \[3\], got float64"):
        labeled.log_likelihood(key, IMAGES, num_samples=2, labels=np.zeros(3))
    with pytest.raises(ValueError, match="trained without labels; leave labels out"):
        trained.Model(PLAIN, {}).encode(key, IMAGES, labels=[0, 1, 2])
    with pytest.raises(ValueError, match="a joint_vae model has no labels; leave labels out"):
        models.make("joint_vae").sample(key, 3, labels=[0, 1, 2])


def test_real_labels_that_are_missing_or_others_are_refused(real):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"trained with real labels \[N, 3\]; give labels="):
        real.encode(key, IMAGES)
    drawn = real.sample(jax.random.key(1), 2, labels=[[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]])
    again = real.sample(jax.random.key(1), 2, labels=[[0, 1, -1], [2, 0, 0]])
    np.testing.assert_array_equal(drawn, again)
    for labels, found in (
        (np.arange(3), r"int64 \(3,\)"),
        (np.zeros(3), r"float64 \(3,\)"),
        (np.zeros((3, 3), bool), r"bool \(3, 3\)"),
        (np.zeros((3, 2)), r"float64 \(3, 2\)"),
        (np.zeros((2, 3)), r"float64 \(2, 3\)"),
        (np.zeros((3, 1, 3)), r"float64 \(3, 1, 3\)"),
    ):
        with pytest.raises(ValueError, match=rf"labels must be real numbers \[3, 3\], got {found}"):
            real.elbo(key, IMAGES, labels=labels)
    for value in (np.nan, np.inf, 1e300):
        with pytest.raises(ValueError, match=re.escape(f"in float32, got {value}")):
            real.decode(np.zeros((1, 4), np.uint8), labels=[[0.0, value, 0.0]])


def test_log_likelihood_given_a_real_label_is_that_of_enumeration():
    network = mlp.BinaryVAEConfig(
        group_sizes=(3,), hidden=(), num_pixels=6, num_labels=NUM_LABELS, real_labels=True
    )
    model = make(trained.binary_vae.Functions(network, (3, 2, 1)))
    # A posterior near 1/2 bounds the weights, which are so of small variance.
    encoder = jax.tree.map(lambda x: 0.1 * x, model.params["network"]["encoders_0"])
    tree = {**model.params, "network": {**model.params["network"], "encoders_0": encoder}}
    model = trained.Model(model.functions, tree)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), model.params["network"])
    bits = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
    log_bernoulli = lambda z, logits: (z * logits - np.logaddexp(0, logits)).sum(-1)
    draws = 4_000
    for y, image in zip(REAL_LABELS[1:].astype(np.float64), IMAGES, strict=False):
        log_p = log_bernoulli(bits, y @ params["prior_logits"] + params["prior_bias"])
        inputs = np.concatenate([np.tile(y, (8, 1)), 2 * bits - 1], 1)
        decoder = params["decoder"]["output"]
        log_p += log_bernoulli(image.ravel(), inputs @ decoder["kernel"] + decoder["bias"])
        exact = np.exp(log_p).sum()
        images, labels = np.stack([image] * draws), np.stack([y] * draws)
        estimates = model.log_likelihood(jax.random.key(0), images, num_samples=2, labels=labels)
        ratios = np.exp(np.asarray(estimates, np.float64)) / exact
        error = ratios.std(ddof=1) / np.sqrt(draws)
        assert abs(ratios.mean() - 1) < 5 * error < 0.3


@pytest.mark.parametrize("kind", ["labeled", "real"])
def test_a_model_with_labels_is_read_as_it_was_written(request, kind, tmp_path):
    model = request.getfixturevalue(kind)
    trained.save(tmp_path, model.functions, model.params, trained.Card("noise"))
    read = trained.load(tmp_path)
    assert read.functions == model.functions
    jax.tree.map(np.testing.assert_array_equal, read.params, model.params)
    (call,) = re.findall(
        r"    images = (model.sample\(.*\))\n", (tmp_path / "README.md").read_text()
    )
    images = eval(call, {"model": read, "jax": jax})  # the line that users copy
    assert images.shape == (16, 3, 2, 1)


def test_models_that_are_older_than_real_labels_are_read(labeled, tmp_path):
    trained.save(tmp_path, labeled.functions, labeled.params, trained.Card("noise"))
    record = json.loads((tmp_path / "model.json").read_text())
    del record["settings"]["network"]["real_labels"]
    (tmp_path / "model.json").write_text(json.dumps(record))
    assert trained.load(tmp_path).functions == LABELED


def test_labels_go_with_machines_on_graphs_that_have_units_for_them():
    with pytest.raises(ValueError, match="num_labels must be at least 0, got -1"):
        mlp.BinaryVAEConfig(**SIZES, num_labels=-1)
    with pytest.raises(ValueError, match="real_labels needs num_labels above 0 and a directed"):
        mlp.BinaryVAEConfig(**SIZES, real_labels=True)
    network = mlp.BinaryVAEConfig(**SIZES, num_labels=NUM_LABELS, directed=False)
    with pytest.raises(ValueError, match="takes no labels; use the bipartite graph"):
        trained.binary_vae.Functions(network, (3, 2, 1), 5)
    bare = trained.Topology.of("complete", boltzmann.graphs.complete(4))
    with pytest.raises(ValueError, match="the graph must have 7 units, got 4"):
        trained.binary_vae.Functions(network, (3, 2, 1), 5, topology=bare).abstract_params()
    module = mlp.BinaryVAE(PLAIN.network)
    with pytest.raises(ValueError, match="num_labels=0 takes no labels"):
        module.init(jax.random.key(0), [], jnp.zeros((1, 3)), method=mlp.BinaryVAE.prior_logits)


def test_a_machine_given_labels_is_at_each_label_the_machine_of_its_bits(tmp_path):
    graph = boltzmann.graphs.with_labels(boltzmann.graphs.k_partite(2, 2), NUM_LABELS)
    functions = trained.binary_vae.Functions(
        mlp.BinaryVAEConfig(**SIZES, num_labels=NUM_LABELS, directed=False),
        (3, 2, 1),
        num_chains=NUM_LABELS + 1,
        topology=trained.Topology.of("bipartite", graph),
    )
    rng = np.random.default_rng(2)
    draw = lambda like: jnp.asarray(rng.normal(size=like.shape), like.dtype)
    params = jax.tree.map(draw, functions.abstract_params())
    prior = params["prior"]
    held = labeled_machine.values(prior, NUM_LABELS + 1, NUM_LABELS)
    params["chains"] = params["chains"]._replace(z=jnp.asarray(held))
    given = [labeled_machine.given(prior, label, NUM_LABELS) for label in range(NUM_LABELS)]
    log_z = jnp.stack([boltzmann.exact.log_z(machine) - less for machine, less in given])
    assert params["log_z"].shape == log_z.shape
    params["log_z"] = log_z
    log_z_of = {"nats": log_z.tolist(), "standard_error": [0.1] * NUM_LABELS}
    trained.save(tmp_path, functions, params, trained.Card("noise", log_z=log_z_of))
    assert "log Z of the prior given each label: " in (tmp_path / "README.md").read_text()
    model, labels = trained.load(tmp_path), np.array([2, 0, 2])
    assert model.functions == functions
    written = boltzmann.edge_lists.read(tmp_path / "machine.csv")
    np.testing.assert_array_equal(written.weights, prior.weights)
    assert written.graph.num_units == 4 + NUM_LABELS

    states = np.array(list(itertools.product((0, 1), repeat=4)), np.uint8)
    exact = []
    for image, label in zip(IMAGES, labels, strict=True):
        machine, _ = given[label]
        log_pz = -boltzmann.energy(machine, np.float32(states)) - boltzmann.exact.log_z(machine)
        of_states = np.full(len(states), label)
        p = np.asarray(model.apply(params, "mean_image", states, labels=of_states) / 255)
        log_px = np.where(image == 1, np.log(p), np.log1p(-p)).sum((1, 2, 3))
        exact.append(jax.nn.logsumexp(log_px + np.asarray(log_pz)))
    estimate = model.log_likelihood(jax.random.key(3), IMAGES, num_samples=4_000, labels=labels)
    np.testing.assert_allclose(estimate, exact, atol=0.1)
    assert np.ptp(exact) > 0.3
    assert model.sample(jax.random.key(0), 5, labels=[2, 1, 2, 0, 2]).shape == (5, 3, 2, 1)
    with pytest.raises(ValueError, match="trained with labels 0 to 2; give labels="):
        model.sample(jax.random.key(0), 5)
