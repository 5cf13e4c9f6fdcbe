"""RBM priors made continuous: log-densities of zeta, so that importance weights exist.

The machine's bits z get a conditional r(zeta|z), and p(zeta) = sum_z p(z) r(zeta|z) becomes the
prior of a VAE with continuous zeta [..., n1 + n2], the left side first. Vahdat, Andriyash and
Macready, "DVAE#: Discrete Variational Autoencoders with Relaxed Boltzmann Priors" (2018). There
are two choices of r:

Overlapping: independent units, any of the smoothings with a density. The sum over z is again the
partition function of an RBM, and a mean field bounds it from below:

    log_ratio = relax.exponential.log_ratio(zeta, beta)
    log_r0 = relax.exponential.log_prob_0(zeta, beta)
    log_p = relaxed.overlapping_log_prob(params, zeta, log_ratio, log_r0, log_z)     # [...] nats

Gaussian integral: normal noise whose covariance cancels the couplings, so that the sum is exact:

    lam = 1.1 * relaxed.min_lambda(params)                     # also where W = 0
    log_p = relaxed.gaussian_integral_log_prob(params, zeta, lam, log_z)             # [...] nats
    zeta = relaxed.gaussian_integral_sample(key, params, z1, z2, lam)                # to generate

In both, log Z is usually that of `log_z_with_gradient`; then log p(x|zeta) + log p(zeta) -
log q(zeta|x) is the log-weight of an importance weighted bound, trained by plain autodiff. Models
are evaluated with the bits themselves and the discrete machine.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from dvae._checks import check_count, check_key
from dvae._numerics import ArrayLike, as_float, upcast, vary_like
from dvae.distributions import bernoulli
from dvae.rbm._checks import is_known
from dvae.rbm._rbm import RBM, check_rbm, dtype_of, product

__all__ = [
    "gaussian_integral_log_prob",
    "gaussian_integral_sample",
    "min_lambda",
    "overlapping_log_prob",
]

_MIN_LAMBDA = 0.01


def overlapping_log_prob(
    params: RBM,
    zeta: jax.Array,
    log_ratio: jax.Array,
    log_r0: jax.Array,
    log_z: jax.Array,
    *,
    num_sweeps: int = 5,
) -> jax.Array:
    """Bounds log p(zeta) = log Z(zeta) - log Z from below, for independent r(zeta_i|z_i).

        log Z(zeta) = log sum_z exp(-E(z) + b.z) + sum_i log r(zeta_i|0),
        b_i = log r(zeta_i|1) - log r(zeta_i|0):

    the log partition function of the RBM with biases a + b. With independent z1 of means m, and z2
    summed out at m, it is at least

        L(m) = (a1 + b1).m + H(m) + sum_j softplus((a2 + b2 + W^T m)_j),

    which is the mean-field bound -E(m, m2) + b.(m, m2) + H(m) + H(m2) maximized over m2: equal to
    it where m2 has just been updated, above it elsewhere. The sweeps, each an update of both sides,
    start at m = 1/2. Gradients hold m constant; by the envelope theorem that is the gradient of the
    bound at its fixed point, where dL/dm = 0, and at any m it is that of a lower bound.
    Vahdat et al. (2018), DVAE#.

    Args:
        params: RBM.
        zeta: [..., n1 + n2] float; only its shape is used, to name mistakes.
        log_ratio: [..., n1 + n2] float, b at zeta: `relax.NAME.log_ratio(zeta, beta)`.
        log_r0: [..., n1 + n2] float, `relax.NAME.log_prob_0(zeta, beta)`, nats.
        log_z: [] log Z in nats.
        num_sweeps: at least 1.

    Returns:
        [...] nats, at least float32; at most log p(zeta), exact for independent units, and -inf
        outside the support of r.

    Raises:
        ValueError: if num_sweeps < 1, or the sizes do not fit.
    """
    params = _check_units(params, zeta)
    num_sweeps = check_count("num_sweeps", num_sweeps)
    if not np.shape(log_ratio) == np.shape(log_r0) == np.shape(zeta):
        raise ValueError(
            f"log_ratio and log_r0 must be evaluated at zeta: got shapes {np.shape(log_ratio)} and "
            f"{np.shape(log_r0)} for zeta {np.shape(zeta)}"
        )
    bias1, bias2, weights = (upcast(p).astype(dtype_of(params)) for p in params)
    log_ratio, n1 = upcast(log_ratio), len(bias1)
    biases = log_ratio + jnp.broadcast_to(jnp.concatenate([bias1, bias2]), log_ratio.shape)
    bias1, bias2 = biases[..., :n1], biases[..., n1:]
    fields1 = _mean_fields(*jax.lax.stop_gradient((weights, bias1, bias2)), num_sweeps)
    mean1 = jax.nn.sigmoid(fields1)
    bound = jnp.sum(bias1 * mean1 + bernoulli.entropy(fields1), axis=-1)
    bound = bound + jax.nn.softplus(bias2 + product(mean1, weights)).sum(-1)
    return bound + upcast(log_r0).sum(-1) - upcast(log_z)


def gaussian_integral_log_prob(
    params: RBM, zeta: jax.Array, lam: ArrayLike, log_z: jax.Array
) -> jax.Array:
    """Evaluates log p(zeta) for r(zeta|z) = N(zeta; z, S^-1), S = [[lam I, W], [W^T, lam I]].

    As z_i^2 = z_i, the couplings are those of S: -E(z) = a.z + z^T S z / 2 - lam/2 sum_i z_i. The
    quadratic form of the normal density, -(zeta - z)^T S (zeta - z) / 2, takes z^T S z away again:

        log p(z) r(zeta|z) = -log Z + log det(S) / 2 - n/2 log(2 pi) - zeta^T S zeta / 2
                             + (S zeta + a - lam/2).z,

    and what is left of z factorizes, so that the sum over z is exact:

        log p(zeta) = -log Z + log det(S) / 2 - n/2 log(2 pi) - zeta^T S zeta / 2
                      + sum_i softplus((S zeta + a - lam/2)_i).

    S is positive definite for lam > `min_lambda(params)`. Its determinant is that of the smaller
    side, lam^(n1 + n2) det(I - W^T W / lam^2). Differentiable in params, zeta and lam.
    Vahdat et al. (2018), DVAE#.

    Args:
        params: RBM.
        zeta: [..., n1 + n2] float.
        lam: [] float > min_lambda(params).
        log_z: [] log Z in nats.

    Returns:
        [...] nats, at least float32; NaN if lam is too small and it, or params, is traced.

    Raises:
        ValueError: if the sizes do not fit, or lam is too small and its value and that of params
            are known.
    """
    _check_lambda(params, lam)
    params = _check_units(params, zeta)
    bias1, bias2, weights = (upcast(p).astype(dtype_of(params)) for p in params)
    zeta, n1 = upcast(zeta), len(bias1)
    lam = jnp.asarray(lam, weights.dtype)
    zeta1, zeta2 = zeta[..., :n1], zeta[..., n1:]
    s_zeta = jnp.concatenate([product(zeta2, weights.T), product(zeta1, weights)], axis=-1)
    s_zeta = s_zeta + lam * zeta
    biases = jnp.broadcast_to(jnp.concatenate([bias1, bias2]), zeta.shape)
    per_unit = jax.nn.softplus(s_zeta + biases - lam / 2) - zeta * s_zeta / 2
    pivots = jnp.diagonal(_cholesky(_small_side_second(weights), lam))
    # NaN for a negative lam, too: the square in the determinant would hide its sign.
    log_norm = jnp.log(pivots).sum() + zeta.shape[-1] / 2 * (jnp.log(lam) - math.log(2 * math.pi))
    return per_unit.sum(-1) + log_norm - upcast(log_z)


def gaussian_integral_sample(
    key: jax.Array, params: RBM, z1: jax.Array, z2: jax.Array, lam: ArrayLike
) -> jax.Array:
    """Draws zeta ~ N(z, S^-1), the conditional of `gaussian_integral_log_prob`.

    With samples z of the machine, zeta is a sample of the prior. Reparametrized: differentiable in
    params, z1, z2 and lam. With e normal noise and C C^T = I - W^T W / lam^2,

        zeta2 = z2 + C^-T e2 / sqrt(lam),    zeta1 = z1 + e1 / sqrt(lam) - W (zeta2 - z2) / lam,

    for n1 >= n2, else with the sides exchanged, so that the smaller side is the one factorized.

    Args:
        key: typed PRNG key.
        params: RBM.
        z1: [..., n1] bits.
        z2: [..., n2] bits, the leading axes those of z1.
        lam: [] float > min_lambda(params).

    Returns:
        [..., n1 + n2] zeta, in the dtype of the bits; NaN if lam is too small and it, or params, is
        traced.

    Raises:
        ValueError: the sides have other leading axes or units, or a known lam is too small.
    """
    check_key(key)
    z1, z2 = as_float(z1), as_float(z2)
    if z1.shape[:-1] != z2.shape[:-1]:
        raise ValueError(f"z1 and z2 must have equal leading axes, got {z1.shape} and {z2.shape}")
    z = jnp.concatenate([z1, z2], axis=-1)
    _check_lambda(params, lam)
    params = _check_units(params, z)
    weights = upcast(params.weights)
    lam = jnp.asarray(lam, weights.dtype)
    noise = jax.random.normal(key, (math.prod(z.shape[:-1]), z.shape[-1]), lam.dtype)
    noise = noise / jnp.sqrt(lam)
    n1, n2 = weights.shape
    small = _small_side_second(weights)
    split = len(small)
    # Rows times C^-1 are columns solved with C^T.
    inner = jax.lax.linalg.triangular_solve(
        _cholesky(small, lam), noise[:, split:], left_side=False, lower=True
    )
    outer = noise[:, :split] - product(inner, (small / lam).T)
    sides = [outer, inner] if n1 >= n2 else [inner, outer]
    noise = jnp.concatenate(sides, axis=-1).reshape(z.shape)
    return (upcast(z) + noise.astype(upcast(z).dtype)).astype(z.dtype)


def min_lambda(params: RBM) -> jax.Array:
    """Evaluates the largest singular value of W, which lam of the Gaussian integral must exceed.

    The eigenvalues of [[0, W], [W^T, 0]] are the singular values of W, with both signs, and zeros.
    At lam itself S is singular. Where it is below 0.01, as in a new machine with W = 0, the result
    is 0.01. A smaller lam has a density, too, but its noise has a standard deviation of at least
    1 / sqrt(lam): 10 at 0.01, and without bound near 0. Differentiable where the largest singular
    value is a single one.

    Args:
        params: RBM.

    Returns:
        [] at least 0.01, at least float32.

    Raises:
        ValueError: if the sizes of the parameters do not fit.
    """
    weights = upcast(check_rbm(params).weights)
    return jnp.maximum(jnp.linalg.norm(weights, ord=2), _MIN_LAMBDA)


@functools.partial(jax.jit, static_argnums=3)
def _mean_fields(
    weights: jax.Array, bias1: jax.Array, bias2: jax.Array, num_sweeps: int
) -> jax.Array:
    """Returns the left side's logits after sweeps from 1/2, each z2 given z1 and back."""

    def sweep(_: jax.Array, fields1: jax.Array) -> jax.Array:
        mean2 = jax.nn.sigmoid(bias2 + product(jax.nn.sigmoid(fields1), weights))
        return bias1 + product(mean2, weights.T)

    start = vary_like(jnp.zeros_like(bias1), weights, bias1, bias2)
    return jax.lax.fori_loop(0, num_sweeps, sweep, start)


def _small_side_second(weights: jax.Array) -> jax.Array:
    """Exchanges the sides if the left one is the smaller."""
    return weights if weights.shape[0] >= weights.shape[1] else weights.T


def _cholesky(weights: jax.Array, lam: jax.Array) -> jax.Array:
    """Factorizes I - W^T W / lam^2; NaN unless lam, or -lam, is large enough."""
    scaled = weights / lam
    gram = product(scaled.T, scaled)
    return jnp.linalg.cholesky(jnp.eye(scaled.shape[1], dtype=scaled.dtype) - gram)


def _check_lambda(params: RBM, lam: ArrayLike) -> None:
    """Raises ValueError if the values of lam and W are known and S is not positive definite."""
    if jnp.ndim(lam) != 0:
        raise ValueError(f"lam must be a single number, got shape {jnp.shape(lam)}")
    if not is_known(lam, params.weights):
        return
    # In NumPy: inside a jitted caller even operations on known arrays would be traced.
    smallest = np.linalg.norm(np.asarray(params.weights, np.float64), ord=2)
    value = float(np.asarray(lam))
    if not value > smallest:
        raise ValueError(
            f"lam must exceed {smallest:.6g}, the largest singular value of the weights "
            f"(1.1 * rbm.relaxed.min_lambda(params) does), got {value:.6g}"
        )


def _check_units(params: RBM, zeta: ArrayLike) -> RBM:
    """Returns the parameters checked; raises ValueError unless zeta has their units."""
    params = check_rbm(params)
    n1, n2 = params.weights.shape
    shape = np.shape(zeta)
    if shape[-1:] != (n1 + n2,):
        raise ValueError(
            f"zeta must end in an axis of {n1} + {n2} units, the left side first, got shape {shape}"
        )
    return params
