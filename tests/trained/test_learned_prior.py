"""Models of codes with a learned prior: the bound is one, and the prior is that of their codes."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest
import safetensors.numpy

import dvae
from dvae import trained
from dvae.distributions import categorical
from dvae.models import vq_conv

CARD = trained.Card("noise", step=7, seed=3, metrics={"validation_rate_nats": 2.5}, license="CC0")


@pytest.fixture(name="exact", scope="module")
def enumerate_codes():
    """log q(z|x), log p(x|z), log p(z) and its factorial one: of all 256 codes, in float64."""
    model, images = models.make("code_prior"), models.images_of("code_prior", 1)
    functions, params = model.functions, model.params
    codes = categorical.all_codes(4, 4).reshape(-1, 2, 1, 2)

    @jax.jit
    def evaluate(params, codes, images):
        logits = functions.model.posterior_logits(params, images)
        log_q = categorical.log_prob_of_codes(codes, logits).sum((1, 2, 3))
        tiled = jnp.broadcast_to(images, (len(codes), *images.shape[1:]))
        log_px = -functions.model.distortion(params, codes, tiled)
        of_model = functions.model.log_prior(params)
        factorial = vq_conv.per_image(vq_conv.log_prior_of(codes, of_model))
        return log_q, log_px, functions.log_prior(params, codes), factorial

    return [np.asarray(x, np.float64) for x in evaluate(params, codes, images)]


@pytest.mark.thorough
def test_the_bound_is_that_of_the_enumerated_codes(exact) -> None:
    """E_q[log p(x|z) + log p(z) - log q(z|x)], by draws of z; rates have the entropy exactly."""
    log_q, log_px, log_pz, log_factorial = exact
    np.testing.assert_allclose([np.exp(log_q).sum(), np.exp(log_pz).sum()], 1, rtol=1e-5)
    model, images = models.make("code_prior"), models.images_of("code_prior", 1)
    # Parameters are arguments: XLA would fold what it takes for constants, in minutes.
    evaluate = jax.jit(jax.vmap(model.functions.evaluate, in_axes=(None, 0, None)))
    drawn = evaluate(model.params, jax.random.split(jax.random.key(0), 100), images)
    index = np.ravel_multi_index(drawn.codes.reshape(-1, 4).T, (4, 4, 4, 4))
    entropy = -(np.exp(log_q) * log_q).sum()
    np.testing.assert_allclose(drawn.rate[:, 0], -entropy - log_pz[index], rtol=1e-4)
    np.testing.assert_allclose(drawn.distortion[:, 0], -log_px[index], rtol=1e-5)
    bound = -(drawn.rate + drawn.distortion)[:, 0]
    expected = (np.exp(log_q) * (log_px + log_pz - log_q)).sum()
    kl = (np.exp(log_q) * (log_q - log_factorial)).sum()
    np.testing.assert_allclose(drawn.factorial_rate, kl, rtol=1e-4)
    assert abs(bound.mean() - expected) < 5 * bound.std(ddof=1) / np.sqrt(len(bound))
    log_p = np.logaddexp.reduce(log_px + log_pz)
    assert expected < log_p
    estimate = model.log_likelihood(jax.random.key(1), images, num_samples=300)
    np.testing.assert_allclose(estimate, log_p, atol=0.3)


@pytest.mark.thorough
def test_samples_are_those_of_the_prior(exact) -> None:
    """Frequencies of the 256 codes, by a chi-squared statistic of 5 standard deviations."""
    log_pz = exact[2]
    model, count = models.make("code_prior"), 4_000
    sample = jax.jit(model.functions.sample_codes, static_argnames="num_images")
    codes = np.asarray(sample(model.params, jax.random.key(4), num_images=count))
    index = np.ravel_multi_index(codes.reshape(-1, 4).T, (4, 4, 4, 4))
    expected = count * np.exp(log_pz)
    statistic = ((np.bincount(index, minlength=256) - expected) ** 2 / expected).sum()
    assert abs(statistic - 255) < 5 * np.sqrt(2 * 255)


@pytest.mark.parametrize("network", ["gated", "transformer"])
def test_bounds_of_images_of_other_sizes_are_those_of_a_gated_prior(network) -> None:
    """A transformer has parameters of each place, and none of further ones."""
    functions = models.FUNCTIONS["code_prior"]
    prior = dataclasses.replace(functions.prior, network=network, num_heads=1)
    functions = dataclasses.replace(functions, prior=prior)
    zeros = lambda like: jnp.zeros(like.shape, like.dtype)
    model = trained.Model(functions, jax.tree.map(zeros, functions.abstract_params()))
    key, images = jax.random.key(0), np.zeros((2, 8, 8, 3), np.uint8)
    assert model.encode(None, images).shape == (2, 2, 2, 2)
    assert model.elbo(key, images[:, :, :4]).shape == (2,)
    if network == "gated":
        assert model.elbo(key, images).shape == (2,)
        return
    message = r"be 8x4, as .* got uint8 \(2, 8, 8, 3\); .*learned_prior=False"
    with pytest.raises(ValueError, match=message):
        model.elbo(key, images)
    with pytest.raises(ValueError, match=message):
        model.log_likelihood(key, images, num_samples=2)
    with pytest.raises(ValueError, match=message):
        model.apply(model.params, "evaluate", key, images)


def test_likelihoods_in_parts_are_those_of_the_whole() -> None:
    """An image draws by its number, whichever batch it is in."""
    model, images = models.make("code_prior"), models.images_of("code_prior", 4)

    def log_likelihood(images, **numbers):
        key = jax.random.key(2)
        options = {"num_samples": 3, **numbers}
        return model.apply(model.params, "log_likelihood", key, images, **options)

    whole, part = log_likelihood(images), images[2:]
    np.testing.assert_allclose(log_likelihood(part, indices=np.arange(2, 4)), whole[2:], rtol=1e-5)
    assert not np.allclose(log_likelihood(part), whole[2:], rtol=1e-5)


def test_a_prior_comes_with_its_model(tmp_path) -> None:
    model = models.make("code_prior")
    trained.save(tmp_path / "model", model.functions.model, _alone(model.params), CARD)
    assert dvae.load(tmp_path).functions == model.functions.model
    trained.save_prior(tmp_path / "model", model.functions, model.params, CARD)
    again = dvae.load(tmp_path)
    assert again.functions == model.functions
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
    told = {name: again.info["prior"][name] for name in ("seed", "step", "license", "metrics")}
    assert told == {"seed": 3, "step": 7, "license": "CC0", "metrics": CARD.metrics}
    assert again.kind == "cifar_vq"
    assert again.codebook.shape == (2, 4, 2)
    without = dvae.load(tmp_path, learned_prior=False)
    assert without.functions == model.functions.model
    assert "prior" not in without.params


def _alone(params):
    return {name: x for name, x in params.items() if name != "prior"}


def test_priors_that_are_refused(tmp_path) -> None:
    model = models.make("code_prior")
    trained.save(tmp_path, model.functions, model.params, CARD)
    path = tmp_path / "prior" / "prior.json"
    record = json.loads(path.read_text())

    def refused(match):
        with pytest.raises(trained.ModelError, match=match) as caught:
            dvae.load(tmp_path)
        assert len(str(caught.value).splitlines()) == 1
        assert dvae.load(tmp_path, learned_prior=False).kind == "cifar_vq"

    for changes, match in (
        ({"format": "other"}, "is not the description of a prior"),
        ({"format_version": 2}, "has format version 2; dvae .* reads versions up to 1"),
        ({"settings": {**record["settings"], "num_latents": 3}}, "a grid .2, 1. of 2 codes in 0 "),
        ({"settings": {**record["settings"], "features": 3}}, "must be float32 .* learn it again"),
        ({"settings": {**record["settings"], "network": "gru"}}, "gated or transformer, got gru"),
    ):
        path.write_text(json.dumps({**record, **changes}))
        refused(match)
    path.write_text("{")
    refused(r"prior\.json cannot be read")
    path.write_text(json.dumps(record))
    # The same sizes, but trained on: other codes.
    other = {**model.params, "codebook": model.params["codebook"] + 1}
    trained.save(tmp_path, model.functions.model, _alone(other), CARD)
    refused("prior is a prior for codes of another model.*learned_prior=False")
    trained.save_prior(tmp_path, model.functions, other, CARD)
    arrays = tmp_path / "prior" / "prior.safetensors"
    arrays.write_bytes(b"\x80\x04pickle")
    refused("cannot be read as safetensors")
    arrays.write_bytes(safetensors.numpy.save({"x": np.zeros(1)}))
    refused(r"prior\.safetensors lacks the array")


def test_identities() -> None:
    tree = {"a": np.zeros(2, np.float32), "b": jnp.ones(2)}
    others = [
        {"a": tree["b"], "b": tree["a"]},
        {"a": tree["a"], "c": tree["b"]},
        {"a": np.zeros(2, np.float64), "b": tree["b"]},
        {"a": np.zeros((2, 1), np.float32), "b": tree["b"]},
    ]
    assert trained.identity({"b": np.ones(2, np.float32), "a": tree["a"]}) == trained.identity(tree)
    pairs = itertools.combinations([tree, *others], 2)
    assert all(trained.identity(x) != trained.identity(y) for x, y in pairs)
