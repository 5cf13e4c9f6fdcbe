"""The training objectives of `cifar_vq`: one function an estimator, each reading like its equation.

Every objective is given the model, vectors v = encode(x) float32 [B, h, w, n, D], codebooks M
[n, C, D], uint8 images x [B, H, W, 3] and the KL's weight (a scalar in (0, 1], for its warm-up),
and returns `Terms`: what is maximized, an estimate of the rate and the distortion beside it, and
the codes that were used. Values are in nats.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dvae import bounds, estimators, vq
from dvae.distributions import categorical
from dvae.models import vq_conv
from experiments.cifar_vq import code_use, names

PyTree = Any
# What the number that is logged as bits/dim in training is; the evaluation is always the discrete
# ELBO.
TRAINING_OBJECTIVE = {
    names.GS_SOFT: "relaxed objective: soft codes in the likelihood, it bounds nothing",
    names.GS_HARD: "single-sample discrete ELBO: a bound",
    names.VIMCO: "importance-weighted bound of num_samples samples",
    names.VQ: "discrete ELBO of the nearest codes: a bound",
    names.VQ_EMA: "discrete ELBO of the nearest codes: a bound",
    **dict.fromkeys(names.QUANTIZERS, "discrete ELBO of the quantizer's codes: a bound"),
}


class Terms(NamedTuple):
    """What an objective returns, in nats."""

    surrogate: jax.Array  # [], the mean over images of what is maximized
    objective: jax.Array  # [B], the value that is reported (see TRAINING_OBJECTIVE)
    rate: jax.Array  # [B], the KL, or -log p(codes) where the posterior is one code
    distortion: jax.Array  # [B], -log p(x | z)
    codes: jax.Array  # int32 [..., n], the codes drawn


class Model(NamedTuple):
    """The network's methods with their parameters applied."""

    posterior_logits: Callable[[jax.Array], jax.Array]  # [B, h, w, n, D] -> [B, h, w, n, C]
    # Key, vectors, M, log prior, temperature, hard -> averages as vectors, KL, codes [B, h, w, n].
    soft_quantize: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]
    log_likelihood: Callable[[jax.Array, jax.Array], jax.Array]  # codes, images -> [B]
    total_log_likelihood: Callable[
        ..., tuple[jax.Array, jax.Array]
    ]  # the sum, and [B] without gradient
    log_prior: jax.Array  # [n, C]


def apply(module: vq_conv.VQConv, network: PyTree, method: str, *args: jax.Array) -> Any:
    """Calls a method of the module with the network's parameters."""
    return module.apply({"params": network}, *args, method=method)


def bind(module: vq_conv.VQConv, params: PyTree, codebook: jax.Array) -> Model:
    """Applies the parameters to the methods that an objective needs."""
    return Model(
        lambda vectors: apply(module, params, "posterior_logits", vectors, codebook),
        functools.partial(apply, module, params, "soft_quantize"),
        lambda codes, images: apply(module, params, "log_likelihood", codes, images),
        lambda codes, images: apply(module, params, "total_log_likelihood", codes, images),
        apply(module, params, "log_prior"),
    )


def gumbel_softmax(
    key: jax.Array,
    model: Model,
    vectors: jax.Array,
    codebook: jax.Array,
    images: jax.Array,
    *,
    kl_weight: jax.Array,
    temperature: float | jax.Array,
    hard: bool | jax.Array,
    entropy_floor: float = 0.0,
) -> Terms:
    """Returns log p(x | y M) - KL(q || p) with the exact KL.

    y is a Gumbel-Softmax sample, straight-through where it is hard. Both settings may be arrays, of
    a step. The surrogate loses what entropy the mean posterior lacks to a floor, see `code_use`.
    """
    settings = model.log_prior, temperature, hard
    quantized, kl, codes = model.soft_quantize(key, vectors, codebook, *settings)
    total, log_px = model.total_log_likelihood(quantized, images)
    kl = vq_conv.per_image(kl)
    surrogate = bounds.elbo(total / len(images), kl.mean(), kl_weight=kl_weight)
    if entropy_floor:
        logits = model.posterior_logits(vectors)
        surrogate = surrogate - code_use.lacking_entropy(logits, entropy_floor)
    return Terms(surrogate, log_px - kl, kl, -log_px, codes)


def vimco(
    key: jax.Array,
    model: Model,
    vectors: jax.Array,
    codebook: jax.Array,
    images: jax.Array,
    *,
    kl_weight: jax.Array,
    num_samples: int,
) -> Terms:
    """Returns log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x), trained by VIMCO.

    Source: Mnih and Rezende, "Variational Inference for Monte Carlo Objectives" (2016).
    """
    logits = model.posterior_logits(vectors)
    codes = categorical.sample_codes(key, jax.lax.stop_gradient(logits), (num_samples,))
    log_q = vq_conv.per_image(categorical.log_prob_of_codes(codes, logits[None]))
    log_pz = vq_conv.per_image(vq_conv.log_prior_of(codes, model.log_prior))
    # One large batch rather than a vmap over samples: the likelihood is most of the work.
    quantized = vq_conv.lookup(codes, codebook)
    flat = quantized.reshape(-1, *quantized.shape[2:])
    tiled = jnp.broadcast_to(images[None], (num_samples, *images.shape))
    tiled = tiled.reshape(-1, *images.shape[1:])
    log_px = model.log_likelihood(flat, tiled).reshape(num_samples, -1)
    estimate = estimators.vimco_surrogate(log_px + kl_weight * (log_pz - log_q), log_q)
    objective = bounds.iwae(log_px + log_pz - log_q)
    rate = (log_q - log_pz).mean(0)
    return Terms(estimate.surrogate.mean(), objective, rate, -log_px.mean(0), codes)


def nearest_code(
    model: Model,
    vectors: jax.Array,
    codebook: jax.Array,
    images: jax.Array,
    *,
    kl_weight: jax.Array,
    codebook_weight: float,
    commitment_weight: float,
) -> Terms:
    """Returns log p(x | z) + log p(z) at the nearest codes, straight-through, less two VQ losses.

    van den Oord et al. (2017), equation 3, with the prior's cost in the objective. The VQ losses
    are means over the D components of a code, so that their weight beside the nats of the
    likelihood does not grow with D. `codebook_weight` is 0 where a moving average trains the
    codebook.
    """
    codes = vq_conv.nearest_codes(vectors, codebook)
    quantized = vq_conv.lookup(codes, codebook)
    decoder_input = vq.straight_through(vectors, quantized)
    total, log_px = model.total_log_likelihood(decoder_input, images)
    rate = -vq_conv.per_image(vq_conv.log_prior_of(codes, model.log_prior))
    penalty = commitment_weight * vq.commitment_loss(vectors, quantized)
    if codebook_weight:
        penalty = penalty + codebook_weight * vq.codebook_loss(vectors, quantized)
    elbo = bounds.elbo(total / len(images), rate.mean(), kl_weight=kl_weight)
    penalty = vq_conv.per_image(penalty).mean() / codebook.shape[-1]
    return Terms(elbo - penalty, log_px - rate, rate, -log_px, codes)


def update_codebooks(
    key: jax.Array,
    state: vq.EMAState,
    vectors: jax.Array,
    codes: jax.Array,
    *,
    decay: float,
    restart_threshold: float,
) -> vq.EMAState:
    """Moves each latent variable's codebook towards the vectors [B, h, w, n, D] of this step."""
    num_latents, code_dim = vectors.shape[-2:]
    vectors = jnp.moveaxis(vectors.reshape(-1, num_latents, code_dim), 1, 0)
    codes = codes.reshape(-1, num_latents).T
    state = jax.vmap(lambda s, v, c: vq.ema_update(s, v, c, decay=decay))(state, vectors, codes)
    if not restart_threshold:
        return state
    return jax.vmap(lambda k, s, v: vq.restart_dead_codes(k, s, v, threshold=restart_threshold))(
        jax.random.split(key, num_latents), state, vectors
    )


def usage(codes: jax.Array, codebook_size: int) -> jax.Array:
    """Counts the codes [..., n] of each latent variable: int32 [n, C]."""
    flat = codes.reshape(-1, codes.shape[-1])
    return jax.vmap(lambda k: vq.usage(k, codebook_size), in_axes=1)(flat)
