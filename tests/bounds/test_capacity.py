"""`bounds.capacity` by hand, and the whole objective against float64 NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.bounds import elbo
from dvae.bounds.capacity import capacity_penalty, capacity_schedule, max_discrete_capacity
from dvae.distributions import categorical, normal


def test_schedule_by_hand():
    rise = jax.jit(jax.vmap(lambda step: capacity_schedule(step, final=6.0, num_steps=4)))
    capacities = rise(jnp.arange(7))
    assert capacities.dtype == jnp.float32
    np.testing.assert_array_equal(capacities, [0.0, 1.5, 3.0, 4.5, 6.0, 6.0, 6.0])


def test_schedule_stops_at_the_limit_without_changing_its_slope():
    capacities = [float(capacity_schedule(s, final=6.0, num_steps=4, limit=2.5)) for s in range(6)]
    assert capacities == [0.0, 1.5, 2.5, 2.5, 2.5, 2.5]


def test_published_schedule_of_ten_classes_reaches_its_limit_before_half_of_the_steps():
    limit = max_discrete_capacity([10])
    steps = jnp.array([0, 11_512, 11_513, 25_000, 2**31 - 1])
    capacities = jax.jit(
        jax.vmap(lambda step: capacity_schedule(step, final=5.0, num_steps=25_000, limit=limit))
    )(steps)
    log_ten = math.log(10)
    np.testing.assert_allclose(capacities, [0, 2.3024, log_ten, log_ten, log_ten], rtol=1e-7)


@pytest.mark.parametrize("num_steps", [1, 3, 25_000, 10**10])
def test_schedule_ends_exactly_at_its_final_value(num_steps):
    for step in (num_steps, 10 * num_steps):
        assert capacity_schedule(float(step), final=0.1, num_steps=num_steps) == np.float32(0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"final": 5.0, "num_steps": 0}, "at least 1, got 0; for a constant capacity"),
        ({"final": -5.0, "num_steps": 9}, "final must be .* at least 0 .* got -5.0"),
        ({"final": math.nan, "num_steps": 9}, "got nan"),
        ({"final": math.inf, "num_steps": 9}, "finite.* got inf"),
        ({"final": 5.0, "num_steps": 9, "limit": -1.0}, "got -1.0; take max_discrete_capacity"),
        ({"final": 5.0, "num_steps": 9, "limit": math.nan}, "limit must be at least 0, got nan"),
    ],
)
def test_schedule_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        capacity_schedule(0, **options)


def test_schedule_of_more_steps_than_an_int32_can_count():
    for step in (5, 2**31 - 1):
        found = capacity_schedule(jnp.int32(step), final=5.0, num_steps=3_000_000_000)
        np.testing.assert_allclose(found, 5.0 * step / 3_000_000_000, rtol=1e-6)


@pytest.mark.thorough
def test_max_discrete_capacity_is_the_kl_of_certainty_from_uniform():
    sizes = (2, 3, 10)
    certain = [jnp.where(jnp.arange(n) == 0, 100.0, 0.0) for n in sizes]
    kl = sum(float(categorical.kl(logits, jnp.zeros_like(logits))) for logits in certain)
    np.testing.assert_allclose(max_discrete_capacity(sizes), kl, rtol=1e-6)
    assert max_discrete_capacity([]) == 0


def test_max_discrete_capacity_refuses_a_variable_without_classes():
    with pytest.raises(ValueError, match=r"at least 1, got \[10, 0\]"):
        max_discrete_capacity([10, 0])


def test_penalty_is_of_the_mean_and_not_the_mean_of_penalties():
    # Both images are 5 nats away from the capacity; their mean is at it.
    kl = jnp.array([0.0, 10.0])
    assert capacity_penalty(kl, 5.0, gamma=30.0) == 0
    assert capacity_penalty(kl, 4.0, gamma=30.0) == 30
    assert capacity_penalty(kl, 7.0, gamma=30.0) == 60
    assert capacity_penalty(kl.mean(), 7.0, gamma=30.0) == 60


@pytest.mark.parametrize(("capacity", "slope"), [(4.0, 15.0), (5.0, 0.0), (6.0, -15.0)])
def test_gradient_has_constant_size_and_vanishes_at_the_kink(capacity, slope):
    gradient = jax.jit(jax.grad(lambda kl: capacity_penalty(kl, capacity, gamma=30.0)))
    np.testing.assert_array_equal(gradient(jnp.array([0.0, 10.0])), [slope, slope])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_penalty_keeps_the_dtype_and_takes_the_gap_in_float32(dtype):
    # The mean, 5 + 1/64, is not a bfloat16: rounded before the subtraction, the gap would be 0.
    kl = jnp.array([5.0, 5.03125], dtype)
    penalty = jax.jit(lambda kl, c: capacity_penalty(kl, c, gamma=32.0))(kl, jnp.float32(5.0))
    assert penalty.dtype == dtype
    assert penalty == 0.5


def test_penalty_of_a_large_batch_in_half_precision():
    kl = jnp.full(4096, 100.0, jnp.float16)  # their sum is beyond float16's largest number
    assert capacity_penalty(kl, 90.0, gamma=30.0) == 300


@pytest.mark.parametrize(
    ("kl", "capacity", "gamma", "message"),
    [
        (np.zeros((2, 3)), 0.0, 1.0, r"one number an image, got shape \(2, 3\); sum over"),
        (np.zeros(2), -1.0, 1.0, "capacity must be at least 0 .*, got -1.0"),
        (np.zeros(2), 0.0, -30.0, "gamma must be at least 0 .*, got -30.0"),
        (np.zeros(2), np.zeros(2), 1.0, r"capacity must be a scalar, got shape \(2,\); use one"),
        (np.zeros(2), 0.0, np.ones(2), r"gamma must be a scalar, got shape \(2,\)"),
    ],
)
def test_penalty_refuses(kl, capacity, gamma, message):
    with pytest.raises(ValueError, match=message):
        capacity_penalty(jnp.asarray(kl, jnp.float32), capacity, gamma=gamma)


def terms(log_px, mean, log_scale, logits):
    kl_z = normal.kl(mean, log_scale, 0.0, 0.0).sum(-1)
    kl_c = categorical.kl(logits, jnp.zeros_like(logits)).sum(-1)
    return log_px, kl_z, kl_c


def loss(arrays, capacity_z, capacity_c, gamma):
    log_px, kl_z, kl_c = terms(*arrays)
    penalty_z = capacity_penalty(kl_z, capacity_z, gamma=gamma)
    penalty_c = capacity_penalty(kl_c, capacity_c, gamma=gamma)
    return -jnp.mean(log_px) + penalty_z + penalty_c


def arrays():
    rng = np.random.default_rng(0)
    shapes = [(8,), (8, 3), (8, 3), (8, 2, 5)]
    return [np.float32(rng.normal(size=shape)) for shape in shapes]


def test_the_objective_against_numpy():
    log_px, mean, log_scale, logits = map(np.float64, arrays())
    kl_z = 0.5 * np.sum(mean**2 + np.exp(2 * log_scale) - 1 - 2 * log_scale, -1)
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    kl_c = np.sum(probs * np.log(5 * probs), (-2, -1))
    expected = -log_px.mean() + 30 * abs(kl_z.mean() - 2.0) + 30 * abs(kl_c.mean() - 1.5)
    assert kl_z.mean() > 2.0
    assert kl_c.mean() < 1.5
    np.testing.assert_allclose(jax.jit(loss)(arrays(), 2.0, 1.5, 30.0), expected, rtol=1e-6)


def test_without_capacity_the_objective_is_the_weighted_elbo():
    def weighted(arrays, gamma):
        log_px, kl_z, kl_c = terms(*arrays)
        return -jnp.mean(elbo(log_px, kl_z + kl_c, kl_weight=gamma))

    both = (jax.value_and_grad(lambda a: loss(a, 0.0, 0.0, 4.0)), jax.value_and_grad(weighted))
    (value, gradient), (expected, wanted) = jax.jit(lambda a: (both[0](a), both[1](a, 4.0)))(
        arrays()
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for actual, target in zip(gradient, wanted, strict=True):
        np.testing.assert_allclose(actual, target, rtol=1e-5, atol=1e-7)


def test_the_final_capacity_may_be_traced():
    found = jax.vmap(lambda final: capacity_schedule(3, final=final, num_steps=6))(jnp.arange(3.0))
    np.testing.assert_allclose(found, [0, 0.5, 1])
