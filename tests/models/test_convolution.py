"""Both forms of every convolution are the same linear map, with the same gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dvae.models import _convolution as convolution
from dvae.models import _products
from dvae.models._bias import add_bias


def both_forms(monkeypatch, function, *args):
    """Value and gradients in the matrix form and in the ordinary one."""
    results = []
    for use_matmul in (True, False):
        monkeypatch.setattr(convolution, "use_matmul", lambda use=use_matmul: use)

        def value_and_gradients(*args):
            out, pull_back = jax.vjp(function, *args)
            cotangent = jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape)
            return (out, *pull_back(cotangent))

        results.append(jax.jit(value_and_gradients)(*args))
    return results


@pytest.mark.many_cases
@pytest.mark.parametrize(
    ("size", "stride", "shape"),
    [(1, 1, (2, 3, 5, 4)), (3, 1, (2, 3, 5, 4)), (5, 1, (1, 6, 4, 2)), (4, 2, (2, 8, 6, 3))],
)
@pytest.mark.parametrize("features", [7, 20])
def test_convolutions_agree(monkeypatch, size, stride, shape, features) -> None:
    """Few features of an even width are computed for two columns at once."""
    x = jax.random.normal(jax.random.key(0), shape)
    kernel = jax.random.normal(jax.random.key(1), (size, size, shape[-1], features))
    matrix, ordinary = both_forms(
        monkeypatch, lambda x, k: convolution.conv(x, k, stride=stride), x, kernel
    )
    assert matrix[0].shape == (shape[0], shape[1] // stride, shape[2] // stride, features)
    for a, b in zip(matrix, ordinary, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.many_cases
@pytest.mark.parametrize(("features_in", "features"), [(4, 6), (9, 2)])
def test_transposed_convolutions_agree(monkeypatch, features_in, features) -> None:
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, features_in))
    kernel = jax.random.normal(jax.random.key(1), (4, 4, features_in, features))
    matrix, ordinary = both_forms(monkeypatch, convolution.conv_transpose, x, kernel)
    assert matrix[0].shape == (2, 6, 10, features)
    for a, b in zip(matrix, ordinary, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("left", "right"), [(3, 5), (5, 3), (30, 20), (4, 4)])
def test_a_sum_of_outer_products_over_rows(left, right) -> None:
    """Whichever operand is wider, and with fewer rows than either."""
    x, y = (jax.random.normal(jax.random.key(i), (7, n)) for i, n in enumerate((left, right)))
    got = jax.jit(_products.matmul_transposed)(x, y)
    np.testing.assert_allclose(got, np.asarray(x).T @ np.asarray(y), rtol=1e-5, atol=1e-5)
    half = _products.matmul_transposed(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16))
    assert (half.dtype, half.shape) == (jnp.float32, (left, right))


@pytest.mark.many_cases
@pytest.mark.parametrize("features", [2, 6])
def test_transposed_convolutions_agree_for_several_models_at_once(monkeypatch, features) -> None:
    """As `vmap_seeds` runs them: kernels and inputs of three seeds."""
    x = jax.random.normal(jax.random.key(0), (3, 2, 3, 5, 4))
    kernel = jax.random.normal(jax.random.key(1), (3, 4, 4, 4, features))
    matrix, ordinary = both_forms(monkeypatch, jax.vmap(convolution.conv_transpose), x, kernel)
    for a, b in zip(matrix, ordinary, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("use_matmul", [True, False])
def test_transposed_convolution_in_bfloat16(monkeypatch, use_matmul) -> None:
    monkeypatch.setattr(convolution, "use_matmul", lambda: use_matmul)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 64))
    kernel = jax.random.normal(jax.random.key(1), (4, 4, 64, 16)) / 16
    scores = jax.random.normal(jax.random.key(2), (4, 16, 16, 16))
    value = lambda x, k: (convolution.conv_transpose(x, k).astype(jnp.float32) * scores).sum()
    exact = jax.grad(value, argnums=(0, 1))(x, kernel)
    low = jax.grad(value, argnums=(0, 1))(x.astype(jnp.bfloat16), kernel)
    assert [g.dtype for g in low] == [jnp.bfloat16, jnp.float32]
    for a, b in zip(low, exact, strict=True):
        np.testing.assert_allclose(
            a.astype(jnp.float32), b, atol=0.02 * float(jnp.abs(b).max()), rtol=0
        )


def test_transposed_convolution_against_its_definition(monkeypatch) -> None:
    """out[2 i + a] = sum over s of x[i + a + s - 1] kernel[a + 2 s], one axis at a time."""
    x = np.random.default_rng(0).normal(size=(1, 3, 3, 2)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(4, 4, 2, 1)).astype(np.float32)
    expected = np.zeros((6, 6))
    for i, j, a, b, s, t in np.ndindex(3, 3, 2, 2, 2, 2):
        row, column = i + a + s - 1, j + b + t - 1
        if 0 <= row < 3 and 0 <= column < 3:
            expected[2 * i + a, 2 * j + b] += x[0, row, column] @ kernel[a + 2 * s, b + 2 * t, :, 0]
    out = convolution.conv_transpose(jnp.asarray(x), jnp.asarray(kernel))
    np.testing.assert_allclose(out[0, :, :, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("use_matmul", [True, False])
def test_pieces_join_to_the_whole(monkeypatch, use_matmul) -> None:
    monkeypatch.setattr(convolution, "use_matmul", lambda: use_matmul)
    images = jnp.arange(2 * 6 * 4 * 3).reshape(2, 6, 4, 3)
    pieces = convolution.split_like_pieces(images)
    np.testing.assert_array_equal(convolution.join_pieces(pieces), images)
    kernel = jax.random.normal(jax.random.key(0), (4, 4, 3, 5))
    if use_matmul:
        taps = convolution.phase_taps(kernel)
        np.testing.assert_array_equal(convolution.join_phase_taps(taps, kernel.shape), kernel)


def test_bfloat16_products_accumulate_in_float32() -> None:
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 64))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 64, 16)) / 24
    exact = convolution.conv(x, kernel)
    low = convolution.conv(x.astype(jnp.bfloat16), kernel)
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(jnp.float32), exact, atol=0.05)
    total = lambda x, k: convolution.conv(x, k).astype(jnp.float32).sum()
    gradient = jax.grad(total, 1)(x.astype(jnp.bfloat16), kernel)
    assert gradient.dtype == jnp.float32
    expected = jax.grad(total, 1)(x, kernel)
    np.testing.assert_allclose(gradient, expected, atol=0.02 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("bias_shape", [(4,), (2, 4)])
def test_bias_in_both_forms(monkeypatch, bias_shape) -> None:
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, *bias_shape))
    bias = jax.random.normal(jax.random.key(1), bias_shape)
    once, twice = both_forms(monkeypatch, add_bias, x, bias)
    np.testing.assert_array_equal(twice[0], once[0])
    np.testing.assert_array_equal(twice[1], once[1])
    np.testing.assert_allclose(twice[2], once[2], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_bias_gradient_of_a_sharded_batch(monkeypatch, axis_type) -> None:
    monkeypatch.setattr(convolution, "use_matmul", lambda: False)
    x = jnp.arange(4 * 2 * 3 * 5, dtype=jnp.float32).reshape(4, 2, 3, 5)
    square = lambda x, b: (add_bias(x, b) ** 2).sum()
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))
        gradient = jax.jit(jax.grad(square, 1))(sharded, jnp.ones(5))
    np.testing.assert_array_equal(gradient, 2 * (x + 1).sum((0, 1, 2)))


@pytest.mark.thorough
@pytest.mark.parametrize("use_matmul", [True, False])
def test_bias_gradient_is_not_rounded(monkeypatch, use_matmul) -> None:
    """A bfloat16 sum of 4,096 ones stops growing at 256."""
    monkeypatch.setattr(convolution, "use_matmul", lambda: use_matmul)
    x = jnp.zeros((64, 8, 8, 3), jnp.bfloat16)
    total = lambda b: add_bias(x, b).astype(jnp.float32).sum()
    gradient = jax.grad(total)(jnp.zeros(3))
    np.testing.assert_array_equal(gradient, 4096.0)


@pytest.mark.parametrize(
    ("shape", "size", "stride", "message"),
    [
        ((1, 5, 6, 1), 4, 2, "even image sizes"),
        ((1, 4, 4, 1), 4, 1, "odd kernel"),
        ((1, 4, 4, 1), 3, 2, "4x4 at stride 2"),
    ],
)
def test_misuse(shape, size, stride, message) -> None:
    with pytest.raises(ValueError, match=message):
        convolution.conv(jnp.zeros(shape), jnp.zeros((size, size, 1, 1)), stride=stride)
