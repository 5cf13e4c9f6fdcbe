"""Models with labels: at each label they are a model without, whose biases hold the label."""

import copy

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest

from dvae import trained
from dvae.models import mlp

NUM_LABELS = 3
SIZES = dict(group_sizes=(2, 2), hidden=(3,), num_pixels=6)
LABELED = trained.binary_vae.Functions(
    mlp.BinaryVAEConfig(**SIZES, num_labels=NUM_LABELS), (3, 2, 1)
)
PLAIN = trained.binary_vae.Functions(mlp.BinaryVAEConfig(**SIZES), (3, 2, 1))
IMAGES = models.images_of("directed")


@pytest.fixture(name="labeled", scope="module")
def make_labeled():
    rng = np.random.default_rng(0)
    draw = lambda like: jnp.asarray(rng.normal(size=like.shape), like.dtype)
    params = jax.tree.map(draw, LABELED.abstract_params())
    return trained.Model(LABELED, params, {"dataset": "noise"})


def at_label(model, label):
    """The same model without labels, for images of one label alone."""
    params = copy.deepcopy(jax.tree.map(np.asarray, model.params))
    network = params["network"]
    network["prior_logits"] = network["prior_logits"][label]
    for name, first in (("encoders_0", 6), ("encoders_1", 6), ("priors_0", 0), ("decoder", 0)):
        layer = network[name]["hidden_0"]
        layer["bias"] = layer["bias"] + layer["kernel"][first + label]
        layer["kernel"] = np.delete(layer["kernel"], range(first, first + NUM_LABELS), axis=0)
    return trained.Model(PLAIN, params, {"dataset": "noise"})


@pytest.mark.thorough
def test_every_function_is_that_of_the_model_at_the_label(labeled):
    key = jax.random.key(1)
    for label in range(NUM_LABELS):
        plain, labels = at_label(labeled, label), np.full(len(IMAGES), label)
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


def test_a_model_with_labels_is_read_as_it_was_written(labeled, tmp_path):
    trained.save(tmp_path, labeled.functions, labeled.params, trained.Card("noise"))
    read = trained.load(tmp_path)
    assert read.functions == LABELED
    np.testing.assert_array_equal(
        read.params["network"]["prior_logits"], labeled.params["network"]["prior_logits"]
    )


def test_labels_do_not_go_with_other_priors():
    with pytest.raises(ValueError, match="num_labels must be 0, or above 0 under a directed"):
        mlp.BinaryVAEConfig(**SIZES, num_labels=3, directed=False)
    module = mlp.BinaryVAE(PLAIN.network)
    with pytest.raises(ValueError, match="num_labels=0 takes no labels"):
        module.init(jax.random.key(0), [], jnp.zeros((1, 3)), method=mlp.BinaryVAE.prior_logits)
