"""What `code_prior` trains: an autoregressive model of the codes of training images.

The model of images is frozen. The codes of a step are drawn anew from q(z|x), or are the nearest
ones where the rule is deterministic, so that no code is stored.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from dvae import data, trained
from dvae.data import batches
from dvae.models import code_prior
from dvae.train import loop, sharding, state
from experiments.cifar_vq import task as cifar_vq
from experiments.code_prior import model as prior_model
from experiments.code_prior.config import Config
from experiments.common import batches as common_batches
from experiments.common import half_precision, schedules
from experiments.common import run as runner

PyTree = Any


def init_fn(functions: trained.code_prior.Functions) -> state.InitFn:
    """Returns the function that makes the parameters, at first those of the factorial prior.

    Args:
      functions: of model and prior.
    """
    module = code_prior.make(functions.prior)
    codes = jnp.zeros((1, *functions.prior.grid, functions.prior.num_latents), jnp.int32)

    def init(key: jax.Array, data: PyTree) -> tuple[PyTree, PyTree]:
        params = module.init(key, codes)["params"]
        params["logits"]["bias"] = functions.model.log_prior(data["model"])
        return params, ()

    return init


def draw_fn(
    config: Config, functions: trained.code_prior.Functions, mesh: Mesh, num_train: int
) -> state.DrawFn:
    """Returns the function that draws a step's images, their codes and the entropy of q(z|x)."""
    model = functions.model

    def draw(key: jax.Array, data: PyTree, step: jax.Array) -> PyTree:
        key_codes = jax.random.fold_in(key, 1)
        images = batches.draw(
            common_batches.order_key(key),
            data["images"],
            step,
            batch_size=config.batch_size,
            num_examples=num_train,
        )
        images = sharding.shard_batch(mesh, images)
        codes = model.encode(data["model"], jax.random.fold_in(key_codes, step), images)
        return codes, model.entropy(data["model"], images)

    return draw


def loss_fn(functions: trained.code_prior.Functions) -> state.LossFn:
    """Returns the loss: -log p(z), nats a code; its bound is the rate -H(q) - log p(z)."""
    module = code_prior.make(functions.prior)

    def loss(
        params: PyTree, model_state: PyTree, batch: PyTree, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, state.Metrics]]:
        codes, entropy = batch
        nats = -code_prior.log_prob(module, params, codes, key=key)
        return nats.mean() / codes[0].size, (model_state, {"rate": (nats - entropy).mean()})

    return loss


def prepare(config: Config, keep: data.KeepRows = data.whole) -> data.Dataset:
    """Loads the data set of the run; ValueError unless the model takes its images."""
    images = cifar_vq.prepare(config.images(), keep)
    shape, wanted = images.test.shape[1:], prior_model.load(config).functions.image_shape
    if shape != wanted:
        raise ValueError(
            f"{images.name} has images of {shape}, and the model in {config.run_dir} is of "
            f"{wanted}; name that run's data by --data_dir"
        )
    return images


def make_task(
    config: Config, images: data.Dataset, mesh: Mesh, validate: runner.ValidateFn
) -> loop.Task:
    """Assembles model, prior and data into what the loop trains."""
    half_precision.advise("--dtype", config.dtype)
    model = prior_model.load(config)
    functions = prior_model.functions(config, model)
    rows = sharding.shard_rows(mesh, np.asarray(images.train), images.num_train)
    rates = schedules.learning_rates(config.schedule, config.learning_rate, config.num_steps)
    return runner.make_task(
        config,
        init_fn(functions),
        loss_fn(functions),
        draw_fn(config, functions, mesh, images.num_train),
        optax.adam(rates),
        evaluate=validate,
        data={"images": rows, "model": sharding.replicate(mesh, model.params)},
        shown=("rate",),
        monitor="rate",
    )
