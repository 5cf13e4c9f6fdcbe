"""The pixel likelihood: against NumPy, and its two gradients against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.models import _convolution as convolution
from dvae.models import pixel_head
from dvae.models.pixel_head import PixelHead

BATCH, SIZE, FEATURES = 6, 4, 5


@pytest.fixture(name="problem")
def make_problem():
    x = jax.random.normal(jax.random.key(0), (BATCH, SIZE, SIZE, FEATURES))
    images = jax.random.randint(jax.random.key(1), (BATCH, 2 * SIZE, 2 * SIZE, 3), 0, 256)
    head = PixelHead(FEATURES)
    images = images.astype(jnp.uint8)
    init = jax.jit(head.init, static_argnames="method")
    params = init(jax.random.key(2), x, images, method="log_likelihood")["params"]
    params["bias"] = jax.random.normal(jax.random.key(3), params["bias"].shape)
    return head, params, x, images


def logits_of(params, x):
    y = convolution.conv_transpose(x, params["kernel"])
    y = y.reshape(*y.shape[:-1], 3, 256) + params["bias"]
    return np.asarray(y, np.float64)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("use_matmul", [True, False])
def test_log_likelihood_and_mean(monkeypatch, problem, use_matmul) -> None:
    head, params, x, images = problem
    with jax.numpy_rank_promotion("allow"):
        logits = logits_of(params, x)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    chosen = np.take_along_axis(p, np.asarray(images, int)[..., None], -1)[..., 0]
    monkeypatch.setattr(convolution, "use_matmul", lambda: use_matmul)
    apply = jax.jit(
        lambda method, *a: head.apply({"params": params}, *a, method=method), static_argnums=0
    )
    value = apply("log_likelihood", x, images)
    np.testing.assert_allclose(value, np.log(chosen).sum((1, 2, 3)), rtol=1e-5)
    total, values = apply("total_log_likelihood", x, images)
    np.testing.assert_allclose(values, value, rtol=1e-6)
    np.testing.assert_allclose(total, value.sum(), rtol=1e-6)
    mean = apply("mean", x)
    np.testing.assert_allclose(mean, p @ np.arange(256.0), rtol=1e-4)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("rows", [1, 2 * SIZE * SIZE, 1024], ids=lambda n: f"{n}rows")
def test_total_has_the_gradient_of_the_sum(monkeypatch, problem, rows) -> None:
    """For every number of images at a time, and scaled by whatever comes after it."""
    head, params, x, images = problem
    monkeypatch.setattr(pixel_head, "_CHUNK_ROWS", rows)

    def plain(params, x):
        return jnp.tanh(
            head.apply({"params": params}, x, images, method="log_likelihood").sum() * 1e-4
        )

    def fused(params, x):
        total, _ = head.apply({"params": params}, x, images, method="total_log_likelihood")
        return jnp.tanh(total * 1e-4)

    expected = jax.jit(jax.value_and_grad(plain, argnums=(0, 1)))(params, x)
    found = jax.jit(jax.value_and_grad(fused, argnums=(0, 1)))(params, x)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.thorough
def test_total_under_vmap(problem) -> None:
    head, params, x, images = problem

    def value_and_grad(x):
        total = lambda x: head.apply({"params": params}, x, images, method="total_log_likelihood")[
            0
        ]
        return jax.value_and_grad(total)(x)

    both = jnp.stack([x, 2 * x])
    mapped = jax.jit(jax.vmap(value_and_grad))(both)
    value_and_grad = jax.jit(value_and_grad)
    for i in range(2):
        for a, b in zip(mapped, value_and_grad(both[i]), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("use_matmul", [True, False])
def test_terms_of_the_total_have_no_gradient(monkeypatch, problem, use_matmul) -> None:
    head, params, x, images = problem
    monkeypatch.setattr(convolution, "use_matmul", lambda: use_matmul)
    total = lambda x: head.apply({"params": params}, x, images, method="total_log_likelihood")
    assert not jax.jit(jax.grad(lambda x: total(x)[1].sum()))(x).any()


def test_bfloat16_stays_close(problem) -> None:
    _, params, x, images = problem
    values, gradients = [], []
    for dtype in (jnp.float32, jnp.bfloat16):
        head = PixelHead(FEATURES, dtype)
        total = lambda p, head=head: head.apply(
            {"params": p}, x, images, method="total_log_likelihood"
        )[0]
        value, gradient = jax.jit(jax.value_and_grad(total))(params)
        values.append(float(value))
        gradients.append(gradient)
    assert abs(values[1] / values[0] - 1) < 1e-3
    for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
        assert b.dtype == jnp.float32
        np.testing.assert_allclose(b, a, atol=0.02 * float(jnp.abs(a).max()))


def test_extreme_logits_are_finite(problem) -> None:
    head, params, x, images = problem
    params = jax.tree.map(lambda p: 1e4 * p, params)
    total = lambda p: head.apply({"params": p}, x, images, method="total_log_likelihood")[0]
    value, gradient = jax.jit(jax.value_and_grad(total))(params)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
