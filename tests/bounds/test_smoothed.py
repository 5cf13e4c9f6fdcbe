"""The joint and the marginal bound, integrated on a grid of noise: order, gap and limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae import bounds, relax
from dvae.distributions import bernoulli

BETA = 4.0
# Midpoints in (0, 1): the mean over the grid is the integral over the noise.
RHO = (np.arange(300, dtype=np.float32) + 0.5) / 300
GRID = np.stack(np.meshgrid(RHO, RHO, indexing="ij"), -1).reshape(-1, 2)
WEIGHTS = np.array([[1.5, -2.0, 0.7], [0.4, 1.1, -2.5]], np.float32)
PIXELS = np.array([1.0, 0.0, 1.0], np.float32)


def log_likelihood(zeta):
    logits = zeta @ WEIGHTS - 0.3
    return bernoulli.log_prob(jnp.broadcast_to(PIXELS, logits.shape), logits).sum(-1)


def one_group(smoothing):
    """Posterior and prior logits of two bits, and zeta at every point of the grid."""
    logits_q = jnp.broadcast_to(jnp.array([0.8, -1.1]), GRID.shape)
    logits_p = jnp.broadcast_to(jnp.array([-0.4, 0.6]), GRID.shape)
    return [logits_q], [logits_p], [smoothing.icdf(GRID, logits_q, BETA)]


def two_groups(smoothing):
    """One bit a group, the second's logits depending on the first's zeta."""
    first_q, first_p = (jnp.full((len(GRID), 1), logit) for logit in (0.8, -0.4))
    zeta1 = smoothing.icdf(GRID[:, :1], first_q, BETA)
    second_q, second_p = 2.0 * zeta1 - 0.7, 0.9 - 1.5 * zeta1
    zeta2 = smoothing.icdf(GRID[:, 1:], second_q, BETA)
    return [first_q, second_q], [first_p, second_p], [zeta1, zeta2]


def both_bounds(groups, smoothing):
    logits_q, logits_p, zeta = groups(smoothing)
    log_px = log_likelihood(jnp.concatenate(zeta, -1))
    joint = bounds.joint_elbo(log_px, logits_q, logits_p)
    densities = (
        [smoothing.log_prob(z, logits, BETA) for z, logits in zip(zeta, side, strict=True)]
        for side in (logits_q, logits_p)
    )
    return joint.mean(), bounds.marginal_elbo(log_px, *densities).mean()


GROUPS = pytest.mark.parametrize("groups", [one_group, two_groups])
SMOOTHINGS = pytest.mark.parametrize("name", ["exponential", "power", "logistic"])


@pytest.mark.thorough
@pytest.mark.many_cases
@GROUPS
@SMOOTHINGS
def test_marginal_bound_exceeds_joint_by_the_divergence_of_z_given_zeta(groups, name):
    smoothing = relax.SMOOTHINGS[name]
    joint, marginal = jax.jit(lambda: both_bounds(groups, smoothing))()

    def expected_gap():
        # KL of the joint (z, zeta) is that of zeta plus the mean of KL(q(z|zeta) || p(z|zeta)).
        total = 0.0
        for q, p, zeta in zip(*groups(smoothing), strict=True):
            posterior = [smoothing.posterior_logits(zeta, logits, BETA) for logits in (q, p)]
            total += bernoulli.kl(*posterior).sum(-1).mean()
        return total

    gap = jax.jit(expected_gap)()
    assert gap > 0.01
    np.testing.assert_allclose(marginal - joint, gap, rtol=5e-3)


@pytest.mark.thorough
@pytest.mark.many_cases
@GROUPS
def test_both_lie_below_the_evidence_of_the_relaxed_model(groups):
    smoothing = relax.exponential

    def log_evidence():
        # Under p: the same grid of noise through the prior's inverse CDFs.
        if groups is one_group:
            zeta = smoothing.icdf(GRID, jnp.broadcast_to(jnp.array([-0.4, 0.6]), GRID.shape), BETA)
        else:
            first = smoothing.icdf(GRID[:, :1], jnp.full((len(GRID), 1), -0.4), BETA)
            second = smoothing.icdf(GRID[:, 1:], 0.9 - 1.5 * first, BETA)
            zeta = jnp.concatenate([first, second], -1)
        return jax.nn.logsumexp(log_likelihood(zeta)) - np.log(len(GRID))

    joint, marginal = jax.jit(lambda: both_bounds(groups, smoothing))()
    assert joint < marginal < jax.jit(log_evidence)()


def test_sharp_smoothing_gives_the_elbo_of_the_bits():
    states = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    logits_q, logits_p, _ = one_group(relax.power)
    q, p = logits_q[0][0], logits_p[0][0]
    weights = jnp.exp(bernoulli.log_prob(states, jnp.broadcast_to(q, states.shape)).sum(-1))
    exact = jnp.sum(weights * log_likelihood(states)) - bernoulli.kl(q, p).sum()
    zeta = (1 - jax.nn.sigmoid(logits_q[0]) < GRID).astype(jnp.float32)
    joint = bounds.joint_elbo(log_likelihood(zeta), logits_q, logits_p).mean()
    np.testing.assert_allclose(joint, exact, atol=0.02)  # the grid is cut at multiples of 1/300


def test_kl_weight_and_groups():
    q, p = jnp.ones((2, 3)), jnp.zeros(3)
    zero = jnp.zeros(2)
    whole = bounds.joint_elbo(zero, [q, q], [p, p])
    np.testing.assert_allclose(whole, -2 * bernoulli.kl(q, p).sum(-1), rtol=1e-6)
    half = bounds.joint_elbo(zero, [q, q], [p, p], kl_weight=0.5)
    np.testing.assert_allclose(half, whole / 2, rtol=1e-6)
    estimate = bounds.marginal_elbo(zero, [q], [q - 1], kl_weight=0.5)
    np.testing.assert_allclose(estimate, [-1.5, -1.5])


@pytest.mark.parametrize("bound", [bounds.joint_elbo, bounds.marginal_elbo])
def test_mismatched_groups_are_refused(bound):
    with pytest.raises(ValueError, match=r"one entry for each group.*got 2 and 1"):
        bound(jnp.zeros(2), [jnp.zeros((2, 3))] * 2, [jnp.zeros((2, 3))])
    with pytest.raises(ValueError, match="got 0 and 0"):
        bound(jnp.zeros(2), [], [])


def test_a_posterior_without_batch_axes_broadcasts():
    q, p = np.float32([0.3, -1.0]), np.float32([[0.2, 0.5], [1.0, 0.0], [-2.0, 0.1]])
    ours = bounds.joint_elbo(jnp.zeros(3), [q], [p])
    whole = bounds.joint_elbo(jnp.zeros(3), [np.broadcast_to(q, p.shape)], [p])
    np.testing.assert_allclose(ours, whole, rtol=1e-6)
