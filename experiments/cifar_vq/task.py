"""What `cifar_vq` trains: data, initial state and loss of codebook models of images."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from dvae import bounds, data, vq
from dvae.data import batches
from dvae.models import checks, vq_conv
from dvae.train import distributed, loop, sharding, state
from experiments.cifar_vq import code_use, names, objectives, quantizers
from experiments.cifar_vq import model as vq_model
from experiments.cifar_vq.config import Config
from experiments.common import batches as common_batches
from experiments.common import half_precision, schedules
from experiments.common import run as runner
from experiments.common.config import DEVICE

PyTree = Any
NUM_INIT_IMAGES = 256  # images whose encodings the first codebook is fitted to
_SHOWN = ("bits_per_dim", "rate", "distortion")


def log_pixel_histogram(images: np.ndarray) -> np.ndarray:
    """Returns log frequencies of the levels by channel, [C, 256]; one count added to all.

    Args:
      images: uint8 [N, H, W, C], in each process those that it keeps; all are counted.
    """
    channels = range(images.shape[-1])
    counts = np.zeros((len(channels), 256), np.int64)
    for part in common_batches.in_parts(images):
        checks.check_images(part, kind=checks.LEVELS, shape=("N", "H", "W", len(channels)))
        counts += [np.bincount(part[..., c].ravel(), minlength=256) for c in channels]
    several = jax.process_count() > 1
    total = distributed.sum_over_processes(counts.astype(np.int32) if several else counts) + 1.0
    return np.log(total / total.sum(1, keepdims=True)).astype(np.float32)


def draw_fn(config: Config, mesh: Mesh, num_train: int) -> state.DrawFn:
    """Returns the function that draws a step's batch of (cropped) training images."""

    def draw(key: jax.Array, images: jax.Array, step: jax.Array) -> jax.Array:
        key_crop = jax.random.fold_in(key, 1)
        order = common_batches.order_key(key)
        batch = common_batches.take(config, order, images, step, num_train)
        batch = cropped(config, jax.random.fold_in(key_crop, step), batch)
        if config.flip:
            key_flip = jax.random.fold_in(jax.random.fold_in(key, 2), step)
            batch = batches.random_flip(key_flip, batch)
        return sharding.shard_batch(mesh, batch)

    return draw


def cropped(config: Config, key: jax.Array, images: jax.Array) -> jax.Array:
    """Cuts a random window out of each image, where the configuration asks for windows."""
    return batches.random_crop(key, images, size=config.crop) if config.crop else images


def temperature(config: Config, step: jax.Array) -> float | jax.Array:
    """Returns the temperature of a step."""
    if not config.temperature_final:
        return config.temperature
    first, last = config.temperature, config.temperature_final
    return schedules.geometric(first, last, step, config.num_steps)


def is_hard(config: Config, step: jax.Array) -> bool | jax.Array:
    """Returns whether samples of a step are hard."""
    if config.estimator == names.GS_HARD or not config.hard_share:
        return config.estimator == names.GS_HARD
    return schedules.in_last_share(config.hard_share, step, config.num_steps)


def optimizer(config: Config) -> optax.GradientTransformation:
    """Returns Adam under the schedule."""
    rate: optax.ScalarOrSchedule = config.learning_rate  # a schedule would have a state of its own
    if config.learning_rate_schedule != schedules.CONSTANT:
        rate = schedules.learning_rates(
            config.learning_rate_schedule, rate, config.num_steps, share=config.decay_share
        )
    return optax.adam(rate)


def first_images(
    config: Config, num_train: int, image_shape: tuple[int, ...], key: jax.Array
) -> jax.Array:
    """Returns which images the first codebook is fitted to."""
    sides = (config.crop, config.crop) if config.crop else image_shape[:2]
    positions = math.prod(side // vq_conv.DOWNSAMPLING for side in sides)
    # As many vectors as codes at the least, however small the crop.
    count = max(NUM_INIT_IMAGES, math.ceil(config.num_codes / positions))
    return jax.random.randint(key, (count,), 0, num_train)


def init_fn(config: Config, log_histogram: np.ndarray, num_train: int) -> state.InitFn:
    """Returns the function that makes parameters and codebooks from a key and training images.

    Args:
      config: sizes and how to initialize.
      log_histogram: float32 [C, 256], the first output biases under `output_bias_init=histogram`.
      num_train: how many rows of the training images are not padding.
    """
    module = config.model(len(log_histogram))

    def init(key: jax.Array, train_images: jax.Array) -> tuple[PyTree, PyTree]:
        key_network, key_codebook, key_images, key_crop, key_kmeans = jax.random.split(key, 5)
        shape = (config.num_latents, config.num_codes, config.vector_dim)
        drawn = jax.random.normal(key_codebook, shape)
        if config.data_on == DEVICE:  # else the host has chosen
            image_shape = train_images.shape[1:]
            chosen = first_images(config, num_train, image_shape, key_images)
            train_images = train_images[chosen]
        images = cropped(config, key_crop, train_images)
        network = module.init(key_network, images[:1], drawn)["params"]
        if config.output_bias_init == names.HISTOGRAM:
            network["head"]["bias"] = jnp.asarray(log_histogram)
        vectors = objectives.apply(module, network, "encode", images)
        own, model_state = quantizers.start(config, key_kmeans, vectors, drawn)
        if config.estimator in names.PROBABILISTIC:
            spread = config.initial_logit_std
            codebook = own["codebook"]
            network["log_scale"] = vq_conv.calibrated_log_scale(vectors, codebook, spread)
        if code_use.restarts(config):
            model_state = code_use.start(own["codebook"], config.restart_samples)
        return {"network": network, **own}, model_state

    return init


def rate_metrics(rate: Any, distortion: Any, num_dims: int) -> dict[str, Any]:
    """Names rates and distortions [...], nats an image, in nats and in bits/dim."""
    metrics = {"rate": rate, "distortion": distortion}
    in_bits = lambda nats: bounds.bits_per_dim(-nats, num_dims)
    return metrics | {f"{name}_bits_per_dim": in_bits(nats) for name, nats in metrics.items()}


def usage_metrics(perplexity: Any, num_dead: Any) -> dict[str, Any]:
    """Names the use of codes [..., n]: of every latent variable, and in the mean over them."""
    metrics = {}
    for name, values in (("perplexity", perplexity), ("dead_codes", num_dead)):
        metrics[name] = values.mean(-1)
        metrics |= {f"{name}_{i + 1}": values[..., i] for i in range(values.shape[-1])}
    return metrics


def _terms(
    config: Config,
    key: jax.Array,
    params: PyTree,
    model_state: PyTree,
    inputs: tuple[objectives.Model, jax.Array, jax.Array, jax.Array],
    step: jax.Array,
) -> objectives.Terms:
    """Returns the terms of a batch under the rule of `config.estimator`.

    Args:
      config: the rule and its settings.
      key: typed PRNG key.
      params: of the networks and codebooks.
      model_state: averages of codebooks, where they are no parameters.
      inputs: the networks, encoded vectors, codebooks and uint8 images.
      step: of the schedules.
    """
    kl_weight = bounds.linear_warmup(step, config.kl_warmup_steps)
    model, vectors, _, images = inputs
    if config.estimator in (names.GS_SOFT, names.GS_HARD):
        return objectives.gumbel_softmax(
            key,
            *inputs,
            kl_weight=kl_weight,
            temperature=temperature(config, step),
            hard=is_hard(config, step),
            entropy_floor=config.entropy_floor,
        )
    if config.estimator == names.VIMCO:
        return objectives.vimco(key, *inputs, kl_weight=kl_weight, num_samples=config.num_samples)
    if config.estimator in names.QUANTIZERS:
        return quantizers.objective(
            config, key, params, model_state, model, vectors, images, kl_weight
        )
    return objectives.nearest_code(
        *inputs,
        kl_weight=kl_weight,
        codebook_weight=float(config.estimator == names.VQ),
        commitment_weight=config.commitment,
    )


def loss_fn(config: Config, channels: int = 3) -> state.LossFn:
    """Returns the loss: the negative objective in nats per sub-pixel."""
    module = config.model(channels)

    def loss(
        params: PyTree, model_state: PyTree, images: jax.Array, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, state.Metrics]]:
        key_latent, key_restart = jax.random.split(key)
        codebook = vq_model.codebook_of(params, model_state)
        model = objectives.bind(module, params["network"], codebook)
        model = model._replace(log_prior=code_use.prior(config, model.log_prior, step))
        vectors = objectives.apply(module, params["network"], "encode", images)
        inputs = (model, vectors, codebook, images)
        terms = _terms(config, key_latent, params, model_state, inputs, step)
        if config.estimator == names.VQ_EMA:
            model_state = objectives.update_codebooks(
                key_restart,
                model_state,
                vectors,
                terms.codes,
                decay=config.ema_decay,
                restart_threshold=config.restart_threshold,
            )
        if code_use.restarts(config):
            model_state = code_use.count(
                key_restart, model_state, codebook, vectors, terms.codes, config.restart_samples
            )
        num_dims = images[0].size
        counts = objectives.usage(terms.codes, config.num_codes)
        metrics = {
            "bits_per_dim": bounds.bits_per_dim(terms.objective.mean(), num_dims),
            **rate_metrics(terms.rate.mean(), terms.distortion.mean(), num_dims),
            **usage_metrics(vq.perplexity(counts), vq.num_dead(counts).astype(jnp.float32)),
        }
        return -terms.surrogate / num_dims, (model_state, metrics)

    return loss


def prepare(config: Config, keep: data.KeepRows = data.whole) -> data.Dataset:
    """Loads the levels of the data set; ValueError unless the model takes its images."""
    if config.validation:
        images = config.load(config.dataset, keep, grey=True)
    else:
        images = data.joined(config.load(config.dataset, data.whole, grey=True), keep)
    config.check_images(images)
    return images


def make_task(
    config: Config, images: data.Dataset, mesh: Mesh, validate: runner.ValidateFn
) -> loop.Task:
    """Assembles model, objective and data into what the loop trains."""
    half_precision.advise("--dtype", config.dtype)
    shape = images.train.shape[1:]
    first = functools.partial(first_images, config, images.num_train, shape)
    first_of_init = lambda key: first(jax.random.split(key, 5)[2])  # as `init_fn` splits it
    return runner.make_task(
        config,
        init_fn(config, log_pixel_histogram(images.train), images.num_train),
        loss_fn(config, shape[-1]),
        draw_fn(config, mesh, images.num_train),
        optimizer(config),
        after=code_use.restarting if code_use.restarts(config) else None,
        average=(config.ema_params, vq_model.arrays) if config.ema_params else None,
        evaluate=validate,
        rows=common_batches.Rows(mesh, images.train, images.num_train, first=first_of_init),
        shown=_SHOWN,
        shown_of_validation=(*_SHOWN, "perplexity", "dead_codes"),
    )
