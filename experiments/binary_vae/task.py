"""What `binary_vae` trains: data, initial state and loss of binary latents on binary images."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dvae import bounds, data, estimators
from dvae.models import binary as binary_model
from dvae.train import distributed, loop, state, status
from experiments.binary_vae import boltzmann_objectives as boltzmann
from experiments.binary_vae import (
    conditions,
    names,
    objectives,
    optimizers,
    rebar_objectives,
    relaxed_objectives,
    score_objectives,
    sizes,
)
from experiments.binary_vae.conditions import NOTHING, Condition
from experiments.binary_vae.config import Config
from experiments.boltzmann import graphs
from experiments.boltzmann import prior as boltzmann_prior
from experiments.common import batches, half_precision, pixels
from experiments.common import run as runner

PyTree = Any
ADVICE = {
    False: loop.ADVICE,
    True: "Its --beta must exceed the largest singular value of the prior's couplings, see the "
    "metric largest_singular_value: try a larger --beta",
}
ESTIMATORS = {
    **relaxed_objectives.ESTIMATORS,
    **score_objectives.ESTIMATORS,
    **rebar_objectives.ESTIMATORS,
}
OF_COLOR = "color gives three bits a pixel, and the NLL is in nats over all channels"
MIN_PIXEL_MEAN = 1e-3  # where the first output biases, logits of the pixels' means, are clipped


def prepare(config: Config, keep: data.KeepRows = data.whole) -> data.Dataset:
    """Loads the data set, with gray levels turned into binary pixels where that was asked for.

    Raises:
      ValueError: pixels are not binary, or already are where sampling was asked for; labels were
        asked for, and there are none; or the file of a graph holds another one than it did.
      MissingExtraError: a graph needs dwave-networkx.
      DataUnavailableError: see `data.load`.
    """
    graphs.of(config)  # said before anything else if it cannot be made
    images = pixels.load(config, config.dataset, config.binarization, keep)
    check_images(images)
    condition = conditions.condition_of(config, images)
    conditions.check_prior(condition, config.prior)
    if config.has_machine and condition.size:
        boltzmann_prior.check_labels(config, condition.size)
        graphs.of(config, condition.size)
    return images


def check_images(images: data.Dataset) -> None:
    """Raises ValueError unless pixels are 0 or 1, or gray levels sampled when they are seen."""
    if images.binarization == "none":
        of_color = images.train.shape[-1] > 1
        raise ValueError(
            f"{images.name} has {'levels of color' if of_color else 'gray levels'}, and this model "
            f"binary pixels; --binarization={names.DYNAMIC} samples them each time an image is "
            f"seen, --binarization={names.ONCE} once, --binarization={names.THRESHOLD} cuts them "
            "at 127"
            f"{f'; {OF_COLOR}' if of_color else ''}"
        )
    for split in ("train", "validation", "test"):
        if split == "train" and images.binarization == "dynamic":
            continue
        array = getattr(images, split)
        if not len(array) or array.max() > 1:
            raise ValueError(
                f"{images.name} {split} must hold images with pixels 0 or 1, found "
                f"{len(array)} images with levels up to {array.max() if len(array) else '-'}; "
                "threshold or sample them first"
            )


def draw_fn(
    config: Config,
    dynamic: bool,
    mesh: Mesh,
    num_train: int,
    condition: Condition = NOTHING,
) -> state.DrawFn:
    """Returns the function that draws a step's batch of binary images, float32 [B, D].

    Rows that end in a label keep it, byte by byte.
    """
    of_label = condition.num_bytes
    draw = batches.draw_fn(config, mesh, num_train, dynamic=dynamic, of_label=of_label)
    flat = lambda x: x.reshape(len(x), -1).astype(jnp.float32)
    return lambda key, images, step: flat(draw(key, images, step))


def init_fn(config: Config, pixel_mean: np.ndarray, condition: Condition = NOTHING) -> state.InitFn:
    """Returns the function that makes the parameters.

    Args:
      config: sizes and estimator.
      pixel_mean: float32 [D], the training mean: what the encoder's input is centered by and,
        clipped, the mean of the first decoder's output.
      condition: what the model is given besides, see `conditions.condition_of`.
    """
    module = config.model(len(pixel_mean), condition=condition)
    mean = np.clip(pixel_mean, MIN_PIXEL_MEAN, 1 - MIN_PIXEL_MEAN)

    def init(key: jax.Array, images: jax.Array) -> tuple[PyTree, PyTree]:
        del images
        key_network, key_rest = jax.random.split(key)
        variables = module.init(key_network, jnp.zeros((1, len(pixel_mean))))
        network = variables["params"]
        if config.initial_variance != 1:
            network = _scaled(network, config.initial_variance)
        network["decoder"]["output"]["bias"] = jnp.asarray(np.log(mean / (1 - mean)))
        params = {"network": network}
        model_state = {
            "mean": jnp.asarray(pixel_mean),
            "batch_stats": variables.get("batch_stats", {}),
            "signal": (),
        }
        if config.has_machine:
            prior = boltzmann_prior.init(config, condition.size)
            params |= {"prior": prior, **boltzmann.init_posterior(config)}
            model_state["chains"] = boltzmann_prior.init_chains(
                key_rest, config, prior, condition.size
            )
            model_state["log_z"] = boltzmann_prior.init_log_z(prior, condition.size)
        else:
            params |= objectives.init_auxiliary(key_rest, config, len(pixel_mean), network)
            if config.estimator in names.LEARNED_BASELINE:
                model_state["signal"] = estimators.nvil_init()
        return params, model_state

    return init


def _scaled(network: PyTree, variance: float) -> PyTree:
    """Multiplies kernels of variance 1 / inputs, those of the initialization, to another one."""
    factor = math.sqrt(variance)
    scale = lambda path, x: factor * x if path[-1].key == "kernel" else x
    return jax.tree_util.tree_map_with_path(scale, network)


def loss_fn(
    config: Config, num_pixels: int, mesh: Mesh | None = None, condition: Condition = NOTHING
) -> state.LossFn:
    """Returns the loss: the negative objective in nats an image, and what baselines minimize.

    Args:
      config: everything.
      num_pixels: of an image.
      mesh: whose devices share the chains of a Boltzmann prior; without one nothing is shared.
      condition: what the model is given besides; rows of images end in it.
    """
    module = config.model(num_pixels, condition=condition)
    objective = _directed(config)
    if config.has_machine:
        objective = _boltzmann(config, mesh, condition.size)

    def loss(
        params: PyTree, model_state: PyTree, x: jax.Array, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, state.Metrics]]:
        mean, batch_stats = model_state["mean"], model_state["batch_stats"]
        x, of_images = conditions.split(x, condition)
        labels = conditions.seen(of_images, condition)
        model, averages = binary_model.bind_training(
            module, params["network"], mean, x, batch_stats, labels
        )
        kl_weight = bounds.linear_warmup(step, config.kl_warmup_steps)
        batch = objectives.Batch(x - mean[None], step, kl_weight, of_images)
        # Batch norm, whose averages move, goes with no estimator that asks for other parameters.
        networks = lambda network: binary_model.bind(module, network, mean, x, labels=labels)
        terms = objective(key, model, networks, params, model_state, batch)
        new_state = {**model_state, **dict(terms.state), "batch_stats": averages()}
        return terms.auxiliary_loss - terms.surrogate.mean(), (new_state, _metrics(terms))

    return loss


_At = Callable[[PyTree], binary_model.Networks]
_Objective = Callable[
    [jax.Array, binary_model.Networks, _At, PyTree, PyTree, objectives.Batch], objectives.Terms
]


def _directed(config: Config) -> _Objective:
    """Returns the objective under a directed prior, as a function of the loss's parts."""
    estimator = ESTIMATORS[config.estimator]
    return lambda key, model, networks, params, model_state, batch: estimator(
        key, model, objectives.Auxiliary(params, model_state["signal"], networks), batch, config
    )


def _boltzmann(config: Config, mesh: Mesh | None, num_labels: int) -> _Objective:
    """Returns the objective under a machine, as a function of the loss's parts.

    It moves the machine's chains, whose devices are those of the mesh.
    """
    method = boltzmann.method_of(config)

    def objective(
        key: jax.Array,
        model: binary_model.Networks,
        networks: _At,
        params: PyTree,
        model_state: PyTree,
        batch: objectives.Batch,
    ) -> objectives.Terms:
        key_chains, key_latent = jax.random.split(key)
        machine = boltzmann_prior.learned(params["prior"], num_labels)
        chains, log_z = model_state["chains"], model_state["log_z"]
        phase = boltzmann_prior.negative_phase(
            key_chains, config, machine, chains, log_z, batch.step, mesh, num_labels
        )
        prior = boltzmann.Prior(machine, phase.log_z, params.get("components"))
        terms = method(key_latent, model, prior, batch, config)
        return terms._replace(
            state={"chains": phase.chains, "log_z": phase.last_log_z},
            metrics={**terms.metrics, **phase.metrics},
        )

    return objective


def _metrics(terms: objectives.Terms) -> state.Metrics:
    """Returns what is logged of a step."""
    groups = {f"kl_{g + 1}": value for g, value in enumerate(terms.kl)} if len(terms.kl) > 1 else {}
    return {
        "objective": terms.objective.mean(),
        "distortion": terms.distortion.mean(),
        "kl": terms.kl.sum(),
        **dict(terms.metrics),
        **groups,
    }


def make_task(
    config: Config, images: data.Dataset, mesh: Mesh, validate: runner.ValidateFn
) -> loop.Task:
    """Assembles model, objective and data into what the loop trains."""
    half_precision.advise("--eval_dtype", config.eval_dtype)
    notice = sizes.compile_notice(config.num_groups, len(config.hidden))
    if notice and distributed.is_main():
        status.say(notice)
    if images.train.shape[-1] > 1 and distributed.is_main():
        status.say(f"{images.name}: {OF_COLOR}")
    dynamic = images.binarization == "dynamic"
    num_pixels = math.prod(images.train.shape[1:])
    stored = not isinstance(images.train, np.ndarray)  # in files, where it keeps its shape
    condition = conditions.condition_of(config, images)
    train = images.train
    if not stored:
        train = conditions.rows(train, images.train_labels if condition.size else None)
    own = sum(part.sum(0, dtype=np.int32) for part in batches.in_parts(images.train))
    total = distributed.sum_over_processes(own.ravel()).astype(np.float64)
    pixel_mean = (total / images.num_train / (255 if dynamic else 1)).astype(np.float32)
    return runner.make_task(
        config,
        init_fn(config, pixel_mean, condition),
        loss_fn(config, num_pixels, mesh, condition),
        draw_fn(config, dynamic, mesh, images.num_train, condition),
        optimizers.optimizer(config),
        evaluate=validate,
        rows=batches.Rows(mesh, train, images.num_train),
        shown=("objective", "distortion", "kl"),
        monitor=boltzmann_prior.TRUSTED_NLL if config.has_machine else "nll",
        advice=ADVICE[config.smoothing == names.GAUSSIAN_INTEGRAL],
        # A tenth of a small step on a CPU, and nothing of one that takes long to compile.
        last_only=() if config.has_machine or notice else ("grad_norm",),
    )
