"""What each training rule owns beside the network: codebooks at first, and its objective."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dvae import vq
from experiments.cifar_vq import names, quantizer_objectives, sizes
from experiments.cifar_vq.config import Config
from experiments.cifar_vq.objectives import Model, Terms

PyTree = Any
KMEANS_ITERATIONS = 5


class Grid(NamedTuple):
    """Codes that nothing trains."""

    codebook: jax.Array  # [n, C, D]


class Basis(NamedTuple):
    """The fixed factor of codes M W."""

    basis: jax.Array  # M [n, C, D]


def start(
    config: Config, key: jax.Array, vectors: jax.Array, drawn: jax.Array
) -> tuple[dict[str, jax.Array], PyTree]:
    """Returns the parameters that a rule has beside the network, and its state.

    Args:
      config: which rule, and how its codes begin.
      key: of k-means, or of codes that are drawn otherwise.
      vectors: encodings [N, h, w, n, D] of images.
      drawn: codes [n, C, D] of N(0, 1).
    """
    rule, from_data = config.estimator, config.codebook_init == names.DATA
    if rule in names.GRIDS:
        return {}, Grid(jnp.broadcast_to(_grid(config)[None], drawn.shape))
    keys = jax.random.split(key, config.num_latents)
    if rule == names.SIMVQ:
        init = lambda key: vq.simvq.init(key, num_codes=config.num_codes, dim=config.vector_dim)
        basis, weights = jax.vmap(init)(keys)
        return {"weights": weights}, Basis(basis)
    points = jnp.moveaxis(vectors.reshape(-1, *vectors.shape[-2:]), 1, 0)
    options = {"num_codes": config.num_codes, "num_iters": KMEANS_ITERATIONS}
    if rule == names.RESIDUAL:
        stages = config.num_stages
        fit = lambda key, x: vq.residual.kmeans(key, x, num_stages=stages, **options)[0]
        draw = lambda key, x: jax.random.normal(key, (stages, *drawn.shape[1:]))
        return {"codebook": jax.vmap(fit if from_data else draw)(keys, points)}, ()
    if rule == names.COSINE:
        points = vq.cosine.unit(points)
    codebook = drawn
    if from_data:
        codebook = jax.vmap(lambda key, x: vq.kmeans(key, x, **options)[0])(keys, points)
    if rule == names.VQ_EMA:
        state = jax.vmap(vq.ema_init)(codebook)
        # No code is below the threshold before it was ever counted.
        counted = max(1.0, 2 * config.restart_threshold)
        return {}, state._replace(counts=counted * state.counts, sums=counted * state.sums)
    return {"directions" if rule == names.COSINE else "codebook": codebook}, ()


def _grid(config: Config) -> jax.Array:
    """Returns the codes [C, D] of a rule whose codes are a grid."""
    codes = jnp.arange(config.num_codes)
    if config.estimator == names.FSQ:
        return vq.fsq.lookup(codes, sizes.levels_of(config.levels))
    quantizer = vq.bsq if config.estimator == names.BSQ else vq.lfq
    return quantizer.lookup(codes, config.vector_dim)


def objective(
    config: Config,
    key: jax.Array,
    params: PyTree,
    model_state: PyTree,
    model: Model,
    vectors: jax.Array,
    images: jax.Array,
    kl_weight: jax.Array,
) -> Terms:
    """Evaluates the objective of one of `names.QUANTIZERS`.

    Args:
      config: which, and its weights.
      key: of the stages that are dropped.
      params: with what `start` returned.
      model_state: likewise.
      model: the network's methods.
      vectors: float32 [B, h, w, n, D].
      images: uint8 [B, H, W, C].
      kl_weight: scalar in (0, 1].
    """
    rule, rules = config.estimator, quantizer_objectives
    weights: dict[str, Any] = {"kl_weight": kl_weight}
    if rule == names.FSQ:
        return rules.fsq(model, vectors, images, levels=sizes.levels_of(config.levels), **weights)
    weights["commitment_weight"] = config.commitment
    if rule in names.SIGNS:
        weights |= {"entropy_weight": config.entropy_weight, "on_sphere": rule == names.BSQ}
        weights["inverse_temperature"] = config.inverse_temperature
        return rules.signs(model, vectors, images, **weights)
    if rule == names.SIMVQ:
        basis = model_state.basis
        return rules.simvq(model, vectors, basis, params["weights"], images, **weights)
    if rule == names.COSINE:
        return rules.cosine(model, vectors, params["directions"], images, **weights)
    if rule == names.RESIDUAL:
        if config.stage_dropout:
            images_alone = (len(vectors), 1, 1)  # all positions of an image have its depth
            weights["depth"] = vq.residual.draw_depth(key, config.num_stages, images_alone)
        return rules.residual(model, vectors, params["codebook"], images, **weights)
    return rules.rotation(model, vectors, params["codebook"], images, **weights)
