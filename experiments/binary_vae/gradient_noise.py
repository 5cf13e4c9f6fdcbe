"""The variance of the encoder's gradient while a model trains, at its validations.

Both papers and theory compare estimators by it: at fixed parameters and on one fixed batch,

    variance = 1/(R - 1) sum_r |g_r - mean g|^2,  g_r independent estimates, r = 1, ..., R

where g is the gradient of the mean loss of the batch in the parameters of the encoder, in nats.
`gradient_variance` measures the same beside the bias, on models that are small enough.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dvae.data import Dataset
from dvae.train.state import TrainState
from experiments.binary_vae import conditions, task
from experiments.binary_vae.conditions import NOTHING, Condition
from experiments.binary_vae.config import Config
from experiments.common import evaluation

PyTree = Any
DRAWS = (
    2**31 - 4
)  # folded into a seed's key, apart from batches and from what is drawn or estimated
METRIC = "gradient_variance"


def variance_fn(
    config: Config, num_pixels: int, condition: Condition = NOTHING
) -> Callable[..., jax.Array]:
    """Returns (params, model_state, x, key, step) -> the variance [], of one seed.

    Args:
      config: the estimator, and how many gradients are drawn, at least 2.
      num_pixels: of an image.
      condition: what the model is given besides; rows x end in it.
    """
    loss = task.loss_fn(config, num_pixels, condition=condition)
    num_draws = config.gradient_draws

    def variance(
        params: PyTree, model_state: PyTree, x: jax.Array, key: jax.Array, step: jax.Array
    ) -> jax.Array:
        encoders = {n: p for n, p in params["network"].items() if n.startswith("encoders")}

        def loss_of(encoders: PyTree, key: jax.Array) -> jax.Array:
            network = {**params["network"], **encoders}
            return loss({**params, "network": network}, model_state, x, key, step)[0]

        def add(moments: tuple[PyTree, jax.Array], index: jax.Array) -> tuple[PyTree, None]:
            gradient = jax.grad(loss_of)(encoders, jax.random.fold_in(key, index))
            # Welford's update: sums of squares would cancel.
            mean, squares = moments
            before = jax.tree.map(jnp.subtract, gradient, mean)
            mean = jax.tree.map(lambda m, d: m + d / (index + 1), mean, before)
            after = jax.tree.map(jnp.subtract, gradient, mean)
            products = jax.tree.map(lambda a, b: jnp.sum(a * b), before, after)
            return (mean, squares + sum(jax.tree.leaves(products))), None

        start = (jax.tree.map(jnp.zeros_like, encoders), jnp.zeros(()))
        (_, squares), _ = jax.lax.scan(add, start, jnp.arange(num_draws))
        return squares / (num_draws - 1)

    return variance


def measure_fn(
    config: Config, images: Dataset, mesh: Mesh
) -> Callable[[TrainState], dict[str, np.ndarray]]:
    """Returns the function that measures a state of all seeds; the metric is [] or [S].

    Args:
      config: everything.
      images: the data set, of whose validation images a batch is taken, evenly spaced.
      mesh: the devices.
    """
    chosen = evaluation.spread_indices(len(images.validation), config.batch_size)
    labels = conditions.labels_of(config, images, "validation", chosen)
    x = conditions.rows(images.validation[chosen], labels.get("labels")).astype(np.float32)
    num_pixels = math.prod(images.validation.shape[1:])
    one_seed = variance_fn(config, num_pixels, conditions.condition_of(config, images))
    of_seeds = jax.jit(jax.vmap(one_seed, in_axes=(0, 0, None, 0, None)))
    of_draws = jax.vmap(lambda key: jax.random.fold_in(key, DRAWS))

    def measure(state: TrainState) -> dict[str, np.ndarray]:
        params, model_state = evaluation.with_seed_axis(config, (state.params, state.model_state))
        keys = of_draws(evaluation.stacked_keys(config, mesh))
        step = jnp.ravel(jnp.asarray(state.step))[0]
        values = np.asarray(of_seeds(params, model_state, x, keys, step))
        return evaluation.without_seed_axis({METRIC: values})

    return measure
