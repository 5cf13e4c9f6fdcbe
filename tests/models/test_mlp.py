"""Binary VAE networks: shapes, conditioning, affine maps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.models import mlp

CONFIG = mlp.BinaryVAEConfig(group_sizes=(3, 2), hidden=(4,), num_pixels=5)


def make(config):
    module = mlp.BinaryVAE(config)
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, config.num_pixels)))["params"]
    return lambda method, *args: module.apply({"params": params}, *args, method=method), params


@pytest.mark.thorough
def test_shapes_of_two_groups_and_of_samples():
    apply, params = make(CONFIG)
    x, zeta1, zeta2 = jnp.ones((7, 5)), jnp.ones((4, 7, 3)), jnp.ones((4, 7, 2))
    assert apply(mlp.BinaryVAE.posterior_logits, x, []).shape == (7, 3)
    assert apply(mlp.BinaryVAE.posterior_logits, x, [zeta1]).shape == (4, 7, 2)
    assert apply(mlp.BinaryVAE.prior_logits, []).shape == (3,)
    assert apply(mlp.BinaryVAE.prior_logits, [zeta1]).shape == (4, 7, 2)
    assert apply(mlp.BinaryVAE.pixel_logits, [zeta1, zeta2]).shape == (4, 7, 5)
    assert set(params) == {"encoders_0", "encoders_1", "priors_0", "decoder", "prior_logits"}
    np.testing.assert_array_equal(params["prior_logits"], 0)


@pytest.mark.thorough
def test_a_group_depends_on_the_images_and_on_earlier_groups():
    apply, _ = make(CONFIG)

    def of_second(x, zeta1):
        return apply(mlp.BinaryVAE.posterior_logits, x, [zeta1]).sum()

    by_x, by_zeta = jax.grad(of_second, argnums=(0, 1))(jnp.ones((1, 5)), jnp.ones((1, 3)))
    assert jnp.all(by_x != 0)
    assert jnp.all(by_zeta != 0)


def test_linear_networks_are_affine():
    apply, _ = make(mlp.BinaryVAEConfig(group_sizes=(3,), hidden=(), num_pixels=5))
    f = lambda z: apply(mlp.BinaryVAE.pixel_logits, [z])
    a, b = jax.random.normal(jax.random.key(1), (2, 3))
    np.testing.assert_allclose(f(a) + f(b), f(a + b) + f(jnp.zeros(3)), rtol=1e-5, atol=1e-6)


def test_signed_inputs_are_the_same_networks_seen_at_plus_and_minus_one():
    signed, params = make(CONFIG)
    plain = mlp.BinaryVAE(dataclasses.replace(CONFIG, signed_inputs=False))
    x, zeta1, zeta2 = jnp.ones((7, 5)), jnp.full((7, 3), 0.2), jnp.full((7, 2), 0.7)
    calls = [
        (mlp.BinaryVAE.posterior_logits, (x,), [zeta1]),
        (mlp.BinaryVAE.prior_logits, (), [zeta1]),
        (mlp.BinaryVAE.pixel_logits, (), [zeta1, zeta2]),
    ]
    for method, given, latents in calls:
        shifted = [2 * zeta - 1 for zeta in latents]
        expected = plain.apply({"params": params}, *given, shifted, method=method)
        np.testing.assert_array_equal(signed(method, *given, latents), expected)


def test_products_in_bfloat16_keep_float32_sums_and_parameters():
    config = mlp.BinaryVAEConfig(group_sizes=(300,), hidden=(), num_pixels=5)
    exact, params = make(config)
    rounded, same = make(dataclasses.replace(config, product_dtype=jnp.bfloat16))
    jax.tree.map(np.testing.assert_array_equal, params, same)
    z = jax.random.uniform(jax.random.key(1), (50, 300))
    found = rounded(mlp.BinaryVAE.pixel_logits, [z])
    assert found.dtype == jnp.float32
    nearest = lambda x: np.asarray(x.astype(jnp.bfloat16), np.float64)
    layer = params["decoder"]["output"]
    expected = nearest(2 * z - 1) @ nearest(layer["kernel"]) + np.asarray(layer["bias"])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - exact(mlp.BinaryVAE.pixel_logits, [z])).max() > 1e-4


@pytest.mark.parametrize("sizes", [(), (3, 0)])
def test_sizes_that_make_no_model_are_refused(sizes):
    with pytest.raises(ValueError, match="group_sizes"):
        mlp.BinaryVAEConfig(group_sizes=sizes)


def test_batch_norm_against_its_definition():
    """Of a batch whose variance is that of the epsilon, and of moving averages."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 2)) * 0.1 + 0.3
    kernel, output = rng.normal(size=(2, 2, 2))
    scale, shift, old_mean = rng.normal(size=(3, 2))
    old_variance = np.array([0.02, 0.5])
    as_float32 = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree)
    variables = {
        "params": {
            "hidden_0": {"kernel": kernel},
            "norm_0": {"scale": scale, "bias": shift},
            "output": {"kernel": output, "bias": np.zeros(2)},
        },
        "batch_stats": {"norm_0": {"mean": old_mean, "var": old_variance}},
    }
    network = lambda train: mlp.Mlp((2,), 2, batch_norm=True, train=train)
    h = x @ kernel
    mean, variance = h.mean(0), h.var(0)
    assert (variance < 0.1).all()

    def expected(mean, variance):
        return np.tanh(scale * (h - mean) / np.sqrt(variance + 1e-2) + shift) @ output

    inputs = as_float32((variables, x))
    train = jax.jit(lambda v, x: network(True).apply(v, x, mutable=["batch_stats"]))
    found, moved = train(*inputs)
    np.testing.assert_allclose(found, expected(mean, variance), rtol=1e-5, atol=1e-5)
    moved = moved["batch_stats"]["norm_0"]
    np.testing.assert_allclose(moved["mean"], 0.8 * old_mean + 0.2 * mean, rtol=1e-5)
    np.testing.assert_allclose(moved["var"], 0.8 * old_variance + 0.2 * variance, rtol=1e-5)
    found = jax.jit(network(False).apply)(*inputs)
    np.testing.assert_allclose(found, expected(old_mean, old_variance), rtol=1e-5, atol=1e-5)
