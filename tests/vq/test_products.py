"""Sums by code as products against scatters, and float32 products made of bfloat16 ones."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from dvae import vq
from dvae.vq import _products

NUM_CODES, DIM = 5, 3


@pytest.fixture
def by_product(monkeypatch):
    """Runs a function in the CPU's form and in that of accelerators."""

    def both(function):
        results = []
        for choice in (False, True):
            monkeypatch.setattr(_products, "adds_by_product", lambda _, choice=choice: choice)
            results.append(function())
        return results

    return both


def integers(*shape):
    """Vectors whose sums are exact in any order, and codes of which some are none."""
    rng = np.random.default_rng(0)
    vectors = rng.integers(-2000, 2000, (*shape, DIM)).astype(np.float32)
    return vectors, rng.integers(-1, NUM_CODES + 1, shape, np.int32)


def test_both_forms_give_the_same_numbers(by_product):
    vectors, codes = integers(6, 50)
    vectors[codes < 0] = np.nan
    inside = (codes >= 0) & (codes < NUM_CODES)
    expected = np.zeros((NUM_CODES, DIM))
    np.add.at(expected, codes[inside], vectors[inside])
    flat = codes.ravel()
    counts = [(flat == k).sum() for k in range(NUM_CODES)]
    sums = lambda: _products.sum_by_code(jnp.asarray(vectors).reshape(-1, DIM), flat, NUM_CODES)
    for found in by_product(sums):
        np.testing.assert_array_equal(found, expected)
    for found in by_product(lambda: vq.usage(codes, NUM_CODES)):
        np.testing.assert_array_equal(found, counts)
        assert found.dtype == jnp.int32


@pytest.mark.thorough
@pytest.mark.parametrize("dim", [1, DIM])
def test_both_forms_differentiate_alike(by_product, dim):
    weights, codes = integers(4, 20)
    weights, inside = weights[..., :dim], (codes >= 0) & (codes < NUM_CODES)
    codebook = np.arange(NUM_CODES * dim, dtype=np.float32).reshape(NUM_CODES, dim)

    def total(codebook):
        rows = vq.lookup(codes, codebook)
        return (jnp.where(inside[..., None], rows, 0) ** 2 * weights).sum()

    def derivatives():
        direction = jnp.ones_like(codebook)
        gradient = jax.grad(total)
        along = lambda f: jax.jvp(f, (codebook,), (direction,))[1]
        return total(codebook), gradient(codebook), along(total), along(gradient)

    for scattered, product in zip(*by_product(derivatives), strict=True):
        np.testing.assert_array_equal(product, scattered)


@pytest.mark.thorough
def test_latent_variables_are_added_apart(by_product):
    vectors, codes = integers(3, 20)
    codes = np.abs(codes) % NUM_CODES
    state = jax.vmap(vq.ema_init)(np.ones((3, NUM_CODES, DIM), np.float32))
    update = jax.vmap(lambda s, v, k: vq.ema_update(s, v, k, decay=0.5))
    scattered, product = by_product(lambda: update(state, vectors, codes))
    jax.tree.map(np.testing.assert_array_equal, product, scattered)


def test_large_codebooks_keep_the_scatter(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert _products.adds_by_product(4096)
    assert not _products.adds_by_product(4097)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert not _products.adds_by_product(1)


def test_tensor_cores_are_for_float32_on_nvidia_gpus():
    def lowered(platform, dtype=jnp.float32):
        a, b = (jax.ShapeDtypeStruct(shape, dtype) for shape in ((4, 3), (3, 2)))
        gradient = jax.grad(lambda a, b: _products.matmul(a, b).sum(), (0, 1))
        traced = jax.jit(lambda a, b: (_products.matmul(a, b), gradient(a, b))).trace(a, b)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert lowered("cuda").count("num_primitive_operations = 6") == 3
    for platform in ("cpu", "tpu", "rocm"):
        text = lowered(platform)
        assert "num_primitive_operations" not in text
        assert text.count("precision = [HIGHEST, HIGHEST]") == 3


def parts(x):
    """The three bfloat16 parts of float32 numbers, as float32."""
    found = []
    for _ in range(3):
        found.append(x.astype(ml_dtypes.bfloat16).astype(np.float32))
        x = x - found[-1]
    return found


def six_products(v, m):
    """What tensor cores add for `v m^T`, small terms first, in float32."""
    (v1, v2, v3), (m1, m2, m3) = parts(v), parts(m)
    pairs = ((v2, m2), (v3, m1), (v1, m3), (v2, m1), (v1, m2), (v1, m1))
    total = np.float32(0)
    for a, b in pairs:
        total = total + a @ b.T
    return total


def test_six_products_round_as_one_float32_product_does():
    rng = np.random.default_rng(0)
    v, m = rng.normal(size=(500, 64)).astype(np.float32), rng.normal(size=(512, 64))
    m = m.astype(np.float32)
    exact = v.astype(np.float64) @ m.T.astype(np.float64)
    lengths = np.linalg.norm(v, axis=-1)[:, None] * np.linalg.norm(m, axis=-1)[None]
    error = np.abs(six_products(v, m) - exact) / lengths
    assert error.max() < 1e-7  # what `nearest_code` promises
    # Two parts, which are not enough, are told apart by this bound.
    two = sum(a @ b.T for a, b in ((v, m), (-parts(v)[2], m), (v, -parts(m)[2])))
    assert (np.abs(two - exact) / lengths).max() > 1e-7


def test_six_products_give_the_nearest_codes():
    rng = np.random.default_rng(1)
    vectors, codebook = rng.normal(size=(400, 16)), rng.normal(size=(64, 16))
    vectors, codebook = vectors.astype(np.float32), codebook.astype(np.float32)
    scores = (codebook**2).sum(-1) / 2 - six_products(vectors, codebook)
    np.testing.assert_array_equal(scores.argmin(-1), vq.nearest_code(vectors, codebook))


def test_a_one_hot_has_exact_products():
    rng = np.random.default_rng(2)
    m = (rng.normal(size=(8, 4)) * 2.0 ** rng.integers(-60, 60, (8, 1))).astype(np.float32)
    np.testing.assert_array_equal(six_products(np.eye(8, dtype=np.float32), m.T), m)
