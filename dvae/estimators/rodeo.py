"""RODEO: leave-one-out samples with control variates made by discrete Stein operators."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae._numerics import upcast
from dvae.estimators._estimate import Estimate, as_logits, with_gradient
from dvae.estimators._expansion import Expanded, expand, others_mean

__all__ = ["rodeo", "rodeo_variance"]

_Surrogates = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def _linear(values: jax.Array, slopes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Takes the expansion itself; half of it cancels the products of two units of a linear f."""
    return slopes, slopes / 2


def rodeo(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    num_samples: int,
    surrogates: _Surrogates = _linear,
) -> Estimate:
    """Estimates the gradient of E_q[f(z)] with functions of zero mean built from other samples.

    The Gibbs operator resamples each unit in turn, (A h)(z) = sum_i E[h(z) | all but z_i] - h(z),
    and E_q[A h] = 0 for every h. With mu = sigmoid(l), w_j = f'(z_j) and the expansion
    e_j(y) = w_j^T (y - mu), two scalar functions H, G make

        h_j(y) = H(f(z_j), e_j(y)),   g_k(y) = (y - mu) 1/(K-1) sum_{j != k} G(f(z_j), e_j(y)),

    and the gradient in the logits is

        1/K sum_k (f(z_k) - 1/(K-1) sum_{j != k} f(z_j) + (A h_j)(z_j)) (z_k - mu) + (A g_k)(z_k)

    plus the mean of grad f(z_k). Unbiased for all H and G: the first is a baseline of the other
    samples, the second has mean 0 given them. f is evaluated K times, H and G K n and K^2 n times.
    f must treat the samples and the examples of a batch apart. Shi, Zhou, Hwang, Titsias and
    Mackey, "Gradient Estimation with Discrete Stein Operators" (2022); here the operator is the
    sum over the units, not their mean, and expansions are about mu, not about z_j.

    Args:
        key: typed PRNG key.
        f: maps z [K, ..., n] to [K, ...], nats, floats; differentiated at the samples. It may close
            over parameters and over logits, which receive its mean gradient.
        logits: [..., n] float.
        num_samples: K >= 2.
        surrogates: maps arrays of f(z_j) and e_j(y), which broadcast, to those of H and G,
            elementwise, such as a small network; its parameters receive no gradient, train them by
            `rodeo_variance`. By default H = e, with which the baseline is that of `double_cv`, and
            G = e/2.

    Returns:
        Estimate of the mean of f over the samples, both [...], in the dtype that f returns.

    Raises:
        ValueError: if num_samples < 2, f does not reduce z to one float for each sample, or the
            surrogates have another shape than their arguments.
    """
    logits = as_logits("rodeo", logits)
    draw = expand("rodeo", key, f, logits, num_samples)
    gradient = _gradient("rodeo", draw, logits, surrogates)
    return with_gradient(draw.values, gradient, logits)


def rodeo_variance(
    key: jax.Array,
    f: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    *,
    num_samples: int,
    surrogates: _Surrogates,
) -> jax.Array:
    """Evaluates ||g||^2 for the g of `rodeo`, to be descended in what the surrogates close over.

    As the mean of g does not depend on H and G, the gradient of this sample is an unbiased
    estimate of the gradient of g's variance. g is the gradient in the logits without f's own
    dependence on them, as in `rebar_variance`.

    Args:
        key: the key given to `rodeo` (a `jax.random.clone` where key reuse is checked).
        f: as in `rodeo`; receives no gradient.
        logits: [..., n] float; receive no gradient.
        num_samples: K >= 2.
        surrogates: as in `rodeo`; all that it closes over receives the gradient.

    Returns:
        [...] the sum over units of g^2, nats^2, at least float32.

    Raises:
        ValueError: if num_samples < 2, f does not reduce z to one float for each sample, or the
            surrogates have another shape than their arguments.
    """
    logits = as_logits("rodeo_variance", logits)
    draw = jax.lax.stop_gradient(expand("rodeo_variance", key, f, logits, num_samples))
    return jnp.sum(_gradient("rodeo_variance", draw, logits, surrogates) ** 2, axis=-1)


def _gradient(name: str, draw: Expanded, logits: jax.Array, surrogates: _Surrogates) -> jax.Array:
    """Evaluates g [..., n] in the logits; what the surrogates close over alone has a gradient."""
    values = jax.lax.stop_gradient(upcast(draw.values))
    wide = jax.lax.stop_gradient(upcast(logits))[None]
    num_samples = values.shape[0]
    flip = 1 - 2 * draw.z  # what a flip adds to a bit
    share = jax.nn.sigmoid(jnp.where(draw.z > 0, -wide, wide))  # of the other value under q

    def pair(values: jax.Array, slopes: jax.Array) -> tuple[jax.Array, jax.Array]:
        results = surrogates(values, slopes)
        shape = jnp.broadcast_shapes(values.shape, slopes.shape)
        if any(jnp.broadcast_shapes(jnp.shape(x), shape) != shape for x in results):
            raise ValueError(
                f"{name} needs surrogates of the shape of their arguments, {shape}, got "
                f"{[jnp.shape(x) for x in results]}"
            )
        baseline, correction = (jnp.broadcast_to(x, shape) for x in results)
        return baseline, correction

    at_own = jnp.sum(draw.slopes * draw.score, axis=-1)
    here = pair(values, at_own)[0]
    flipped = pair(values[..., None], at_own[..., None] + draw.slopes * flip)[0]
    baseline = others_mean(values + jnp.sum(share * (flipped - here[..., None]), axis=-1))

    corrections = jnp.zeros_like(draw.score)
    for shift in range(1, num_samples):  # each sample meets each other one: O(K n) memory
        other_values, other_slopes = (jnp.roll(x, shift, axis=0) for x in (values, draw.slopes))
        at = jnp.sum(other_slopes * draw.score, axis=-1)
        here = pair(other_values, at)[1]
        flipped = pair(other_values[..., None], at[..., None] + other_slopes * flip)[1]
        resampled = jnp.sum(share * (flipped - here[..., None]), axis=-1)
        corrections += resampled[..., None] * draw.score + share * flip * flipped
    signal = (values - baseline)[..., None]
    return jnp.mean(signal * draw.score + corrections / (num_samples - 1), axis=0)
