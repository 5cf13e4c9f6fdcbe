"""`estimators.relax`: learned control variates, and who receives which gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import distributions, estimators
from dvae.estimators._relaxed import draw_relaxed as draw_relaxed_eagerly

RNG = np.random.default_rng(0)
LOGITS, WEIGHTS = (np.float32(RNG.normal(size=s)) for s in [(2, 4), (4, 4)])
draw_relaxed = jax.jit(draw_relaxed_eagerly)


def f(z):
    return 5 + jnp.einsum("...i,ij,...j->...", z, WEIGHTS, z)


def control(phi):
    """Quadratic in the relaxed bits, with a free constant."""

    def c(z):
        y = jax.nn.sigmoid(z / jnp.exp(phi["log_temperature"]))
        return phi["constant"] + jnp.einsum("...i,ij,...j->...", y, phi["weights"], y)

    return c


PHI = {
    "log_temperature": np.float32(0.0),
    "constant": np.float32(0.0),
    "weights": np.zeros((4, 4), np.float32),
}


def gradient(key, phi):
    def total(logits):
        return estimators.relax(key, f, logits, control_variate=control(phi)).surrogate.sum()

    return jax.grad(total)(LOGITS)


def test_gradient_is_the_equation():
    """Against autodiff of c along both relaxations, rebuilt in their noise."""
    phi = PHI | {"weights": WEIGHTS, "constant": np.float32(2.0)}
    draw = draw_relaxed(jax.random.key(1), LOGITS)
    sign = 2 * draw.bits - 1
    noise = draw.pair[0] - LOGITS
    # z' = s softplus(shift + softplus(s l)): recover the shift, a float64 logit(v).
    shift = np.log(np.expm1(np.float64(sign * draw.pair[1]))) - np.logaddexp(0, sign * LOGITS)

    def surrogate(logits):
        free = logits + noise
        given_bits = sign * jax.nn.softplus(np.float32(shift) + jax.nn.softplus(sign * logits))
        log_q = distributions.bernoulli.log_prob(draw.bits, logits).sum(-1)
        c = control(phi)
        signal = jax.lax.stop_gradient(f(draw.bits) - c(given_bits))
        return jnp.sum(signal * log_q + c(free) - c(given_bits))

    ours = jax.jit(gradient)(jax.random.key(1), phi)
    np.testing.assert_allclose(ours, jax.jit(jax.grad(surrogate))(LOGITS), rtol=1e-3, atol=1e-4)


def test_variance_is_the_squared_norm_of_the_same_draw():
    phi = PHI | {"weights": WEIGHTS}
    ours = jax.jit(
        lambda key: estimators.relax_variance(key, f, LOGITS, control_variate=control(phi))
    )(jax.random.key(2))
    g = jax.jit(gradient)(jax.random.key(2), phi)
    np.testing.assert_allclose(ours, np.sum(np.square(g), axis=-1), rtol=1e-4)


def test_gradients_go_where_they_belong():
    theta, phi = np.float32([1.0, -2.0, 0.5, 3.0]), PHI | {"weights": WEIGHTS}

    def surrogate(theta, phi):
        estimate = estimators.relax(
            jax.random.key(3), lambda z: z @ theta, LOGITS, control_variate=control(phi)
        )
        return estimate.surrogate.sum()

    def variance(theta, phi, logits):
        return estimators.relax_variance(
            jax.random.key(3), lambda z: z @ theta, logits, control_variate=control(phi)
        ).sum()

    by_theta, by_phi = jax.jit(jax.grad(surrogate, (0, 1)))(theta, phi)
    np.testing.assert_allclose(by_theta, draw_relaxed(jax.random.key(3), LOGITS).bits.sum(0))
    for leaf in jax.tree.leaves(by_phi):
        np.testing.assert_array_equal(leaf, 0)
    by_theta, by_phi, by_logits = jax.jit(jax.grad(variance, (0, 1, 2)))(theta, phi, LOGITS)
    np.testing.assert_array_equal(by_theta, 0)
    np.testing.assert_array_equal(by_logits, 0)
    for leaf in jax.tree.leaves(by_phi):
        assert np.any(np.asarray(leaf) != 0)


@pytest.mark.thorough
def test_descending_the_variance_lowers_the_measured_variance():
    def loss(phi, key):
        return estimators.relax_variance(key, f, LOGITS, control_variate=control(phi)).mean()

    def step(phi, key):
        each = jax.vmap(jax.grad(loss), (None, 0))(phi, jax.random.split(key, 16))
        update = lambda x, g: x - 0.05 * g.mean(0) / (1 + jnp.abs(g.mean(0)))
        return jax.tree.map(update, phi, each), None

    start = jax.tree.map(jnp.asarray, PHI)
    keys = jax.random.split(jax.random.key(4), 200)
    learned = jax.jit(lambda keys: jax.lax.scan(step, start, keys)[0])(keys)
    many = jax.jit(jax.vmap(gradient, (0, None)))
    before, after = (many(jax.random.split(jax.random.key(5), 2000), x) for x in (start, learned))
    assert after.var(0).sum() < 0.3 * before.var(0).sum()
    assert np.all(np.abs(after.mean(0) - before.mean(0)) < 5 * np.sqrt(before.var(0) / 1000))


def test_misuse_is_refused():
    def trace(f, c):
        estimate = lambda x: estimators.relax(jax.random.key(0), f, x, control_variate=c)
        jax.eval_shape(estimate, jnp.zeros((5, 3)))

    reduced, unreduced = lambda z: z.sum(-1), lambda z: z
    with pytest.raises(ValueError, match=r"relax needs one value .* z \(5, 3\) to \(5,\)"):
        trace(unreduced, reduced)
    with pytest.raises(ValueError, match=r"one value .* control_variate must map .*got \(5, 3\)"):
        trace(reduced, unreduced)
