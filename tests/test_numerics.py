"""Each guard of `dvae._numerics`, at the input that it exists for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import _numerics


def test_uniform_from_bits_is_strictly_inside_the_unit_interval():
    u = _numerics.uniform_from_bits(jnp.array([0, 1, 2**31, 2**32 - 1], jnp.uint32))
    assert u.dtype == jnp.float32
    np.testing.assert_array_equal(u, np.float32([2.0**-33, 1.5 * 2.0**-32, 0.5, 1 - 2.0**-24]))


def test_uniform_from_bits_rounds_no_word_to_one():
    last = np.arange(2**32 - 1000, 2**32, dtype=np.uint32)
    assert float(_numerics.uniform_from_bits(jnp.asarray(last)).max()) < 1


def test_open_uniform_has_uniform_moments():
    u = np.asarray(_numerics.open_uniform(jax.random.key(0), (200_000,)), np.float64)
    for power in (1, 2, 3):
        error = (u**power).mean() - 1 / (power + 1)
        assert abs(error) < 5 * (u**power).std() / np.sqrt(u.size)


@pytest.mark.many_cases
@pytest.mark.parametrize("generator", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 8), (4,), (0, 3), (3, 0), ()])
def test_random_bits_are_those_of_jax(shape, generator):
    key = jax.random.key(7, impl=generator)
    expected = jax.random.bits(key, shape, jnp.uint32)
    draw = jax.jit(_numerics.random_bits, static_argnums=1)
    for found in (
        _numerics.random_bits(jax.random.clone(key), shape),
        draw(jax.random.clone(key), shape),
    ):
        assert found.dtype == jnp.uint32
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("partitionable", [False, True])
def test_random_bits_follow_the_configuration_of_jax(partitionable):
    with jax.threefry_partitionable(partitionable):
        expected = jax.random.bits(jax.random.key(1), (3, 5), jnp.uint32)
        found = _numerics.random_bits(jax.random.key(1), (3, 5))
    np.testing.assert_array_equal(found, expected)


def test_random_bits_under_vmap_are_a_loop_over_keys():
    keys = jax.random.split(jax.random.key(1), 3)
    together = jax.vmap(lambda key: _numerics.random_bits(key, (2, 5)))(keys)
    one = [_numerics.random_bits(jax.random.clone(keys)[i], (2, 5)) for i in range(3)]
    np.testing.assert_array_equal(together, one)


def test_standard_gumbel_is_finite_at_the_ends_of_the_uniform():
    draws = _numerics.gumbel_from_bits(jnp.array([0, 2**32 - 1], jnp.uint32))
    np.testing.assert_allclose(draws, [33 * np.log(2), -np.log(24 * np.log(2))], rtol=1e-6)


def test_standard_gumbel_has_the_gumbel_law():
    g = np.asarray(_numerics.standard_gumbel(jax.random.key(1), (200_000,)), np.float64)
    # E g = Euler's constant, Var g = pi^2 / 6, and the CDF exp(-exp(-g)) is uniform.
    for draws, mean in [
        (g, np.euler_gamma),
        ((g - np.euler_gamma) ** 2, np.pi**2 / 6),
        (np.exp(-np.exp(-g)), 1 / 2),
        (np.exp(-np.exp(-g)) ** 2, 1 / 3),
    ]:
        assert abs(draws.mean() - mean) < 5 * draws.std() / np.sqrt(draws.size)


def test_mass_times_is_zero_without_mass_in_value_and_gradient():
    mass = jnp.array([0.0, 0.0, 0.0, 0.5])
    x = jnp.array([-jnp.inf, jnp.nan, 3.0, -jnp.inf])
    np.testing.assert_array_equal(_numerics.mass_times(mass, x), [0, 0, 0, -np.inf])
    by_mass, by_x = jax.grad(lambda *xs: _numerics.mass_times(*xs).sum(), (0, 1))(mass[:3], x[:3])
    np.testing.assert_array_equal(by_mass, [0, 0, 3])  # a finite x keeps its gradient
    np.testing.assert_array_equal(by_x, [0, 0, 0])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_upcast_gives_float32(dtype):
    assert _numerics.upcast(jnp.ones(2, dtype)).dtype == jnp.float32


def test_same_rank_leaves_scalars_single():
    x, y = _numerics.same_rank(jnp.ones((2, 3)), jnp.float32(4))
    assert x.shape == (2, 3)
    assert y.shape == (1, 1)


def test_logit_keeps_its_digits_at_both_ends():
    p = np.float32([1e-30, 1e-7, 0.5, 1 - 2.0**-24])
    exact = np.log(np.float64(p)) - np.log1p(-np.float64(p))
    np.testing.assert_allclose(_numerics.logit(jnp.asarray(p)), exact, rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1,), jnp.float32),
        ((True, jnp.int32(3)), jnp.float32),
        ((jnp.int32(1), jnp.bfloat16(1)), jnp.bfloat16),
        ((jnp.bfloat16(1), 0.5), jnp.bfloat16),
        ((np.ones(2), jnp.float16(1)), jnp.float32),
    ],
)
def test_integers_have_no_say_in_the_dtype_of_a_result(values, expected):
    assert _numerics.float_dtype(*values) == expected
    with pytest.raises(TypeError, match="real numbers"):
        _numerics.float_dtype(*values, 1j)


@pytest.mark.parametrize("strict", ["standard", "strict"])
def test_upcast_widens_halves_and_integers_alone(strict):
    with jax.numpy_dtype_promotion(strict):
        for narrow in (jnp.bfloat16(1), jnp.float16(1), jnp.int8(1), True, 1):
            assert _numerics.upcast(narrow).dtype == jnp.float32
        with jax.enable_x64(True):
            assert _numerics.upcast(jnp.float64(1)).dtype == jnp.float64
            assert _numerics.upcast(jnp.float32(1)).dtype == jnp.float32
            assert _numerics.upcast(jnp.int32(1)).dtype == jnp.float64


def test_random_bits_refuse_what_is_no_single_key():
    with pytest.raises(ValueError, match="single key"):
        _numerics.random_bits(jax.random.split(jax.random.key(0)), (3,))
    with pytest.raises(TypeError):
        _numerics.random_bits(3, (3,))


def test_a_key_used_twice_is_noticed():
    key = jax.random.key(0)
    with jax.debug_key_reuse(True):
        _numerics.random_bits(key, (3,))
        with pytest.raises(jax.errors.KeyReuseError):
            _numerics.random_bits(key, (3,))


def test_vary_like_types_the_start_of_a_loop_inside_shard_map():
    mesh = jax.make_mesh((2,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))

    def total(x, marked):
        zero = jnp.zeros(())
        start = _numerics.vary_like(zero, x) if marked else zero
        return jax.lax.fori_loop(0, 3, lambda i, sum: sum + x[i], start)[None]

    each = jax.sharding.PartitionSpec("shards")
    run = lambda marked: jax.shard_map(
        lambda x: total(x, marked), mesh=mesh, in_specs=each, out_specs=each
    )
    np.testing.assert_array_equal(run(True)(jnp.arange(6.0)), [3, 12])
    with pytest.raises(TypeError, match="carry"):
        run(False)(jnp.arange(6.0))


def test_staging_is_told_from_execution():
    assert not _numerics.is_staged()
    assert jax.vmap(lambda x: x + _numerics.is_staged())(jnp.zeros(2)).sum() == 0
    assert jax.jit(_numerics.is_staged)()


@pytest.mark.parametrize("rise", [1e-3, 0.3, -7.0, 200.0])
def test_softplus_rise_is_a_difference(rise):
    old = np.float32([-200, -90, -30, -3, -1e-3, 0, 2, 30, 90, 200])
    new = old + np.float32(rise)
    expected = np.logaddexp(0, np.float64(new)) - np.logaddexp(0, np.float64(old))
    found = _numerics.softplus_rise(jnp.asarray(old), jnp.asarray(new))
    np.testing.assert_allclose(found, expected, rtol=2e-7, atol=2e-7)
