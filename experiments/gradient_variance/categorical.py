"""A small VAE with categorical variables, whose states can be enumerated, and its estimators.

    log p(x | z) - KL(q(z | x) || p(z)),    z one-hot [B, n, C],    p(z) factorial

Encoder and decoder have the layers of the binary model; the decoder sees z as a vector of n C.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from dvae import data, estimators, relax
from dvae.distributions import bernoulli, categorical
from dvae.models import binary, mlp
from experiments.binary_vae import names
from experiments.binary_vae import task as binary_vae
from experiments.gradient_variance.config import (
    COUPLED,
    GS_HARD,
    GS_SOFT,
    STEPS_PER_CALL,
    Config,
)
from experiments.gradient_variance.measurement import Loss, say

PyTree = Any
# (key, f, logits [B, n, C], settings of a case) -> an estimate of the gradient of E[f(z)].
Estimator = Callable[..., estimators.Estimate]


def _by_sample(draw: Callable[..., jax.Array]) -> Estimator:
    """Makes the estimator that differentiates f at one sample."""

    def estimate(
        key: jax.Array, f: Callable[[jax.Array], jax.Array], logits: jax.Array, **settings: Any
    ) -> estimators.Estimate:
        sample = functools.partial(draw, **settings)
        return estimators.pathwise(key, f, logits, sample=sample, family=categorical)

    return estimate


def _exact(
    key: jax.Array, f: Callable[[jax.Array], jax.Array], logits: jax.Array
) -> estimators.Estimate:
    del key
    value = estimators.exact(f, logits, family=categorical)
    return estimators.Estimate(value, value)


ESTIMATORS: Mapping[str, Estimator] = {
    names.EXACT: _exact,
    names.REINFORCE: lambda key, f, logits: estimators.reinforce(
        key, f, logits, baseline=0.0, family=categorical
    ),
    names.REINFORCE_LOO: lambda key, f, logits, num_samples: estimators.reinforce_loo(
        key, f, logits, num_samples=num_samples, family=categorical
    ),
    COUPLED: estimators.coupled,
    names.STRAIGHT_THROUGH: _by_sample(relax.straight_through.categorical),
    names.REINMAX: _by_sample(relax.reinmax.categorical),
    names.GUMBEL_RAO: _by_sample(relax.gumbel_rao.categorical),
    GS_SOFT: _by_sample(relax.gumbel_softmax.sample),
    GS_HARD: _by_sample(
        lambda key, logits, temperature: relax.gumbel_softmax.sample(
            key, logits, temperature, hard=True
        )
    ),
}


def _networks(config: Config, num_pixels: int) -> tuple[mlp.Mlp, mlp.Mlp]:
    """Returns encoder and decoder."""
    hidden = config.experiment().hidden
    return mlp.Mlp(hidden, config.num_latents * config.num_classes), mlp.Mlp(hidden, num_pixels)


def init(config: Config, pixel_mean: np.ndarray, key: jax.Array) -> PyTree:
    """Returns the first parameters, named as those of the binary model are.

    Args:
      config: sizes.
      pixel_mean: float32 [D], the training mean: the first decoder's output.
      key: typed PRNG key.
    """
    encoder, decoder = _networks(config, len(pixel_mean))
    key_encoder, key_decoder = jax.random.split(key)
    num_inputs = config.num_latents * config.num_classes
    mean = np.clip(pixel_mean, binary_vae.MIN_PIXEL_MEAN, 1 - binary_vae.MIN_PIXEL_MEAN)
    of_decoder = decoder.init(key_decoder, jnp.zeros((1, num_inputs)))["params"]
    of_decoder["output"]["bias"] = jnp.asarray(np.log(mean / (1 - mean)))
    return {
        "encoders_0": encoder.init(key_encoder, jnp.zeros((1, len(pixel_mean))))["params"],
        "decoder": of_decoder,
        "prior_logits": jnp.zeros((config.num_latents, config.num_classes)),
    }


def loss_fn(config: Config, num_pixels: int, settings: Mapping[str, Any]) -> Loss:
    """Returns minus the mean ELBO, nats an image, with the gradient of an estimator.

    Args:
      config: sizes.
      num_pixels: of an image.
      settings: the estimator's name and what it takes besides.
    """
    encoder, decoder = _networks(config, num_pixels)
    options = dict(settings)
    estimator = ESTIMATORS[options.pop("estimator")]

    def loss(
        params: PyTree, model_state: PyTree, x: jax.Array, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, Any]]:
        del step
        network = params["network"]
        centered = x - model_state["mean"][None]
        flat = binary.apply(encoder, network["encoders_0"], mlp.Mlp.__call__, centered)
        logits = flat.reshape(len(x), config.num_latents, config.num_classes)

        def log_likelihood(z: jax.Array) -> jax.Array:
            inputs = z.reshape(*z.shape[:-2], -1)
            pixels = binary.apply(decoder, network["decoder"], mlp.Mlp.__call__, inputs)
            return bernoulli.log_prob(jnp.broadcast_to(x, pixels.shape), pixels).sum(-1)

        prior = jnp.broadcast_to(network["prior_logits"][None], logits.shape)
        kl = categorical.kl(logits, prior).sum(-1)
        estimate = estimator(key, log_likelihood, logits, **options)
        return (kl - estimate.surrogate).mean(), (model_state, {})

    return loss


def train(
    config: Config, images: data.Dataset, mesh: Mesh, mean: np.ndarray
) -> tuple[PyTree, PyTree]:
    """Returns the network at initialization and after the training.

    Args:
      config: everything.
      images: the data set.
      mesh: whose first device trains.
      mean: float32 [D] of the pixels.
    """
    pixels = jnp.asarray(images.train.reshape(len(images.train), -1))
    dynamic = images.binarization == "dynamic"
    draw = binary_vae.draw_fn(config.experiment(), dynamic, mesh, len(pixels))
    options = {"num_samples": 2} if config.train_estimator == names.REINFORCE_LOO else {}
    loss = loss_fn(config, len(mean), {"estimator": config.train_estimator, **options})
    optimizer = optax.adam(config.learning_rate)
    key_init, key_data, key_train = jax.random.split(jax.random.key(config.seed), 3)

    def step(carry: PyTree, index: jax.Array) -> tuple[PyTree, jax.Array]:
        network, moments = carry
        x, key = draw(key_data, pixels, index), jax.random.fold_in(key_train, index)
        of_network = lambda network: loss({"network": network}, {"mean": mean}, x, key, index)
        (value, _), gradient = jax.value_and_grad(of_network, has_aux=True)(network)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(network, updates), moments), value

    steps = jax.jit(lambda carry, indices: jax.lax.scan(step, carry, indices))
    first = init(config, mean, key_init)
    carry = first, optimizer.init(first)
    for start in range(0, config.train_steps, STEPS_PER_CALL):
        end = start + STEPS_PER_CALL
        carry, losses = steps(carry, jnp.arange(start, end, dtype=jnp.int32))
        say(f"step {end:,}: objective {-float(losses.mean()):.2f} nats")
    return jax.device_get((first, carry[0]))
