"""Each check of `dvae._checks`: what it refuses, and in which words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import _checks, bounds, estimators, relax, vq


@pytest.mark.parametrize(
    "value", [0, -1.0, float("nan"), np.float32(-2), np.int64(0), np.array(0.0)]
)
def test_check_positive_refuses_numbers_that_are_not(value):
    with pytest.raises(ValueError, match="temperature must be positive, got"):
        _checks.check_positive("temperature", value)


@pytest.mark.parametrize("value", [-0.5, 1.5, float("nan"), np.float32(2), np.array(2.0)])
def test_check_unit_refuses_numbers_outside(value):
    with pytest.raises(ValueError, match="rho must be between 0 and 1, got"):
        _checks.check_unit("rho", value)


def test_check_unit_lets_numbers_inside_and_arrays_pass():
    for value in (0, 0.5, 1.0, 2 * jnp.ones(2)):
        _checks.check_unit("rho", value)


def test_old_keys_come_with_their_remedy():
    with pytest.raises(TypeError, match=r"got uint32; .*jax\.random\.wrap_key_data\(key\)"):
        _checks.check_key(jax.random.PRNGKey(0))


def test_check_positive_lets_traced_values_pass():
    jax.jit(lambda t: (_checks.check_positive("temperature", t), t)[1])(jnp.float32(-1))


STATIC = {
    "eps": lambda x: relax.uniform_exp.log_prob_0(jnp.zeros(2), 2.0, eps=x),
    "num_dims": lambda x: bounds.bits_per_dim(jnp.ones(2), x),
    "num_steps": lambda x: bounds.linear_warmup(3, x),
    "num_stages": lambda x: vq.residual.draw_depth(jax.random.key(0), x),
    "num_codes": lambda x: vq.simvq.init(jax.random.key(0), num_codes=x, dim=2),
    "num_samples": lambda x: relax.gumbel_rao.bernoulli(
        jax.random.key(0), jnp.zeros(2), 1.0, num_samples=x
    ),
}


@pytest.mark.parametrize("name", STATIC)
def test_static_numbers_are_named_where_they_are_traced_or_arrays(name):
    with pytest.raises(ValueError, match=f"{name} must be static, .*static_argnames"):
        jax.jit(STATIC[name])(1)
    with pytest.raises(ValueError, match=rf"{name} must be one Python number, got shape \(2,\)"):
        STATIC[name](np.ones(2))


def test_the_number_of_samples_of_estimators_is_static():
    estimate = lambda k: estimators.vimco(
        jax.random.key(0), lambda z: z.sum(-1), jnp.zeros(2), num_samples=k
    )
    with pytest.raises(ValueError, match="num_samples must be static"):
        jax.jit(lambda k: estimate(k).value)(3)


def test_counts_are_integers():
    for call in (
        lambda: vq.residual.draw_depth(jax.random.key(0), 3, min_stages=1.5),
        lambda: vq.simvq.init(jax.random.key(0), num_codes=2, dim=2.5),
        lambda: relax.gumbel_rao.categorical(jax.random.key(0), jnp.zeros(2), 1.0, num_samples=1.5),
    ):
        with pytest.raises(ValueError, match=r"must be an integer, got \d.5"):
            call()
