"""The codebook model: shapes, posterior, prior, and that whole images and crops share it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.models import vq_conv

CONFIG = vq_conv.VQConvConfig(
    codebook_size=6, num_latents=2, code_dim=3, features=8, num_residual_blocks=1
)


def apply(module, params, method, *args):
    return jax.jit(lambda p, *a: module.apply({"params": p}, *a, method=method))(params, *args)


@pytest.fixture(name="model", scope="module")
def make_model():
    module = vq_conv.VQConv(CONFIG)
    images = jax.random.randint(jax.random.key(0), (3, 16, 8, 3), 0, 256).astype(jnp.uint8)
    codebook = jax.random.normal(jax.random.key(1), (2, 6, 3))
    params = jax.jit(module.init)(jax.random.key(2), images, codebook)["params"]
    return module, params, images, codebook


def test_shapes_and_prior(model) -> None:
    module, params, images, codebook = model
    vectors = apply(module, params, "encode", images)
    assert vectors.shape == (3, 4, 2, 2, 3)
    assert vectors.dtype == jnp.float32
    codes = vq_conv.nearest_codes(vectors, codebook)
    assert codes.shape == (3, 4, 2, 2)
    quantized = vq_conv.lookup(codes, codebook)
    assert apply(module, params, "log_likelihood", quantized, images).shape == (3,)
    mean = apply(module, params, "mean_image", quantized)
    assert mean.shape == images.shape
    assert float(mean.min()) >= 0
    assert float(mean.max()) <= 255
    np.testing.assert_allclose(np.exp(apply(module, params, "log_prior")).sum(-1), 1, rtol=1e-6)


def test_the_encoder_sees_levels_from_minus_one_to_one(model) -> None:
    module, params, images, _ = model
    images = np.array(images)
    images[0, 0, 0] = 0
    images[0, 0, 1] = 255
    scaled = (images.astype(np.float64) / 127.5 - 1).astype(np.float32)
    assert (scaled.min(), scaled.max()) == (-1, 1)
    run = lambda x: vq_conv.Encoder(CONFIG).apply({"params": params["encoder"]}, x)
    expected = jax.jit(run)(scaled)
    np.testing.assert_allclose(
        apply(module, params, "encode", images), expected, rtol=1e-5, atol=1e-5
    )


def test_posterior_logits_against_the_definition(model) -> None:
    module, params, images, codebook = model
    params = {**params, "log_scale": jnp.array([0.3, -0.7])}
    vectors = apply(module, params, "encode", images)
    logits = apply(module, params, "posterior_logits", vectors, codebook)
    difference = np.asarray(vectors, np.float64)[..., None, :] - np.asarray(codebook)
    expected = -np.exp([0.3, -0.7])[:, None] * (difference**2).sum(-1)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
def test_codes_of_each_latent_variable_come_from_its_own_codebook(model) -> None:
    _, _, _, codebook = model
    codes = jnp.array([[1, 4], [5, 0]])
    found = vq_conv.lookup(codes, codebook)
    for i, n in np.ndindex(2, 2):
        np.testing.assert_array_equal(found[i, n], codebook[n, codes[i, n]])
    np.testing.assert_array_equal(vq_conv.nearest_codes(found, codebook), codes)
    one_hot = jax.nn.one_hot(codes, 6)
    np.testing.assert_allclose(vq_conv.average(one_hot, codebook), found, rtol=1e-6)


@pytest.mark.thorough
def test_averages_in_bfloat16_round_operands_and_result_only(model) -> None:
    _, _, _, codebook = model
    weights = jax.nn.softmax(jax.random.normal(jax.random.key(3), (5, 2, 6)))
    one_hot = jax.nn.one_hot(jnp.array([[1, 4], [5, 0]]), 6)
    half = lambda *arrays: vq_conv.average(*arrays, dtype=jnp.bfloat16)
    found = half(one_hot, codebook)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, vq_conv.average(one_hot, codebook).astype(jnp.bfloat16))
    # Gradients are float32 like the arguments, and near those without rounding.
    score = lambda average: lambda *x: jnp.sum(jnp.sin(average(*x).astype(jnp.float32)))
    exact = jax.grad(score(vq_conv.average), argnums=(0, 1))(weights, codebook)
    rounded = jax.grad(score(half), argnums=(0, 1))(weights, codebook)
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=0.02 * np.abs(a).max())


@pytest.mark.thorough
def test_calibrated_scale_sets_the_spread(model) -> None:
    module, params, images, codebook = model
    vectors = apply(module, params, "encode", images)
    log_scale = vq_conv.calibrated_log_scale(vectors, codebook, 1.5)
    params = {**params, "log_scale": log_scale}
    logits = apply(module, params, "posterior_logits", vectors, codebook)
    np.testing.assert_allclose(logits.std(-1).mean((0, 1, 2)), 1.5, rtol=1e-4)


@pytest.mark.thorough
def test_model_is_fully_convolutional(model) -> None:
    """Far from the border, an image's codes are those of a crop of it."""
    module, params, _, _ = model
    images = jax.random.randint(jax.random.key(5), (1, 64, 64, 3), 0, 256).astype(jnp.uint8)
    whole = apply(module, params, "encode", images)
    crop = apply(module, params, "encode", images[:, 16:48, 16:48])
    np.testing.assert_allclose(crop[:, 3:-3, 3:-3], whole[:, 7:9, 7:9], rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
def test_bfloat16_keeps_float32_parameters_and_likelihood(model) -> None:
    _, params, images, codebook = model
    module = vq_conv.VQConv(vq_conv.VQConvConfig(**{**vars(CONFIG), "dtype": jnp.bfloat16}))
    low = jax.jit(module.init)(jax.random.key(2), images, codebook)["params"]
    assert {p.dtype for p in jax.tree.leaves(low)} == {jnp.dtype(jnp.float32)}
    codes = jnp.zeros((3, 4, 2, 2, 3))
    value = apply(module, params, "log_likelihood", codes, images)
    exact = apply(vq_conv.VQConv(CONFIG), params, "log_likelihood", codes, images)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, exact, rtol=2e-3)
