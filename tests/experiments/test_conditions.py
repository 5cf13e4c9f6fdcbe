"""Models that are given labels: the bound by enumeration, batches, and what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_binary_objectives import MEAN, NUM_PIXELS, TINY, X, make

from dvae import data
from dvae.train import sharding
from experiments.binary_vae import classes, conditions, names, task
from experiments.binary_vae.config import Config

NUM_LABELS = 3
CLASSES = conditions.Condition(NUM_LABELS)
CONFIG = Config(**{**TINY, "estimator": names.EXACT, "structure": "linear", "condition": "labels"})


def log_bernoulli(z, logits):
    return (z * logits - np.logaddexp(0, logits)).sum(-1)


def enumerated(network, x, y):
    """E_q(z|x,y) [log p(x|z,y) + log p(z|y) - log q(z|x,y)] of one image, in float64."""
    affine = lambda part, v: v @ part["kernel"] + part["bias"]
    q = affine(network["encoders_0"]["output"], np.concatenate([x - MEAN, y]))
    p = y @ network["prior_logits"] + network.get("prior_bias", 0)
    total = 0.0
    for bits in itertools.product((0.0, 1.0), repeat=len(q)):
        z = np.array(bits)
        of_pixels = affine(network["decoder"]["output"], np.concatenate([y, 2 * z - 1]))
        log_q = log_bernoulli(z, q)
        bound = log_bernoulli(x, of_pixels) + log_bernoulli(z, p) - log_q
        total += np.exp(log_q) * bound
    return total


def noisy_start(condition):
    """Parameters away from their symmetric start, and the model's state."""
    params, state = jax.jit(task.init_fn(CONFIG, MEAN, condition))(jax.random.key(3), X)
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    noisy = [x + rng.normal(size=x.shape).astype("f4") for x in leaves]
    return jax.tree.unflatten(tree, noisy), state


def test_the_bound_of_every_label_is_that_of_enumeration():
    params, state = noisy_start(CLASSES)
    network = jax.tree.map(lambda x: np.asarray(x, np.float64), params["network"])
    assert network["prior_logits"].shape == (NUM_LABELS, CONFIG.num_latents)
    loss = jax.jit(task.loss_fn(CONFIG, NUM_PIXELS, condition=CLASSES))
    values = []
    for label in range(NUM_LABELS):
        rows = conditions.rows(X, np.full(len(X), label))
        value, _ = loss(params, state, jnp.asarray(rows), jax.random.key(0), jnp.int32(0))
        expected = np.mean([enumerated(network, x, np.eye(NUM_LABELS)[label]) for x in X])
        np.testing.assert_allclose(-value, expected, rtol=1e-5)
        values.append(float(value))
    assert np.ptp(values) > 0.1


def test_a_batch_has_the_pixels_that_it_has_without_labels_and_each_its_label():
    images = data.load("digits")
    mesh = sharding.make_mesh(1)
    plain = Config(**TINY, batch_size=16)
    labeled = Config(**TINY, batch_size=16, condition="labels")
    batches = []
    for config, labels in ((plain, None), (labeled, images.train_labels)):
        rows = conditions.rows(images.train, labels)
        condition = conditions.condition_of(config, images)
        draw = task.draw_fn(config, True, mesh, len(rows), condition)
        batches.append(np.asarray(jax.jit(draw)(jax.random.key(0), rows, jnp.int32(5))))
    np.testing.assert_array_equal(batches[0], batches[1][:, :-1])
    levels = images.train.reshape(len(images.train), -1)
    for *pixels, label in batches[1]:
        # Some image of that label may be seen as these pixels.
        own = levels[images.train_labels == label]
        possible = np.where(np.array(pixels) == 1, own > 0, own < 255)
        assert possible.all(1).any()


def test_the_classifier_is_fitted_to_images_that_have_their_labels():
    classifier, count = classes._fit(data.load("digits"))
    pixels, labels = classes._some(data.load("digits"), "test")
    assert count == 1297
    assert np.mean(classifier.predict(pixels) == labels) > 0.75


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(prior="rbm"), "use --prior=boltzmann --graph=bipartite, the same machine"),
        (
            dict(prior="boltzmann", sampler="tempering"),
            "goes with --sampler=pcd, whose chains each have one label, got --sampler=tempering",
        ),
        (dict(prior="boltzmann", sampler="annealing"), "got --sampler=annealing"),
        (dict(data_on="files"), "use --data_on=host"),
        (dict(coordinator="auto"), "is of one process, got --coordinator=auto"),
    ],
)
def test_what_has_no_labels_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**TINY, condition="labels", **settings)


def test_data_sets_without_labels_or_with_other_ones_are_refused():
    images = data.load("digits")
    bare = images._replace(name="bare", train_labels=None)
    with pytest.raises(ValueError, match="--condition=labels: bare has no labels; use"):
        conditions.condition_of(CONFIG, bare)
    with pytest.raises(ValueError, match="from 0 to 255, digits has -1 to 9"):
        conditions.condition_of(CONFIG, images._replace(test_labels=images.test_labels - 1))
    with pytest.raises(ValueError, match="all training images of digits have one label"):
        conditions.condition_of(CONFIG, images._replace(train_labels=0 * images.train_labels))
    assert conditions.condition_of(CONFIG, images) == conditions.Condition(10)
    assert conditions.condition_of(Config(**TINY), bare) == conditions.NOTHING
    _, state = make(Config(**TINY))
    assert state["mean"].shape == (NUM_PIXELS,)
