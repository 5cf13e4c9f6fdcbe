"""LFQ and BSQ: entropies against the soft assignment over all 2^d codes in float64; limits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import vq

MODULES = {"lfq": vq.lfq, "bsq": vq.bsq}
losses = {name: jax.jit(module.losses) for name, module in MODULES.items()}


def draw(seed, shape, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def unit(v):
    v = np.asarray(v, np.float64)
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def all_codes(dim):
    """[2^d, d], the first component varying fastest."""
    return np.array(list(itertools.product([-1.0, 1.0], repeat=dim)))[:, ::-1]


def on_sphere(name, v):
    """What is compared with codes, and the size of their components."""
    return (unit(v), v.shape[-1] ** -0.5) if name == "bsq" else (np.asarray(v, np.float64), 1.0)


def soft_assignment(points, codes, beta):
    """p(c|v) [N, 2^d] over all codes, from squared distances."""
    logits = -beta * np.square(points[:, None, :] - codes[None]).sum(-1)
    logits -= logits.max(-1, keepdims=True)
    p = np.exp(logits)
    return p / p.sum(-1, keepdims=True)


def entropy(p):
    return -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0), axis=-1)


@pytest.mark.many_cases
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("dim", range(1, 11))
def test_quantize_takes_signs(name, dim):
    module, codes = MODULES[name], np.arange(2**dim)
    points, size = on_sphere(name, all_codes(dim))
    q, found = jax.jit(module.quantize)(np.float32(3 * points))
    np.testing.assert_array_equal(found, codes)
    np.testing.assert_allclose(q, size * all_codes(dim), rtol=1e-7)
    np.testing.assert_array_equal(module.lookup(codes, dim), q)
    bits = module.quantize_bits(np.float32(points)).digits
    np.testing.assert_array_equal(bits, (all_codes(dim) + 1) / 2)
    np.testing.assert_array_equal(module.lookup_bits(bits), q)
    np.testing.assert_array_equal(vq.unpack_codes(codes, (2,) * dim), bits)
    np.testing.assert_array_equal(module.quantize(q).codes, codes)


@pytest.mark.many_cases
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize(("dim", "beta"), [(1, 100.0), (3, 0.3), (6, 2.0), (10, 0.05), (10, 1.0)])
def test_entropies_are_those_over_all_codes(name, dim, beta):
    v = draw(dim, (7, dim), 0.5)
    points, size = on_sphere(name, v)
    codes = size * all_codes(dim)
    p = soft_assignment(points, codes, beta)
    found = losses[name](v, inverse_temperature=beta)
    assert all(x.dtype == jnp.float32 and x.shape == () for x in found)
    np.testing.assert_allclose(found.conditional_entropy, entropy(p).mean(), rtol=1e-4, atol=1e-6)
    # The marginal one: of the bits of the mean over all codes, an upper bound of its entropy.
    mean = p.mean(0)
    on = np.array([mean[codes[:, i] > 0].sum() for i in range(dim)])
    of_bits = entropy(np.stack([on, 1 - on], axis=-1)).sum()
    np.testing.assert_allclose(found.marginal_entropy, of_bits, rtol=1e-4, atol=1e-6)
    assert found.marginal_entropy >= entropy(mean) - 1e-5
    squares = np.square(points - size * np.where(v > 0, 1, -1)).sum(-1)
    np.testing.assert_allclose(found.commitment, squares.mean(), rtol=1e-5)


@pytest.mark.many_cases
@pytest.mark.parametrize("dim", range(1, 11))
def test_marginal_entropy_is_exact_where_bits_are_independent(dim):
    # All combinations of two values a component: the mean of products is a product of means.
    pair = draw(0, (2, dim), 0.5)
    v = np.array(list(itertools.product(*pair.T))).reshape(-1, dim)
    p = soft_assignment(np.float64(v), all_codes(dim), 0.7)
    found = losses["lfq"](v, inverse_temperature=0.7)
    np.testing.assert_allclose(found.marginal_entropy, entropy(p.mean(0)), rtol=1e-5)
    np.testing.assert_allclose(found.conditional_entropy, entropy(p).mean(), rtol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("name", MODULES)
def test_gradients_are_those_over_all_codes(name):
    dim, beta = 5, 0.8
    v = draw(1, (6, dim), 0.5).astype(np.float64)

    def dense(v):
        size = 1.0
        if name == "bsq":
            v, size = v / jnp.linalg.norm(v, axis=-1, keepdims=True), dim**-0.5
        codes = jnp.asarray(size * all_codes(dim))
        p = jax.nn.softmax(-beta * jnp.square(v[:, None, :] - codes[None]).sum(-1))
        conditional = -(p * jnp.log(p)).sum(-1).mean()
        on = p.mean(0) @ (codes > 0)
        marginal = -(on * jnp.log(on) + (1 - on) * jnp.log(1 - on)).sum()
        q = jax.lax.stop_gradient(size * jnp.sign(v))
        return vq.lfq.Losses(jnp.square(v - q).sum(-1).mean(), conditional, marginal)

    with jax.enable_x64(True):
        ours = lambda v: MODULES[name].losses(v, inverse_temperature=beta)
        found, want = jax.jit(lambda v: (jax.jacrev(ours)(v), jax.jacrev(dense)(v)))(v)
        for a, b in zip(found, want, strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.many_cases
@pytest.mark.parametrize("name", MODULES)
def test_nothing_grows_with_the_number_of_codes(name):
    # d = 200: 2^200 codes.
    v = draw(2, (5, 200))
    found, gradient = jax.jit(
        jax.value_and_grad(lambda v: sum(MODULES[name].losses(v, inverse_temperature=1.0)))
    )(v)
    assert jnp.isfinite(found)
    assert jnp.all(jnp.isfinite(gradient))
    q, bits = MODULES[name].quantize_bits(v)
    np.testing.assert_array_equal(bits, v > 0)
    np.testing.assert_array_equal(MODULES[name].lookup_bits(bits), q)


def test_probabilities_that_underflow():
    # All of a bit's probabilities on one side round to 0 and 1: log 0 and its infinite slope.
    v = jnp.array([[5.0, -3.0, 0.0], [4.0, -1e3, 0.0]])
    value, gradient = jax.jit(jax.value_and_grad(lambda v: sum(vq.lfq.losses(v)[1:])))(v)
    np.testing.assert_allclose(value, 2 * np.log(2), rtol=1e-6)
    assert jnp.all(jnp.isfinite(gradient))
    # Not yet quite: the small side keeps its digits.
    found = losses["lfq"](jnp.array([[30.0]]), inverse_temperature=0.5)
    want = np.exp(-60.0) * 61
    np.testing.assert_allclose(found.marginal_entropy, want, rtol=1e-4)
    np.testing.assert_allclose(found.conditional_entropy, want, rtol=1e-4)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("name", MODULES)
def test_masked_positions_count_nowhere(name):
    v = draw(3, (4, 5, 3))
    mask = np.random.default_rng(0).random((4, 5)) < 0.5
    padded = np.where(mask[..., None], v, np.nan)
    total = lambda v, mask: sum(MODULES[name].losses(v, inverse_temperature=1.0, mask=mask))
    both = jax.jit(jax.value_and_grad(total))
    value, gradient = both(padded, mask)
    want, of_rest = both(v[mask], np.ones(mask.sum(), bool))
    np.testing.assert_allclose(value, want, rtol=1e-5)
    np.testing.assert_allclose(gradient[mask], of_rest, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(gradient[~mask], 0)
    value, gradient = both(padded, np.zeros_like(mask))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)
    assert all(x == 0 for x in MODULES[name].losses(np.zeros((0, 3), np.float32)))


@pytest.mark.thorough
def test_zeros_and_nan():
    v = jnp.array([[0.0, -0.0, 1.0], [jnp.nan, 1.0, -1.0], [jnp.inf, -jnp.inf, 1e-45]])
    for name, module in MODULES.items():
        q, codes = module.quantize(v)
        assert codes[0] == 4
        assert codes[1] == 8
        np.testing.assert_array_equal(jnp.isnan(q[:2]), [[False] * 3, [True, False, False]])
        assert jnp.all(jnp.isnan(module.lookup(codes[1], 3)))
        assert jnp.all(jnp.isnan(module.lookup(-1, 3)))
        np.testing.assert_array_equal(module.quantize_bits(v).digits[1], [2, 1, 0])
        assert jnp.isnan(losses[name](v).commitment)
    np.testing.assert_array_equal(vq.lfq.quantize(v).q[2, :2], [1, -1])
    zero = jnp.zeros((1, 4))
    np.testing.assert_array_equal(vq.bsq.quantize(zero).q, -0.5 * jnp.ones((1, 4)))
    np.testing.assert_array_equal(jax.grad(lambda v: vq.bsq.quantize(v).q.sum())(zero), 0)


@pytest.mark.thorough
def test_nearly_certain_bits_keep_their_gradient_of_the_marginal_entropy():
    """-sum_b p_b log p_b of mirrored vectors has mirrored slopes, of either sign of the logits."""
    v = jnp.full((10, 1), -0.06).at[0].set(0.06)  # logits of 24
    slope = lambda v: jax.grad(lambda v: vq.lfq.losses(v, inverse_temperature=100.0)[2])(v)
    on, mirrored = slope(v), slope(-v)
    np.testing.assert_allclose(on, -mirrored, rtol=1e-3)
    np.testing.assert_allclose(on, jnp.full_like(on, on[1]), rtol=1e-3)


def test_straight_through_gradients():
    v, weights = draw(4, (6, 3)), draw(5, (6, 3))
    gradient = lambda module: jax.grad(lambda v: jnp.sum(weights * module.quantize(v).q))(v)
    np.testing.assert_array_equal(gradient(vq.lfq), weights)
    u, length = unit(v), np.linalg.norm(v, axis=-1, keepdims=True)
    want = (weights - u * (u * weights).sum(-1, keepdims=True)) / length
    np.testing.assert_allclose(gradient(vq.bsq), want, rtol=1e-4, atol=1e-6)
    # Of length 1 for vectors of any length.
    for scale in (1e-25, 1e25):
        q = vq.bsq.quantize(np.float32(scale) * v).q
        np.testing.assert_allclose(jnp.linalg.norm(q, axis=-1), 1, rtol=1e-6)


@pytest.mark.thorough
def test_bad_input_is_refused():
    v = jnp.ones((2, 31))
    for module in MODULES.values():
        with pytest.raises(ValueError, match=r"fewer than 2\^31 .*quantize_bits.* got 2147483648"):
            module.quantize(v)
        with pytest.raises(ValueError, match=r"fewer than 2\^31 .*lookup_bits"):
            module.lookup(0, 31)
        with pytest.raises(ValueError, match="num_bits must be at least 1, got 0"):
            module.lookup(0, 0)
        assert module.quantize(v[:, :30]).codes[0] == 2**30 - 1
        with pytest.raises(ValueError, match="inverse_temperature must be positive, got 0"):
            module.losses(v, inverse_temperature=0.0)
        for mask in (np.ones((2, 31), bool), np.ones(3, bool), np.ones(2)):
            with pytest.raises(ValueError, match=r"mask must be boolean \(2,\)"):
                module.losses(v, mask=mask)
        for function in (module.quantize, module.quantize_bits, module.losses):
            for bad in (1.0, np.zeros((3, 0))):
                with pytest.raises(ValueError, match=r"v must be \[\.\.\., D\]"):
                    function(bad)
        with pytest.raises(TypeError, match="integers, got float32"):
            module.lookup_bits(v)
