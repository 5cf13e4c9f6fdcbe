"""Draws of codes from categorical posteriors, and importance samples of them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dvae import bounds
from dvae.distributions import categorical
from dvae.models import vq_conv

__all__ = ["log_likelihood", "sample_each"]


def sample_each(key: jax.Array, logits: jax.Array, indices: jax.Array) -> jax.Array:
    """Draws codes [N, h, w, n] of logits [N, h, w, n, C], each image with a key of its own."""
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)
    return jax.vmap(categorical.sample_codes)(keys, logits)


def log_likelihood(
    key: jax.Array,
    logits: jax.Array,
    indices: jax.Array | None,
    log_prior: Callable[[jax.Array], jax.Array],
    distortion: Callable[[jax.Array], jax.Array],
    num_samples: int,
) -> bounds.LogLikelihood:
    """Estimates log p(x) by codes that are drawn from q(z|x), nats [N], one draw at a time.

    Args:
        key: typed PRNG key.
        logits: [N, h, w, n, C] of q(z|x).
        indices: int [N], numbers of the images, by which their keys differ; None: 0, 1, ...
        log_prior: maps codes [N, h, w, n] to log p(z), nats [N].
        distortion: maps codes to -log p(x | z), nats [N].
        num_samples: K.
    """
    indices = jnp.arange(len(logits)) if indices is None else indices

    def log_weight(key: jax.Array) -> jax.Array:
        codes = sample_each(key, logits, indices)
        log_q = vq_conv.per_image(categorical.log_prob_of_codes(codes, logits))
        return log_prior(codes) - log_q - distortion(codes)

    return bounds.log_likelihood(key, log_weight, num_samples=num_samples, chunk_size=1)
