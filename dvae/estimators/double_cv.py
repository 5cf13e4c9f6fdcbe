"""Double control variates: leave-one-out samples, each corrected by the slopes at the others."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae._numerics import upcast
from dvae.estimators._estimate import Estimate, as_logits, with_gradient
from dvae.estimators._expansion import Expanded, expand, others_mean

__all__ = ["double_cv", "double_cv_variance"]


def double_cv(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    num_samples: int,
    scale: jax.typing.ArrayLike = 1.0,
) -> Estimate:
    """Estimates the gradient of E_q[f(z)] by leave-one-out samples with two expansions of f.

    With mu = sigmoid(l), w_j = f'(z_j), c_k the mean of w_j over the other samples, and a the
    scale, the gradient in the logits is

        1/K sum_k (f(z_k) - a c_k^T (z_k - mu) - b_k) (z_k - mu) + a mu (1 - mu) c_k + grad f(z_k),
        b_k = 1/(K-1) sum_{j != k} f(z_j) - a w_j^T (z_j - mu).

    The first expansion corrects the sample itself and its mean is added back; the second one
    brings each baseline nearer to f(mu). Neither depends on z_k beyond what is added back, so the
    estimate is unbiased for every a. It has no variance where f is linear and a = 1; a = 0 is
    `reinforce_loo`. f must treat the samples and the examples of a batch apart; its slopes come
    with the backward pass that its parameters need anyway. Titsias and Shi, "Double Control
    Variates for Gradient Estimation in Discrete Latent Variable Models" (2021).

    Args:
        key: typed PRNG key.
        f: maps z [K, ..., n] to [K, ...], nats, floats; differentiated at the samples. It may close
            over parameters and over logits, which receive its mean gradient.
        logits: [..., n] float.
        num_samples: K >= 2.
        scale: a, scalar; receives no gradient. Train it by `double_cv_variance`.

    Returns:
        Estimate of the mean of f over the samples, both [...], in the dtype that f returns.

    Raises:
        ValueError: if num_samples < 2, scale is no scalar, or f does not reduce z to one float
            for each sample.
    """
    logits = as_logits("double_cv", logits)
    draw = expand("double_cv", key, f, logits, num_samples)
    gradient = _gradient(draw, logits, _as_scale("double_cv", scale))
    return with_gradient(draw.values, gradient, logits)


def double_cv_variance(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    num_samples: int,
    scale: jax.typing.ArrayLike,
) -> jax.Array:
    """Evaluates ||g||^2 for the g of `double_cv`, to be descended in the scale.

    As the mean of g does not depend on the scale, the gradient of this sample is an unbiased
    estimate of the gradient of g's variance. g is the gradient in the logits without f's own
    dependence on them, as in `rebar_variance`.

    Args:
        key: the key given to `double_cv` (a `jax.random.clone` where key reuse is checked).
        f: as in `double_cv`; receives no gradient.
        logits: [..., n] float; receive no gradient.
        num_samples: K >= 2.
        scale: a, scalar; receives the gradient.

    Returns:
        [...] the sum over units of g^2, nats^2, at least float32.

    Raises:
        ValueError: if num_samples < 2, scale is no scalar, or f does not reduce z to one float
            for each sample.
    """
    logits = as_logits("double_cv_variance", logits)
    draw = jax.lax.stop_gradient(expand("double_cv_variance", key, f, logits, num_samples))
    gradient = _gradient(draw, logits, _as_scale("double_cv_variance", scale))
    return jnp.sum(gradient**2, axis=-1)


def _as_scale(name: str, scale: jax.typing.ArrayLike) -> jax.Array:
    if jnp.shape(scale) != ():
        raise ValueError(f"{name} needs a scalar scale, got shape {jnp.shape(scale)}")
    return jnp.asarray(scale)


def _gradient(draw: Expanded, logits: jax.Array, scale: jax.Array) -> jax.Array:
    """Evaluates g [..., n] in the logits; the scale alone carries a gradient."""
    scale = scale.astype(draw.score.dtype)
    wide = jax.lax.stop_gradient(upcast(logits))
    variance = jax.nn.sigmoid(wide) * jax.nn.sigmoid(-wide)
    values = jax.lax.stop_gradient(upcast(draw.values))
    others = others_mean(draw.slopes)
    own = values - scale * jnp.sum(others * draw.score, axis=-1)
    baseline = others_mean(values - scale * jnp.sum(draw.slopes * draw.score, axis=-1))
    signal = (own - baseline)[..., None]
    correction = scale * variance[None] * others
    return jnp.mean(signal * draw.score + correction, axis=0)
