"""FSQ against its equations in float64, over all codes of the grids of the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import vq

fsq = vq.fsq
GRIDS = [(8, 6, 5), (8, 5, 5, 5), (7, 5, 5, 5, 5), (8, 8, 8, 6, 5), (2,), (3, 2), (98, 99, 2)]
LEVELS = [*range(2, 20), 255, 256, 999, 1000, 1001, 1002, 1003, 3000, 5001]


def bound(v, level):
    """The bounded component, in float64."""
    half = (level - 1) * (1 + 1e-3) / 2
    offset = 0.5 if level % 2 == 0 else 0.0
    return half * np.tanh(np.asarray(v, np.float64) + np.arctanh(offset / half)) - offset


def inverse_bound(b, level):
    half = (level - 1) * (1 + 1e-3) / 2
    offset = 0.5 if level % 2 == 0 else 0.0
    return np.arctanh((np.asarray(b) + offset) / half) - np.arctanh(offset / half)


def all_digits(grid):
    return np.stack(np.unravel_index(np.arange(np.prod(grid)), grid, order="F"), axis=-1)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("grid", GRIDS)
def test_codes_to_values_to_codes_over_all_codes(grid):
    codes = np.arange(np.prod(grid))
    half = np.array(grid) // 2
    want = (all_digits(grid) - half).astype(np.float32) / half.astype(np.float32)
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        lookup = lambda c, d=dtype: fsq.lookup(c, grid, dtype=d)
        values = jax.jit(lookup)(codes)
        assert values.dtype == dtype
        # Exactly the quotient, rounded once: 49 / 49 is 1.
        np.testing.assert_array_equal(values, want.astype(dtype))
        np.testing.assert_array_equal(lookup(codes), values)
        back = jax.jit(lambda q: fsq.codes_of_values(q, grid))(values)
        assert back.dtype == jnp.int32
        np.testing.assert_array_equal(back, codes)


@pytest.mark.many_cases
@pytest.mark.parametrize("grid", GRIDS)
def test_every_code_is_reached(grid):
    digits = all_digits(grid)
    v = np.stack(
        [inverse_bound(digits[:, i] - size // 2, size) for i, size in enumerate(grid)], axis=-1
    ).astype(np.float32)
    q, codes = jax.jit(lambda v: fsq.quantize(v, grid))(v)
    np.testing.assert_array_equal(codes, np.arange(np.prod(grid)))
    np.testing.assert_array_equal(q, fsq.lookup(codes, grid))
    np.testing.assert_array_equal(fsq.quantize_digits(v, grid).digits, digits)
    np.testing.assert_array_equal(vq.unpack_codes(codes, grid), digits)


@pytest.mark.many_cases
@pytest.mark.parametrize("level", LEVELS)
def test_bounds(level):
    far = jnp.array([[-jnp.inf], [-1e6], [-3.4e38], [1e6], [3.4e38], [jnp.inf]])
    q, codes = jax.jit(lambda v: fsq.quantize(v, (level,)))(far)
    np.testing.assert_array_equal(codes, [0] * 3 + [level - 1] * 3)
    highest = (level - 1 - level // 2) / (level // 2)
    np.testing.assert_array_equal(q[:, 0], np.float32([-1] * 3 + [highest] * 3))
    slope = jax.jit(jax.grad(lambda v: fsq.quantize(v, (level,)).q.sum()))(far)
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.many_cases
@pytest.mark.parametrize("level", LEVELS)
def test_exactly_so_many_levels_of_equal_width(level):
    # The boundaries between codes, found by bisection in float64.
    with jax.enable_x64(True):
        code = jax.jit(lambda v: fsq.quantize(v[:, None], (level,)).codes)
        low, high = np.full(level - 1, -30.0), np.full(level - 1, 30.0)
        for _ in range(60):
            middle = (low + high) / 2
            above = np.asarray(code(middle)) > np.arange(level - 1)
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        assert np.all(np.diff(high) > 0)
        # One code between neighbors, and no other at either end.
        samples = np.concatenate([[-np.inf], (high[1:] + high[:-1]) / 2, [np.inf]])
        np.testing.assert_array_equal(code(samples), np.arange(level))
    boundaries = bound(high, level)
    np.testing.assert_allclose(
        boundaries, np.arange(level - 1) - level // 2 + 0.5, atol=1e-9 * level
    )


@pytest.mark.parametrize("level", [2, 3, 8, 17])
def test_gradient_is_that_of_the_bound(level):
    v = np.linspace(-14, 14, 1001, dtype=np.float32)[:, None]
    gradient = jax.jit(jax.grad(lambda v: fsq.quantize(v, (level,)).q.sum()))(v)
    half, shift = (level - 1) * 1.001 / 2, np.arctanh((level % 2 == 0) / ((level - 1) * 1.001))
    want = half / np.cosh(v.astype(np.float64) + shift) ** 2 / (level // 2)
    # Where tanh has rounded to 1 too: 1 - tanh^2 would be 0 from 9 on, and noise before.
    np.testing.assert_allclose(gradient, want, rtol=1e-5)
    assert np.all(gradient > 0)


def test_derivatives_of_any_order():
    x = jnp.linspace(-3, 3, 7)
    derivative = lambda f, n: f if n == 0 else derivative(jax.grad(f), n - 1)
    for order in (1, 2, 3):
        found = jax.jit(jax.vmap(derivative(lambda x: fsq.quantize(x[None], (3,)).q[0], order)))(x)
        want = jax.jit(jax.vmap(derivative(lambda x: 1.001 * jnp.tanh(x), order)))(x)
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_rounded_in_float32(dtype):
    grid = (8, 255, 257)
    v = jax.random.normal(jax.random.key(0), (500, 3), dtype)
    quantize = jax.jit(lambda v: fsq.quantize(v, grid))
    (q, codes), wide = quantize(v), quantize(v.astype(jnp.float32))
    assert q.dtype == dtype
    np.testing.assert_array_equal(codes, wide.codes)
    np.testing.assert_array_equal(q, wide.q.astype(dtype))
    np.testing.assert_array_equal(fsq.codes_of_values(q, grid), codes)


@pytest.mark.thorough
def test_float_by_float_around_every_boundary():
    for level in (2, 5, 8):
        edges = inverse_bound(np.arange(level - 1) - level // 2 + 0.5, level).astype(np.float32)
        steps = np.arange(-40, 40, dtype=np.int32)
        v = (edges[:, None].view(np.int32) + steps).view(np.float32).ravel()
        q, codes = jax.jit(lambda v, n=level: fsq.quantize(v[:, None], (n,)))(v)
        np.testing.assert_array_equal(q, fsq.lookup(codes, (level,)))
        below = np.repeat(np.arange(level - 1), len(steps))
        assert np.all((codes == below) | (codes == below + 1))
        excess = bound(v, level) - (below - level // 2 + 0.5)
        clear = np.abs(excess) > 3e-7 * level  # beyond the rounding of tanh
        np.testing.assert_array_equal(codes[clear], (below + (excess > 0))[clear])


@pytest.mark.thorough
def test_nan_stays_visible():
    v = jnp.array([[jnp.nan, 0.0, 1.0], [0.0, 0.0, 0.0]])
    q, codes = fsq.quantize(v, (8, 6, 5))
    assert codes[0] == 240
    np.testing.assert_array_equal(jnp.isnan(q), [[True, False, False], [False] * 3])
    np.testing.assert_array_equal(fsq.quantize_digits(v, (8, 6, 5)).digits[0, 0], 8)
    for bad in (240, -1, 10**9):
        assert jnp.all(jnp.isnan(fsq.lookup(bad, (8, 6, 5))))
    np.testing.assert_array_equal(
        fsq.codes_of_values(jnp.array([[jnp.nan, 0, 0], [1.3, 0, 0], [0, 0, 0]]), (8, 6, 5)),
        [240, 240, codes[1]],
    )
    np.testing.assert_array_equal(vq.usage(codes, 240).sum(), 1)


def test_more_codes_than_integers():
    grid = (8,) * 20
    v = jax.random.normal(jax.random.key(0), (5, 20))
    q, digits = fsq.quantize_digits(v, grid)
    np.testing.assert_array_equal(fsq.lookup_digits(digits, grid), q)
    with pytest.raises(ValueError, match=r"fewer than 2\^31 .*quantize_digits"):
        fsq.quantize(v, grid)


def test_bad_levels_are_refused():
    v = jnp.ones((4, 3))
    for levels in ((8, 1, 5), (), (8, 6, -5), 8, (8.0, 5, 5)):
        with pytest.raises(
            ValueError, match=r"levels must be one or more integers, each >= 2, got"
        ):
            fsq.quantize(v, levels)
    for function in (fsq.quantize, fsq.quantize_digits, fsq.codes_of_values):
        with pytest.raises(ValueError, match=r"each of the 3 components, got \(8, 6\)"):
            function(v, (8, 6))
    with pytest.raises(ValueError, match=r"each of the 3 components"):
        fsq.lookup_digits(jnp.zeros((4, 3), int), (8, 6))
    with pytest.raises(ValueError, match=r"v must be \[\.\.\., D\] .* got \(\)"):
        fsq.quantize(1.0, (8,))
    with pytest.raises(ValueError, match=r"at most 513 for values in bfloat16 .*got \(514, 2, 2\)"):
        fsq.codes_of_values(v.astype(jnp.bfloat16), (514, 2, 2))
    with pytest.raises(TypeError, match="integers"):
        fsq.lookup(v, (8, 6, 5))


@pytest.mark.thorough
def test_the_coarsest_levels_that_half_precision_tells_apart():
    for dtype, largest in ((jnp.bfloat16, 513), (jnp.float16, 4097)):
        codes = np.arange(largest)
        values = fsq.lookup(codes, (largest,), dtype=dtype)
        np.testing.assert_array_equal(fsq.codes_of_values(values, (largest,)), codes)
