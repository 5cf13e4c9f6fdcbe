"""What the bounds do with integers, with shapes that don't fit, with NaN, on sharded batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import bounds

KLS = np.array([3, 1, 4, 2])
OF_BATCHES = {
    "sum_per_example": lambda x: bounds.sum_per_example(x[:, None]),
    "elbo": lambda x: bounds.elbo(x, x, kl_weight=0.3),
    "joint_elbo": lambda x: bounds.joint_elbo(x, [x[:, None]], [x[:, None] - 1]),
    "marginal_elbo": lambda x: bounds.marginal_elbo(x, [x[:, None]], [x[:, None] - 1]),
    "bits_per_dim": lambda x: bounds.bits_per_dim(x, 7),
    "iwae": bounds.iwae,
    "dreg": bounds.dreg,
    "capacity_penalty": lambda x: bounds.capacity_penalty(x, 1.25, gamma=0.7),
    "mean_and_standard_error": bounds.mean_and_standard_error,
    "log_likelihood": lambda x: bounds.log_likelihood(
        jax.random.key(0), lambda key: x, num_samples=3, chunk_size=2
    ),
}
FUNCTIONS = {
    **OF_BATCHES,
    "balancing_coefficients": lambda x: bounds.balancing_coefficients(x, (1, 2, 5, 9)),
    "balanced_kl": lambda x: bounds.balanced_kl(x, (1, 2, 5, 9), kl_weight=0.3),
    "free_bits": lambda x: bounds.free_bits(x, min_nats=1.5),
}


@pytest.mark.many_cases
@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_integers_count_as_floats(name, dtype):
    function = jax.jit(lambda x: (FUNCTIONS[name](x), FUNCTIONS[name](x.astype(jnp.float32))))
    ours, expected = function(KLS.astype(dtype))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype == jnp.float32
        np.testing.assert_array_equal(a, b)


def test_integers_by_hand():
    # Truncated to their dtype these would be 0, -1, 2, 0 and (2, 0).
    np.testing.assert_allclose(bounds.bits_per_dim(-3, 10), 3 / (10 * np.log(2)), rtol=1e-6)
    np.testing.assert_allclose(bounds.iwae([0, -3]), np.log((1 + np.exp(-3)) / 2), rtol=1e-6)
    np.testing.assert_allclose(bounds.free_bits([0, 2], min_nats=0.5), 2.5)
    np.testing.assert_allclose(bounds.elbo(-1, 3, kl_weight=0.5), -2.5)
    estimate = bounds.mean_and_standard_error([2, 3])
    np.testing.assert_allclose(estimate, (2.5, 0.5))


@pytest.mark.many_cases
@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_stays_visible(name):
    x = jnp.array([1.0, jnp.nan, 2.0, 3.0])
    assert all(np.isnan(leaf).any() for leaf in jax.tree.leaves(FUNCTIONS[name](x)))


@pytest.fixture
def explicit_mesh():
    return jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Explicit,))


@pytest.mark.parametrize("name", OF_BATCHES)
def test_batches_sharded_over_an_explicit_mesh(name, explicit_mesh):
    function = jax.jit(OF_BATCHES[name])
    expected = jax.tree.leaves(function(np.float32(KLS)))
    with jax.set_mesh(explicit_mesh):
        ours = jax.tree.leaves(function(jax.device_put(np.float32(KLS), jax.P("batch"))))
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
        assert a.ndim == 0 or a.sharding.spec == jax.P("batch")


@pytest.mark.parametrize("schedule", ["linear_warmup", "capacity_schedule"])
class TestSchedules:
    def run(self, schedule, step, num_steps):
        if schedule == "linear_warmup":
            return bounds.linear_warmup(step, num_steps)
        return bounds.capacity_schedule(step, final=1.0, num_steps=num_steps)

    @pytest.mark.parametrize("num_steps", [2**31 - 1, 2**31, 2**40, 2**62])
    @pytest.mark.parametrize("share", [0.25, 1.0, 1.5])
    def test_lengths_and_steps_beyond_an_int32(self, schedule, num_steps, share):
        step = int(share * num_steps)
        if share <= 1:
            weight = self.run(schedule, step, num_steps)
            np.testing.assert_allclose(weight, step / num_steps, rtol=1e-6)
            largest = jax.jit(lambda step: self.run(schedule, step, num_steps))(np.int32(2**31 - 1))
            np.testing.assert_allclose(largest, (2**31 - 1) / num_steps, rtol=1e-6)
        else:
            assert self.run(schedule, step, num_steps) == 1
            assert self.run(schedule, np.int64(step), num_steps) == 1

    @pytest.mark.parametrize("step", [-1, float("nan"), -0.5, np.float32(np.nan), np.int32(-7)])
    def test_a_number_that_counts_nothing_is_refused(self, schedule, step):
        with pytest.raises(ValueError, match=rf"step must be at least 0 .*got {step}"):
            self.run(schedule, step, 10)

    @pytest.mark.parametrize("step", [2**64, 10**400, float("inf")])
    def test_a_step_beyond_all_counts_is_refused(self, schedule, step):
        with pytest.raises(ValueError, match=r"step must be .*below 2\^64, got"):
            self.run(schedule, step, 10)

    @pytest.mark.parametrize("num_steps", [-1, float("nan"), float("inf"), 2**64, 10**400])
    def test_a_length_beyond_all_counts_is_refused(self, schedule, num_steps):
        with pytest.raises(ValueError, match=r"num_steps must be below 2\^64 and at least"):
            self.run(schedule, 0, num_steps)

    @pytest.mark.parametrize("step", [-1, -(2**31), np.nan])
    def test_a_bad_step_in_an_array_gives_nan(self, schedule, step):
        steps = jnp.array([0, step, 4])
        weights = jax.jit(lambda steps: self.run(schedule, steps, 5))(steps)
        np.testing.assert_array_equal(np.isnan(weights), [False, True, False])


ZERO = np.zeros(4, np.float32)


@pytest.mark.parametrize(
    ("kl_weight", "message"),
    [
        (np.ones(4), r"kl_weight must be a scalar, got shape \(4,\)"),
        (np.ones((4, 1)), r"kl_weight must be a scalar, got shape \(4, 1\)"),
        (-0.5, r"kl_weight must be at least 0 .*got -0\.5"),
        (float("nan"), "kl_weight must be at least 0 .*got nan"),
    ],
)
@pytest.mark.parametrize("name", ["elbo", "joint_elbo", "marginal_elbo", "balanced_kl"])
def test_weights_of_the_kl(name, kl_weight, message):
    units = [np.zeros((4, 2), np.float32)]
    arguments = {"elbo": (ZERO, ZERO), "balanced_kl": (ZERO, (1, 2, 3, 4))}
    with pytest.raises(ValueError, match=message):
        getattr(bounds, name)(*arguments.get(name, (ZERO, units, units)), kl_weight=kl_weight)


@pytest.mark.parametrize("shapes", [((4,), (3,)), ((4, 3), (4, 2)), ((4,), ()), ((4,), (1, 4))])
def test_halves_of_an_elbo_that_do_not_fit(shapes):
    with pytest.raises(ValueError, match=r"reduce or expand one of them so that their ranks agree"):
        bounds.elbo(*map(jnp.zeros, shapes))


@pytest.mark.parametrize("bound", [bounds.joint_elbo, bounds.marginal_elbo])
@pytest.mark.parametrize(
    ("q", "p"),
    [
        ((3, 2), (3, 2)),  # another batch
        ((4, 2), (3, 2)),
        ((4, 2), (4, 3)),  # other units
        ((4, 2), (4, 1)),
        ((4, 1), (4, 2)),
        ((4,), (4,)),  # summed over its units
        ((), ()),
        ((5, 4, 2), (5, 4, 2)),  # samples that the likelihood lacks
    ],
)
def test_groups_that_do_not_fit_are_named(bound, q, p):
    fits = jnp.zeros((4, 2))
    expected = f"with the batch axes of log_likelihood (4,) (or 1), got {q} and {p} in group 1"
    with pytest.raises(ValueError, match=expected.replace("(", r"\(").replace(")", r"\)")):
        bound(jnp.zeros(4), [fits, jnp.zeros(q)], [fits, jnp.zeros(p)])


@pytest.mark.parametrize("bound", [bounds.joint_elbo, bounds.marginal_elbo])
@pytest.mark.parametrize("units", [jnp.zeros((2, 3)), np.zeros((2, 2, 3))])
def test_a_single_group_is_a_list_of_one(bound, units):
    """Both shapes would pass for two groups: of one image, and of two."""
    log_px, name = jnp.zeros(units.shape[1:-1]), "logits" if "joint" in bound.__name__ else "log"
    for q, p, which in ((units, [units], "q"), ([units], units, "p"), (units, units, "q")):
        with pytest.raises(ValueError, match=rf"{name}_{which} must list .*\[{name}_{which}\]$"):
            bound(log_px, q, p)


@pytest.mark.thorough
def test_groups_may_share_batch_axes():
    rng = np.random.default_rng(0)
    log_px, q = np.float32(rng.normal(size=(5, 4))), np.float32(rng.normal(size=(1, 4, 2)))
    p = np.float32(rng.normal(size=2))
    ours = bounds.joint_elbo(log_px, [q], [p])
    expected = bounds.joint_elbo(log_px, [np.tile(q, (5, 1, 1))], [np.tile(p, (5, 4, 1))])
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_sums_over_half_precision_units_and_groups_are_wide():
    # Each of two groups adds 1028 times 1/4 nat, 257, which bfloat16 rounds to 256.
    q, p = jnp.full((1, 1028), 0.25, jnp.bfloat16), jnp.zeros((1, 1028), jnp.bfloat16)
    bound = bounds.marginal_elbo(jnp.full(1, 1024.0, jnp.bfloat16), [q, q], [p, p])
    assert bound.dtype == jnp.bfloat16
    np.testing.assert_array_equal(bound.astype(jnp.float32), 510.0)


@pytest.mark.parametrize("min_nats", [np.ones(3), np.ones((4, 1)), np.ones((1, 4)), np.ones(1)])
def test_allowances_of_another_shape_are_refused(min_nats):
    with pytest.raises(ValueError, match=r"min_nats must be a scalar, .* each group, \(4,\)"):
        bounds.free_bits(ZERO, min_nats=min_nats)


def test_other_numbers_that_mean_nothing():
    with pytest.raises(ValueError, match=r"min_nats must be at least 0 .*got nan"):
        bounds.free_bits(ZERO, min_nats=float("nan"))
    with pytest.raises(ValueError, match=r"one number an image, got shape \(0,\)"):
        bounds.capacity_penalty(jnp.zeros(0), 1.0, gamma=1.0)
    with pytest.raises(ValueError, match="size_power must be a finite exponent, got nan"):
        bounds.balancing_coefficients(ZERO, (1, 2, 3, 4), size_power=float("nan"))
    with pytest.raises(ValueError, match=r"positive, got .*inf"):
        bounds.balancing_coefficients(ZERO, (1, 2, 3, float("inf")))
    with pytest.raises(ValueError, match="num_dims must be at least 1, got nan"):
        bounds.bits_per_dim(ZERO, float("nan"))


@pytest.mark.parametrize("bound", [bounds.iwae, bounds.dreg])
@pytest.mark.parametrize(("shape", "axis"), [((4, 3), 2), ((4, 3), -3), ((), 0), ((0, 3), 0)])
def test_an_axis_without_samples_is_refused(bound, shape, axis):
    with pytest.raises(ValueError, match=rf"at least 1 sample along axis {axis}, got shape"):
        bound(jnp.zeros(shape), axis)
