"""The objectives against their equations, on a model small enough to write out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import vq
from dvae.models import vq_conv
from experiments.cifar_vq import objectives

B, H, W, N, C, D = 3, 1, 2, 2, 5, 4
ONE = jnp.ones(())


def log_likelihood(codes, images):
    """A Gaussian around the sum of the codes, one value an image."""
    target = images.astype(jnp.float32).mean((1, 2, 3))
    return -((codes.sum((1, 2, 3, 4)) - target) ** 2)


@pytest.fixture(name="problem")
def make_problem():
    rng = np.random.default_rng(0)
    codebook = jnp.asarray(rng.normal(size=(N, C, D)), jnp.float32)
    vectors = jnp.asarray(rng.normal(size=(B, H, W, N, D)), jnp.float32)
    images = jnp.asarray(rng.integers(0, 4, size=(B, 4, 8, 3)), jnp.uint8)
    log_prior = jax.nn.log_softmax(jnp.asarray(rng.normal(size=(N, C)), jnp.float32))

    def logits(vectors):
        return -((vectors[..., None, :] - codebook[None, None, None]) ** 2).sum(-1)

    def total(codes, images):
        values = log_likelihood(codes, images)
        return values.sum(), jax.lax.stop_gradient(values)

    def soft_quantize(key, vectors, codebook, log_prior, temperature, hard):
        inputs = (key, vectors, codebook, jnp.zeros(N), log_prior, temperature)
        return vq_conv.soft_quantize(*inputs, hard=hard)

    return (
        objectives.Model(logits, soft_quantize, log_likelihood, total, log_prior),
        vectors,
        codebook,
        images,
    )


def exact_kl(model, vectors):
    """KL an image, float64."""
    logits = np.asarray(model.posterior_logits(vectors), np.float64)
    q = np.exp(logits - logits.max(-1, keepdims=True))
    q /= q.sum(-1, keepdims=True)
    return (q * (np.log(q) - np.asarray(model.log_prior))).sum((1, 2, 3, 4))


@pytest.mark.many_cases
@pytest.mark.parametrize("hard", [False, True])
def test_gumbel_softmax(problem, hard) -> None:
    model, vectors, codebook, images = problem
    terms = objectives.gumbel_softmax(
        jax.random.key(0), *problem, kl_weight=0.5 * ONE, temperature=0.5, hard=hard
    )
    kl = exact_kl(model, vectors)
    np.testing.assert_allclose(terms.rate, kl, rtol=1e-5)
    np.testing.assert_allclose(terms.objective, -terms.distortion - kl, rtol=1e-5)
    np.testing.assert_allclose(terms.surrogate, (-terms.distortion - 0.5 * kl).mean(), rtol=1e-5)
    assert terms.codes.shape == (B, H, W, N)
    chosen = jnp.stack([codebook[n][terms.codes[..., n]] for n in range(N)], axis=-2)
    hard_value = log_likelihood(chosen, images)
    assert np.allclose(-terms.distortion, hard_value, rtol=1e-5) == hard


def test_vimco_value_is_the_importance_weighted_bound(problem) -> None:
    model, vectors, codebook, images = problem
    terms = objectives.vimco(jax.random.key(0), *problem, kl_weight=ONE, num_samples=4)
    logits = np.asarray(model.posterior_logits(vectors), np.float64)
    log_q = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    weights = []
    for codes in np.asarray(terms.codes):  # [K, B, H, W, N]
        chosen = np.stack([np.asarray(codebook)[n][codes[..., n]] for n in range(N)], axis=-2)
        log_px = np.asarray(log_likelihood(jnp.asarray(chosen), images), np.float64)
        q = np.take_along_axis(log_q, codes[..., None], -1)[..., 0].sum((1, 2, 3))
        p = sum(np.asarray(model.log_prior)[n][codes[..., n]] for n in range(N)).sum((1, 2))
        weights.append(log_px + p - q)
    expected = np.log(np.mean(np.exp(weights), axis=0))
    np.testing.assert_allclose(terms.objective, expected, rtol=1e-4)
    np.testing.assert_allclose(terms.surrogate, expected.mean(), rtol=1e-4)
    weighted = objectives.vimco(jax.random.key(0), *problem, kl_weight=0.5 * ONE, num_samples=4)
    np.testing.assert_allclose(weighted.objective, expected, rtol=1e-4)
    assert abs(weighted.surrogate - expected.mean()) > 1e-3, "the warm-up is training's alone"


@pytest.mark.thorough
def test_vimco_trains_every_part(problem) -> None:
    model, vectors, codebook, images = problem

    def surrogate(vectors, codebook, log_prior):
        changed = model._replace(log_prior=log_prior)
        return objectives.vimco(
            jax.random.key(0), changed, vectors, codebook, images, kl_weight=ONE, num_samples=3
        ).surrogate

    for gradient in jax.grad(surrogate, argnums=(0, 1, 2))(vectors, codebook, model.log_prior):
        assert float(jnp.abs(gradient).max()) > 0


def nearest(model, vectors, codebook, images, **weights):
    weights = {"codebook_weight": 1.0, "commitment_weight": 0.25, **weights}
    return objectives.nearest_code(model, vectors, codebook, images, kl_weight=ONE, **weights)


def test_nearest_code_value(problem) -> None:
    model, vectors, _, _ = problem
    terms = nearest(*problem)
    distances = -np.asarray(model.posterior_logits(vectors))
    np.testing.assert_array_equal(terms.codes, distances.argmin(-1))
    rate = -sum(np.asarray(model.log_prior)[n][np.asarray(terms.codes[..., n])] for n in range(N))
    np.testing.assert_allclose(terms.rate, rate.sum((1, 2)), rtol=1e-5)
    penalty = 1.25 * distances.min(-1).sum((1, 2, 3)) / D
    np.testing.assert_allclose(terms.surrogate, (terms.objective - penalty).mean(), rtol=1e-5)


def test_nearest_code_gradients_go_where_equation_3_says(problem) -> None:
    """The decoder's gradient skips the codebook; each VQ loss moves one side only."""
    model, vectors, codebook, images = problem

    def surrogate(vectors, codebook, **weights):
        return nearest(model, vectors, codebook, images, **weights).surrogate

    gradient = jax.grad(surrogate, argnums=(0, 1))
    through, none = gradient(vectors, codebook, codebook_weight=0.0, commitment_weight=0.0)
    codes = nearest(*problem).codes
    quantized = jnp.stack([codebook[n][codes[..., n]] for n in range(N)], axis=-2)
    straight = jax.grad(lambda q: log_likelihood(q, images).mean())(quantized)
    np.testing.assert_allclose(through, straight, rtol=1e-5)
    np.testing.assert_array_equal(none, 0)
    only_codebook = gradient(vectors, codebook, codebook_weight=1.0, commitment_weight=0.0)
    np.testing.assert_allclose(only_codebook[0], straight, rtol=1e-5)
    assert float(jnp.abs(only_codebook[1]).max()) > 0
    committed, still = gradient(vectors, codebook, codebook_weight=0.0, commitment_weight=0.25)
    pull = -0.25 * 2 * (vectors - quantized) / D / B
    np.testing.assert_allclose(committed - straight, pull, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(still, 0)


@pytest.mark.thorough
def test_codebooks_are_updated_with_their_own_vectors(problem) -> None:
    _, vectors, codebook, _ = problem
    state = jax.vmap(vq.ema_init)(codebook)
    codes = nearest(*problem).codes
    moved = objectives.update_codebooks(
        jax.random.key(0), state, vectors, codes, decay=0.9, restart_threshold=0.0
    )
    for n in range(N):
        alone = vq.ema_update(
            jax.tree.map(lambda x, n=n: x[n], state), vectors[..., n, :], codes[..., n], decay=0.9
        )
        np.testing.assert_allclose(moved.codebook[n], alone.codebook, rtol=1e-6)
    restarted = objectives.update_codebooks(
        jax.random.key(0), state, vectors, codes, decay=0.0, restart_threshold=0.5
    )
    for n in range(N):
        unused = sorted(set(range(C)) - set(np.asarray(codes[..., n]).ravel().tolist()))
        for code in unused:
            batch = np.asarray(vectors[..., n, :]).reshape(-1, D)
            there = (batch == np.asarray(restarted.codebook[n, code])).all(-1).any()
            assert there, "a dead code restarts at a vector of the batch"


def test_usage_counts_each_latent_variable() -> None:
    codes = jnp.array([[0, 2], [0, 1], [1, 1]])
    np.testing.assert_array_equal(objectives.usage(codes, 3), [[2, 1, 0], [0, 2, 1]])
