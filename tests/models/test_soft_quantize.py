"""Averages under Gumbel-softmax weights, by blocks of rows and operation by operation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.models import _soft_blocks, vq_conv

N, D = 3, 4
KEY = jax.random.key(5)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> None:
    """Makes few rows fill several blocks."""
    monkeypatch.setattr(_soft_blocks, "_BLOCK", 2**14)
    monkeypatch.setattr(_soft_blocks, "_FEWEST", 4)


def arrays(num_codes, *, offset=0.0, spread=1.0, num_blocks=2):
    """Vectors of a few blocks, some of which lie on a code; a codebook, scales, a prior."""
    keys = jax.random.split(jax.random.key(0), 4)
    rows = num_blocks * (_soft_blocks._BLOCK // num_codes)
    codebook = offset + spread * jax.random.normal(keys[0], (N, num_codes, D))
    vectors = offset + spread * jax.random.normal(keys[1], (2, rows // 2, N, D))
    vectors = vectors.at[0, :2].set(jnp.moveaxis(codebook[:, :2], 0, 1))
    log_scale = 0.3 * jax.random.normal(keys[2], (N,))
    log_prior = jax.nn.log_softmax(jax.random.normal(keys[3], (N, num_codes)))
    return vectors, codebook, log_scale, log_prior


def quantize(inputs, **settings):
    return vq_conv.soft_quantize(jax.random.clone(KEY), *inputs, 0.5, **settings)


def with_gradients(inputs, hard=False):
    """Values, and the gradients of a sum of them with fixed weights."""
    shape = inputs[0].shape
    keys = jax.random.split(jax.random.key(1))
    draw = lambda key, shape: jax.random.normal(key, shape, jnp.float32)
    weights = list(map(draw, keys, (shape, shape[:-1])))

    def total(inputs):
        *found, codes = quantize(inputs, hard=hard)
        return sum((w * x).sum() for w, x in zip(weights, found, strict=True)), (*found, codes)

    gradients, values = jax.jit(jax.grad(total, has_aux=True))(inputs)
    return values, gradients


def doubles(inputs, hard=False):
    """The same of float64 inputs, which go through the single operations."""
    with jax.enable_x64(True):
        inputs = tuple(jnp.asarray(x, jnp.float64) for x in inputs)
        assert not takes_blocks(inputs)
        return jax.tree.map(np.asarray, with_gradients(inputs, hard))


def takes_blocks(inputs, **settings):
    """Tells whether the rows go through blocks: nothing else has a loop."""
    draw = jax.make_jaxpr(lambda inputs: quantize(inputs, **settings))(inputs)
    return "custom_vjp_call[" in str(draw) and "scan[" in str(draw)


@pytest.mark.many_cases
@pytest.mark.parametrize("num_codes", [2, 100, 4096])
@pytest.mark.parametrize("hard", [False, True])
def test_blocks_agree_with_float64(num_codes, hard) -> None:
    inputs = arrays(num_codes)
    assert takes_blocks(inputs)
    (averages, kl, codes), found = with_gradients(inputs, hard)
    (exact, exact_kl, exact_codes), expected = doubles(inputs, hard)
    assert np.mean(codes != exact_codes) < 1e-3  # where two are equal to rounding
    same = np.asarray(codes == exact_codes)
    np.testing.assert_allclose(averages[same], exact[same], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(kl, exact_kl, rtol=1e-5, atol=1e-5)
    if same.all():
        for x, y in zip(found, expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5 * np.abs(y).max())


def test_vectors_far_from_0_keep_their_digits() -> None:
    inputs = arrays(512, offset=1000.0)
    *_, kl = quantize(inputs)[:2]
    exact = doubles(inputs)[0][1]
    np.testing.assert_allclose(kl, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spread", [1e-3, 30.0])
def test_blocks_are_the_single_operations(monkeypatch, spread) -> None:
    """Also where logits are nearly equal, and where one code has all mass."""
    inputs = arrays(512, spread=spread)
    blocks = with_gradients(inputs)
    monkeypatch.setattr(_soft_blocks, "fits", lambda *_, **__: False)
    assert not takes_blocks(inputs)
    (*values, codes), gradients = with_gradients(inputs)
    np.testing.assert_array_equal(codes, blocks[0][2])  # the same noise
    chex.assert_trees_all_close(tuple(values), blocks[0][:2], rtol=2e-3, atol=2e-5 * spread)
    for x, y in zip(blocks[1], gradients, strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-3, atol=2e-4 * np.abs(y).max())


def test_hard_weights_may_come_within_a_program() -> None:
    inputs = arrays(256)
    draw = jax.jit(lambda hard: quantize(inputs, hard=hard)[0])
    np.testing.assert_array_equal(draw(True), quantize(inputs, hard=True)[0])
    np.testing.assert_array_equal(draw(False), quantize(inputs)[0])
    codes = quantize(inputs, hard=True)[2]
    np.testing.assert_allclose(draw(True), vq_conv.lookup(codes, inputs[1]), rtol=1e-6)


def test_no_gradient_of_a_kl_that_is_not_used() -> None:
    """Not even where it is infinite."""
    vectors, codebook, log_scale, log_prior = arrays(64)
    impossible = log_prior.at[:, 0].set(-jnp.inf)
    total = lambda inputs: quantize(inputs)[0].sum()
    inputs = (vectors, codebook, log_scale)
    found = jax.grad(lambda x: total((*x, impossible)))(inputs)
    chex.assert_trees_all_close(found, jax.grad(lambda x: total((*x, log_prior)))(inputs))


def test_no_gradient_flows_through_the_temperature() -> None:
    logits = jax.random.normal(jax.random.key(2), (5, N, 4))
    log_prior = jnp.full((N, 4), -np.log(4))

    def largest(temperature):
        key = jax.random.clone(KEY)
        return vq_conv.soft_codes(key, logits, log_prior, temperature)[0].max(-1).sum()

    assert jax.jit(jax.grad(largest))(0.5) == 0


def test_seeds_in_one_program() -> None:
    several = [arrays(128), arrays(128, spread=2.0)]
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *several)
    found = jax.vmap(lambda inputs: with_gradients(inputs))(stacked)
    for i, inputs in enumerate(several):
        own = jax.tree.map(lambda x, i=i: x[i], found)
        chex.assert_trees_all_close(own, with_gradients(inputs), rtol=1e-4, atol=1e-4)


def test_strict_promotion_and_doubles_elsewhere() -> None:
    inputs = arrays(64)
    structs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), inputs)
    with jax.numpy_dtype_promotion("strict"):
        jax.eval_shape(with_gradients, structs)
    with jax.enable_x64(True):
        assert takes_blocks(inputs)
        values, gradients = jax.eval_shape(with_gradients, structs)
    assert [x.dtype for x in values] == [jnp.float32, jnp.float32, jnp.int32]
    assert {x.dtype for x in gradients} == {jnp.dtype(jnp.float32)}


def test_one_array_of_all_codes_is_written() -> None:
    inputs = arrays(1024, num_blocks=32)
    structs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), inputs)
    total = lambda inputs: sum(x.sum() for x in quantize(inputs)[:2])
    memory = jax.jit(jax.grad(total)).lower(structs).compile().memory_analysis()
    all_codes = inputs[0].size // D * 1024 * 4
    assert memory.temp_size_in_bytes < 2 * all_codes  # operation by operation it is six times


@pytest.mark.parametrize("name", ["float64", "bfloat16", "rbg", "few rows", "odd rows"])
def test_other_inputs_go_through_the_single_operations(name) -> None:
    inputs = arrays(512)
    if name == "float64":
        with jax.enable_x64(True):
            assert not takes_blocks(tuple(jnp.asarray(x, jnp.float64) for x in inputs))
    elif name == "bfloat16":
        assert not takes_blocks(inputs, dtype=jnp.bfloat16)
    elif name == "rbg":
        draw = lambda x: vq_conv.soft_quantize(jax.random.key(0, impl="rbg"), *x, 0.5)
        assert "scan[" not in str(jax.make_jaxpr(draw)(inputs))
    else:
        rows = 3 if name == "few rows" else 61  # a prime number, of more rows than a block has
        assert not takes_blocks((inputs[0].reshape(-1, N, D)[:rows], *inputs[1:]))


def test_bad_arguments_are_refused() -> None:
    vectors, codebook, log_scale, log_prior = arrays(64)
    for bad, name in (
        ((vectors[..., :2, :], codebook, log_scale, log_prior), "vectors"),
        ((vectors, codebook, log_scale[:1], log_prior), "log_scale"),
        ((vectors, codebook, log_scale, log_prior[:, 1:]), "log_prior"),
    ):
        with pytest.raises(ValueError, match=name):
            quantize(bad)
    with pytest.raises(ValueError, match="temperature"):
        vq_conv.soft_quantize(KEY, vectors, codebook, log_scale, log_prior, 0.0)
    with pytest.raises(ValueError, match="single key"):
        vq_conv.soft_quantize(jax.random.split(KEY), vectors, codebook, log_scale, log_prior, 0.5)
