"""Objectives of `binary_vae` that see f(z) at bits: `exact` and the score-function estimators.

They maximize E_q[f(z)], or the bound of K samples (VIMCO, local DisARM). With one group
f(z) = log p(x|z), and the divergence is subtracted in closed form. NVIL, VIMCO and local DisARM,
and several groups, take log-weights:

    f(z) = log p(x|z) + w (log p(z) - log q(z|x))

Equations are those of the gradient in q, to which all but `exact` add that of f at the sample.
l are the logits of q(z|x). REBAR and RELAX are in `rebar_objectives`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from dvae import estimators
from dvae.distributions import bernoulli
from dvae.models.binary import Draw, Networks, ancestral
from experiments.binary_vae import names
from experiments.binary_vae.config import Config
from experiments.binary_vae.objectives import (
    Auxiliary,
    Batch,
    Objective,
    Terms,
    one_group,
    predict,
    surrogates,
    weight,
)


def exact(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Enumerates sum_z q(z|x) f(z), and differentiates it."""
    group = one_group(model)
    value = estimators.exact(group.f, group.logits)
    return group.terms(estimators.Estimate(value, value), batch)


def disarm(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Takes an antithetic pair of samples as each other's baseline (Dong et al., 2020).

    1/2 (f(z) - f(z')) (z - z') sigmoid(|l|) grad l, averaged over pairs
    """
    group = one_group(model)
    of_pair = lambda key: estimators.disarm(key, group.f, group.logits)
    if config.disarm_pairs == 1:
        return group.terms(of_pair(key), batch)
    pairs = jax.vmap(of_pair)(jax.random.split(key, config.disarm_pairs))
    return group.terms(jax.tree.map(lambda x: x.mean(0), pairs), batch)


def arms(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Takes K samples that avoid one another (Dimitriev and Zhou, 2021).

    1/(1 - rho) 1/(K - 1) sum_k (f(z_k) - mean_j f(z_j)) z_k grad l, rho the correlation of two bits
    """
    group = one_group(model)
    return group.terms(
        estimators.arms(key, group.f, group.logits, num_samples=config.num_samples), batch
    )


def double_cv(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Corrects leave-one-out samples by the slopes of f at the others (Titsias and Shi, 2021).

    The scale a of both expansions descends the variance of this gradient in l.
    """
    group, control = one_group(model), auxiliary.params["control"]
    options = {"num_samples": config.num_samples}
    scale = jax.lax.stop_gradient(control["scale"])
    estimate = estimators.double_cv(key, group.f, group.logits, scale=scale, **options)
    variance = estimators.double_cv_variance(
        jax.random.clone(key), group.f, group.logits, scale=control["scale"], **options
    )
    return group.terms(estimate, batch)._replace(
        auxiliary_loss=variance.mean(), metrics={"scale": scale}
    )


def rodeo(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Adds functions of zero mean that Stein operators make (Shi et al., 2022).

    The network that they are made of descends the variance of this gradient in l.
    """
    group, control = one_group(model), auxiliary.params["control"]
    options = {"num_samples": config.num_samples}
    fixed = functools.partial(surrogates, jax.lax.stop_gradient(control))
    estimate = estimators.rodeo(key, group.f, group.logits, surrogates=fixed, **options)
    trained = functools.partial(surrogates, control)
    variance = estimators.rodeo_variance(
        jax.random.clone(key), group.f, group.logits, surrogates=trained, **options
    )
    return group.terms(estimate, batch)._replace(auxiliary_loss=variance.mean())


def muprop(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Subtracts the expansion of f at the mean m of q, and a baseline (Gu et al., 2015).

    (f(z) - s f(m) - s' f'(m)^T (z - m) - C(x) - c) grad log q(z|x) + s' f'(m)^T grad m

    C and c center the residual like NVIL's signal; it is not rescaled, as the divergence is apart.
    s and s' are 1, or learned like C: by the square of the centered residual.
    """
    group, signal = one_group(model), auxiliary.signal
    baseline = predict(auxiliary.params["baseline"], batch.x)
    options: dict[str, Any] = {}
    if config.muprop_scales == names.LEARNED:
        options["scales"] = tuple(weight(auxiliary.params["scales"]))
    estimate = estimators.muprop(
        key, group.f, group.logits, baseline=baseline + signal.mean, **options
    )
    residual = estimators.muprop_residual(jax.random.clone(key), group.f, group.logits, **options)
    terms = group.terms(estimate, batch)
    if options:
        loss = jnp.square(residual - baseline - signal.mean)
        learned = dict(zip(("scale", "slope_scale"), options["scales"], strict=True))
        terms = terms._replace(metrics=learned)
    else:
        loss = estimators.nvil_baseline_loss(residual, baseline, signal)
    return terms._replace(
        auxiliary_loss=loss.mean(),
        state={"signal": estimators.nvil_update(residual, signal, baseline=baseline)},
    )


def _log_weights(draw: Draw, batch: Batch) -> jax.Array:
    """Returns f(z) [*lead, B], differentiable in q too."""
    return draw.log_likelihood - batch.kl_weight * draw.log_ratios.sum(0)


def _signal(draw: Draw, batch: Batch) -> jax.Array:
    """Returns f(z) [*lead, B] without its gradient -w grad log q, noise of mean zero."""
    score = draw.log_q - jax.lax.stop_gradient(draw.log_q)
    return _log_weights(draw, batch) + batch.kl_weight * score


def _terms(estimate: estimators.Estimate, draw: Draw) -> Terms:
    """Returns the objective of samples of all groups."""
    num_parts, num_images = len(draw.log_ratios), draw.log_likelihood.shape[-1]
    distortion = -draw.log_likelihood.reshape(-1, num_images).mean(0)
    kl = draw.log_ratios.reshape(num_parts, -1).mean(-1)
    return Terms(estimate.value, estimate.surrogate, distortion, kl)


def reinforce(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Estimates the gradient by f(z) grad log q(z|x) (Williams, 1992)."""
    if config.num_groups == 1:
        group = one_group(model)
        return group.terms(estimators.reinforce(key, group.f, group.logits), batch)
    draw = ancestral(key, model, config.num_groups)
    return _terms(estimators.reinforce_surrogate(_signal(draw, batch), draw.log_q), draw)


def reinforce_loo(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Takes the mean of the other samples as baseline of each (Kool et al., 2019).

    1/K sum_k (f(z_k) - 1/(K - 1) sum_{j != k} f(z_j)) grad log q(z_k|x)
    """
    num_samples = config.num_samples
    if config.num_groups == 1:
        group = one_group(model)
        return group.terms(
            estimators.reinforce_loo(key, group.f, group.logits, num_samples=num_samples), batch
        )
    draw = ancestral(key, model, config.num_groups, (num_samples,))
    return _terms(estimators.reinforce_loo_surrogate(_signal(draw, batch), draw.log_q), draw)


def vimco(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Maximizes L = log 1/K sum_k exp f(z_k) (Mnih and Rezende, 2016).

    sum_k (L - L_k) grad log q(z_k|x), L_k = L with the mean of the other f in place of f(z_k)

    The samples are weighed, so that the gradient of f in q does not have mean zero.
    """
    draw = ancestral(key, model, config.num_groups, (config.num_samples,))
    return _terms(estimators.vimco_surrogate(_log_weights(draw, batch), draw.log_q), draw)


def local_disarm(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Maximizes L of `vimco`, each of its samples in an antithetic pair (Dong et al., 2020).

    1/2 sum_k (L - L_k) (z_k - z'_k) sigmoid(|l|) grad l, L_k = L with z'_k in place of z_k

    averaged over which sample of a pair is whose partner: 2 K samples in all.
    """
    group, prior = one_group(model), model.prior_logits([])

    def log_weight(z: jax.Array) -> jax.Array:
        log_q, log_p = (
            bernoulli.log_prob(z, jnp.broadcast_to(logits, z.shape)).sum(-1)
            for logits in (group.logits, prior)
        )
        return group.f(z) - batch.kl_weight * (log_q - log_p)

    value, surrogate = estimators.local_disarm(
        key, log_weight, group.logits, num_samples=config.num_samples
    )
    # The distortion is what the divergence leaves of the bound.
    distortion = -value - batch.kl_weight * group.kl
    return Terms(value, surrogate, distortion, group.kl.mean()[None])


def nvil(
    key: jax.Array, model: Networks, auxiliary: Auxiliary, batch: Batch, config: Config
) -> Terms:
    """Centers f(z) by a network C and a running mean c, and rescales it (Mnih and Gregor, 2014).

    (f(z) - C(x) - c) / max(1, sigma) grad log q(z|x), sigma the running standard deviation

    As the signal is rescaled, the divergence is part of it. Without nvil_scale sigma is 1.
    """
    draw = ancestral(key, model, config.num_groups)
    f, baseline = _signal(draw, batch), predict(auxiliary.params["baseline"], batch.x)
    estimate, signal = estimators.nvil_surrogate(f, draw.log_q, auxiliary.signal, baseline=baseline)
    if config.nvil_scale == names.NONE:
        centering = baseline + auxiliary.signal.mean
        estimate = estimators.reinforce_surrogate(f, draw.log_q, baseline=centering)
    return _terms(estimate, draw)._replace(
        auxiliary_loss=estimators.nvil_baseline_loss(f, baseline, auxiliary.signal).mean(),
        state={"signal": signal},
    )


ESTIMATORS: dict[str, Objective] = {
    names.EXACT: exact,
    names.REINFORCE: reinforce,
    names.REINFORCE_LOO: reinforce_loo,
    names.NVIL: nvil,
    names.VIMCO: vimco,
    names.LOCAL_DISARM: local_disarm,
    names.MUPROP: muprop,
    names.DISARM: disarm,
    names.ARMS: arms,
    names.DOUBLE_CV: double_cv,
    names.RODEO: rodeo,
}
