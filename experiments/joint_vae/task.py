"""What `joint_vae` trains: data, initial state and loss of JointVAE on images."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from dvae import bounds, data, relax
from dvae.distributions import normal
from dvae.models import joint
from dvae.train import distributed, loop, sharding, state, status
from experiments.common import batches
from experiments.common import run as runner
from experiments.joint_vae.config import CAPACITY, ELBO, Config

PyTree = Any


def model(config: Config, images: data.Dataset) -> joint.JointVAE:
    """Returns the network for these images."""
    return joint.JointVAE(config.model_config(images.train.shape[1:]))


def bind(module: joint.JointVAE, params: PyTree) -> Callable[..., Any]:
    """Returns the module's methods at these parameters: (method, *arguments) -> value."""
    return lambda method, *args: module.apply({"params": params}, *args, method=method)


def kl_metrics(continuous: Any, discrete: Any) -> dict[str, Any]:
    """Names the KL of both kinds, and of every latent variable, from [..., n] and [..., j]."""
    metrics = {"kl_continuous": continuous.sum(-1), "kl_discrete": discrete.sum(-1)}
    for kind, values in (("continuous", continuous), ("discrete", discrete)):
        for i in range(values.shape[-1]):
            metrics[f"kl_{kind}_{i + 1}"] = values[..., i]
    return metrics


def sample(
    key: jax.Array, q: joint.Posterior, temperature: float
) -> tuple[jax.Array, list[jax.Array]]:
    """Draws h and the relaxed c_j, differentiable in q."""
    key_h, *keys = jax.random.split(key, 1 + len(q.logits))
    relaxed = [
        relax.gumbel_softmax.sample(k, logits, temperature)
        for k, logits in zip(keys, q.logits, strict=True)
    ]
    return normal.sample(key_h, q.mean, q.log_scale), relaxed


def penalty(
    config: Config, kl: joint.Divergences, step: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns what the objective subtracts from the log-likelihood, nats, and the capacities."""
    total = bounds.sum_per_example
    if config.objective != CAPACITY:
        weight = 1.0 if config.objective == ELBO else config.kl_weight
        return weight * (total(kl.continuous) + total(kl.discrete)).mean(), {}
    rise = functools.partial(bounds.capacity_schedule, step, num_steps=config.capacity_steps)
    value, capacities = jnp.zeros(()), {}
    if config.continuous:
        capacity = rise(final=config.capacity_continuous)
        value += bounds.capacity_penalty(total(kl.continuous), capacity, gamma=config.gamma)
        capacities["capacity_continuous"] = capacity
    if sizes := config.discrete_sizes:
        limit = bounds.max_discrete_capacity(sizes)
        capacity = rise(final=config.capacity_discrete, limit=limit)
        value += bounds.capacity_penalty(total(kl.discrete), capacity, gamma=config.gamma)
        capacities["capacity_discrete"] = capacity
    return value, capacities


def draw_fn(config: Config, mesh: Mesh, num_train: int) -> state.DrawFn:
    """Returns the function that draws a step's batch of training images, uint8."""

    def draw(key: jax.Array, images: jax.Array, step: jax.Array) -> jax.Array:
        batch = batches.take(config, key, images, step, num_train)
        return sharding.shard_batch(mesh, batch)

    return draw


def init_fn(module: joint.JointVAE) -> state.InitFn:
    """Returns the function that makes the parameters."""

    def init(key: jax.Array, images: jax.Array) -> tuple[PyTree, PyTree]:
        return module.init(key, joint.as_float(images[:1]))["params"], ()

    return init


def loss_fn(config: Config, module: joint.JointVAE) -> state.LossFn:
    """Returns the loss: the negative objective in nats per sub-pixel."""

    def loss(
        params: PyTree, model_state: PyTree, images: jax.Array, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, state.Metrics]]:
        apply = bind(module, params)
        x = joint.as_float(images)
        q = apply(joint.JointVAE.encode, x)
        h, c = sample(key, q, config.temperature)
        log_px = joint.log_likelihood(x, apply(joint.JointVAE.pixel_logits, h, c)).mean()
        kl = joint.divergences(q)
        subtracted, capacities = penalty(config, kl, step)
        objective = log_px - subtracted
        metrics = {
            "objective": objective,
            "distortion": -log_px,
            **kl_metrics(kl.continuous.mean(0), kl.discrete.mean(0)),
            **capacities,
        }
        return -objective / images[0].size, (model_state, metrics)

    return loss


def prepare(config: Config, keep: data.KeepRows = data.whole) -> data.Dataset:
    """Loads the levels of the data set, resized, and says where that cuts something off.

    Raises:
      ValueError: the model does not take such images.
    """
    if config.validation:
        images = config.load(config.dataset, keep, grey=True)
    else:
        images = data.joined(config.load(config.dataset, data.whole, grey=True), keep)
    height, width, _ = images.train.shape[1:]
    if height % joint.DOWNSAMPLING or width % joint.DOWNSAMPLING:
        raise ValueError(
            f"{images.name} has images of {height}x{width} pixels; heights and widths must be "
            f"multiples of {joint.DOWNSAMPLING} (three convolutions of stride 2): resize them by "
            "--image_size"
        )
    if images.cropped_from and distributed.is_main():
        rows, columns = images.cropped_from
        status.say(
            f"{images.name}: the middle square of {rows}x{columns} pixels, resized to "
            f"{height}x{width}; --image_size=0 keeps images as they are"
        )
    return images


def make_task(
    config: Config, images: data.Dataset, mesh: Mesh, validate: runner.ValidateFn
) -> loop.Task:
    """Assembles model, objective and data into what the loop trains."""
    module = model(config, images)
    return runner.make_task(
        config,
        init_fn(module),
        loss_fn(config, module),
        draw_fn(config, mesh, images.num_train),
        optax.adam(config.learning_rate),
        evaluate=validate,
        rows=batches.Rows(mesh, images.train, images.num_train, order=lambda key: key),
        shown=("objective", "distortion", "kl_continuous", "kl_discrete"),
    )
