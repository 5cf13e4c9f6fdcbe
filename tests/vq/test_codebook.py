"""Distances, lookup and straight-through gradients against slow NumPy."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import vq

SHAPES = [((5,), 3), ((4, 5), 1), ((2, 3, 5), 7)]


nearest_code = jax.jit(vq.nearest_code)
lookup_gradient = jax.jit(jax.grad(lambda codebook, codes: vq.lookup(codes, codebook).sum()))
ema_init = jax.jit(vq.ema_init)
ema_update = jax.jit(vq.ema_update, static_argnames="smoothing")
restart_dead_codes = jax.jit(vq.restart_dead_codes, static_argnames="threshold")
perplexity = jax.jit(vq.perplexity)


def naive(vectors, codebook):
    """Squared distances from the N x C x D differences, in float64."""
    v, m = np.asarray(vectors, np.float64), np.asarray(codebook, np.float64)
    return np.square(v[..., None, :] - m).sum(-1)


def naive_jax(vectors, codebook):
    """The same in float32 JAX, to differentiate; vectors [N, D]."""
    return jnp.sum(jnp.square(vectors[:, None, :] - codebook[None, :, :]), axis=-1)


def draw(seed, shape, num_codes, scale=1.0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    vectors, codebook = rng.normal(size=shape), rng.normal(size=(num_codes, shape[-1]))
    return jnp.asarray(scale * vectors, dtype), jnp.asarray(scale * codebook, dtype)


def gradient_near(vectors, codebook):
    """Gradient of a third of the distances of vector i to code i."""

    def loss(vectors):
        return jnp.trace(vq.squared_distances(vectors, codebook)) / 3

    return jax.jit(jax.grad(loss))(vectors)


@pytest.mark.parametrize(("shape", "num_codes"), SHAPES)
def test_squared_distances_match_differences(shape, num_codes):
    vectors, codebook = draw(0, shape, num_codes)
    result = jax.jit(vq.squared_distances)(vectors, codebook)
    assert result.shape == (*shape[:-1], num_codes)
    np.testing.assert_allclose(result, naive(vectors, codebook), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_squared_distances_accumulate_half_precision_in_float32(dtype):
    vectors, codebook = draw(1, (7, 64), 9, dtype=dtype)
    result = jax.jit(vq.squared_distances)(vectors, codebook)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, naive(vectors, codebook), rtol=1e-5, atol=1e-4)


def test_squared_distances_accept_mixed_dtypes():
    vectors, codebook = draw(1, (7, 8), 9)
    vectors = vectors.astype(jnp.bfloat16)
    result = jax.jit(vq.squared_distances)(vectors, codebook)
    np.testing.assert_allclose(result, naive(vectors, codebook), rtol=1e-5, atol=1e-5)
    gradients = jax.jit(jax.grad(lambda v, m: vq.squared_distances(v, m).sum(), (0, 1)))(
        vectors, codebook
    )
    assert [x.dtype for x in gradients] == [jnp.bfloat16, jnp.float32]


@pytest.mark.thorough
def test_cancellation_is_clipped_at_zero():
    vectors, _ = draw(2, (200, 64), 1, scale=100.0)
    norms = jnp.sum(jnp.square(vectors), axis=-1)
    unclipped = norms[:, None] - 2 * vectors @ vectors.T + norms[None, :]
    assert jnp.min(unclipped) < 0  # what the clip prevents: the square root would be NaN
    result = vq.squared_distances(vectors, vectors)
    assert jnp.all(result >= 0)
    assert jnp.all(jnp.isfinite(jnp.sqrt(result)))


def test_gradients_match_the_naive_form():
    vectors, codebook = draw(3, (6, 5), 4)
    weights, _ = draw(4, (6, 4), 1)

    @partial(jax.jit, static_argnums=0)
    def derivatives(distances, vectors, codebook):
        def loss(vectors, codebook):
            return jnp.sum(weights * jnp.sin(distances(vectors, codebook)))

        reverse = jax.grad(loss, (0, 1))(vectors, codebook)
        forward = jax.jvp(distances, (vectors, codebook), (vectors + 1, 2 * codebook))
        return reverse, forward

    got = derivatives(vq.squared_distances, vectors, codebook)
    want = derivatives(naive_jax, vectors, codebook)
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-4)


def test_clipping_does_not_kill_the_gradient():
    # A code near each vector, far from the origin: rounding exceeds the distance.
    vectors, offsets = draw(5, (50, 16), 50)
    vectors *= 100
    codebook = vectors + offsets / 100
    norms = jnp.sum(jnp.square(vectors), axis=-1), jnp.sum(jnp.square(codebook), axis=-1)
    unclipped = norms[0] - 2 * jnp.diagonal(vectors @ codebook.T) + norms[1]
    assert jnp.sum(unclipped < 0) > 5
    gradient = gradient_near(vectors, codebook)
    np.testing.assert_allclose(gradient, (vectors - codebook) * 2 / 3, rtol=1e-2, atol=1e-4)


def test_bfloat16_gradient_is_rounded_once():
    vectors, codebook = draw(6, (40, 8), 40)
    vectors = (10 + vectors).astype(jnp.bfloat16)
    codebook = vectors + jnp.sign(codebook).astype(jnp.bfloat16) * 0.125
    gradient = gradient_near(vectors, codebook)
    want = (np.asarray(vectors, np.float64) - np.asarray(codebook, np.float64)) * 2 / 3
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(gradient, np.float64), want, rtol=2**-8)


@pytest.mark.many_cases
@pytest.mark.parametrize(("shape", "num_codes"), [*SHAPES, ((301, 4), 700), ((4,), 2**18)])
def test_nearest_code_is_the_argmin(shape, num_codes):
    vectors, codebook = draw(7, shape, num_codes)
    codes = nearest_code(vectors, codebook)
    assert codes.dtype == jnp.int32
    np.testing.assert_array_equal(codes, naive(vectors, codebook).argmin(-1))
    assert codes.shape == vectors.shape[:-1]


def test_nearest_code_ties_go_to_the_lowest_index():
    codebook = jnp.array([[2.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.0, 1.0]])
    vectors = jnp.array([[0.0, 0.0], [0.0, 3.0], [9.0, 0.0]])
    np.testing.assert_array_equal(nearest_code(vectors, codebook), [1, 1, 0])


def test_a_nan_vector_has_no_code():
    _, codebook = draw(8, (1, 2), 3)
    vectors = jnp.array([[jnp.nan, 0.0], [1.0, 1.0]])
    codes = nearest_code(vectors, codebook)
    assert codes[0] == 3
    quantized = vq.lookup(codes, codebook)
    np.testing.assert_array_equal(jnp.isnan(quantized).all(-1), [True, False])


def test_shapes_that_do_not_fit_are_refused():
    vectors, codebook = draw(9, (4, 5), 3)
    for function in (vq.squared_distances, vq.nearest_code):
        with pytest.raises(ValueError, match=r"must share D.*\(4, 5\) and \(3, 4\)"):
            function(vectors, codebook[:, :4])
        with pytest.raises(ValueError, match=r"jax\.vmap"):
            function(vectors, codebook[None])


def test_lookup_gathers_and_its_gradient_counts():
    _, codebook = draw(10, (1, 3), 5)
    codes = jnp.array([[4, 0, 4], [1, 4, 0]])
    np.testing.assert_array_equal(vq.lookup(codes, codebook), np.asarray(codebook)[codes])
    gradient = lookup_gradient(codebook, codes)
    np.testing.assert_array_equal(gradient, np.repeat([[2], [1], [0], [0], [3]], 3, axis=1))


def test_marks_of_no_code_are_no_codes():
    _, codebook = draw(10, (1, 3), 5)
    codes = jnp.array([-1, 4, 5, 0, -5, 2**31 - 1, -(2**31)])
    quantized = vq.lookup(codes, codebook)
    assert jnp.isnan(quantized[jnp.array([0, 2, 4, 5, 6])]).all()
    np.testing.assert_array_equal(quantized[jnp.array([1, 3])], codebook[jnp.array([4, 0])])
    gradient = lookup_gradient(codebook, codes)
    np.testing.assert_array_equal(gradient, np.repeat([[1], [0], [0], [0], [1]], 3, axis=1))
    np.testing.assert_array_equal(vq.usage(codes, 5), [1, 0, 0, 0, 1])


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint8, np.uint32])
def test_codes_of_every_integer_type(dtype):
    codebook = np.arange(300, dtype=np.float32)[:, None]
    codes = np.array([1, 0, 250]).astype(dtype)  # as int8 it is -6
    want = np.where(np.int64(codes) < 0, np.nan, np.float32(codes))
    np.testing.assert_array_equal(vq.lookup(codes, codebook)[:, 0], want)
    assert vq.usage(codes, 300).sum() == np.sum(np.int64(codes) >= 0)
    np.testing.assert_array_equal(vq.usage(np.array([2**32 - 1], np.uint32), 3), 0)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(vq.usage(np.array([2**32, 2], np.int64), 3), [0, 0, 1])
    for call in (lambda: vq.lookup(codes * 0.5, codebook), lambda: vq.usage(codes * 0.5, 300)):
        with pytest.raises(TypeError, match="codes must be integers, got float"):
            call()
    with pytest.raises(ValueError, match="num_codes must be at least 1, got 0"):
        vq.usage(codes, 0)


def test_lookup_keeps_bfloat16_and_sums_its_gradient_in_float32():
    codebook = jnp.ones((2, 3), jnp.bfloat16)
    codes = jnp.zeros(4096, jnp.int32)
    assert vq.lookup(codes, codebook).dtype == jnp.bfloat16
    gradient = lookup_gradient(codebook, codes)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient[0], 4096)  # a bfloat16 sum of ones stops at 256


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_straight_through_is_exact_forward_and_identity_backward(dtype):
    vectors, quantized = draw(11, (64, 3), 64, dtype=dtype)
    vectors = 1e4 * vectors
    out = vq.straight_through(vectors, quantized)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, quantized)
    usual = vectors + (quantized - vectors)
    assert jnp.any(usual != quantized)  # what the usual form would give
    weights = quantized + 1
    to_vectors, to_quantized = jax.jit(
        jax.grad(lambda v, q: jnp.sum(weights * vq.straight_through(v, q)), (0, 1))
    )(vectors, quantized)
    np.testing.assert_array_equal(to_vectors, weights)
    np.testing.assert_array_equal(to_quantized, 0)
    for function in (vq.straight_through, vq.codebook_loss, vq.commitment_loss):
        for other in (quantized[:, :2], quantized[:1]):  # which would broadcast
            with pytest.raises(ValueError, match=r"one shape \[..., D\], got \(64, 3\) and"):
                function(vectors, other)


def test_losses_move_only_their_own_side():
    vectors, quantized = draw(12, (6, 3), 6)
    want = np.square(np.asarray(vectors) - np.asarray(quantized)).sum(-1)
    difference = 2 * (vectors - quantized)
    for loss, to_vectors, to_quantized in (
        (vq.codebook_loss, 0 * difference, -difference),
        (vq.commitment_loss, difference, 0 * difference),
    ):
        np.testing.assert_allclose(loss(vectors, quantized), want, rtol=1e-5)
        got = jax.grad(lambda v, q, loss=loss: loss(v, q).sum(), (0, 1))(vectors, quantized)
        chex.assert_trees_all_close(got, (to_vectors, to_quantized), rtol=1e-6)
        half = loss(vectors.astype(jnp.bfloat16), quantized.astype(jnp.bfloat16))
        assert half.dtype == jnp.float32


@pytest.mark.thorough
def test_everything_vmaps_over_latent_variables():
    vectors, _ = draw(30, (3, 40, 4), 1)
    codebooks, _ = draw(31, (3, 6, 4), 1)

    def one(seed, vectors, codebook):
        codes = nearest_code(vectors, codebook)
        quantized = vq.lookup(codes, codebook)
        state = ema_update(ema_init(codebook), vectors, codes, decay=0.9)
        counts = vq.usage(codes, 6)
        gradient = jax.grad(lambda m: jnp.sin(vq.squared_distances(vectors, m)).sum())(codebook)
        return (
            codes,
            vq.straight_through(vectors, quantized),
            vq.commitment_loss(vectors, quantized),
            restart_dead_codes(jax.random.key(seed), state, vectors, threshold=1.5),
            perplexity(counts),
            vq.num_dead(counts),
            gradient,
        )

    got = jax.jit(jax.vmap(one))(jnp.arange(3), vectors, codebooks)
    single = jax.jit(one)
    loop = [single(i, vectors[i], codebooks[i]) for i in range(3)]
    want = jax.tree.map(lambda *leaves: np.stack(leaves), *loop)
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-5)
