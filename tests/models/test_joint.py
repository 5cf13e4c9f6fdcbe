"""The JointVAE model: shapes, likelihood, divergences, and what makes no model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.models import joint

CONFIG = joint.JointConfig(
    image_size=16, channels=2, num_continuous=3, discrete=(4, 2), features=2, hidden_units=5
)


def make(config):
    module = joint.JointVAE(config)
    x = jax.random.uniform(jax.random.key(0), (3, config.image_size, config.image_size, 2))
    return module, jax.jit(module.init)(jax.random.key(1), x)["params"], x


@pytest.mark.thorough
def test_shapes() -> None:
    module, params, x = make(CONFIG)
    q = module.apply({"params": params}, x, method="encode")
    assert q.mean.shape == q.log_scale.shape == (3, 3)
    assert [logits.shape for logits in q.logits] == [(3, 4), (3, 2)]
    c = [jax.nn.one_hot(logits.argmax(-1), logits.shape[-1]) for logits in q.logits]
    logits = module.apply({"params": params}, q.mean, c, method="pixel_logits")
    assert logits.shape == x.shape
    np.testing.assert_array_equal(joint.likeliest(q)[:, 1], q.logits[1].argmax(-1))


def test_default_sizes_are_the_published_ones() -> None:
    module = joint.JointVAE(joint.JointConfig())
    x = jnp.zeros((1, 32, 32, 1))
    params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    kernels = [params[f"convolutions_{i}"]["kernel"].shape for i in range(3)]
    assert kernels == [(4, 4, 1, 32), (4, 4, 32, 64), (4, 4, 64, 64)]
    assert params["hidden"]["kernel"].shape == (1024, 256)
    assert params["from_latents"]["kernel"].shape == (20, 256)
    kernels = [params[f"transposed_{i}"]["kernel"].shape for i in range(3)]
    assert kernels == [(4, 4, 64, 64), (4, 4, 64, 32), (4, 4, 32, 1)]


def test_the_decoder_of_the_authors() -> None:
    module = joint.JointVAE(joint.JointConfig(decoder_features=32))
    init = lambda key: module.init(key, jnp.zeros((1, 32, 32, 1)))["params"]
    params = jax.eval_shape(init, jax.random.key(0))
    kernels = [params[f"transposed_{i}"]["kernel"].shape for i in range(3)]
    assert kernels == [(4, 4, 64, 32), (4, 4, 32, 32), (4, 4, 32, 1)]
    encoder = 16 * (32 + 32 * 64 + 64 * 64) + 32 + 64 + 64 + (1024 + 1) * 256
    decoder = (20 + 1) * 256 + (256 + 1) * 1024 + 16 * (64 * 32 + 32 * 32 + 32) + 32 + 32 + 1
    total = encoder + 3 * (256 + 1) * 10 + decoder
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == total


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("sizes", [dict(num_continuous=0), dict(discrete=())])
def test_one_kind_of_latent_variables_is_enough(sizes) -> None:
    config = joint.JointConfig(
        **{"image_size": 8, "channels": 2, "features": 2, "hidden_units": 4, **sizes}
    )
    module, params, x = make(config)
    q = module.apply({"params": params}, x, method="encode")
    kl = joint.divergences(q)
    assert kl.continuous.shape == (3, config.num_continuous)
    assert kl.discrete.shape == joint.likeliest(q).shape == (3, len(config.discrete))
    c = [jax.nn.softmax(logits) for logits in q.logits]
    assert module.apply({"params": params}, q.mean, c, method="pixel_logits").shape == x.shape


def test_levels_are_read_from_zero_to_one() -> None:
    x = joint.as_float(np.array([0, 51, 255], np.uint8).reshape(1, 3, 1, 1))
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x.ravel(), [0, 0.2, 1], rtol=1e-6)


def test_likelihood_of_grey_levels_is_a_cross_entropy() -> None:
    x = np.array([0.0, 0.25, 1.0]).reshape(1, 3, 1, 1)
    p = np.array([0.1, 0.6, 0.7]).reshape(1, 3, 1, 1)
    logits = jnp.asarray(np.log(p / (1 - p)), jnp.float32)
    expected = (x * np.log(p) + (1 - x) * np.log(1 - p)).sum()
    found = joint.log_likelihood(jnp.asarray(x, jnp.float32), logits)
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


@pytest.mark.thorough
def test_divergences_against_their_definitions() -> None:
    mean, log_scale = np.array([[0.5, -1.0]]), np.array([[0.2, -0.7]])
    logits = np.array([[1.0, 0.0, -2.0]])
    q = joint.Posterior(*(jnp.asarray(a, jnp.float32) for a in (mean, log_scale)), (logits,))
    q = q._replace(logits=(jnp.asarray(logits, jnp.float32),))
    kl = joint.divergences(q)
    variance = np.exp(2 * log_scale)
    np.testing.assert_allclose(
        kl.continuous, (variance + mean**2 - 1 - 2 * log_scale) / 2, rtol=1e-5
    )
    p = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(kl.discrete, [[(p * np.log(3 * p)).sum()]], rtol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (dict(image_size=28), "multiple of 8"),
        (dict(image_size=0), "multiple of 8"),
        (dict(num_continuous=-1), "at least 0"),
        (dict(discrete=(10, 1)), "at least 2 classes"),
        (dict(num_continuous=0, discrete=()), "needs a latent variable"),
        (dict(decoder_features=-1), "decoder_features must be at least 0"),
    ],
)
def test_sizes_that_make_no_model(sizes, message) -> None:
    with pytest.raises(ValueError, match=message):
        joint.JointConfig(**sizes)
