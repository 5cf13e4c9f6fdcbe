"""The measurement behind `gradient_variance`: exact gradients, tuning, and many draws of estimates.

Each function takes the loss of a model with one group of latents, of which parameters named
"network" are measured, and returns what is to be jitted.
"""

import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from numpy.typing import ArrayLike

from dvae.distributions import bernoulli
from dvae.models import binary as binary_model
from experiments.binary_vae.config import Config
from experiments.gradient_variance.config import CHUNK_SIZE, NUM_GROUPS

PyTree = Any
Vectors = dict[str, jax.Array]
# (params, model state, images, key, step) -> minus an objective, and (model state, metrics).
Loss = Callable[..., tuple[jax.Array, tuple[PyTree, Any]]]
SIDES = ("phi", "theta")  # encoder; decoder and prior
TUNE_RATE = 0.01  # of Adam, falling to zero


class Error(NamedTuple):
    """Bias and variance of an estimator, over the squared norm of the exact gradient."""

    bias: float  # squared; unbiased, so it may be negative
    bias_error: float  # standard error
    variance: float
    variance_error: float  # standard error


def split(network: PyTree) -> Vectors:
    """Flattens the parameters, or gradients in them, of the two sides."""
    theta = {name: value for name, value in network.items() if name != "encoders_0"}
    return {"phi": ravel_pytree(network["encoders_0"])[0], "theta": ravel_pytree(theta)[0]}


def say(text: str) -> None:
    """Reports progress."""
    print(text, file=sys.stderr, flush=True)


def exact_fn(loss: Loss) -> Callable[..., tuple[jax.Array, Vectors]]:
    """Returns (params, model_state, x) -> the ELBO, nats an image, and minus its gradient.

    Args:
      loss: by enumeration.
    """

    def of_image(network: PyTree, model_state: PyTree, image: jax.Array) -> jax.Array:
        key = jax.random.key(0)
        return loss({"network": network}, model_state, image[None], key, jnp.int32(0))[0]

    return _image_by_image(of_image)


def exact_bound_fn(experiment: Config, num_pixels: int) -> Callable[..., tuple[jax.Array, Vectors]]:
    """Returns (params, model_state, x) -> the bound of two samples, and minus its gradient.

    sum_{z, z'} q(z|x) q(z'|x) log 1/2 (p(x, z) / q(z|x) + p(x, z') / q(z'|x))
    """
    module = experiment.model(num_pixels)

    def of_image(network: PyTree, model_state: PyTree, image: jax.Array) -> jax.Array:
        model = binary_model.bind(module, network, model_state["mean"], image[None])
        logits, prior = model.posterior_logits([]), model.prior_logits([])
        states = bernoulli.support(logits)[:, None]  # [S, 1, n]
        log_q, log_p = (
            bernoulli.log_prob(states, jnp.broadcast_to(of_bits, states.shape)).sum(-1)
            for of_bits in (logits, prior)
        )
        log_weights = (model.log_likelihood([states]) + log_p - log_q)[:, 0]
        q = jnp.exp(log_q[:, 0])
        pairs = jnp.logaddexp(log_weights[:, None], log_weights[None]) - math.log(2)
        return -(q @ pairs @ q)

    return _image_by_image(of_image)


def _image_by_image(
    of_image: Callable[[PyTree, PyTree, jax.Array], jax.Array],
) -> Callable[..., tuple[jax.Array, Vectors]]:
    """Returns (params, model_state, x) -> minus the mean of a loss over images, and its gradient.

    The loss is one of (network, model_state, image [D]).
    """

    def exact(params: PyTree, model_state: PyTree, x: jax.Array) -> tuple[jax.Array, Vectors]:
        def add(total: PyTree, image: jax.Array) -> tuple[PyTree, None]:
            value = jax.value_and_grad(of_image)(params["network"], model_state, image)
            return jax.tree.map(jnp.add, total, value), None

        # Image by image: all states of one of them are in memory.
        zeros = jax.tree.map(jnp.zeros_like, (jnp.zeros(()), params["network"]))
        value, gradient = jax.tree.map(lambda v: v / len(x), jax.lax.scan(add, zeros, x)[0])
        return -value, split(gradient)

    return exact


def tune_fn(loss: Loss, num_steps: int) -> Callable[..., tuple[PyTree, PyTree]]:
    """Returns (params, model_state, x, key) -> both, with all but the network trained."""
    optimizer = optax.adam(optax.linear_schedule(TUNE_RATE, 0.0, num_steps))

    def tune(
        params: PyTree, model_state: PyTree, x: jax.Array, key: jax.Array
    ) -> tuple[PyTree, PyTree]:
        network = {"network": params["network"]}

        def step(carry: PyTree, key: jax.Array) -> tuple[PyTree, None]:
            free, model_state, moments = carry
            of_free = lambda free: loss({**free, **network}, model_state, x, key, jnp.int32(0))
            gradient, (model_state, _) = jax.grad(of_free, has_aux=True)(free)
            updates, moments = optimizer.update(gradient, moments)
            return (optax.apply_updates(free, updates), model_state, moments), None

        free = {name: value for name, value in params.items() if name != "network"}
        start = (free, model_state, optimizer.init(free))
        keys = jax.random.split(key, num_steps)
        (free, model_state, _), _ = jax.lax.scan(step, start, keys)
        return {**free, **network}, model_state

    return tune


def draw_fn(loss: Loss, num_draws: int) -> Callable[..., dict[str, tuple[jax.Array, jax.Array]]]:
    """Returns (params, model_state, x, exact, key) -> side -> group means of g - h, variances.

    A group's mean is [G, P], its variance [G], the mean of those within its chunks; the memory does
    not depend on the number of draws.
    """
    num_chunks = num_draws // (NUM_GROUPS * CHUNK_SIZE)

    def draw(
        params: PyTree, model_state: PyTree, x: jax.Array, exact: Vectors, key: jax.Array
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
        def one(key: jax.Array) -> PyTree:
            of_network = lambda network: loss(
                {**params, "network": network}, model_state, x, key, jnp.int32(0)
            )[0]
            return jax.tree.map(jnp.subtract, split(jax.grad(of_network)(params["network"])), exact)

        def moments(errors: jax.Array) -> tuple[jax.Array, jax.Array]:
            mean = errors.mean(0)
            return mean, ((errors - mean[None]) ** 2).sum() / (CHUNK_SIZE - 1)

        def group(keys: jax.Array) -> PyTree:
            def add(total: PyTree, keys: jax.Array) -> tuple[PyTree, None]:
                chunk = {side: moments(errors) for side, errors in jax.vmap(one)(keys).items()}
                return jax.tree.map(lambda a, b: a + b / num_chunks, total, chunk), None

            zeros = {side: (jnp.zeros_like(h), jnp.zeros(())) for side, h in exact.items()}
            return jax.lax.scan(add, zeros, keys)[0]

        return jax.lax.map(group, jax.random.split(key, (NUM_GROUPS, num_chunks, CHUNK_SIZE)))

    return draw


def summarize(means: ArrayLike, variances: ArrayLike, exact: ArrayLike) -> Error:
    """Turns group means of g - h [G, P] and variances [G] into an `Error`.

    bias^2 is the mean of the products of different groups' means, a U-statistic; its variance is
    Hoeffding's 4 (G - 2) / (G (G - 1)) z1 + 2 / (G (G - 1)) z2, with z2 the variance of a product
    and z1 that of a product's mean given one of its groups. z1 is kept from being negative, so that
    where there is no bias the error is too large, by a tenth to a third, rather than too small.
    """
    means, variances = np.asarray(means, np.float64), np.asarray(variances, np.float64)
    size, norm = len(means), float(np.sum(np.asarray(exact, np.float64) ** 2))
    products = means @ means.T
    pairs = products[~np.eye(size, dtype=bool)].reshape(size, size - 1)
    z2 = pairs.var()
    by_group = pairs.mean(1).var(ddof=1) * (size - 1) ** 2 / (size - 2)
    z1 = max(0.0, (by_group - z2) / (size - 4))
    bias_error = np.sqrt((4 * (size - 2) * z1 + 2 * z2) / (size * (size - 1)))
    variance_error = variances.std(ddof=1) / np.sqrt(size)
    values = (pairs.mean(), bias_error, variances.mean(), variance_error)
    return Error(*(float(value / norm) for value in values))
