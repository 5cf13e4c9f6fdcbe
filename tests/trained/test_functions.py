"""What trained models do: codes, images, bounds; jit, vmap and grad of pure functions."""

import functools
import itertools

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest

from dvae import rbm, trained
from dvae.distributions import categorical
from dvae.models import dvaepp_latents
from dvae.models.dvaepp import DVAEPP

NAMES = sorted(models.FUNCTIONS)
CODES = {
    "cifar_vq": [((3, 2, 1, 2), "int32")],
    "nearest": [((3, 2, 1, 2), "int32")],
    "code_prior": [((3, 2, 1, 2), "int32")],
    "directed": [((3, 4), "uint8")],
    "machine": [((3, 4), "uint8")],
    "graph": [((3, 5), "uint8")],
    "joint_vae": [((3, 2), "int32"), ((3, 2), "float32")],
    "dvaepp": [((3, 4), "uint8"), ((3, 2, 2, 2, 1), "uint8")],
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_codes_and_images(name) -> None:
    model, images = models.make(name), models.images_of(name)
    key = lambda: jax.random.key(0)
    mode, drawn = model.encode(None, images), model.encode(key(), images)
    for codes in (mode, drawn):
        found = [(x.shape, x.dtype.name) for x in jax.tree.leaves(codes)]
        assert found == CODES[name]
        decoded = model.decode(codes)
        assert (decoded.shape, decoded.dtype) == (images.shape, np.uint8)
    # The mode is no draw, and a draw is that of its key.
    np.testing.assert_array_equal(*map(_flat, (mode, model.encode(None, images))))
    np.testing.assert_array_equal(*map(_flat, (drawn, model.encode(key(), images))))
    samples = model.sample(key(), 2)
    assert (samples.shape, samples.dtype) == ((2, *images.shape[1:]), np.uint8)
    bound = model.elbo(key(), images)
    log_p = model.log_likelihood(key(), images, num_samples=3)
    assert bound.shape == log_p.shape == (3,)
    assert np.isfinite([bound, log_p]).all()


def _flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


@pytest.mark.thorough
def test_functions_are_pure() -> None:
    """One's own jit, vmap over parameters and gradients."""
    model, images = models.make("machine"), models.images_of("machine")
    key = jax.random.key(0)
    two = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), model.params)
    bounds = jax.vmap(lambda params: model.apply(params, "elbo", key, images))(two)
    expected = jax.jit(model.functions.elbo)(model.params, jax.random.clone(key), images)
    np.testing.assert_allclose(bounds[0], expected, rtol=1e-5)
    assert not np.allclose(bounds[0], bounds[1])
    grad = jax.grad(lambda p: model.apply(p, "elbo", jax.random.clone(key), images).sum())
    gradient = grad(model.params)
    assert gradient["log_z"] == -3  # log p(z) = -E(z) - log Z, of three images
    assert np.abs(gradient["network"]["decoder"]["output"]["kernel"]).max() > 0


@pytest.mark.parametrize(
    ("method", "count", "options", "message"),
    [
        (
            "elob",
            0,
            {},
            "a binary_vae model has no function 'elob'; it has decode, elbo, encode",
        ),
        ("kind", 0, {}, "has no function 'kind'"),
        (
            "sample",
            2,
            {},
            r"sample takes \(params, key, \*, num_images.*in num_images=4; got too",
        ),
        ("log_likelihood", 2, {}, r"as in num_samples=4; got missing a required .*'num_samples'"),
        ("elbo", 2, {"num_samples": 3}, r"elbo takes \(params, key, images.*unexpected keyword"),
    ],
)
def test_apply_names_functions_and_arguments(method, count, options, message) -> None:
    model = models.make("machine")
    with pytest.raises(ValueError, match=message):
        model.apply(model.params, method, *range(count), **options)


def test_apply_lists_functions_of_parameters_alone() -> None:
    listed = "advance, decode, elbo, encode, evaluate, log_likelihood, log_prior, mean_image, "
    listed += "sample, sample_codes, start"
    model = trained.Model(models.FUNCTIONS["code_prior"], {})
    with pytest.raises(ValueError, match=f"it has {listed}$"):
        model.apply({}, "reconstruct")


@pytest.mark.thorough
def test_log_likelihoods_approach_the_enumerated_one() -> None:
    model, images = models.make("machine"), models.images_of("machine")
    params = model.params | {"log_z": rbm.exact.log_z(model.params["prior"])}
    states = np.array(list(itertools.product((0, 1), repeat=4)), np.float32)
    p = np.asarray(model.apply(params, "mean_image", states) / 255, np.float64)[:, None]
    log_px = np.where(images[None] == 1, np.log(p), np.log1p(-p)).sum((2, 3, 4))
    log_pz = -rbm.energy(params["prior"], states[:, :2], states[:, 2:]) - params["log_z"]
    exact = jax.nn.logsumexp(log_px + np.asarray(log_pz)[:, None], 0)
    key = jax.random.key(3)
    estimate = model.apply(params, "log_likelihood", key, images, num_samples=4_000)
    np.testing.assert_allclose(estimate, exact, atol=0.1)


@pytest.mark.thorough
def test_the_effective_number_is_that_of_the_weights_of_all_draws() -> None:
    """(sum w)^2 / sum w^2 of K draws, whose weights are here those of their codes."""
    model, images = models.make("cifar_vq"), models.images_of("cifar_vq", 2)
    key, num_samples = jax.random.key(4), 5
    apply = functools.partial(model.apply, model.params)
    estimate = apply("importance_estimate", key, images, num_samples=num_samples)
    seen = []

    def log_prior(codes):
        jax.debug.callback(lambda x: seen.append(np.array(x)), codes)
        return jnp.zeros(len(codes))

    key = jax.random.clone(key)
    model.functions.importance_estimate(
        model.params, key, jnp.asarray(images), log_prior, num_samples=num_samples
    )
    jax.effects_barrier()
    assert len(seen) == num_samples
    logits = apply("posterior_logits", images)
    log_pz = np.asarray(model.functions.log_prior(model.params), np.float64)
    log_w = []
    for codes in seen:
        log_q = categorical.log_prob_of_codes(codes, logits).sum((1, 2, 3))
        log_p = log_pz[np.arange(codes.shape[-1]), codes].sum((1, 2, 3))
        log_w.append(log_p - log_q - apply("distortion", codes, images))
    weights = np.exp(np.float64(log_w) - np.max(log_w, 0))
    np.testing.assert_allclose(estimate.ess, weights.sum(0) ** 2 / (weights**2).sum(0), rtol=1e-3)
    expected = np.max(log_w, 0) + np.log(weights.mean(0))
    np.testing.assert_allclose(estimate.value, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=() if x == "joint_vae" else pytest.mark.thorough) for x in NAMES],
)
def test_models_that_know_nothing_have_one_likelihood(name) -> None:
    """At parameters of zero q is p, so that all weights are p(x): all images are equally likely."""
    functions, images = models.FUNCTIONS[name], models.images_of(name)
    zeros = lambda like: jnp.zeros(like.shape, like.dtype)
    params = jax.tree.map(zeros, functions.abstract_params())
    if "log_z" in params:
        params["log_z"] += {"graph": 5}.get(name, 4) * np.log(2)  # of its units
    if functions.pixels == "levels" and name != "joint_vae":
        log_p = -images[0].size * np.log(256)
    else:
        log_p = -images[0].size * np.log(2)
    if name == "nearest":
        log_p -= 2 * 1 * 2 * np.log(4)  # a code alone does not make up for its prior
    model = trained.Model(functions, params, {"dataset": "noise"})
    found = model.log_likelihood(jax.random.key(0), images, num_samples=3)
    np.testing.assert_allclose(found, log_p, rtol=1e-5)


def test_groups_of_bits_are_drawn_apart() -> None:
    functions = models.FUNCTIONS["machine"]
    zeros = lambda like: jnp.zeros(like.shape, like.dtype)
    params = jax.tree.map(zeros, functions.abstract_params())
    model = trained.Model(functions, params, {"dataset": "noise"})
    bits = model.encode(jax.random.key(0), np.zeros((20, *functions.image_shape), np.uint8))
    assert (bits[:, :2] != bits[:, 2:]).any()


def test_one_code_makes_one_bound() -> None:
    """Where the posterior is the nearest code, importance samples are all alike."""
    model, images = models.make("nearest"), models.images_of("nearest")
    bound = model.elbo(jax.random.key(0), images)
    log_p = model.log_likelihood(jax.random.key(1), images, num_samples=3)
    np.testing.assert_array_equal(bound, log_p)
    key = jax.random.key(1)
    estimate = model.apply(model.params, "importance_estimate", key, images, num_samples=3)
    np.testing.assert_array_equal(estimate.ess, 3)
    np.testing.assert_array_equal(
        model.encode(None, images), model.encode(jax.random.key(2), images)
    )


@pytest.mark.thorough
def test_local_variables_are_put_back() -> None:
    """The context of drawn local variables is that of their values."""
    model, images = models.make("dvaepp"), models.images_of("dvaepp")
    functions, params = model.functions, model.params
    keys = jax.random.split(jax.random.key(0))
    context, latents = jax.jit(functions._infer)(params, keys[0], keys[1], images)
    module = DVAEPP(functions.network)
    seen = jnp.split(2.0 * latents.global_ - 1, 2, axis=-1)
    run = lambda method, *args: module.apply({"params": params["network"]}, *args, method=method)
    local = jnp.moveaxis(2.0 * latents.local - 1, 1, 0)
    again = run(DVAEPP.embed_groups, run(DVAEPP.expand, seen), local)
    np.testing.assert_allclose(again, context, rtol=1e-4, atol=1e-5)
    assert 0 < latents.local.mean() < 1
    kinds = dvaepp_latents.mode_local(functions)
    h, _ = kinds(jax.random.key(0), None, jnp.full((1, 2, 2, 1), -0.1))
    np.testing.assert_array_equal(h, -1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: m.elbo(jax.random.key(0), x[:, :2]), r"shape \[N, 3, 2, 1\], got uint8"),
        (lambda m, x: m.encode(None, 255 * x), "pixels 0 or 1.*threshold"),
        (lambda m, x: m.decode(np.full((2, 4), 2)), "codes must be pixels 0 or 1"),
        (lambda m, x: m.elbo(jax.random.key(0), jnp.asarray(255 * x)), "pixels 0 or 1.*threshold"),
        (lambda m, x: m.decode(jnp.full((2, 4), 2)), "codes must be pixels 0 or 1"),
        (lambda m, x: m.decode(np.ones((2, 3))), r"codes must be .*shape \[N, 4\]"),
        (lambda m, x: m.sample(jax.random.key(0), 0), "num_images must be at least 1, got 0"),
        (lambda m, x: m.sample(jax.random.key(0), 2.5), r"num_images must be an integer, got 2\.5"),
        (lambda m, x: m.log_likelihood(jax.random.key(0), x, num_samples=0), "num_samples must"),
    ],
)
def test_arguments_that_do_not_fit(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call(models.make("directed"), models.images_of("directed"))


def test_counts_and_codes_are_taken_as_they_come() -> None:
    """A count may be 2.0, as elsewhere in the library, and codes lists, as images may."""
    model, images, key = models.make("directed"), models.images_of("directed"), jax.random.key
    np.testing.assert_array_equal(model.sample(key(0), 2.0), model.sample(key(0), 2))
    found = model.log_likelihood(key(0), images, num_samples=3.0)
    np.testing.assert_array_equal(found, model.log_likelihood(key(0), images, num_samples=3))
    codes = model.encode(None, images)
    np.testing.assert_array_equal(model.decode(codes.tolist()), model.decode(codes))
    both = models.make("joint_vae")
    latents = both.encode(None, models.images_of("joint_vae"))
    lists = trained.joint_vae.Latents(latents.classes.tolist(), latents.continuous)
    np.testing.assert_array_equal(both.decode(lists), both.decode(latents))


def test_keys_are_typed_in_every_method() -> None:
    model, images = models.make("directed"), models.images_of("directed")
    for key in (None, jax.random.PRNGKey(0)):
        calls = [
            lambda key=key: model.sample(key, 2),
            lambda key=key: model.elbo(key, images),
            lambda key=key: model.log_likelihood(key, images, num_samples=2),
        ]
        if key is not None:
            calls.append(lambda key=key: model.encode(key, images))
        for call in calls:
            with pytest.raises(TypeError, match="key must be a typed key"):
                call()


@pytest.mark.parametrize("name", sorted(models.FUNCTIONS))
def test_no_images_at_all(name) -> None:
    model, images = models.make(name), models.images_of(name, 0)
    codes = model.encode(None, images)
    assert all(len(x) == 0 for x in jax.tree.leaves(codes))
    assert model.elbo(jax.random.key(0), images).shape == (0,)


def test_codes_of_another_kind() -> None:
    with pytest.raises(ValueError, match=r"codes must be Latents.*got ndarray"):
        models.make("joint_vae").decode(np.zeros((2, 2)))
    wrong = trained.joint_vae.Latents(np.array([[0, 2]]), np.zeros((1, 2), np.float32))
    with pytest.raises(ValueError, match=r"classes\[:, 1\] must be integers in 0 .. 1"):
        models.make("joint_vae").decode(wrong)
    with pytest.raises(ValueError, match="codes must be Latents"):
        models.make("dvaepp").decode(np.zeros((2, 4)))
    with pytest.raises(AttributeError, match="a joint_vae model has no codebook"):
        _ = models.make("joint_vae").codebook
    assert models.make("nearest").codebook.shape == (2, 4, 2)
