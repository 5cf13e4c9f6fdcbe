"""What all quantizers promise: codes that give back q, in every context, also of odd vectors."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dvae import vq

rng = np.random.default_rng(0)
CODEBOOKS = rng.normal(size=(2, 6, 3)).astype(np.float32)
WEIGHTS = rng.normal(size=(3, 3)).astype(np.float32)


class Quantizer(NamedTuple):
    """A quantizer of vectors [..., 3], its inverse, and its number of codes."""

    quantize: object
    lookup: object
    num_codes: int


def codebook(module, *learned):
    # In the dtype of the vectors, as a model in half precision has it.
    of = lambda v: [jnp.asarray(x, v.dtype) for x in learned]
    return Quantizer(
        lambda v: module.quantize(v, *of(v)),
        lambda codes, v: module.lookup(codes, *of(v)),
        np.shape(learned[0])[-2],
    )


def scalar(module, num_codes, *settings):
    return Quantizer(
        lambda v: module.quantize(v, *(settings if module is vq.fsq else ())),
        lambda codes, v: module.lookup(codes, *settings, dtype=v.dtype),
        num_codes,
    )


QUANTIZERS = {
    "fsq": scalar(vq.fsq, 160, (8, 5, 4)),
    "lfq": scalar(vq.lfq, 8, 3),
    "bsq": scalar(vq.bsq, 8, 3),
    "cosine": codebook(vq.cosine, CODEBOOKS[0]),
    "simvq": codebook(vq.simvq, CODEBOOKS[0], WEIGHTS),
    "residual": codebook(vq.residual, CODEBOOKS),
    "cosine, one code": codebook(vq.cosine, CODEBOOKS[0, :1]),
    "simvq, one code": codebook(vq.simvq, CODEBOOKS[0, :1], WEIGHTS),
    "residual, one code": codebook(vq.residual, CODEBOOKS[:, :1]),
}
every = pytest.mark.parametrize("name", QUANTIZERS)
each_once = pytest.mark.parametrize("name", [x for x in QUANTIZERS if "," not in x])


def draw(shape=(8, 3), dtype=np.float32):
    return np.random.default_rng(1).normal(size=shape).astype(dtype)


def both(name):
    """Result and gradient of a weighted sum."""

    def total(v):
        found = QUANTIZERS[name].quantize(v)
        weights = jnp.arange(1, 4).astype(found.q.dtype)
        return jnp.sum(found.q @ weights), found

    return jax.value_and_grad(total, has_aux=True)


def close(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)


@pytest.mark.thorough
@pytest.mark.many_cases
@every
def test_codes_give_back_the_values(name):
    quantizer = QUANTIZERS[name]
    v = draw((50, 3))
    found = jax.jit(quantizer.quantize)(v)
    assert isinstance(found, vq.Quantized)
    q, codes = found
    assert codes.dtype == jnp.int32
    assert np.all((codes >= 0) & (codes < quantizer.num_codes))
    assert len(np.unique(codes)) > quantizer.num_codes // 8
    np.testing.assert_array_equal(q, jax.jit(quantizer.lookup)(codes, v))
    close(quantizer.quantize(v), found)


@pytest.mark.many_cases
@each_once
def test_batch_axes(name):
    quantize = QUANTIZERS[name].quantize
    v = draw((4, 5, 3))
    found = jax.jit(quantize)(v)
    assert found.q.shape == v.shape
    assert found.codes.shape[:2] == v.shape[:2]
    close(jax.jit(jax.vmap(quantize))(v), found)
    close(jax.tree.map(lambda x: x[0, 0], found), jax.jit(quantize)(v[0, 0]))
    for empty in ((0, 3), (2, 0, 3)):
        value, gradient = jax.jit(both(name))(np.zeros(empty, np.float32))
        assert value[0] == 0
        assert value[1].q.shape == gradient.shape == empty
        assert value[1].codes.size == 0


@pytest.mark.many_cases
@each_once
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(name, dtype):
    v = jnp.asarray(draw((200, 3)), dtype)
    quantize = jax.jit(QUANTIZERS[name].quantize)
    found, wide = quantize(v), quantize(v.astype(jnp.float32))
    assert found.q.dtype == dtype
    if name in ("fsq", "lfq", "bsq"):  # whose codes do not depend on the codebook's rounding
        np.testing.assert_array_equal(found.codes, wide.codes)
        np.testing.assert_array_equal(found.q, wide.q.astype(dtype))
    np.testing.assert_array_equal(found.q, QUANTIZERS[name].lookup(found.codes, v))


@pytest.mark.many_cases
@every
def test_zero_and_huge_vectors(name):
    for scale in (0, 1e-38, 1e30):
        (_, (q, codes)), gradient = jax.jit(both(name))(scale * draw())
        assert np.all((codes >= 0) & (codes < QUANTIZERS[name].num_codes))
        assert np.all(np.isfinite(q))
        assert np.all(np.isfinite(gradient))


@pytest.mark.many_cases
@every
def test_nan_stays_visible(name):
    quantizer = QUANTIZERS[name]
    v = draw()
    v[3, 1] = np.nan
    quantize = jax.jit(quantizer.quantize)
    q, codes = quantize(v)
    if name.startswith(("cosine", "simvq", "residual")):
        v[3, 1] = np.inf  # without a nearest code either
        np.testing.assert_array_equal(quantize(v).codes, codes)
    np.testing.assert_array_equal(jnp.isnan(q).any(-1), np.arange(8) == 3)
    codes = codes.reshape(8, -1)
    assert np.all(codes[3] == quantizer.num_codes)
    assert np.all(np.delete(codes, 3, 0) < quantizer.num_codes)
    assert vq.usage(codes[:, 0], quantizer.num_codes).sum() == 7
    bad = np.full_like(codes[3], quantizer.num_codes)
    for code in (bad, 2**30 + bad, -2 + 0 * bad):
        code = code if name.startswith("residual") else code[0]
        assert np.all(np.isnan(quantizer.lookup(code, v)))


@pytest.mark.many_cases
@each_once
def test_inside_shard_map(name):
    v = draw((8, 3))
    mesh = jax.make_mesh((8,), ("shards",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("shards")

    def one(v):
        (_, found), gradient = both(name)(v)
        return found, gradient

    close(jax.jit(jax.shard_map(one, mesh=mesh, in_specs=spec, out_specs=spec))(v), jax.jit(one)(v))


@pytest.mark.many_cases
@each_once
def test_over_an_explicit_mesh(name):
    v = draw((8, 3))
    expected = jax.jit(both(name))(v)
    mesh = jax.make_mesh((8,), ("shards",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        spread = jax.device_put(v, NamedSharding(mesh, PartitionSpec("shards")))
        found = jax.jit(both(name))(spread)
        assert found[1].sharding.spec[0] == "shards"
        close(found, expected)


@pytest.mark.thorough
@each_once
def test_double_precision(name):
    v = draw((50, 3), np.float64)
    narrow = jax.jit(QUANTIZERS[name].quantize)(v.astype(np.float32))
    with jax.enable_x64(True):
        q, codes = jax.jit(QUANTIZERS[name].quantize)(v)
    assert q.dtype == jnp.float64
    assert codes.dtype == jnp.int32
    np.testing.assert_array_equal(codes, narrow.codes)
    np.testing.assert_allclose(q, narrow.q, rtol=1e-6, atol=1e-6)


@each_once
def test_forward_mode_is_the_transpose_of_reverse_mode(name):
    v, tangent, cotangent = draw(), draw()[::-1] + 1, draw()[:, ::-1] - 1
    values = lambda v: QUANTIZERS[name].quantize(v).q

    @jax.jit
    def products(v):
        _, forward = jax.jvp(values, (v,), (tangent,))
        (backward,) = jax.vjp(values, v)[1](jnp.asarray(cotangent))
        return jnp.sum(forward * cotangent), jnp.sum(backward * tangent)

    forward, backward = products(v)
    np.testing.assert_allclose(forward, backward, rtol=1e-5)


@pytest.mark.parametrize(
    "draw_with",
    [
        lambda key: vq.simvq.init(key, num_codes=2, dim=2),
        lambda key: vq.residual.draw_depth(key, 3),
        lambda key: vq.residual.kmeans(key, draw(), num_stages=2, num_codes=2, num_iters=1),
    ],
)
def test_one_typed_key(draw_with):
    with pytest.raises(ValueError, match="single key"):
        draw_with(jax.random.split(jax.random.key(0)))
    with pytest.raises(TypeError, match="typed key"):
        draw_with(jax.random.PRNGKey(0))


@pytest.mark.many_cases
@each_once
def test_integers_and_numpy_arrays(name):
    v = np.arange(12).reshape(4, 3) % 5 - 2
    quantize = lambda v: QUANTIZERS[name].quantize(v)
    wide = jnp.asarray(v, jnp.float32)
    if name in ("fsq", "lfq", "bsq"):
        close(quantize(v), quantize(wide))
    elif name == "residual":
        close(vq.residual.quantize(v, CODEBOOKS), quantize(wide))
    else:
        learned = (CODEBOOKS[0], WEIGHTS)[: 1 + (name == "simvq")]
        close(getattr(vq, name).quantize(v, *learned), quantize(wide))
