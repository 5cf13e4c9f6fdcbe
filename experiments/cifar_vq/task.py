"""What `cifar_vq` trains: data, initial state and loss of codebook models of color images."""

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
from experiments.cifar_vq import names, objectives
from experiments.cifar_vq.config import IMAGE_SHAPE, Config
from experiments.common import half_precision
from experiments.common import run as runner

PyTree = Any
NUM_INIT_IMAGES = 256  # images whose encodings the first codebook is fitted to
KMEANS_ITERATIONS = 5


def check_images(images: data.Dataset) -> None:
    """Raises ValueError unless every image is uint8 32x32x3."""
    for split in ("train", "validation", "test"):
        array = getattr(images, split)
        if array.dtype != np.uint8 or array.shape[1:] != IMAGE_SHAPE or not len(array):
            raise ValueError(
                f"{images.name} {split} must be uint8 images of shape {IMAGE_SHAPE}, "
                f"got {array.dtype} {array.shape}"
            )


def log_pixel_histogram(images: np.ndarray) -> np.ndarray:
    """Returns log frequencies of the levels by channel, [3, 256]; one count added to all.

    Args:
      images: uint8 [N, H, W, 3], in each process those that it keeps; all are counted.
    """
    checks.check_images(images, kind=checks.LEVELS, shape=("N", "H", "W", 3))
    counts = [np.bincount(images[..., c].ravel(), minlength=256) for c in range(3)]
    total = distributed.sum_over_processes(np.stack(counts).astype(np.int32)) + 1.0
    return np.log(total / total.sum(1, keepdims=True)).astype(np.float32)


def draw_fn(config: Config, mesh: Mesh, num_train: int) -> state.DrawFn:
    """Returns the function that draws a step's batch of (cropped) training images."""

    def draw(key: jax.Array, images: jax.Array, step: jax.Array) -> jax.Array:
        key_order, key_crop = (jax.random.fold_in(key, role) for role in range(2))
        batch = batches.draw(
            key_order, images, step, batch_size=config.batch_size, num_examples=num_train
        )
        batch = batches.random_crop(
            jax.random.fold_in(key_crop, step), batch, size=config.train_size
        )
        return sharding.shard_batch(mesh, batch)

    return draw


def init_fn(config: Config, log_histogram: np.ndarray, num_train: int) -> state.InitFn:
    """Returns the function that makes parameters and codebooks from a key and training images.

    Args:
      config: sizes and how to initialize.
      log_histogram: float32 [3, 256], the first output biases under `output_bias_init=histogram`.
      num_train: how many rows of the training images are not padding.
    """
    module = config.model()
    positions = (config.train_size // vq_conv.DOWNSAMPLING) ** 2
    # As many vectors as codes at the least, however small the crop.
    num_images = max(NUM_INIT_IMAGES, math.ceil(config.codebook_size / positions))

    def init(key: jax.Array, train_images: jax.Array) -> tuple[PyTree, PyTree]:
        key_network, key_codebook, key_images, key_crop, key_kmeans = jax.random.split(key, 5)
        num_latents, size, dim = config.num_latents, config.codebook_size, config.code_dim
        codebook = jax.random.normal(key_codebook, (num_latents, size, dim))
        chosen = jax.random.randint(key_images, (num_images,), 0, num_train)
        images = batches.random_crop(key_crop, train_images[chosen], size=config.train_size)
        network = module.init(key_network, images[:1], codebook)["params"]
        if config.output_bias_init == names.HISTOGRAM:
            network["head"]["bias"] = jnp.asarray(log_histogram)
        vectors = objectives.apply(module, network, "encode", images)
        if config.codebook_init == names.DATA:
            points = jnp.moveaxis(vectors.reshape(-1, num_latents, dim), 1, 0)
            keys = jax.random.split(key_kmeans, num_latents)
            fit = lambda k, p: vq.kmeans(k, p, num_codes=size, num_iters=KMEANS_ITERATIONS)[0]
            codebook = jax.vmap(fit)(keys, points)
        if config.estimator in names.PROBABILISTIC:
            spread = config.initial_logit_std
            network["log_scale"] = vq_conv.calibrated_log_scale(vectors, codebook, spread)
        if config.estimator == names.VQ_EMA:
            return {"network": network}, jax.vmap(vq.ema_init)(codebook)
        return {"network": network, "codebook": codebook}, ()

    return init


def loss_fn(config: Config) -> state.LossFn:
    """Returns the loss: the negative objective in nats per sub-pixel."""
    module = config.model()

    def loss(
        params: PyTree, model_state: PyTree, images: jax.Array, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, state.Metrics]]:
        key_latent, key_restart = jax.random.split(key)
        codebook = objectives.codebook_of(params, model_state)
        model = objectives.bind(module, params["network"], codebook)
        vectors = objectives.apply(module, params["network"], "encode", images)
        kl_weight = bounds.linear_warmup(step, config.kl_warmup_steps)
        inputs = (model, vectors, codebook, images)
        if config.estimator in (names.GS_SOFT, names.GS_HARD):
            terms = objectives.gumbel_softmax(
                key_latent,
                *inputs,
                kl_weight=kl_weight,
                temperature=config.temperature,
                hard=config.estimator == names.GS_HARD,
            )
        elif config.estimator == names.VIMCO:
            terms = objectives.vimco(
                key_latent, *inputs, kl_weight=kl_weight, num_samples=config.num_samples
            )
        else:
            learned = config.estimator == names.VQ
            terms = objectives.nearest_code(
                *inputs,
                kl_weight=kl_weight,
                codebook_weight=float(learned),
                commitment_weight=config.commitment,
            )
        if config.estimator == names.VQ_EMA:
            model_state = objectives.update_codebooks(
                key_restart,
                model_state,
                vectors,
                terms.codes,
                decay=config.ema_decay,
                restart_threshold=config.restart_threshold,
            )
        num_dims = images[0].size
        counts = objectives.usage(terms.codes, config.codebook_size)
        metrics = {
            "bits_per_dim": bounds.bits_per_dim(terms.objective.mean(), num_dims),
            "rate": terms.rate.mean(),
            "distortion": terms.distortion.mean(),
            "perplexity": vq.perplexity(counts).mean(),
            "dead_codes": vq.num_dead(counts).astype(jnp.float32).mean(),
        }
        return -terms.surrogate / num_dims, (model_state, metrics)

    return loss


def prepare(config: Config, keep: data.KeepRows = data.whole) -> data.Dataset:
    """Loads the data set; ValueError unless it has 32x32x3 images."""
    images = data.load(config.dataset, config.data_dir or None, keep=keep)
    check_images(images)
    return images


def make_task(
    config: Config, images: data.Dataset, mesh: Mesh, validate: runner.ValidateFn
) -> loop.Task:
    """Assembles model, objective and data into what the loop trains."""
    half_precision.advise("--dtype", config.dtype)
    return runner.make_task(
        config,
        init_fn(config, log_pixel_histogram(images.train), images.num_train),
        loss_fn(config),
        draw_fn(config, mesh, images.num_train),
        optax.adam(config.learning_rate),
        evaluate=validate,
        data=sharding.shard_rows(mesh, images.train, images.num_train),
        shown=("bits_per_dim", "rate", "distortion"),
    )
