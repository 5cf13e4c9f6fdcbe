"""Objectives of the quantizers beyond nearest codes: one function each, reading like its equation.

All return `Terms` of

    log p(x | q) + kl_weight log p(codes) - penalty

at the quantized vectors q of v = encode(x), through which the gradient reaches v as the quantizer
says. v is float32 [B, h, w, n, D]; every latent variable is quantized by itself. Penalties are
means over the D components of a code, summed over the positions and latent variables of an image,
as those of `objectives.nearest_code`; entropies are nats a code.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dvae import bounds, vq
from dvae.models import vq_conv
from experiments.cifar_vq.objectives import Model, Terms


def fsq(
    model: Model,
    vectors: jax.Array,
    images: jax.Array,
    *,
    kl_weight: jax.Array,
    levels: Sequence[int],
) -> Terms:
    """Rounds every component of v to its levels; there is no penalty.

    Mentzer et al. (2023), section 3.1.
    """
    q, codes = vq.fsq.quantize(vectors, levels)
    return _terms(model, q, codes, images, jnp.zeros(()), kl_weight)


def signs(
    model: Model,
    vectors: jax.Array,
    images: jax.Array,
    *,
    kl_weight: jax.Array,
    on_sphere: bool,
    commitment_weight: float,
    entropy_weight: float,
    inverse_temperature: float,
) -> Terms:
    """Takes the signs of v (lfq), or of v / |v| over sqrt D (bsq, on the sphere).

    penalty = commitment_weight |v - sg q|^2
              + entropy_weight sum_i (mean_x H(p_i(.|x)) - H(mean_x p_i(.|x))),    bits i

    Yu et al. (2023), section 3.1; by bits, Zhao et al. (2024), section 4. The sum of the second
    terms is an upper bound on the entropy of the mean over codes.
    """
    quantizer = vq.bsq if on_sphere else vq.lfq
    q, codes = quantizer.quantize(vectors)
    losses = _of_each_latent(
        lambda v: quantizer.losses(v, inverse_temperature=inverse_temperature), vectors
    )
    commitment = commitment_weight * losses.commitment / vectors.shape[-1]
    entropy = entropy_weight * (losses.conditional_entropy - losses.marginal_entropy)
    return _terms(model, q, codes, images, _an_image(commitment + entropy, vectors), kl_weight)


def rotation(
    model: Model,
    vectors: jax.Array,
    codebook: jax.Array,
    images: jax.Array,
    *,
    kl_weight: jax.Array,
    commitment_weight: float,
) -> Terms:
    """Takes nearest codes, with the gradient rotated and scaled from the code back to v.

    penalty = |sg(v) - m|^2 + commitment_weight |v - sg(m)|^2

    Fifty et al. (2024), section 4.
    """
    codes = vq_conv.nearest_codes(vectors, codebook)
    nearest = vq_conv.lookup(codes, codebook)
    losses = vq.VQLosses(
        vq.codebook_loss(vectors, nearest).mean((0, 1, 2)),
        vq.commitment_loss(vectors, nearest).mean((0, 1, 2)),
    )
    q = vq.rotation_trick(vectors, nearest)
    return _terms(model, q, codes, images, _penalty(losses, vectors, commitment_weight), kl_weight)


def simvq(
    model: Model,
    vectors: jax.Array,
    basis: jax.Array,
    weights: jax.Array,
    images: jax.Array,
    *,
    kl_weight: jax.Array,
    commitment_weight: float,
) -> Terms:
    """Takes the nearest rows q of M W, M [n, C, D] fixed and W [n, D, D] learned.

    penalty = |sg(v) - q|^2 + commitment_weight |v - q|^2, both of which reach W

    Zhu et al. (2024), section 4.
    """
    q, codes = _quantize_each(vq.simvq.quantize, vectors, basis, weights)
    losses = _of_each_latent(vq.simvq.losses, vectors, codes, basis, weights)
    return _terms(model, q, codes, images, _penalty(losses, vectors, commitment_weight), kl_weight)


def cosine(
    model: Model,
    vectors: jax.Array,
    directions: jax.Array,
    images: jax.Array,
    *,
    kl_weight: jax.Array,
    commitment_weight: float,
) -> Terms:
    """Takes the codes m / |m| at the smallest angle, of m in directions [n, C, D].

    penalty = |sg(u) - m^|^2 + commitment_weight |u - sg(m^)|^2, u = v / |v|

    Yu et al. (2021), section 3.2.
    """
    q, codes = _quantize_each(vq.cosine.quantize, vectors, directions)
    losses = _of_each_latent(vq.cosine.losses, vectors, codes, directions)
    return _terms(model, q, codes, images, _penalty(losses, vectors, commitment_weight), kl_weight)


def residual(
    model: Model,
    vectors: jax.Array,
    codebooks: jax.Array,
    images: jax.Array,
    *,
    kl_weight: jax.Array,
    commitment_weight: float,
    depth: jax.Array | None = None,
) -> Terms:
    """Adds up the codes of R stages, each nearest to what those before left: [n, R, C, D].

    penalty = sum_s |sg(r_s) - m_s|^2 + commitment_weight |r_s - sg(m_s)|^2

    The rate is the sum of those of n R codes. Of stages from depth [B, 1, 1] on there are none, and
    they cost nothing. Zeghidour et al. (2021), section III.C.
    """
    quantize = lambda v, m: tuple(vq.residual.quantize(v, m, depth=depth))
    split = jax.vmap(quantize, (-2, 0), (-2, -2))
    q, codes = split(vectors, codebooks)
    losses = jax.vmap(vq.residual.losses, in_axes=(-2, -2, 0))(vectors, codes, codebooks)
    losses = jax.tree.map(lambda of_stages: of_stages.sum(-1), losses)
    penalty = _penalty(losses, vectors, commitment_weight)
    flat = codes.reshape(*codes.shape[:-2], -1)
    return _terms(model, q, flat, images, penalty, kl_weight)


def _quantize_each(
    quantize: Callable[..., vq.Quantized], vectors: jax.Array, *books: jax.Array
) -> vq.Quantized:
    """Quantizes each latent variable's vectors: q [B, h, w, n, D] and codes [B, h, w, n]."""
    both = lambda *args: tuple(quantize(*args))
    each = jax.vmap(both, in_axes=(-2, *(0 for _ in books)), out_axes=(-2, -1))
    return vq.Quantized(*each(vectors, *books))


def _of_each_latent(losses: Callable[..., Any], vectors: jax.Array, *rest: jax.Array) -> Any:
    """Evaluates the losses of each latent variable, means over positions: [n] each."""
    if not rest:
        return jax.vmap(losses, in_axes=-2)(vectors)
    codes, *books = rest
    axes = (-2, -1, *(0 for _ in books))
    return jax.vmap(losses, in_axes=axes)(vectors, codes, *books)


def _penalty(losses: vq.VQLosses, vectors: jax.Array, commitment_weight: float) -> jax.Array:
    """Weighs the two losses [n] of a codebook: [], nats an image."""
    both = losses.codebook + commitment_weight * losses.commitment
    return _an_image(both / vectors.shape[-1], vectors)


def _an_image(of_code: jax.Array, vectors: jax.Array) -> jax.Array:
    """Sums means over positions [n] over the positions of an image, and over n."""
    return of_code.sum() * (vectors.shape[1] * vectors.shape[2])


def _terms(
    model: Model,
    q: jax.Array,
    codes: jax.Array,
    images: jax.Array,
    penalty: jax.Array,
    kl_weight: jax.Array,
) -> Terms:
    """Makes the terms of a posterior that is one code."""
    total, log_px = model.total_log_likelihood(q, images)
    rate = -vq_conv.per_image(vq_conv.log_prior_of(codes, model.log_prior))
    elbo = bounds.elbo(total / len(images), rate.mean(), kl_weight=kl_weight)
    return Terms(elbo - penalty, log_px - rate, rate, -log_px, codes)
